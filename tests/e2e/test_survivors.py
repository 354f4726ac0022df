"""Who goes on when others die or fall silent, and that the group becomes whole again."""

import time
from contextlib import contextmanager

import pytest
import wire
from cluster import new_group, ready
from processes import running
from survivors import TWO, asked, assert_silent_for, held, put, until_fenced, until_whole
from waiting import wait_until

# The last one waits for a second of refused connections; the rest is for a busy machine.
ALONE_MAX_S = 5.0
# Suspicion, promises that run out, and perhaps another leader.
WITNESSED_MAX_S = 2.0
# Nothing is waited for, but perhaps another leader.
KILLED_MAX_S = 0.9


def knows_witness(node):
    return b"STAT peer:w:witness 1\r\n" in wire.ask(node.port, b"stats replication\r\n")


def kill_and_go_on(victims, survivor, value):
    """The last one that is left answers, with what was stored before and for new writes."""
    before = held(survivor)
    for victim in victims:
        victim.kill9()
    since = time.monotonic()
    put(survivor, value)
    assert time.monotonic() - since < ALONE_MAX_S
    assert before is not None and held(survivor) == value
    for victim in victims:
        victim.restart()
        assert held(victim) == value


@pytest.mark.parametrize("tie_breaker", [None, "n1"])
def test_of_two_either_goes_on_when_the_other_is_killed(tie_breaker):
    flags = ("--tie-breaker", tie_breaker) if tie_breaker else ()
    with ready(new_group(flags, TWO)) as (first, second):
        put(first, b"begun")
        for number, (victim, survivor) in enumerate(
            [(first, second), (second, first), (first, second)]
        ):
            kill_and_go_on([victim], survivor, b"round%d" % number)
            until_whole([first, second], tie_breaker)


def test_of_two_none_goes_on_while_the_other_is_silent():
    with ready(new_group(names=TWO)) as nodes:
        put(nodes[0], b"old")
        for silent, other in nodes, reversed(nodes):
            silent.freeze()
            until_fenced(other, silent)
            write = asked(other, b"set b 0 60 1\r\nx\r\n")
            with asked(other, b"get a\r\n") as reader, write as writer:
                assert_silent_for(reader, 0.5)
                assert_silent_for(writer, 0.1)
                silent.thaw()
                assert writer.recv(100) == b"STORED\r\n"
                assert reader.recv(100) == b"VALUE a 0 3\r\nold\r\nEND\r\n"
            until_whole(nodes)
            assert held(silent) == b"old"


def test_a_silent_tie_breaker_stops_the_other_and_not_the_other_way_round():
    with ready(new_group(("--tie-breaker", "n1"), TWO)) as (first, second):
        second.freeze()
        put(first, b"new")
        second.thaw()
        until_whole([first, second], "n1")
        assert held(second) == b"new"
        first.freeze()
        until_fenced(second, first)
        with asked(second, b"set a 0 60 1\r\nx\r\n") as writer:
            assert_silent_for(writer, 0.5)
            first.thaw()
            assert writer.recv(100) == b"STORED\r\n"
        assert held(first) == b"x"


def test_of_three_the_last_goes_on_however_the_others_die():
    with ready(new_group()) as nodes:
        first, second, third = nodes
        put(first, b"begun")
        # At once.
        kill_and_go_on([first, second], third, b"third alone")
        until_whole(nodes)
        kill_and_go_on([second, third], first, b"first alone")
        until_whole(nodes)
        # One after the other.
        first.kill9()
        put(second, b"two left")
        kill_and_go_on([third], second, b"second alone")
        first.restart()
        until_whole(nodes)
        assert held(first) == b"second alone"


@contextmanager
def two_and_a_witness():
    first, second, witness = new_group(names=("n1", "n2", "w"), witness="w")
    with running([witness]), ready([first, second]):
        yield first, second, witness


def test_with_a_witness_either_goes_on_when_the_other_is_silent():
    with two_and_a_witness() as (first, second, _):
        put(first, b"begun")
        for silent, other in (first, second), (second, first):
            silent.freeze()
            since = time.monotonic()
            put(other, b"without " + silent.name.encode())
            assert time.monotonic() - since < WITNESSED_MAX_S
            silent.thaw()
            until_whole([first, second], "n1,n2,w")
            assert held(silent) == b"without " + silent.name.encode()


def test_with_a_witness_either_goes_on_at_once_when_the_other_is_killed():
    with two_and_a_witness() as (first, second, _):
        put(first, b"begun")
        for victim, survivor in (first, second), (second, first):
            since = time.monotonic()
            victim.kill9()
            put(survivor, b"alone")
            assert time.monotonic() - since < KILLED_MAX_S
            victim.restart()
            until_whole([first, second], "n1,n2,w")
            assert held(victim) == b"alone"


def test_a_witness_that_dies_is_not_missed_and_comes_back():
    with two_and_a_witness() as (first, second, witness):
        put(first, b"begun")
        witness.kill9()
        put(first, b"without it")
        # Both others are needed now, but for a proven death.
        kill_and_go_on([second], first, b"alone")
        witness.start()
        wait_until(lambda: knows_witness(first), "the witness is met")
        until_whole([first, second], "n1,n2,w")
        second.freeze()
        put(first, b"with it")
        second.thaw()
        until_whole([first, second], "n1,n2,w")
