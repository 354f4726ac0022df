"""Sends each request to a random worker that is free, as a load balancer before web hosts does.

A worker has one request at a time: so at most one per worker is open when something dies, and
users whose request has not begun are not among the victims.
"""

import http.client
import random
import threading
import time
import urllib.error
from dataclasses import dataclass

from browser import Page
from workers import Worker

# Longer than any pause that a node makes on purpose.
FREE_WORKER_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Answer:
    """One request as its user saw it. Times are of the monotonic clock."""

    view: str
    worker: Worker
    asked_s: float
    # When the worker got it, after it had become free.
    begun_s: float
    ended_s: float
    # None if the connection to the worker broke, as it does when the web host dies.
    page: Page | None

    @property
    def is_error(self):
        return self.page is None or self.page.is_error

    @property
    def waited_s(self):
        return self.ended_s - self.asked_s


class Balancer:
    """Knows who is free, and leaves out who cannot be reached."""

    def __init__(self, workers, seed):
        self._random = random.Random(seed)
        self._serving = set(workers)
        self._free = list(workers)
        self._changed = threading.Condition()

    def send(self, browser, view):
        """Waits for a free worker and has it serve one view."""
        asked_s = time.monotonic()
        while True:
            worker = self._take()
            begun_s = time.monotonic()
            try:
                page = _page(browser, view, worker)
            except Unreached:
                self.leave_out([worker])
                continue
            finally:
                self._give_back(worker)
            return Answer(view, worker, asked_s, begun_s, time.monotonic(), page)

    def leave_out(self, workers):
        with self._changed:
            self._serving -= set(workers)
            self._free = [worker for worker in self._free if worker in self._serving]

    def take_in(self, workers):
        with self._changed:
            self._serving |= set(workers)
            self._free += workers
            self._changed.notify_all()

    def _take(self):
        with self._changed:
            if not self._changed.wait_for(lambda: self._free, FREE_WORKER_DEADLINE_S):
                raise TimeoutError(f"no worker became free within {FREE_WORKER_DEADLINE_S} s")
            return self._free.pop(self._random.randrange(len(self._free)))

    def _give_back(self, worker):
        with self._changed:
            if worker in self._serving:
                self._free.append(worker)
                self._changed.notify()


class Unreached(Exception):
    """The worker is not there: nothing of the request has begun, another may have it."""


def _page(browser, view, worker):
    """What the worker shows, or None if it died over it."""
    try:
        return getattr(browser, view)(worker)
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            raise Unreached from error
        if isinstance(error.reason, ConnectionError):
            return None
        raise
    except (ConnectionError, http.client.HTTPException):
        return None
