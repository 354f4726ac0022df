"""`make drill`: Django users on three web hosts, while nodes die, hang, restart and are upgraded.

Prints what the users met, beside what they meet with stock memcached, and exits with 0 only if
all targets hold. `--scenarios`, `--modes` and `--systems` choose; `--runs` repeats.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from report import MODES, Row, print_end, print_head, print_row, print_table_head
from run import Run, Size
from scenarios import SCENARIOS
from systems import is_there


def main():
    options = _options()
    if options.options:
        os.environ["CACHE_OPTIONS"] = options.options
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    print_head(options, _systems(options))
    rows = []
    for mode in options.modes:
        print_table_head(mode)
        for scenario, system in _pairs(mode, options):
            rows.append(_row(scenario, mode, system, options))
            print_row(rows[-1])
    print_end(rows, time.monotonic() - started)
    return 1 if any(row.failures for row in rows) else 0


def _row(scenario, mode, system, options):
    seeds = range(options.seed, options.seed + options.runs)
    results = [Run(system(), mode, Size(options.users), seed).of(scenario.act) for seed in seeds]
    return Row(scenario, mode, system, results)


def _pairs(mode, options):
    """Each scenario with each system that can go through it.

    Only sessiond has the same on all nodes, so only there can each host use its own.
    """
    systems = [name for name in options.systems if mode == "list" or name == "sessiond"]
    for scenario in SCENARIOS:
        for system in scenario.systems:
            if scenario.name in options.scenarios and system.name in systems:
                yield scenario, system


def _systems(options):
    pairs = [pair for mode in options.modes for pair in _pairs(mode, options)]
    systems = list(dict.fromkeys(system for _, system in pairs))
    for system in systems:
        if not is_there(system):
            sys.exit("drill: there is no memcached here; --systems sessiond does without")
    return systems


def _options():
    parser = argparse.ArgumentParser(description=__doc__)
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--scenarios", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    known = list(dict.fromkeys(each.name for scenario in SCENARIOS for each in scenario.systems))
    parser.add_argument("--systems", nargs="+", choices=known, default=known)
    parser.add_argument("--runs", type=int, default=1, help="of each scenario")
    parser.add_argument("--users", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1, help="of the first run")
    parser.add_argument("--options", help="pymemcache's OPTIONS in Django's settings, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
