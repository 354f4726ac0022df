"""aiomcache: for asyncio."""

import asyncio
import sys

import aiomcache
from checks import checks_of
from session_user import use_sessions


class Adapter:
    def __init__(self, address, loop):
        host, port = address.split(":")
        self.client = aiomcache.Client(host, int(port))
        self._wait = loop.run_until_complete

    def set(self, key, value, ttl_s):
        return self._wait(self.client.set(key.encode(), value.encode(), ttl_s))

    def get(self, key):
        return _text(self._wait(self.client.get(key.encode())))

    def delete(self, key):
        return self._wait(self.client.delete(key.encode()))

    def add(self, key, value, ttl_s):
        return self._wait(self.client.add(key.encode(), value.encode(), ttl_s))

    def incr(self, key, by):
        return self._number(self.client.incr(key.encode(), by))

    def decr(self, key, by):
        return self._number(self.client.decr(key.encode(), by))

    def get_many(self, keys):
        values = self._wait(self.client.multi_get(*[key.encode() for key in keys]))
        return {key: _text(value) for key, value in zip(keys, values) if value is not None}

    def gets(self, key):
        value, token = self._wait(self.client.gets(key.encode()))
        return _text(value), token

    def cas(self, key, value, token, ttl_s):
        return self._wait(self.client.cas(key.encode(), value.encode(), token, ttl_s))

    def touch(self, key, ttl_s):
        return self._wait(self.client.touch(key.encode(), ttl_s))

    def flush(self):
        self._wait(self.client.flush_all())

    def _number(self, answer):
        try:
            return self._wait(answer)
        except aiomcache.ClientException as error:
            if "NOT_FOUND" in str(error):
                return None
            raise


def _text(value):
    return None if value is None else value.decode()


def main(name, first_address, other_address):
    loop = asyncio.new_event_loop()
    with checks_of(name) as checks:
        first, other = Adapter(first_address, loop), Adapter(other_address, loop)
        use_sessions(checks, first, other, name)
        loop.run_until_complete(_many_at_once(checks, first.client, other.client, name))


async def _many_at_once(checks, first, other, name):
    """The tasks share a small pool of connections."""
    keys = [f"{name}:task:{number}".encode() for number in range(50)]
    stored = await asyncio.gather(*[first.set(key, key, 60) for key in keys])
    checks.equal("50 sets at once", stored, [True] * len(keys))
    fetched = await asyncio.gather(*[other.get(key) for key in keys])
    checks.equal("50 gets at once", fetched, keys)
    await first.close()
    await other.close()


main(*sys.argv[1:])
