"""The table, as it stands in the documentation."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version

from systems import versions
from targets import missed
from toll import Blame, Kind

COLUMNS = (
    "what happens",
    "system",
    "requests",
    "errors",
    "logouts",
    "lost updates",
    "stale reads",
    "back after logout",
    "last trouble",
    "longest wait",
    "target",
)
MODES = {
    "local": "LOCATION = the node on the same host; a host dies with its web workers",
    "list": "LOCATION = the list of all three; only the node dies",
}


class Row:
    """All runs of one scenario on one system."""

    def __init__(self, scenario, mode, system, results):
        self.failures = [
            f"{mode}, {scenario.title}, run {number}: {failure}"
            for number, result in enumerate(results, 1)
            for failure in missed(scenario.name, mode, system, result)
        ]
        self._scenario = scenario
        self._system = system
        self._results = results

    def cells(self):
        return [
            self._scenario.title,
            self._system.name,
            str(sum(len(result.toll.answers) for result in self._results)),
            *(self._found(kind) for kind in Kind),
            f"{max(result.toll.recovered_after_s() for result in self._results):.1f} s",
            f"{max(result.toll.longest_wait_s() for result in self._results):.1f} s",
            self._target(),
        ]

    def _found(self, kind):
        parts = [str(self._sum(kind))]
        for blame in (Blame.IN_FLIGHT, Blame.SILENCE):
            if number := self._sum(kind, blame):
                parts.append(f"{number} {blame.value}")
        held = sum(result.still_held for result in self._results)
        if kind is Kind.LOGOUT and held:
            parts.append(f"{held} still stored")
        return ", ".join(parts)

    def _sum(self, *which):
        return sum(result.toll.number(*which) for result in self._results)

    def _target(self):
        if self._system.name != "sessiond":
            return ""
        return "missed" if self.failures else "holds"


def print_head(options, systems):
    now = datetime.now(UTC)
    print(f"{now:%Y-%m-%d}, {', '.join(versions(systems))},")
    print(f"Django {version('Django')}, pymemcache {version('pymemcache')}, ", end="")
    print(f"Python {platform.python_version()}, Linux {platform.release()},")
    print(f"{os.cpu_count()} cores for everything: {_processor()}.")
    runs = "1 run" if options.runs == 1 else f"{options.runs} runs"
    print(f"{options.users} users, {runs} of each, seed {options.seed}", end="")
    print(f", OPTIONS = {options.options}." if options.options else ".")


def print_table_head(mode):
    print(f"\n{MODES[mode]}:\n")
    _print_line(COLUMNS)
    _print_line(["---"] * len(COLUMNS))


def print_row(row):
    _print_line(row.cells())


def print_end(rows, seconds):
    failures = [failure for row in rows for failure in row.failures]
    print(f"\n{seconds:.0f} s; {len(failures)} targets missed")
    for failure in failures:
        print(f"  {failure}")


def _print_line(cells):
    print(f"| {' | '.join(cells)} |", flush=True)


def _processor():
    with open("/proc/cpuinfo", encoding="ascii") as lines:
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
