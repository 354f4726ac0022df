"""A node that comes back empty has everything before it answers anybody."""

import re
import socket
import threading

import wire
from cluster import READY_DEADLINE_S, cluster_of_three
from waiting import wait_until

ITEMS = 5000
VALUE = b"x" * 1000


def test_the_first_answers_of_a_restarted_node_are_complete():
    with cluster_of_three() as (first, second, third):
        keys = [b"key%d" % number for number in range(ITEMS)]
        stored = wire.ask(first.port, b"".join(map(set_line, keys)))
        assert stored.count(b"STORED\r\n") == ITEMS
        third.kill9()
        third.start()
        gets = b"".join(b"get %s\r\n" % key for key in keys)
        # Asked as soon as it accepts anybody, not when a friendly poll has found it ready.
        answers = wait_until(lambda: ask_if_open(third, gets), "the node opens", READY_DEADLINE_S)
        assert answers.count(b"VALUE ") == ITEMS


class Writer(threading.Thread):
    """Sets one key after the other to a growing number; `confirmed` is what a node has stored."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node = node
        self.confirmed = {}
        self.surprise = None
        self.is_leaving = False

    def run(self):
        with socket.create_connection(("127.0.0.1", self.node.port), 10) as connection:
            number = 0
            while not self.is_leaving and self.surprise is None:
                key = b"%s-%d" % (self.node.name.encode(), number % 500)
                connection.sendall(set_line(key, b"%d" % number))
                answer = connection.recv(100)
                if answer == b"STORED\r\n":
                    self.confirmed[key] = number
                else:
                    self.surprise = f"set {key!r}: {answer!r}"
                number += 1


def test_writes_confirmed_while_a_node_restarts_are_on_every_node():
    with cluster_of_three() as (first, second, third):
        writers = [Writer(first), Writer(second)]
        for writer in writers:
            writer.start()
        for _ in range(3):
            third.kill9()
            third.restart()
        for writer in writers:
            writer.is_leaving = True
            writer.join()
        assert [writer.surprise for writer in writers] == [None, None]
        for writer in writers:
            for node in (first, second, third):
                assert values(node, writer.confirmed) == writer.confirmed


def set_line(key, value=VALUE):
    return b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value)


def ask_if_open(node, lines):
    assert node.is_running(), node.output()
    try:
        return wire.ask(node.port, lines)
    except ConnectionRefusedError:
        return None


def values(node, keys):
    """What the node holds under these keys, as numbers."""
    answers = wire.ask(node.port, b"".join(b"get %s\r\n" % key for key in keys))
    found = re.findall(rb"VALUE (\S+) 0 \d+\r\n(\d+)\r\n", answers)
    return {key: int(value) for key, value in found}
