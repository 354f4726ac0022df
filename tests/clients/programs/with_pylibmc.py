"""pylibmc: libmemcached for Python, in text mode."""

import sys

import pylibmc
from checks import checks_of
from session_user import use_sessions


class Adapter:
    def __init__(self, address):
        self.client = pylibmc.Client([address], binary=False, behaviors={"cas": True})

    def set(self, key, value, ttl_s):
        return self.client.set(key, value, ttl_s)

    def get(self, key):
        return self.client.get(key)

    def delete(self, key):
        return self.client.delete(key)

    def add(self, key, value, ttl_s):
        return self.client.add(key, value, ttl_s)

    def incr(self, key, by):
        return _number(self.client.incr, key, by)

    def decr(self, key, by):
        return _number(self.client.decr, key, by)

    def get_many(self, keys):
        return self.client.get_multi(keys)

    def gets(self, key):
        return self.client.gets(key)

    def cas(self, key, value, token, ttl_s):
        return self.client.cas(key, value, token, ttl_s)

    def touch(self, key, ttl_s):
        return self.client.touch(key, ttl_s)

    def flush(self):
        self.client.flush_all()


def _number(change, key, by):
    try:
        return change(key, by)
    except pylibmc.NotFound:
        return None


def main(name, first_address, other_address):
    with checks_of(name) as checks:
        first, other = Adapter(first_address), Adapter(other_address)
        use_sessions(checks, first, other, name)
        keys = [f"{name}:multi:{number}" for number in range(10)]
        checks.equal("set_multi", first.client.set_multi(dict.fromkeys(keys, "x")), [])
        checks.equal("get_multi", other.client.get_multi(keys), dict.fromkeys(keys, "x"))
        checks.holds("delete_multi", first.client.delete_multi(keys))
        checks.equal("get_multi after it", other.client.get_multi(keys), {})


main(*sys.argv[1:])
