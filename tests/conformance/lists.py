"""The checked-in lists: files that are left out, subtests that may differ, subtests that fail
and say why, and the files of a quick run."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
LEFT_OUT = HERE / "left-out.txt"
DIFFERENCES = HERE / "differences.txt"
EXPLAINED = HERE / "explained.txt"
SHORT = HERE / "short.txt"

# What sessiond does not serve. A file that merely fails is never left out.
LEFT_OUT_KINDS = {"binary", "UDP", "SASL", "extstore", "TLS", "restart", "proxy"}
# More than any file has subtests.
END_OF_FILE = sys.maxsize


class BadList(Exception):
    """One line that says which entry is wrong."""


def left_out():
    """File name to kind."""
    kinds = dict(_entries(LEFT_OUT, 2))
    for name, kind in kinds.items():
        if kind not in LEFT_OUT_KINDS:
            raise BadList(f"{LEFT_OUT.name}: {name}: {kind!r} is none of {sorted(LEFT_OUT_KINDS)}")
    return kinds


def short():
    """Names of the files for a quick run."""
    return [name for (name,) in _entries(SHORT, 1)]


def differences():
    """File name to the subtests that may differ in it."""
    return _subtests(DIFFERENCES)


def explained():
    """File name to the subtests that fail for want of what they look at."""
    return _subtests(EXPLAINED)


def _subtests(path):
    found = {}
    for name, subtests, reason in _entries(path, 3):
        found.setdefault(name, Subtests()).add(path, name, subtests, reason)
    return found


def _entries(path, columns):
    for line in path.read_text().splitlines():
        words = line.split(None, columns - 1)
        if not words or line.startswith("#"):
            continue
        if len(words) != columns:
            raise BadList(f"{path.name}: {line!r}: expected {columns} columns")
        yield words


class Subtests:
    """Numbers of subtests: `22`, `3-7`, or `30-` for 30 and all that should follow."""

    def __init__(self):
        self._reasons = []

    def add(self, path, name, text, reason):
        first, dash, last = text.partition("-")
        try:
            end = END_OF_FILE if dash and not last else int(last or first) + 1
            self._reasons.append((range(int(first), end), text, reason))
        except ValueError:
            raise BadList(f"{path.name}: {name}: {text!r} is no subtest") from None

    def may_fail(self, number):
        return any(number in numbers for numbers, _, _ in self._reasons)

    def may_end_after(self, number):
        """Whether the file may die, or hang, once it has reported this many."""
        return any(
            numbers.stop == END_OF_FILE and number + 1 >= numbers.start
            for numbers, _, _ in self._reasons
        )

    def reasons_for(self, failed):
        """What the list says about the subtests that failed, as it is written there."""
        return [
            f"{text} {reason}"
            for numbers, text, reason in self._reasons
            if any(number in numbers for number in failed)
        ]

    def out_of_date(self, failed):
        """Entries all or part of which passed; with an open end, only all of it counts."""
        return [text for numbers, text, _ in self._reasons if _passed(numbers, failed)]


def _passed(numbers, failed):
    if numbers.stop == END_OF_FILE:
        return not any(number in numbers for number in failed)
    return any(number not in failed for number in numbers)
