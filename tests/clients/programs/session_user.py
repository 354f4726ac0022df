"""What a web session asks of memcached, through any Python client.

The client comes as an adapter with `set get delete add incr decr get_many flush`, and, where the
library has them, `touch`, `gat`, `gets` and `cas`. Values are text. `first` writes, `other` reads
at another node.
"""

import random

# As Django's: some prefix and 32 letters.
KEY_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
HOUR_S = 3600
# Expiry counts whole seconds: with one, an item may be gone before it is read.
SHORT_TTL_S = 2
EXPIRY_DEADLINE_S = 6
LARGE_BYTES = 100_000


def use_sessions(checks, first, other, name):
    keys = Keys(name)
    _comes_and_goes(checks, first, other, keys)
    _locks(checks, first, other, keys)
    _counts(checks, first, other, keys)
    _fetches_many(checks, first, other, keys)
    _is_large(checks, first, other, keys)
    if hasattr(first, "cas"):
        _swaps(checks, first, other, keys)
    _expires(checks, first, other, keys)
    _flushes(checks, first, other, keys)


def swap_sessions(checks, first, other, name):
    """The part with CAS alone."""
    _swaps(checks, first, other, Keys(name))


class Keys:
    """New ones each run: clients take turns on one server."""

    def __init__(self, name):
        self._name = name

    def new(self, what):
        return f"{self._name}:{what}:{''.join(random.choices(KEY_LETTERS, k=32))}"


def _comes_and_goes(checks, first, other, keys):
    key = keys.new("session")
    checks.equal("get of a missing key", first.get(key), None)
    checks.equal("get of a missing key at the other node", other.get(key), None)
    checks.holds("set", first.set(key, "logged in", HOUR_S))
    checks.equal("get", first.get(key), "logged in")
    checks.equal("get at the other node", other.get(key), "logged in")
    checks.holds("overwriting set", first.set(key, "with a basket", HOUR_S))
    checks.equal("get of what was overwritten", first.get(key), "with a basket")
    checks.equal("the same at the other node", other.get(key), "with a basket")
    checks.holds("set at the other node", other.set(key, "moved host", HOUR_S))
    checks.equal("get of what the other node took", first.get(key), "moved host")
    checks.holds("set of an empty value", first.set(key, "", HOUR_S))
    checks.equal("get of an empty value", other.get(key), "")
    checks.holds("set without an end", first.set(key, "for good", 0))
    checks.equal("get of what has no end", other.get(key), "for good")
    checks.holds("delete", first.delete(key))
    checks.equal("get after delete", first.get(key), None)
    checks.equal("get after delete at the other node", other.get(key), None)
    if getattr(first, "delete_tells", True):
        checks.equal("delete of what is gone", bool(first.delete(key)), False)


def _locks(checks, first, other, keys):
    key = keys.new("lock")
    checks.holds("add takes a free lock", first.add(key, "mine", HOUR_S))
    checks.equal("add refuses a taken lock", bool(first.add(key, "yours", HOUR_S)), False)
    checks.equal("so at the other node", bool(other.add(key, "yours", HOUR_S)), False)
    checks.equal("the first holder stays", other.get(key), "mine")
    checks.holds("the lock is given back", first.delete(key))
    checks.holds("and taken at the other node", other.add(key, "yours", HOUR_S))
    checks.equal("and not here", bool(first.add(key, "mine", HOUR_S)), False)
    checks.holds("and given back", other.delete(key))


def _counts(checks, first, other, keys):
    key = keys.new("counter")
    checks.equal("incr of a missing key", first.incr(key, 1), None)
    checks.holds("set of a number", first.set(key, "9", HOUR_S))
    checks.equal("incr", first.incr(key, 1), 10)
    checks.equal("incr at the other node", other.incr(key, 32), 42)
    checks.equal("get of a number", first.get(key), "42")
    checks.equal("decr", first.decr(key, 2), 40)
    checks.equal("decr at the other node", other.decr(key, 10), 30)
    checks.equal("the sum at the other node", other.get(key), "30")


def _fetches_many(checks, first, other, keys):
    missing = keys.new("missing")
    expected = {keys.new("many"): f"value {number}" for number in range(20)}
    for key, value in expected.items():
        first.set(key, value, HOUR_S)
    asked = [*expected, missing]
    checks.equal("multi-get", first.get_many(asked), expected)
    checks.equal("multi-get at the other node", other.get_many(asked), expected)
    checks.equal("multi-get of nothing there", other.get_many([missing]), {})


def _is_large(checks, first, other, keys):
    key = keys.new("large")
    # Random, so that a client that packs its values cannot make it small.
    value = random.randbytes(LARGE_BYTES // 2).hex()
    checks.holds("set of 100 KB", first.set(key, value, HOUR_S))
    checks.equal("get of 100 KB", first.get(key), value)
    checks.equal("get of 100 KB at the other node", other.get(key), value)


def _swaps(checks, first, other, keys):
    key = keys.new("cas")
    first.set(key, "one", HOUR_S)
    value, token = first.gets(key)
    checks.equal("gets", value, "one")
    # Without one, a cas would be a plain set.
    checks.holds("gets gives a token", token is not None)
    checks.equal("gets at the other node, token and all", other.gets(key), ("one", token))
    checks.holds("cas with the token", first.cas(key, "two", token, HOUR_S))
    checks.equal("cas with an old token", bool(first.cas(key, "three", token, HOUR_S)), False)
    checks.equal("and at the other node", bool(other.cas(key, "three", token, HOUR_S)), False)
    value, token = other.gets(key)
    checks.equal("gets after cas", value, "two")
    checks.holds("cas here with a token from there", first.cas(key, "four", token, HOUR_S))
    checks.equal("get after cas", other.get(key), "four")


def _expires(checks, first, other, keys):
    mortal, touched, fetched = keys.new("mortal"), keys.new("touched"), keys.new("fetched")
    has_touch, has_gat = hasattr(first, "touch"), hasattr(first, "gat")
    for key in (mortal, touched, fetched):
        checks.holds("set with a short life", first.set(key, "alive", SHORT_TTL_S))
        checks.equal("get of a short life", other.get(key), "alive")
    if has_touch:
        checks.holds("touch", first.touch(touched, HOUR_S))
        checks.equal("touch of a missing key", bool(first.touch(keys.new("no"), HOUR_S)), False)
    if has_gat:
        checks.equal("get and touch", first.gat(fetched, HOUR_S), "alive")
        checks.equal("get and touch of a missing key", first.gat(keys.new("no"), HOUR_S), None)

    def is_gone():
        return first.get(mortal) is None and other.get(mortal) is None

    checks.becomes("a short life ends at both nodes", is_gone, EXPIRY_DEADLINE_S)
    if has_touch:
        checks.equal("what was touched lives on", first.get(touched), "alive")
        checks.equal("and at the other node", other.get(touched), "alive")
    if has_gat:
        checks.equal("what was fetched with a touch lives on", first.get(fetched), "alive")
        checks.equal("also at the other node", other.get(fetched), "alive")


def _flushes(checks, first, other, keys):
    here, there = keys.new("flushed"), keys.new("flushed")
    first.set(here, "x", HOUR_S)
    other.set(there, "x", HOUR_S)
    first.flush()
    for key in (here, there):
        checks.equal("get after flush", first.get(key), None)
        checks.equal("get after flush at the other node", other.get(key), None)
    checks.holds("set after flush", first.set(here, "anew", HOUR_S))
    checks.equal("get of what was set after flush", other.get(here), "anew")
    first.delete(here)
