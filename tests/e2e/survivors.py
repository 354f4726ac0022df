"""What tests of groups that lose nodes ask of those that are left."""

import socket
import subprocess
from contextlib import contextmanager

import pytest
import wire
from cluster import BINARY
from waiting import wait_until

TWO = ("n1", "n2")

# A node that was started again is a member after about a second at most.
WHOLE_MAX_S = 10.0


def put(node, value):
    answer = wire.ask(node.port, b"set a 0 60 %d\r\n%s\r\n" % (len(value), value))
    assert answer == b"STORED\r\n", answer


def held(node):
    lines = wire.ask(node.port, b"get a\r\n").split(b"\r\n")
    return lines[1] if len(lines) > 2 else None


def state(node):
    return _replication(node)["state"]


def until_fenced(node, silent):
    """The other one is taken for silent, and without it nothing can be proven."""
    told = {"state": "fenced", f"peer:{silent.name}:up": "0"}.items()
    wait_until(lambda: told <= _replication(node).items(), f"{node.name} misses {silent.name}")


def _replication(node):
    lines = wire.ask(node.port, b"stats replication\r\n").decode().split("\r\n")
    return dict(line.split(" ", 2)[1:] for line in lines if line.startswith("STAT "))


def until_whole(nodes, voters=None):
    """All are members, and all (or these) vote: from then on one of them may die.

    A node that has just begun knows from its file who was in, and is no member itself yet.
    """
    names = ",".join(node.name for node in nodes)
    voters = voters or names
    of_member = {"state member", f"members {names}", "whole yes"}
    of_log = {f"log_voters {voters}", "log_changing 0"}
    for node in nodes:
        wanted = of_member | (of_log if node.name in voters.split(",") else set())
        wait_until(
            lambda node=node, wanted=wanted: wanted <= status(node),
            f"{node.name} knows {names}",
            WHOLE_MAX_S,
        )


def status(node):
    """The lines of `ctl status`; none while nobody answers."""
    return set(ctl(node, "status").stdout.splitlines())


def ctl(node, *order, deadline_s=30):
    command = [BINARY, "ctl", "--state-dir", node.state_directory(), *order]
    return subprocess.run(command, capture_output=True, text=True, timeout=deadline_s)


@contextmanager
def asked(node, line):
    """A client that has asked and waits for its answer."""
    with socket.create_connection(("127.0.0.1", node.port), wire.ANSWER_DEADLINE_S) as client:
        client.sendall(line)
        yield client


def assert_silent_for(client, silent_s):
    deadline_s = client.gettimeout()
    client.settimeout(silent_s)
    with pytest.raises(TimeoutError):
        raise AssertionError(f"an answer: {client.recv(100)!r}")
    client.settimeout(deadline_s)
