"""A user's browser: it keeps the session cookie it is given and drops it when told to."""

import http.cookiejar
import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

from website import SESSION_KEY_PREFIX

# Above every wait of the server's that a request may sit through.
REQUEST_DEADLINE_S = 30.0


@dataclass
class Page:
    """What the user sees."""

    status: int
    user: str | None = None
    visits: int | None = None

    @property
    def is_error(self):
        return self.status >= 500


class Browser:
    """Requests go to any worker with the same cookie, as behind a load balancer."""

    def __init__(self, user):
        self.user = user
        self._cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(
            # Whatever proxy the machine is set up with, loopback is not behind it.
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPCookieProcessor(self._cookies),
        )

    @property
    def session_key(self):
        """The session cookie, or None once the site has taken it away."""
        return next((cookie.value for cookie in self._cookies if cookie.name == "sessionid"), None)

    @property
    def cache_key(self):
        """The key under which the nodes hold this session."""
        assert self.session_key, f"{self.user} has no session"
        return SESSION_KEY_PREFIX + self.session_key

    def copy(self):
        """Another browser with the same cookie: what it is told does not touch this one."""
        other = Browser(self.user)
        for cookie in self._cookies:
            other._cookies.set_cookie(cookie)
        return other

    def login(self, worker):
        return self._request(worker, "login", {"user": self.user})

    def whoami(self, worker):
        return self._request(worker, "whoami")

    def visit(self, worker):
        return self._request(worker, "visit", {})

    def rotate(self, worker):
        return self._request(worker, "rotate", {})

    def logout(self, worker):
        return self._request(worker, "logout", {})

    def is_logged_in(self, worker):
        return self.whoami(worker).user == self.user

    def _request(self, worker, view, form=None):
        body = None if form is None else urllib.parse.urlencode(form).encode()
        request = urllib.request.Request(f"{worker.url}/{view}", body)
        try:
            with self._opener.open(request, timeout=REQUEST_DEADLINE_S) as response:
                return Page(response.status, **json.load(response))
        except urllib.error.HTTPError as error:
            with error:
                return Page(error.code)
