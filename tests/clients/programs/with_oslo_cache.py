"""oslo.cache, as Keystone and the other services of OpenStack configure it."""

import sys

from checks import checks_of
from dogpile.cache.api import NO_VALUE
from oslo_cache import core
from oslo_config import cfg

SHORT_TTL_S = 2
EXPIRY_DEADLINE_S = 6


def main(backend, name, first_address, other_address):
    with checks_of(name) as checks:
        first, other = (_region(backend, address) for address in (first_address, other_address))
        key = f"{name}:token"
        checks.equal("get of a missing key", other.get(key), NO_VALUE)
        first.set(key, {"user": "alice"})
        checks.equal("get", first.get(key), {"user": "alice"})
        checks.equal("get at the other node", other.get(key), {"user": "alice"})
        first.set_multi({f"{key}:a": 1, f"{key}:b": 2})
        keys = [f"{key}:a", f"{key}:b", f"{key}:c"]
        checks.equal("get_multi", other.get_multi(keys), [1, 2, NO_VALUE])
        first.delete(f"{key}:a")
        checks.equal("get after delete", other.get(f"{key}:a"), NO_VALUE)
        _memoizes(checks, first, other, name)
        _locks(checks, first, other, name)
        first.set(key, "short")
        checks.becomes("it ends", lambda: other.get(key) is NO_VALUE, EXPIRY_DEADLINE_S)


def _region(backend, address):
    conf = cfg.ConfigOpts()
    core.configure(conf)
    conf([], project="clients")
    conf.set_override("enabled", True, "cache")
    conf.set_override("backend", backend, "cache")
    conf.set_override("memcache_servers", [address], "cache")
    conf.set_override("expiration_time", SHORT_TTL_S, "cache")
    conf.set_override("backend_argument", ["distributed_lock:True", f"url:{address}"], "cache")
    region = core.create_region()
    core.configure_cache_region(conf, region)
    return region


def _memoizes(checks, first, other, name):
    """What Keystone does around every look-up."""
    calls = []

    def look_up(user):
        calls.append(user)
        return f"roles of {user}"

    here, there = (region.cache_on_arguments(namespace=name)(look_up) for region in (first, other))
    checks.equal("a look-up", here("alice"), "roles of alice")
    checks.equal("the same at the other node", there("alice"), "roles of alice")
    checks.equal("only one was real", calls, ["alice"])
    here.invalidate("alice")
    checks.equal("a look-up after it was invalidated", there("alice"), "roles of alice")
    checks.equal("is real again", calls, ["alice", "alice"])


def _locks(checks, first, other, name):
    here, there = (region.backend.get_mutex(f"{name}:lock") for region in (first, other))
    if here is None:
        return
    checks.holds("a free lock is taken", here.acquire(False))
    checks.equal("a taken one is not, at the other node", bool(there.acquire(False)), False)
    here.release()
    checks.holds("one given back is taken at the other node", there.acquire(False))
    there.release()


main(*sys.argv[1:])
