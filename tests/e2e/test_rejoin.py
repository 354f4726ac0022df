"""A node that comes back: with its memory it is sent what differs, and it shows nothing old."""

import time

import wire
from cluster import READY_DEADLINE_S, cluster_of_three, new_group, ready
from survivors import WHOLE_MAX_S
from waiting import wait_until

ITEMS = 4000
# Suspicion and promises take 1.2 s.
LEFT_OUT_MAX_S = 10.0


def replication(node):
    lines = wire.ask(node.port, b"stats replication\r\n").decode().split("\r\n")
    return dict(line.split(" ", 2)[1:] for line in lines if line.startswith("STAT "))


def knows_members(node, names):
    stats = replication(node)
    return (stats["members"], stats["learners"]) == (names, "")


def say(node, lines, answer):
    """Says each of these, and insists on the answer to each."""
    answers = wire.ask(node.port, b"".join(lines))
    assert answers == answer * len(lines), answers[:200]


def set_lines(keys, value):
    return [b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value) for key in keys]


def values(node, keys):
    answer = wire.ask(node.port, b"".join(b"get %s\r\n" % key for key in keys))
    return [lines.split(b"\r\n")[1] if lines else None for lines in answer.split(b"END\r\n")[:-1]]


def test_a_node_that_was_left_out_is_sent_what_differs_and_shows_nothing_old():
    keys = [b"key%d" % number for number in range(ITEMS)]
    deleted, changed, touched, same = keys[:10], keys[10:20], keys[20:30], keys[30:]
    with cluster_of_three() as (first, second, third):
        say(first, set_lines(keys, b"old"), b"STORED\r\n")
        third.freeze()
        wait_until(lambda: knows_members(first, "n1,n2"), "n3 is left out", LEFT_OUT_MAX_S)
        say(second, [b"delete %s\r\n" % key for key in deleted], b"DELETED\r\n")
        say(second, set_lines(changed, b"new"), b"STORED\r\n")
        say(second, [b"touch %s 1000\r\n" % key for key in touched], b"TOUCHED\r\n")
        third.thaw()
        # At once, and again when it answers for itself.
        for _ in range(20):
            assert values(third, deleted + changed) == [None] * 10 + [b"new"] * 10
        wait_until(lambda: knows_members(third, "n1,n2,n3"), "n3 is back", WHOLE_MAX_S)
        third.wait_ready()
        assert values(third, deleted + changed) == [None] * 10 + [b"new"] * 10
        assert values(third, touched + same) == [b"old"] * (ITEMS - 20)
        stats = {name: int(value) for name, value in sync_of(third).items()}
        # Its memory was not filled anew: 30 slots differ, most of them with one item.
        assert stats["slots_compared"] - stats["slots_equal"] == 30, stats
        assert 20 <= stats["items_received"] < 100, stats
        assert 30 <= stats["items_dropped"] < 100, stats
        sent = sum(int(sync_of(node)["items_sent"]) for node in (first, second))
        assert sent == stats["items_received"]
        assert third.output().count("joined: this copy is what the others have") == 1


def sync_of(node):
    stats = replication(node).items()
    return {name.removeprefix("sync_"): value for name, value in stats if name.startswith("sync_")}


def test_a_node_is_filled_no_faster_than_it_was_said():
    value = b"x" * 1000
    with ready(new_group(["--sync-rate", "1m"])) as nodes:
        first, _, third = nodes
        keys = [b"key%d" % number for number in range(ITEMS)]
        say(first, set_lines(keys, value), b"STORED\r\n")
        third.kill9()
        wait_until(lambda: knows_members(first, "n1,n2"), "n3 is left out", LEFT_OUT_MAX_S)
        since = time.monotonic()
        third.start()
        third.wait_ready()
        # Two nodes send 4 MB together.
        assert time.monotonic() - since > 1.5
        assert int(replication(third)["sync_items_received"]) == ITEMS
        assert values(third, keys[:100]) == [value] * 100


def test_a_node_that_is_filled_slowly_relays_meanwhile():
    with ready(new_group(["--sync-rate", "100k"])) as nodes:
        first, _, third = nodes
        keys = [b"key%d" % number for number in range(1000)]
        say(first, set_lines(keys, b"x" * 1000), b"STORED\r\n")
        third.kill9()
        third.start()
        wait_until(lambda: joins(third), "n3 is being filled", READY_DEADLINE_S)
        assert values(third, keys[:50]) == [b"x" * 1000] * 50
        say(third, set_lines(keys[:50], b"new"), b"STORED\r\n")
        assert values(first, keys[:50]) == [b"new"] * 50
        assert replication(third)["state"] == "joining"
        third.wait_ready()
        assert values(third, keys[:51]) == [b"new"] * 50 + [b"x" * 1000]


def joins(node):
    try:
        return replication(node)["state"] == "joining"
    except OSError:
        return False
