"""Reads what a Perl test prints: the Test Anything Protocol, as far as the suite uses it."""

import re
from dataclasses import dataclass, field

RESULT = re.compile(rb"(not )?ok (\d+)(?: - (.*))?")
PLAN = re.compile(rb"1\.\.(\d+)(?:\s*#\s*skip\S*\s*(.*))?", re.IGNORECASE)
# Looked for near the end of a line only: some names hold a value of half a megabyte.
DIRECTIVE = re.compile(rb"# (skip|todo)\b", re.IGNORECASE)
DIRECTIVE_MAX = 200
NAME_MAX = 100
# The name of a subtest that was planned and did not come.
NEVER_REPORTED = "(never reported)"


@dataclass
class Results:
    """One test file's outcome."""

    planned: int | None = None
    skipped: str | None = None
    seen: int = 0
    failed: dict[int, str] = field(default_factory=dict)

    @property
    def total(self):
        return max(self.planned or 0, self.seen)


def read(lines):
    """`lines` is the whole standard output, as an iterable of bytes."""
    results = Results()
    for line in lines:
        if result := RESULT.match(line):
            not_ok, number, name = result.groups()
            results.seen = max(results.seen, int(number))
            if not_ok and not DIRECTIVE.search(line[-DIRECTIVE_MAX:]):
                text = (name or b"(no name)")[:NAME_MAX].decode(errors="replace")
                results.failed[int(number)] = text.strip()
        elif plan := PLAN.match(line):
            results.planned = int(plan[1])
            if results.planned == 0:
                results.skipped = (plan[2] or b"").strip().decode(errors="replace")
    for number in range(results.seen + 1, results.total + 1):
        results.failed[number] = NEVER_REPORTED
    return results
