"""Users of the site, who remember what it confirmed to them and notice when it is not so.

They never repeat a request that failed; they click on, as people do.
"""

import random
import threading
from dataclasses import dataclass

from balancer import Answer
from browser import Browser
from toll import Kind

# Between two clicks, on average.
PAUSE_S = 0.2
# Of cookies whose session is over.
OLD_COOKIES_MAX = 20


@dataclass
class Session:
    """What the user knows of it."""

    # The highest number of visits that the site has confirmed.
    confirmed: int = 0
    # Visits without an answer: each may or may not have been counted.
    unanswered: int = 0
    # A rotation without an answer: the cookie may be worth nothing since.
    unsure_since: Answer | None = None
    # A logout without an answer: the user wanted it, so it is no harm if it was done.
    may_be_over: bool = False


@dataclass(frozen=True)
class Ended:
    """A session that is over, as the site said."""

    cookie: Browser
    by: Answer


class User:
    """One user in a thread of its own."""

    def __init__(self, name, balancer, toll, seed):
        self.name = name
        self.clicks = 0
        self.is_leaving = threading.Event()
        # All sessions that the site has ended.
        self.ended = []
        self._browser = Browser(name)
        self._session = None
        self._balancer = balancer
        self._toll = toll
        self._random = random.Random(f"{seed} {name}")
        self._acts = {
            self._read: 45,
            self._visit: 33,
            self._rotate: 8,
            self._logout: 6,
            self._try_an_old_cookie: 8,
        }

    def run(self):
        while not self.is_leaving.wait(self._random.expovariate(1 / PAUSE_S)):
            self._click()
            self.clicks += 1

    def look(self):
        """Reads once more, if logged in."""
        if self._session:
            self._read()

    def _click(self):
        if self._session is None:
            return self._login()
        acts, weights = zip(*self._acts.items(), strict=True)
        self._random.choices(acts, weights)[0]()

    def _login(self):
        if not self._ask("login").is_error:
            self._session = Session()

    def _read(self):
        answer = self._ask("whoami")
        if self._is_shown_in(answer):
            self._judge(answer, answer.page.visits)

    def _visit(self):
        answer = self._ask("visit")
        if answer.is_error:
            self._session.unanswered += 1
        elif self._is_shown_in(answer):
            # The page shows what it has written; what it had read is what is judged.
            self._judge(answer, answer.page.visits - 1)
            self._session.confirmed = answer.page.visits

    def _rotate(self):
        before = self._browser.copy()
        answer = self._ask("rotate")
        if answer.is_error:
            self._session.unsure_since = answer
        elif self._is_shown_in(answer):
            self.ended.append(Ended(before, answer))
            self._judge(answer, answer.page.visits)

    def _logout(self):
        before = self._browser.copy()
        answer = self._ask("logout")
        if answer.is_error:
            self._session.may_be_over = True
        else:
            self.ended.append(Ended(before, answer))
            self._session = None

    def _try_an_old_cookie(self):
        """As somebody who has found one."""
        if not self.ended:
            return
        ended = self._random.choice(self.ended[-OLD_COOKIES_MAX:])
        answer = self._ask("whoami", ended.cookie.copy())
        if not answer.is_error and answer.page.user is not None:
            self._toll.find(Kind.BACK, answer, ended.by)
            self.ended.remove(ended)

    def _ask(self, view, browser=None):
        if browser is None:
            self._key = self._browser.session_key and self._browser.cache_key
        answer = self._balancer.send(browser or self._browser, view)
        self._toll.count(answer)
        return answer

    def _is_shown_in(self, answer):
        """Whether the page is this user's; if it is a stranger's, the user was logged out."""
        if answer.is_error:
            return False
        if answer.page.user is None:
            if not self._session.may_be_over:
                self._toll.find(Kind.LOGOUT, answer, self._session.unsure_since)
                self._toll.lost_keys.append(self._key)
            self._session = None
            return False
        assert answer.page.user == self.name, f"{self.name} is shown {answer.page.user}'s session"
        return True

    def _judge(self, answer, visits):
        """A number that was read against what was confirmed."""
        session = self._session
        possible = session.confirmed + session.unanswered
        assert visits <= possible, f"{self.name} reads {visits} visits of {possible} at most"
        if visits < session.confirmed:
            kind = self._lower_than_confirmed(answer)
            self._toll.find(kind, answer)
            if kind is Kind.STALE:
                return
        session.confirmed = visits

    def _lower_than_confirmed(self, answer):
        """Stale, if it was only shown; lost, if it is so wherever one looks, or is written back."""
        if answer.view != "whoami":
            return Kind.LOST
        again = self._ask("whoami")
        is_higher = again.page and again.page.visits and again.page.visits > answer.page.visits
        return Kind.STALE if is_higher else Kind.LOST
