"""What must hold for users of sessiond, whatever the machine.

Of stock memcached, and of the store that cannot lose anything, nothing is demanded: they are
there to be compared with.
"""

from toll import Kind

CRASH_RECOVERY_MAX_S = 1.5
# What a client must never see, whatever dies.
NEVER = (Kind.LOST, Kind.STALE, Kind.BACK)


def missed(scenario, mode, system, result):
    """What does not hold, in words. Nothing, if all does."""
    if not system.name == "sessiond":
        return []
    return [failure for check in _checks(scenario, mode) for failure in check(result)]


def _checks(scenario, mode):
    """A list of nodes of which one is gone, or was stopped without a word to the
    client, costs what pymemcache makes of it; the data is there all the same."""
    if scenario in ("none", "restart", "upgrade"):
        return [_nothing_noticed]
    if scenario == "crash":
        return [_only_in_flight, _data_is_right, _back_soon]
    if scenario in ("freeze", "partition"):
        return [_data_is_right]
    if scenario in ("kill", "kill-two", "kill-and-return") and mode == "local":
        return [_only_in_flight, _data_is_right]
    return [_nodes_lost_nothing]


def _nothing_noticed(result):
    return [_too_many(result, kind, 0) for kind in Kind if result.number(kind)]


def _data_is_right(result):
    return [_too_many(result, kind, 0) for kind in NEVER if result.number(kind)]


def _only_in_flight(result):
    failures = []
    for kind in (Kind.ERROR, Kind.LOGOUT):
        in_flight = result.toll.number_in_flight(kind)
        if result.number(kind) > in_flight:
            failures.append(_too_many(result, kind, in_flight))
    return failures


def _nodes_lost_nothing(result):
    """The sessions that the client took away from users are all still there."""
    failures = [_too_many(result, kind, 0) for kind in (Kind.LOST, Kind.STALE) if result.number(kind)]
    logouts = result.number(Kind.LOGOUT) - result.toll.number_in_flight(Kind.LOGOUT)
    if result.still_held < logouts:
        failures.append(f"of {logouts} sessions that were lost to users, {result.still_held} are there")
    return failures


def _back_soon(result):
    after_s = result.toll.recovered_after_s()
    return [f"last trouble after {after_s:.2f} s"] if after_s > CRASH_RECOVERY_MAX_S else []


def _too_many(result, kind, allowed):
    return f"{kind.value}: {result.number(kind)}, allowed {allowed}"
