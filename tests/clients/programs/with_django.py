"""Django: its cache, and sessions of users who log in and out, as its own middleware drives them.

Two web hosts are one process here: a request is served by the node whose cache alias is set.
"""

import random
import sys
import tempfile
from pathlib import Path

from checks import checks_of

HOUR_S = 3600
SHORT_TTL_S = 2
EXPIRY_DEADLINE_S = 6
LARGE_BYTES = 100_000


def main(backend, engine, name, first_address, other_address):
    with tempfile.TemporaryDirectory() as folder:
        _configure(backend, engine, first_address, other_address, Path(folder))
        # Only now: they read the settings.
        from django.core.cache import caches

        with checks_of(name) as checks:
            first, other = caches["default"], caches["other"]
            _uses_cache(checks, first, other, name)
            _uses_sessions(checks, first, other, engine)


def _configure(backend, engine, first_address, other_address, folder):
    import django
    from django.conf import settings

    cache = f"django.core.cache.backends.memcached.{backend}"
    settings.configure(
        SECRET_KEY="for this run only",
        ALLOWED_HOSTS=["testserver"],
        ROOT_URLCONF="django_pages",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}",
        CACHES={
            "default": {"BACKEND": cache, "LOCATION": first_address},
            "other": {"BACKEND": cache, "LOCATION": other_address},
        },
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "users.sqlite3"}
        },
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        USE_TZ=True,
    )
    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    User.objects.create_user("alice", password="secret")


def _uses_cache(checks, first, other, name):
    key = f"{name}:item"
    checks.equal("get of a missing key", first.get(key), None)
    first.set(key, {"a": [1, 2]}, HOUR_S)
    checks.equal("get", first.get(key), {"a": [1, 2]})
    checks.equal("get at the other node", other.get(key), {"a": [1, 2]})
    first.set(key, "overwritten", None)
    checks.equal("get of what was overwritten and has no end", other.get(key), "overwritten")
    checks.holds("delete", first.delete(key))
    checks.equal("delete of what is gone", other.delete(key), False)
    checks.holds("add", first.add(key, "mine", HOUR_S))
    checks.equal("add of what is there, at the other node", other.add(key, "yours"), False)
    checks.equal("get_or_set of what is there", other.get_or_set(key, "theirs"), "mine")
    first.set(key, "over at once", 0)
    checks.equal("get of what is over at once", other.get(key), None)
    first.set(key, 41)
    checks.equal("incr", first.incr(key), 42)
    checks.equal("decr at the other node", other.decr(key, 2), 40)
    checks.equal("get of a number", first.get(key), 40)
    try:
        first.incr(f"{name}:no such number")
        checks.holds("incr of a missing key raises", False)
    except ValueError:
        checks.holds("incr of a missing key raises", True)
    many = {f"{name}:many:{number}": number for number in range(10)}
    checks.equal("set_many", first.set_many(many), [])
    checks.equal("get_many", other.get_many([*many, f"{name}:no"]), many)
    first.delete_many(many)
    checks.equal("get_many after delete_many", other.get_many(many), {})
    large = random.randbytes(LARGE_BYTES)
    first.set(key, large)
    checks.equal("get of 100 KB", other.get(key), large)
    _expires(checks, first, other, name)
    first.clear()
    checks.equal("get after clear", other.get(key), None)


def _expires(checks, first, other, name):
    mortal, touched = f"{name}:mortal", f"{name}:touched"
    first.set(mortal, "alive", SHORT_TTL_S)
    first.set(touched, "alive", SHORT_TTL_S)
    checks.equal("get of a short life", other.get(mortal), "alive")
    checks.holds("touch", first.touch(touched, HOUR_S))
    checks.equal("touch of a missing key", first.touch(f"{name}:no"), False)
    checks.becomes("a short life ends", lambda: other.get(mortal) is None, EXPIRY_DEADLINE_S)
    checks.equal("what was touched lives on", other.get(touched), "alive")


def _uses_sessions(checks, first, other, engine):
    browser = Browser()
    checks.equal("a visitor's first page", browser.visit("/count/"), "1")
    checks.equal("the next, at the other node", browser.visit("/count/", "other"), "2")
    checks.equal("and back", browser.visit("/count/"), "3")
    visitor_id = browser.session_id
    checks.equal("the session's data, asked for at the other node", _stored(other, visitor_id), 3)

    checks.equal("login", browser.visit("/login/"), "alice")
    user_id = browser.session_id
    checks.holds("login gives a new session id", user_id != visitor_id)
    for alias, cache in (("default", first), ("other", other)):
        checks.equal(f"the user at {alias}", browser.visit("/who/", alias), "alice")
        checks.equal(f"the basket stayed, at {alias}", _stored(cache, user_id), 3)
        checks.equal(f"the visitor's session is gone, at {alias}", _stored(cache, visitor_id), None)
        intruder = Browser(visitor_id)
        checks.equal(f"its id is nobody, at {alias}", intruder.visit("/who/", alias), "nobody")
    checks.equal("the user changes something", browser.visit("/count/", "other"), "4")
    checks.equal("and sees it", browser.visit("/count/"), "5")

    first.clear()
    survives = "alice" if engine == "cached_db" else "nobody"
    checks.equal("the user after the cache was cleared", browser.visit("/who/", "other"), survives)
    browser.visit("/login/")
    user_id = browser.session_id
    checks.equal("logout at the other node", browser.visit("/logout/", "other"), "nobody")
    for alias, cache in (("default", first), ("other", other)):
        checks.equal(f"the session is gone, at {alias}", _stored(cache, user_id), None)
        thief = Browser(user_id)
        checks.equal(f"its id stays dead, at {alias}", thief.visit("/who/", alias), "nobody")

    browser.visit("/login/")
    checks.equal("a session of two seconds", browser.visit("/short/"), "alice")

    def is_over():
        return browser.visit("/who/", "other") == "nobody"

    checks.becomes("it ends", is_over, EXPIRY_DEADLINE_S)


class Browser:
    """Keeps a cookie, and may ask any host."""

    def __init__(self, session_id=None):
        from django.test import Client

        self._client = Client()
        if session_id:
            self._client.cookies["sessionid"] = session_id

    @property
    def session_id(self):
        return self._client.cookies["sessionid"].value

    def visit(self, path, alias="default"):
        from django.test import override_settings

        with override_settings(SESSION_CACHE_ALIAS=alias):
            return self._client.get(path).content.decode()


def _stored(cache, session_id):
    """The visits that the cache knows of this session; None without one."""
    from importlib import import_module

    from django.conf import settings

    prefix = import_module(settings.SESSION_ENGINE).KEY_PREFIX
    data = cache.get(prefix + session_id)
    return data and data["visits"]


if __name__ == "__main__":
    main(*sys.argv[1:])
