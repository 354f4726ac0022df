"""What must hold for users of sessiond, whatever the machine.

Of stock memcached, and of the store that cannot lose anything, nothing is demanded: they are
there to be compared with.
"""

from toll import Blame, Kind

CRASH_RECOVERY_MAX_S = 1.5
# What a client must never see, whatever dies.
NEVER = (Kind.LOST, Kind.STALE, Kind.BACK)


def missed(scenario, mode, system, result):
    """What does not hold, in words. Nothing, if all does."""
    if system.name != "sessiond":
        return []
    checks = _checks(scenario, mode)
    return [failure for check in checks for failure in check(result.toll, result.still_held)]


def _checks(scenario, mode):
    """A list of nodes of which one is gone, or was stopped without a word to the
    client, costs what pymemcache makes of it; the data is there all the same."""
    if scenario in ("none", "restart", "upgrade"):
        return [_nothing_found]
    if scenario == "crash":
        return [_only_in_flight, _back_soon]
    if scenario in ("freeze", "partition"):
        return [_data_is_right]
    if scenario in ("kill", "kill-two", "kill-and-return") and mode == "local":
        return [_only_in_flight]
    return [_nodes_lost_nothing]


def _nothing_found(toll, _held):
    return [_too_many(kind, number, 0) for kind in Kind if (number := toll.number(kind))]


def _data_is_right(toll, _held):
    return [_too_many(kind, number, 0) for kind in NEVER if (number := toll.number(kind))]


def _only_in_flight(toll, _held):
    """And what pymemcache then keeps to itself: a logout that it did not send is none."""
    inexcusable = {kind: toll.number(kind, Blame.NOTHING) for kind in Kind}
    inexcusable[Kind.LOST] = toll.number(Kind.LOST)
    inexcusable[Kind.STALE] = toll.number(Kind.STALE)
    return [_too_many(kind, number, 0) for kind, number in inexcusable.items() if number]


def _nodes_lost_nothing(toll, held):
    """The sessions that the client took away from users are all still there."""
    wrong = {kind: toll.number(kind) for kind in (Kind.LOST, Kind.STALE)}
    failures = [_too_many(kind, number, 0) for kind, number in wrong.items() if number]
    logouts = toll.number(Kind.LOGOUT) - toll.number(Kind.LOGOUT, Blame.IN_FLIGHT)
    if held < logouts:
        failures.append(f"of {logouts} sessions that were lost to users, {held} are there")
    return failures


def _back_soon(toll, _held):
    after_s = toll.recovered_after_s()
    return [f"last trouble after {after_s:.2f} s"] if after_s > CRASH_RECOVERY_MAX_S else []


def _too_many(kind, number, allowed):
    return f"{kind.value}: {number}, allowed {allowed}"
