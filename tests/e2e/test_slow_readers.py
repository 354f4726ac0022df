"""Clients that ask and never read: each costs the node a bounded amount of memory."""

import resource
import socket
from contextlib import ExitStack

import wire
from cluster import Node, ready
from waiting import wait_until

CLIENTS = 1000
VALUE = b"x" * 50_000
# Ten megabytes of answers for each client, far more than all socket buffers take.
QUESTIONS = b"get big\r\n" * 200
# One write's worth of answers and the last value, which may have doubled its buffer.
BYTES_EACH = 256 << 10


def resident_bytes(node):
    with open(f"/proc/{node.pid}/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def written(node):
    answer = wire.ask(node.port, b"stats\r\n").decode()
    return int(answer.split("STAT bytes_written ")[1].split()[0])


def has_stopped_writing(node):
    """Between two looks only the answers to the looks themselves were written."""
    before = written(node)
    return written(node) - before < 10_000


def test_a_thousand_clients_that_never_read_cost_bounded_memory():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * CLIENTS), hard))
    node = Node("alone", group_flags=["-c", str(2 * CLIENTS)])
    try:
        with ready([node]), ExitStack() as connections:
            wire.ask(node.port, b"set big 0 0 %d\r\n%s\r\n" % (len(VALUE), VALUE))
            before = resident_bytes(node)
            for _ in range(CLIENTS):
                connection = connections.enter_context(socket.socket())
                # A small window, or the kernel alone would take gigabytes for all of them.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 10)
                connection.connect(("127.0.0.1", node.port))
                connection.sendall(QUESTIONS)
            wait_until(lambda: has_stopped_writing(node), "the clients' buffers are full", 30.0)
            grown = resident_bytes(node) - before
            assert grown < CLIENTS * BYTES_EACH, f"{grown} bytes for {CLIENTS} clients"
            assert wire.ask(node.port, b"version\r\n").startswith(b"VERSION ")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
