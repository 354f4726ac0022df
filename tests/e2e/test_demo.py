"""`make demo` shows nobody logged out, and says so by its exit code."""

import sys
from pathlib import Path

from processes import Program, running

DEMO = Path(__file__).with_name("demo.py")


def test_the_demo_ends_well():
    with running([Program("demo", [sys.executable, DEMO])]) as (demo,):
        assert demo.wait_exit(deadline_s=60) == 0
        assert "8 of 8 noticed nothing" in demo.output()
