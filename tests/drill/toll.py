"""What the users met: counted as it happens, and judged when the faults are known.

An error or a logout is *in flight* if its request was open when a machine or a process died, on
a worker whose node that was. Nobody can spare the users those. It is *silence* if such a request
came before it on the same worker: pymemcache then asks nobody for a second, answers "not found",
and calls done what it has not sent. Everything else counts.
"""

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from balancer import Answer

# A request that took longer was held up.
SLOW_S = 1.0
# pymemcache's retry_timeout, unless told otherwise.
SILENCE_S = 1.0


class Blame(Enum):
    """What a finding comes from."""

    IN_FLIGHT = "in flight"
    SILENCE = "silence"
    NOTHING = "nothing that excuses it"


class Kind(Enum):
    ERROR = "error"
    LOGOUT = "logout"
    LOST = "lost update"
    STALE = "stale read"
    BACK = "back after logout"


@dataclass(frozen=True)
class Finding:
    kind: Kind
    answer: Answer
    # The request that is to blame: a rotation without an answer logs out the next one.
    cause: Answer


@dataclass
class Strike:
    """Something was done to nodes."""

    begun_s: float
    # The hosts whose open requests may fail for it.
    victims: frozenset
    ended_s: float = float("inf")

    def met(self, answer):
        is_open = answer.begun_s <= self.ended_s and answer.ended_s >= self.begun_s
        return is_open and answer.worker.host in self.victims


@dataclass
class Toll:
    """Written by all users' threads at once: each only ever appends."""

    answers: list = field(default_factory=list)
    findings: list = field(default_factory=list)
    strikes: list = field(default_factory=list)
    # Of sessions that were lost to their users, as the nodes know them.
    lost_keys: list = field(default_factory=list)

    @contextmanager
    def strike(self, victims=()):
        """What is done within is the reason for what happens from then on."""
        strike = Strike(time.monotonic(), frozenset(victims))
        self.strikes.append(strike)
        yield
        strike.ended_s = time.monotonic()

    def count(self, answer):
        self.answers.append(answer)
        if answer.is_error:
            self.find(Kind.ERROR, answer)

    def find(self, kind, answer, cause=None):
        self.findings.append(Finding(kind, answer, cause or answer))

    def number(self, kind, blame=None):
        """Of all findings of a kind, or of those that come from this."""
        return sum(
            finding.kind is kind and blame in (None, self.blame(finding.cause))
            for finding in self.findings
        )

    def blame(self, answer):
        if self._is_in_flight(answer):
            return Blame.IN_FLIGHT
        if any(_is_in_silence_after(broken, answer) for broken in self._broken()):
            return Blame.SILENCE
        return Blame.NOTHING

    def recovered_after_s(self):
        """From a strike to the end of the last request that failed or was held up after it."""
        troubles = [finding.answer for finding in self.findings if finding.kind is not Kind.BACK]
        troubles += [answer for answer in self.answers if answer.waited_s > SLOW_S]
        return max((self._since_strike(answer) for answer in troubles), default=0.0)

    def _is_in_flight(self, answer):
        return any(strike.met(answer) for strike in self.strikes)

    def _broken(self):
        """Requests that failed in flight, whether Django showed that or not."""
        answers = (finding.answer for finding in self.findings)
        return [answer for answer in answers if self._is_in_flight(answer)]

    def _since_strike(self, answer):
        began = [strike.begun_s for strike in self.strikes if strike.begun_s < answer.ended_s]
        return answer.ended_s - began[-1] if began else 0.0

    def longest_wait_s(self):
        return max(answer.waited_s for answer in self.answers)


def _is_in_silence_after(broken, answer):
    is_later = broken.ended_s <= answer.begun_s <= broken.ended_s + SILENCE_S
    return is_later and broken.worker is answer.worker
