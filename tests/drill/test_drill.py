"""The short form of the drill, with its targets: what must never cost a user anything."""

import pytest

from run import Run, Size
from scenarios import SCENARIOS
from systems import Sessiond
from targets import missed


@pytest.mark.parametrize(
    ("name", "mode"),
    [("restart", "list"), ("upgrade", "local"), ("crash", "list"), ("kill-and-return", "local")],
)
def test_users_notice_no_more_than_the_targets_allow(name, mode):
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == name)
    result = Run(Sessiond(), mode, Size(), seed=1).of(scenario.act)
    assert missed(name, mode, Sessiond, result) == []
