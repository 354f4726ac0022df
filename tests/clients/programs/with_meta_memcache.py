"""meta-memcache: speaks nothing but meta commands."""

import socket
import sys

from checks import checks_of
from meta_memcache import (
    CacheClient,
    Key,
    RecachePolicy,
    ServerAddress,
    SetMode,
    connection_pool_factory_builder,
)
from session_user import HOUR_S, swap_sessions, use_sessions

# Its own limit of one second is for caches that may fail; here a slow answer is no news.
ANSWER_DEADLINE_S = 10


class Adapter:
    def __init__(self, address):
        host, port = address.split(":")
        self.client = CacheClient.cache_client_from_servers(
            servers=[ServerAddress(host, int(port))],
            connection_pool_factory_fn=connection_pool_factory_builder(
                recv_timeout=ANSWER_DEADLINE_S
            ),
        )
        # Meta commands know no flush; its users, too, have to ask elsewhere for it.
        self._host, self._port = host, int(port)

    def set(self, key, value, ttl_s):
        return self.client.set(key, value, _ttl(ttl_s))

    def get(self, key):
        return _text(self.client.get(key))

    def delete(self, key):
        return self.client.delete(key)

    def add(self, key, value, ttl_s):
        return self.client.set(key, value, _ttl(ttl_s), set_mode=SetMode.ADD)

    def incr(self, key, by):
        return self.client.delta_and_get(key, by)

    def decr(self, key, by):
        return self.client.delta_and_get(key, -by)

    def get_many(self, keys):
        values = self.client.multi_get(keys)
        return {key.key: _text(value) for key, value in values.items() if value is not None}

    def touch(self, key, ttl_s):
        return self.client.touch(key, ttl_s)

    def gat(self, key, ttl_s):
        return self.client.get(key, touch_ttl=ttl_s)

    def flush(self):
        with socket.create_connection((self._host, self._port), ANSWER_DEADLINE_S) as connection:
            connection.sendall(b"flush_all\r\n")
            assert connection.recv(64) == b"OK\r\n"


class AdapterWithCas(Adapter):
    def gets(self, key):
        return self.client.get_cas(key)

    def cas(self, key, value, token, ttl_s):
        return self.client.set(key, value, _ttl(ttl_s), cas_token=token)


def _text(value):
    """It stores text without a type, and takes a number or nothing for something else."""
    if isinstance(value, bytes):
        return value.decode()
    return str(value) if isinstance(value, int) else value


def _ttl(ttl_s):
    return ttl_s if ttl_s else None


def main(part, name, first_address, other_address):
    with checks_of(name) as checks:
        if part == "cas":
            adapters = AdapterWithCas(first_address), AdapterWithCas(other_address)
            swap_sessions(checks, *adapters, name)
        else:
            first, other = Adapter(first_address), Adapter(other_address)
            use_sessions(checks, first, other, name)
            _beyond_sessions(checks, first.client, other.client, name)


def _beyond_sessions(checks, first, other, name):
    binary = Key(f"{name}:\N{BEER MUG}")
    checks.holds("set of a key in base64", first.set(binary, {"a": [1, 2]}, HOUR_S))
    checks.equal("get of a key in base64", other.get(binary), {"a": [1, 2]})
    checks.equal("multi-get of it", other.multi_get([binary]), {binary: {"a": [1, 2]}})
    checks.holds("delete of a key in base64", first.delete(binary))

    counter = f"{name}:counted"
    started = first.delta_initialize_and_get(counter, 1, initial_value=5, initial_ttl=HOUR_S)
    checks.equal("a counter starts at its first value", started, 5)
    started = other.delta_initialize_and_get(counter, 1, initial_value=5, initial_ttl=HOUR_S)
    checks.equal("and goes on at the other node", started, 6)

    stale = f"{name}:stale"
    policy = RecachePolicy(ttl=30)
    first.set(stale, "old", HOUR_S)
    checks.holds("invalidate", first.invalidate(stale))
    checks.equal("what was invalidated is gone", other.get(stale), None)
    first.set(stale, "new", 5)
    wins = [first.get(stale, recache_policy=policy), other.get(stale, recache_policy=policy)]
    checks.equal("one of two has to renew what ends soon", wins, [None, "new"])


main(*sys.argv[1:])
