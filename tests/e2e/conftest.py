"""Shows figures that a test measured at the end of the run, also without `-s`."""

import signal
import sys

import pytest

FIGURES = pytest.StashKey()


def pytest_configure(config):
    config.stash[FIGURES] = []
    # As Ctrl-C: without it a terminated run would leave its nodes and workers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@pytest.fixture
def figure(request):
    """Call it with one line to print at the end."""
    return request.config.stash[FIGURES].append


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[FIGURES]:
        terminalreporter.section("figures")
        for line in config.stash[FIGURES]:
            terminalreporter.write_line(line)
