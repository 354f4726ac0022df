"""pymemcache: the client behind most Django sites."""

import sys

from checks import checks_of
from pymemcache.client.base import Client
from session_user import HOUR_S, use_sessions


class Adapter:
    def __init__(self, address):
        self.client = Client(address, default_noreply=False)

    def set(self, key, value, ttl_s):
        return self.client.set(key, value, ttl_s)

    def get(self, key):
        return _text(self.client.get(key))

    def delete(self, key):
        return self.client.delete(key)

    def add(self, key, value, ttl_s):
        return self.client.add(key, value, ttl_s)

    def incr(self, key, by):
        return self.client.incr(key, by)

    def decr(self, key, by):
        return self.client.decr(key, by)

    def get_many(self, keys):
        return {key: _text(value) for key, value in self.client.get_many(keys).items()}

    def gets(self, key):
        value, token = self.client.gets(key)
        return _text(value), token

    def cas(self, key, value, token, ttl_s):
        return self.client.cas(key, value, token, ttl_s)

    def touch(self, key, ttl_s):
        return self.client.touch(key, ttl_s)

    def flush(self):
        return self.client.flush_all()


def _text(value):
    return None if value is None else value.decode()


def main(name, first_address, other_address):
    with checks_of(name) as checks:
        first, other = Adapter(first_address), Adapter(other_address)
        use_sessions(checks, first, other, name)
        _beyond_sessions(checks, first.client, other.client, name)


def _beyond_sessions(checks, first, other, name):
    key = f"{name}:extras"
    first.set(key, b"b", HOUR_S)
    checks.holds("append", first.append(key, b"c"))
    checks.holds("prepend", first.prepend(key, b"a"))
    checks.equal("get of the joined", other.get(key), b"abc")
    checks.holds("replace", first.replace(key, b"d", HOUR_S))
    checks.holds("set that is over at once", first.set(key, b"e", -1))
    checks.equal("get of what is over", other.get(key), None)
    checks.equal("replace of what is gone", first.replace(key, b"f", HOUR_S), False)
    first.set(key, b"g", HOUR_S, noreply=True)
    checks.equal("get after a set without a reply", first.get(key), b"g")
    first.delete(key, noreply=True)
    checks.equal("get after a delete without a reply", first.get(key), None)
    checks.holds("version", first.version())
    checks.holds("stats", b"curr_items" in first.stats())


main(*sys.argv[1:])
