"""Runs a command-line tool against a node and reads what it prints."""

import subprocess
from dataclasses import dataclass

from checks import Failed

DEADLINE_S = 15


@dataclass(frozen=True)
class Answer:
    exit_code: int
    output: str


def run_tool(*words):
    """A tool that hangs is a finding."""
    command = [str(word) for word in words]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=DEADLINE_S,
        )
    except subprocess.TimeoutExpired as expired:
        printed = (expired.output or b"").decode(errors="replace")
        raise Failed(f"{' '.join(command)}: not done within {DEADLINE_S} s\n{printed}") from None
    return Answer(done.returncode, done.stdout.decode(errors="replace"))


def succeeds(checks, *words):
    """Its output, when it ends well."""
    answer = run_tool(*words)
    checks.equal(f"{' '.join(map(str, words))}: {answer.output}", answer.exit_code, 0)
    return answer.output
