"""`make demo`: three web hosts, a node on each; one host's node is killed; who is still logged in?

Exits with 0 only if every user, of the dead host too, is logged in with the same cookie on the
surviving hosts, and no user of a surviving host lost a visit.
"""

import signal
import sys
from dataclasses import dataclass

from browser import Browser, Page
from cluster import cluster_of_three
from workers import Worker, workers_beside

USERS = [
    ["alice", "bruno", "carla", "deniz"],
    ["emil", "farah", "goran", "helga"],
    ["ivan", "jamila", "karol", "lucia"],
]
VISITS_BEFORE = 2
ROW = "{:<8} {:<7} {:<20} {:<20} {}"


@dataclass
class User:
    """One user, the host that served them, and a host that still lives."""

    browser: Browser
    host: Worker
    other_host: Worker
    before: Page = None
    on_own_host: Page = None
    on_other_host: Page = None

    @property
    def goes_on(self):
        """Whether a host that lives shows this user the session as they left it."""
        return is_logged_in(self.on_other_host, self.browser.user, at_least=VISITS_BEFORE)

    @property
    def noticed_nothing(self):
        return is_logged_in(self.on_own_host, self.browser.user, at_least=VISITS_BEFORE + 1)


def main():
    print("Starting three nodes, and a Django worker beside each of them ...")
    with cluster_of_three() as nodes, workers_beside(nodes) as hosts:
        users = log_in(hosts)
        print(f"Killing the node of host3 (kill -9 {nodes[2].pid}).\n")
        nodes[2].kill9()
        for user in users:
            look_again(user)
        return verdict(users, dead_host=hosts[2])


def log_in(hosts):
    """The users log in through their host and look around."""
    first, second, third = hosts
    other_hosts = {first: second, second: first, third: first}
    users = []
    for host, names in zip(hosts, USERS, strict=True):
        for name in names:
            user = User(Browser(name), host, other_hosts[host])
            user.browser.login(host)
            for _ in range(VISITS_BEFORE):
                user.before = user.browser.visit(host)
            users.append(user)
    return users


def look_again(user):
    """First through the own host, then with the same cookie through another."""
    cookie = user.browser.copy()
    user.on_own_host = user.browser.visit(user.host)
    user.on_other_host = cookie.whoami(user.other_host)


def verdict(users, dead_host):
    """Prints what each user saw, and returns the exit code."""
    print(ROW.format("user", "host", "before the kill", "after, own host", "after, another host"))
    for user in users:
        name, host = user.browser.user, user.host.name.replace("worker", "host")
        pages = [user.before, user.on_own_host, user.on_other_host]
        print(ROW.format(name, host, *(in_words(page, name) for page in pages)))

    of_survivors = [user for user in users if user.host is not dead_host]
    of_the_dead = [user for user in users if user.host is dead_host]
    kept = [user for user in of_survivors if user.noticed_nothing and user.goes_on]
    found = [user for user in of_the_dead if user.goes_on]
    print(f"\nUsers of the surviving hosts: {len(kept)} of {len(of_survivors)} noticed nothing.")
    print("Users of host3: its cache address is dead, so host3 itself can only log them out;")
    print(f"with the same cookies {len(found)} of {len(of_the_dead)} are logged in elsewhere.")
    return 0 if kept == of_survivors and found == of_the_dead else 1


def is_logged_in(page, name, at_least):
    return page.user == name and page.visits >= at_least


def in_words(page, name):
    if page.user == name:
        return f"logged in, visit {page.visits}"
    return f"error {page.status}" if page.is_error else "LOGGED OUT"


if __name__ == "__main__":
    # As Ctrl-C: nothing that was started may outlive the demo.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
