"""dogpile.cache, with its lock in memcached: one creator, the others wait for the value."""

import sys
import threading

from checks import checks_of
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE

HOUR_S = 3600
LOCK_TTL_S = 30
LONG_ENOUGH_S = 20


def main(backend, name, first_address, other_address):
    with checks_of(name) as checks:
        first, other = (_region(backend, address) for address in (first_address, other_address))
        _stores(checks, first, other, name)
        _locks(checks, first, other, name)
        _creates_once(checks, first, other, name)


def _region(backend, address):
    arguments = {
        "url": [address],
        "distributed_lock": True,
        "lock_timeout": LOCK_TTL_S,
        "memcached_expire_time": HOUR_S,
    }
    region = make_region(key_mangler=lambda key: key.replace(" ", "_"))
    return region.configure(f"dogpile.cache.{backend}", expiration_time=HOUR_S, arguments=arguments)


def _stores(checks, first, other, name):
    key = f"{name}:token"
    first.delete(key)
    checks.equal("get of a missing key", other.get(key), NO_VALUE)
    first.set(key, {"user": "alice", "roles": ["admin"]})
    checks.equal("get", first.get(key), {"user": "alice", "roles": ["admin"]})
    checks.equal("get at the other node", other.get(key), {"user": "alice", "roles": ["admin"]})
    first.set(key, "overwritten")
    checks.equal("get of what was overwritten", other.get(key), "overwritten")
    first.delete(key)
    checks.equal("get after delete", other.get(key), NO_VALUE)
    many = {f"{name}:many:{number}": number for number in range(10)}
    first.set_multi(many)
    checks.equal("get_multi", other.get_multi([*many, key]), [*many.values(), NO_VALUE])
    first.delete_multi([*many])
    checks.equal("get_multi after delete_multi", other.get_multi([*many]), [NO_VALUE] * len(many))
    large = "x" * 100_000
    first.set(key, large)
    checks.equal("get of 100 KB", other.get(key), large)
    first.delete(key)


def _locks(checks, first, other, name):
    here, there = (region.backend.get_mutex(f"{name}:lock") for region in (first, other))
    checks.holds("a free lock is taken", here.acquire(False))
    checks.equal("a taken one is not, at the other node", bool(there.acquire(False)), False)
    here.release()
    checks.holds("one given back is taken at the other node", there.acquire(False))
    checks.equal("and not here", bool(here.acquire(False)), False)
    there.release()


def _creates_once(checks, first, other, name):
    """Two hosts miss at the same time; one computes, and both have its value."""
    key = f"{name}:computed"
    first.delete(key)
    calls, values = [], []
    may_end = threading.Event()

    def create():
        calls.append(threading.get_ident())
        may_end.wait(LONG_ENOUGH_S)
        return "computed once"

    def ask(region):
        values.append(region.get_or_create(key, create))

    threads = [threading.Thread(target=ask, args=(region,)) for region in (first, other)]
    for thread in threads:
        thread.start()
    checks.becomes("one of two creates", lambda: len(calls) == 1, LONG_ENOUGH_S)
    may_end.set()
    for thread in threads:
        thread.join(LONG_ENOUGH_S)
    checks.equal("both have the value", values, ["computed once"] * 2)
    checks.equal("created once", len(calls), 1)


main(*sys.argv[1:])
