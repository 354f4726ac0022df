"""Real Django sessions where every worker lists all three nodes, and one node is killed.

Here pymemcache chooses a node by the key. While it still tries a dead one it raises or
answers "not found" by itself, and Django takes either for a session that is not there. No
server can mend that: what it costs is counted and printed, and asserted is what must hold
whatever the client does.
"""

import time
from dataclasses import dataclass, field

from pymemcache.client.rendezvous import RendezvousHash

import wire
from browser import Browser
from cluster import cluster_of_three
from workers import workers

USERS_PER_WORKER = 8
LEAVERS_PER_WORKER = 4
# Longer than pymemcache's three tries a second apart, after which it can drop the dead node.
OUTAGE_S = 5.0


@dataclass
class Toll:
    """What the site's users met from the kill on."""

    visits: dict = field(default_factory=dict)  # user -> last number the site confirmed
    logged_out: list = field(default_factory=list)
    failed_visits: int = 0
    newcomers: list = field(default_factory=list)
    failed_logins: int = 0
    left: list = field(default_factory=list)  # copies of the cookies of users who logged out
    failed_logouts: int = 0
    last_trouble_s: float = 0.0


def test_a_login_through_one_worker_is_seen_through_every_worker():
    with cluster_of_three() as nodes, workers([list_of(nodes)] * 3) as all_workers:
        user = Browser("ann")
        user.login(all_workers[0])
        assert [user.whoami(worker).user for worker in all_workers] == ["ann", "ann", "ann"]


def test_a_killed_node_costs_no_session_although_the_client_loses_its_cookie(figure):
    with cluster_of_three() as nodes:
        survivors = nodes[:2]
        with workers([list_of(nodes)] * 3) as all_workers:
            stayers = log_in_users(all_workers, USERS_PER_WORKER)
            leavers = log_in_users(all_workers, LEAVERS_PER_WORKER)
            cookies = {user: user.copy() for user in stayers}
            on_dead_node = served_by(nodes[2], nodes, stayers)

            nodes[2].kill9()
            toll = outage(stayers, leavers)

        assert set(toll.logged_out) <= on_dead_node, "a user of a living node was logged out"
        for session in [*cookies.values(), *toll.newcomers]:
            assert all(wire.holds(node.port, session.cache_key) for node in survivors)

        # The operator takes the dead node off the list; every old cookie is good again.
        with workers([list_of(survivors)]) as (worker,):
            for user, cookie in cookies.items():
                page = cookie.whoami(worker)
                assert (page.user, page.visits) == (user.user, toll.visits[user])
        report(figure, toll, len(stayers), len(on_dead_node), survivors)


def list_of(nodes):
    return ",".join(node.address for node in nodes)


def served_by(node, nodes, users):
    """The users whose key pymemcache takes to this node."""
    chooser = RendezvousHash(nodes=[each.address for each in nodes])
    return {user for user in users if chooser.get_node(user.cache_key) == node.address}


def log_in_users(all_workers, users_per_worker):
    """Each user with the worker that serves them."""
    homes = {}
    for worker in all_workers:
        for number in range(users_per_worker):
            user = Browser(f"{worker.name}-user{number}")
            assert user.login(worker).status == 200
            homes[user] = worker
    return homes


def outage(stayers, leavers):
    """All users go on clicking; each round, users log in through all workers and one logs out."""
    toll = Toll(visits=dict.fromkeys(stayers, 0))
    leavers = dict(leavers)
    killed_at = time.monotonic()
    while (elapsed := time.monotonic() - killed_at) < OUTAGE_S:
        trouble_before = trouble(toll)
        for user, worker in stayers.items():
            if user not in toll.logged_out:
                count_visit(toll, user, user.visit(worker))
        for worker in set(stayers.values()):
            count_login(toll, Browser("newcomer"), worker)
        if leavers:
            count_logout(toll, *leavers.popitem())
        if trouble(toll) > trouble_before:
            toll.last_trouble_s = elapsed
    return toll


def count_visit(toll, user, page):
    if page.status == 200:
        toll.visits[user] = page.visits
    elif page.status == 403:
        toll.logged_out.append(user)
    else:
        toll.failed_visits += 1


def count_login(toll, newcomer, worker):
    if newcomer.login(worker).status == 200:
        toll.newcomers.append(newcomer)
    else:
        toll.failed_logins += 1


def count_logout(toll, leaver, worker):
    cookie = leaver.copy()
    if leaver.logout(worker).status == 200:
        toll.left.append(cookie)
    else:
        toll.failed_logouts += 1


def trouble(toll):
    return len(toll.logged_out) + toll.failed_visits + toll.failed_logins + toll.failed_logouts


def report(figure, toll, users, users_on_dead_node, survivors):
    unsent = [cookie for cookie in toll.left if is_on_any(survivors, cookie.cache_key)]
    logins = len(toll.newcomers) + toll.failed_logins
    logouts = len(toll.left) + toll.failed_logouts
    figure(f"LOCATION = all three nodes, one killed, {OUTAGE_S:.0f} s of clicks. The client broke:")
    figure(f"  {len(toll.logged_out)} of {users} users out ({users_on_dead_node} hash to that one)")
    figure(f"  5xx: {toll.failed_visits} visits, {toll.failed_logins} of {logins} logins,")
    figure(f"       {toll.failed_logouts} of {logouts} logouts")
    figure(f"  {len(unsent)} of {len(toll.left)} good logouts reached no node: still stored")
    figure(f"  last trouble {toll.last_trouble_s:.1f} s after the kill")
    figure(f"The nodes lost 0 of {users} sessions: each old cookie works once the list is mended.")


def is_on_any(nodes, key):
    return any(wire.holds(node.port, key) for node in nodes)
