"""Lets the drill import what it shares with the end-to-end tests."""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))


def pytest_configure():
    # As Ctrl-C: without it a terminated run would leave its nodes and workers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
