"""One run: servers, web hosts and users; one scenario; the toll."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from balancer import Balancer
from processes import running
from systems import NAMES
from toll import Kind, Toll
from users import User
from waiting import wait_until
from workers import Worker

WARM_CLICKS = 5
WARM_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Size:
    users: int = 48
    workers_per_host: int = 2


@dataclass(frozen=True)
class Result:
    """What a run cost the users."""

    toll: Toll
    # Of the sessions that users lost, those that a node still has: the client lost them.
    still_held: int


class HostWorker(Worker):
    """A worker that knows the host it runs on."""

    def __init__(self, name, host, location):
        super().__init__(name, location)
        self.host = host


class Run:
    """What a scenario acts on. Hosts have numbers; each runs a node and some workers."""

    def __init__(self, system, mode, size, seed):
        self.system = system
        self.mode = mode
        self.toll = Toll()
        self._workers = [
            self._new_worker(host, which)
            for host in range(len(NAMES))
            for which in range(size.workers_per_host)
        ]
        # Whatever is started later is added, so that it ends with the rest.
        self._programs = [*system.programs, *self._workers]
        self._balancer = Balancer(self._workers, seed)
        self._users = [
            User(f"user{number}", self._balancer, self.toll, seed)
            for number in range(size.users)
        ]

    def of(self, scenario):
        """Carries it out, and returns what it cost."""
        with running(self._programs):
            self.system.wait_ready()
            for worker in self._workers:
                worker.wait_ready()
            with self._users_clicking():
                scenario(self)
            return self._result()

    def strike(self, hosts):
        """What dies within takes the open requests of its users along."""
        return self.toll.strike(hosts if self.mode == "local" else range(len(NAMES)))

    def planned(self):
        """What an operator does within is no excuse for any error."""
        return self.toll.strike()

    def go_on_for(self, duration_s):
        """The users click on. Time is what is wanted here: faults show late."""
        time.sleep(duration_s)

    def kill_host(self, host):
        """With its web workers, where they use its node alone; else only the node."""
        with self.strike([host]):
            if self.mode == "local":
                # First: a host that loses power shows nobody how its node died.
                for worker in self._workers_of(host):
                    worker.kill9()
                self._balancer.leave_out(self._workers_of(host))
            self.system.kill(host)

    def start_host(self, host):
        self.system.start(host)
        if self.mode == "local":
            self._balancer.take_in(self._fresh_workers(host))

    def _fresh_workers(self, host):
        """In place of those that died with it."""
        dead = self._workers_of(host)
        fresh = [self._new_worker(host, which) for which in range(len(dead))]
        self._workers = [worker for worker in self._workers if worker not in dead] + fresh
        self._programs += fresh
        for worker in fresh:
            worker.start()
        for worker in fresh:
            worker.wait_ready()
        return fresh

    def _new_worker(self, host, which):
        addresses = self.system.addresses
        location = addresses[host] if self.mode == "local" else ",".join(addresses)
        return HostWorker(f"host{host + 1}-worker{which + 1}", host, location)

    def _workers_of(self, host):
        return [worker for worker in self._workers if worker.host == host]

    @contextmanager
    def _users_clicking(self):
        with ThreadPoolExecutor(len(self._users)) as pool:
            clicking = [pool.submit(user.run) for user in self._users]
            try:
                wait_until(self._is_warm, "every user has clicked", WARM_DEADLINE_S)
                yield
            finally:
                for user in self._users:
                    user.is_leaving.set()
        for user in clicking:
            user.result()

    def _is_warm(self):
        return all(user.clicks >= WARM_CLICKS for user in self._users)

    def _result(self):
        for user in self._users:
            user.look()
        for user in self._users:
            self._find_undead(user)
        return Result(self.toll, still_held=len(self.system.kept(self.toll.lost_keys)))

    def _find_undead(self, user):
        """Sessions that were ended, and that a node has all the same."""
        by_key = {ended.cookie.cache_key: ended.by for ended in user.ended}
        for key in self.system.kept(by_key):
            self.toll.find(Kind.BACK, by_key[key])
