"""The two checked-in lists: files that are left out, and subtests that may differ."""

from pathlib import Path

HERE = Path(__file__).parent
LEFT_OUT = HERE / "left-out.txt"
DIFFERENCES = HERE / "differences.txt"
SHORT = HERE / "short.txt"

# What sessiond does not serve. A file that merely fails is never left out.
LEFT_OUT_KINDS = {"binary", "UDP", "SASL", "extstore", "TLS", "restart", "proxy"}


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
    """File name to the subtests that may fail in it."""
    found = {}
    for name, subtests, _reason in _entries(DIFFERENCES, 3):
        found.setdefault(name, Subtests()).add(name, subtests)
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
        self.listed = set()
        self._rest_from = None

    def add(self, name, text):
        first, dash, last = text.partition("-")
        try:
            if dash and not last:
                self._rest_from = int(first)
            else:
                self.listed.update(range(int(first), int(last or first) + 1))
        except ValueError:
            raise BadList(f"{DIFFERENCES.name}: {name}: {text!r} is no subtest") from None

    def may_fail(self, number):
        return number in self.listed or self.may_end_after(number - 1)

    def may_end_after(self, number):
        """Whether the file may die, or hang, once it has reported this many."""
        return self._rest_from is not None and number + 1 >= self._rest_from
