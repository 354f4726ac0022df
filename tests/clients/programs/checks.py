"""Counts what held, and ends the program at the first thing that did not."""

import sys
import time
from contextlib import contextmanager

ASK_AGAIN_S = 0.1


class Failed(Exception):
    """A check that did not hold."""


class Checks:
    def __init__(self):
        self.count = 0

    def equal(self, what, seen, expected):
        if seen != expected:
            raise Failed(f"{what}: saw {_short(seen)}, expected {_short(expected)}")
        self.count += 1

    def holds(self, what, is_so):
        self.equal(what, bool(is_so), True)

    def becomes(self, what, condition, deadline_s):
        """For what only time brings: asks until it is so."""
        end = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > end:
                raise Failed(f"{what}: not within {deadline_s} s")
            time.sleep(ASK_AGAIN_S)
        self.count += 1


@contextmanager
def checks_of(name):
    """Prints the closing line that the runner reads; any other exception shows itself."""
    checks = Checks()
    try:
        yield checks
    except Failed as failure:
        sys.exit(f"FAILED {name} after {checks.count} good checks: {failure}")
    print(f"ok {name} {checks.count} checks")


def _short(value):
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:150]}... ({len(text)} characters)"
