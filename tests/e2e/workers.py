"""Worker processes of the website, each with a LOCATION of its own."""

import os
import sys
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from processes import Program, running
from waiting import wait_until

WEBSITE = Path(__file__).with_name("website.py")
READY_DEADLINE_S = 20.0


class Worker(Program):
    """One process of the site; `port` is known once it is ready."""

    def __init__(self, name, location):
        super().__init__(name, [sys.executable, WEBSITE], {**os.environ, "LOCATION": location})

    def wait_ready(self):
        wait_until(self._has_named_its_port, f"{self.name} serves", READY_DEADLINE_S)

    def _has_named_its_port(self):
        if not self.is_running():
            raise ChildProcessError(f"{self.name} ended while starting: {self.output()}")
        return "\n" in self.output()

    @cached_property
    def url(self):
        return f"http://127.0.0.1:{int(self.output().splitlines()[0])}"


@contextmanager
def workers(locations):
    """Yields one ready worker for each LOCATION."""
    all_workers = [Worker(f"worker{n}", location) for n, location in enumerate(locations, 1)]
    with running(all_workers):
        for worker in all_workers:
            worker.wait_ready()
        yield all_workers


@contextmanager
def workers_beside(nodes):
    """Yields a worker for each node, as on hosts that run both: LOCATION is the local node."""
    with workers([node.address for node in nodes]) as all_workers:
        yield all_workers
