"""Clients that ask and never read: each costs the node a bounded amount of memory."""

import resource
import socket
from contextlib import ExitStack, contextmanager

import wire
from cluster import Node, ready
from talk import talk
from waiting import wait_until

CLIENTS = 1000
VALUE = b"x" * 50_000
SET_BIG = b"set big 0 0 %d\r\n%s\r\n" % (len(VALUE), VALUE)
# Ten megabytes of answers for each client, far more than all socket buffers take.
QUESTIONS = b"get big\r\n" * 200
# One write's worth of answers and the last value, which may have doubled its buffer.
BYTES_EACH = 256 << 10
# Longer than the one that speaks is kept from it while the others connect.
IDLE_S = 3


def written(node):
    answer = wire.ask(node.port, b"stats\r\n").decode()
    return int(answer.split("STAT bytes_written ")[1].split()[0])


def has_stopped_writing(node):
    """Between two looks only the answers to the looks themselves were written."""
    before = written(node)
    return written(node) - before < 10_000


@contextmanager
def clients_that_never_read(port, meanwhile=lambda: None):
    """They ask for more than all buffers hold, and wait."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * CLIENTS), hard))
    try:
        with ExitStack() as connections:
            for number in range(CLIENTS):
                connection = connections.enter_context(socket.socket())
                # A small window, or the kernel alone would take gigabytes for all of them.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 10)
                connection.connect(("127.0.0.1", port))
                connection.sendall(QUESTIONS)
                if number % 50 == 0:
                    meanwhile()
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_clients_that_never_read_cost_bounded_memory():
    node = Node("alone", group_flags=["-c", str(2 * CLIENTS)])
    with ready([node]):
        wire.ask(node.port, SET_BIG)
        before = node.resident_bytes()
        with clients_that_never_read(node.port):
            wait_until(lambda: has_stopped_writing(node), "the clients' buffers are full", 30.0)
            grown = node.resident_bytes() - before
            assert grown < CLIENTS * BYTES_EACH, f"{grown} bytes for {CLIENTS} clients"
            assert wire.ask(node.port, b"version\r\n").startswith(b"VERSION ")


def test_those_who_never_read_are_closed_as_idle_and_the_others_served():
    node = Node("alone", group_flags=["-c", str(2 * CLIENTS), "-o", f"idle_timeout={IDLE_S}"])
    with ready([node]), talk(node.port) as healthy:
        assert healthy.ask(SET_BIG) == b"STORED\r\n"
        before = node.resident_bytes()

        def are_all_closed():
            # On a busy machine each answer may take a while, but not longer than it waits for one.
            assert healthy.ask(b"set k 0 0 1\r\nx\r\n") == b"STORED\r\n"
            assert healthy.ask(b"get k\r\n", b"END\r\n") == b"VALUE k 0 1\r\nx\r\nEND\r\n"
            grown = node.resident_bytes() - before
            assert grown < CLIENTS * BYTES_EACH, f"{grown} bytes for {CLIENTS} clients"
            return healthy.stats()["idle_kicks"] == str(CLIENTS)

        with clients_that_never_read(node.port, meanwhile=are_all_closed):
            wait_until(are_all_closed, "all are closed but one", 30.0)
            alone = lambda: healthy.stats()["curr_connections"] == "1"
            wait_until(alone, "it is the only one left")
            assert healthy.stats()["rejected_connections"] == "0"
