"""python-memcached: the oldest of the Python clients, and Keystone's."""

import sys

import memcache
from checks import checks_of
from session_user import use_sessions


class Adapter:
    # It says the same of what was deleted and of what was not there.
    delete_tells = False

    def __init__(self, address):
        self.client = memcache.Client([address], cache_cas=True)

    def set(self, key, value, ttl_s):
        return self.client.set(key, value, ttl_s)

    def get(self, key):
        return self.client.get(key)

    def delete(self, key):
        return self.client.delete(key)

    def add(self, key, value, ttl_s):
        return self.client.add(key, value, ttl_s)

    def incr(self, key, by):
        return self.client.incr(key, by)

    def decr(self, key, by):
        return self.client.decr(key, by)

    def get_many(self, keys):
        return self.client.get_multi(keys)

    def gets(self, key):
        value = self.client.gets(key)
        # It keeps the token to itself.
        return value, self.client.cas_ids.get(key.encode())

    def cas(self, key, value, token, ttl_s):
        self.client.cas_ids[key.encode()] = token
        return self.client.cas(key, value, ttl_s)

    def touch(self, key, ttl_s):
        return self.client.touch(key, ttl_s)

    def flush(self):
        self.client.flush_all()


def main(name, first_address, other_address):
    with checks_of(name) as checks:
        first, other = Adapter(first_address), Adapter(other_address)
        use_sessions(checks, first, other, name)
        checks.equal("stats come from one server", len(first.client.get_stats()), 1)
        # A server that misbehaved once is left alone for 30 s, in silence.
        checks.equal("nobody was marked dead", first.client.servers[0].deaduntil, 0)


main(*sys.argv[1:])
