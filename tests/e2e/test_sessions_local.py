"""Real Django sessions where each worker's LOCATION is the node on its own host.

Host 3 is the one that dies. Its users reach the site through another host, as a load
balancer would send them.
"""

import threading

import wire
from browser import Browser
from cluster import cluster_of_three
from waiting import wait_until
from workers import workers_beside

USERS_PER_HOST = 3


def log_in_users(workers):
    """Some users for each worker, each of them with one visit counted."""
    users = {}
    for worker in workers:
        users[worker] = [Browser(f"{worker.name}-user{n}") for n in range(USERS_PER_HOST)]
        for user in users[worker]:
            assert user.login(worker).status == 200
            assert user.visit(worker).visits == 1
    return users


def test_a_login_through_one_worker_is_seen_through_every_worker():
    with cluster_of_three() as nodes, workers_beside(nodes) as workers:
        user = Browser("ann")
        user.login(workers[0])
        assert [user.whoami(worker).user for worker in workers] == ["ann", "ann", "ann"]
        assert [user.visit(worker).visits for worker in workers] == [1, 2, 3]


def test_a_killed_node_logs_out_no_user_of_a_surviving_host():
    with cluster_of_three() as nodes, workers_beside(nodes) as workers:
        users = log_in_users(workers)
        first, second, third = workers
        nodes[2].kill9()
        for worker in (first, second):
            for user in users[worker]:
                assert user.visit(worker).visits == 2
        for user in users[third]:
            assert user.visit(first).visits == 2, "a user of the dead host goes on elsewhere"
            assert user.visit(second).visits == 3


class BusyUser(threading.Thread):
    """Clicks without a pause; `visits_seen` is what the site has confirmed."""

    def __init__(self, worker):
        super().__init__(daemon=True)
        self.worker = worker
        self.browser = Browser(f"busy-{worker.name}")
        self.browser.login(worker)
        self.visits_seen = 0
        self.surprise = None
        self.is_leaving = False

    def run(self):
        while not self.is_leaving and self.surprise is None:
            page = self.browser.visit(self.worker)
            if page.visits == self.visits_seen + 1:
                self.visits_seen = page.visits
            else:
                self.surprise = f"after visit {self.visits_seen}: {page}"

    def has_reached(self, visits):
        return self.surprise or self.visits_seen >= visits


def wait_until_all_reach(visits, users):
    condition = lambda: all(user.has_reached(visits) for user in users)
    wait_until(condition, f"every user's visit {visits}", deadline_s=20)


def test_a_kill_in_the_middle_of_writes_loses_no_confirmed_visit():
    with cluster_of_three() as nodes, workers_beside(nodes) as workers:
        busy_users = [BusyUser(worker) for worker in workers[:2] for _ in range(2)]
        for user in busy_users:
            user.start()
        wait_until_all_reach(10, busy_users)
        nodes[2].kill9()
        wait_until_all_reach(20 + max(user.visits_seen for user in busy_users), busy_users)
        for user in busy_users:
            user.is_leaving = True
            user.join()
        assert [user.surprise for user in busy_users] == [None] * 4
        for user in busy_users:
            for worker in workers[:2]:
                assert user.browser.whoami(worker).visits == user.visits_seen


def test_a_logged_out_session_is_gone_on_every_node():
    with cluster_of_three() as nodes, workers_beside(nodes) as workers:
        user = Browser("ann")
        user.login(workers[0])
        thief = user.copy()
        assert all(wire.holds(node.port, user.cache_key) for node in nodes)
        assert user.logout(workers[1]).status == 200
        assert not any(wire.holds(node.port, thief.cache_key) for node in nodes)
        assert [thief.copy().whoami(worker).user for worker in workers] == [None, None, None]


def test_a_node_that_comes_back_empty_serves_what_it_missed():
    with cluster_of_three() as nodes, workers_beside(nodes) as workers:
        first, second, third = workers
        before, leaver, newcomer = Browser("before"), Browser("leaver"), Browser("newcomer")
        before.login(first)
        leaver.login(third)
        nodes[2].kill9()

        before.visit(first)
        newcomer.login(second)
        old_cookie = leaver.copy()
        leaver.logout(first)

        nodes[2].restart()
        assert newcomer.is_logged_in(third)
        assert before.visit(third).visits == 2
        assert old_cookie.whoami(third).user is None, "a logged-out session must not come back"
        assert before.visit(first).visits == 3
