"""Nodes that come and go: what clients of the others notice, and what a lone node does."""

import socket
import threading
import time

import wire
from cluster import cluster_of_three, new_group
from processes import running
from waiting import wait_until

SET = b"set a 0 60 1\r\nx\r\n"
FOUND = b"VALUE a 0 1\r\nx\r\nEND\r\n"

# A killed process is noticed in milliseconds, and one that led is replaced in some 150 ms. Silence
# would cost more than a second, and must not be what is waited for.
KILL_STALL_MAX_S = 0.9
# Each key several times.
WRITES = 500


class Writer(threading.Thread):
    """Sets keys one after the other, and keeps the longest time that one took."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.port = node.port
        self.longest_s = 0.0
        self.written = 0
        self.answers = set()
        self.is_leaving = False

    def run(self):
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            while not self.is_leaving:
                since = time.monotonic()
                connection.sendall(b"set key%d 0 60 1\r\nx\r\n" % (self.written % 100))
                self.answers.add(connection.recv(100))
                self.longest_s = max(self.longest_s, time.monotonic() - since)
                self.written += 1

    def write_more(self):
        enough = self.written + WRITES
        wait_until(lambda: self.written > enough, "writes go on")


def test_writes_go_on_at_once_after_a_process_is_killed():
    with cluster_of_three() as nodes:
        for victim in nodes[2], nodes[0]:
            writers = [Writer(node) for node in nodes if node is not victim]
            for writer in writers:
                writer.start()
            for writer in writers:
                writer.write_more()
            victim.kill9()
            for writer in writers:
                # Of all keys, so of those that the dead one owned as well.
                writer.write_more()
                writer.is_leaving = True
                writer.join()
            assert [writer.answers for writer in writers] == [{b"STORED\r\n"}] * 2
            longest_s = max(writer.longest_s for writer in writers)
            assert longest_s < KILL_STALL_MAX_S, f"{victim.name} killed: {longest_s:.3f} s"
            victim.restart()


def test_a_lone_node_holds_commands_until_a_majority_is_there():
    first, second, _ = new_group()
    with running([first]), socket.create_connection(("127.0.0.1", open_port(first))) as client:
        client.sendall(SET)
        client.settimeout(0.5)
        try:
            assert False, f"answered by a node that knows nothing: {client.recv(100)!r}"
        except TimeoutError:
            pass
        with running([second]):
            client.settimeout(wire.ANSWER_DEADLINE_S)
            assert client.recv(100) == b"STORED\r\n"
            second.wait_ready()
            assert wire.ask(second.port, b"get a\r\n") == FOUND


def test_a_command_that_nobody_can_answer_ends_with_a_reset():
    (first, *_) = new_group(["--hold-timeout", "300"])
    with running([first]), socket.create_connection(("127.0.0.1", open_port(first))) as client:
        client.settimeout(wire.ANSWER_DEADLINE_S)
        client.sendall(SET)
        try:
            assert False, f"no error, but {client.recv(100)!r}"
        except ConnectionResetError:
            pass


def test_a_whole_group_that_was_killed_begins_anew():
    with cluster_of_three() as nodes:
        assert wire.ask(nodes[0].port, SET) == b"STORED\r\n"
        for node in nodes:
            node.kill9()
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait_ready()
        assert wire.ask(nodes[1].port, b"get a\r\n") == b"END\r\n"
        assert wire.ask(nodes[1].port, SET + b"get a\r\n") == b"STORED\r\n" + FOUND


def test_a_state_directory_of_another_process_is_one_clear_line():
    with cluster_of_three() as (first, *_):
        (thief, *_) = new_group()
        thief.command[thief.command.index("--state-dir") + 1] = first.state_directory()
        with running([thief]):
            assert thief.wait_exit() != 0
        error_lines = [line for line in thief.output().splitlines() if line.startswith("error:")]
        assert len(error_lines) == 1
        assert "--state-dir" in error_lines[0] and "in use" in error_lines[0]


def open_port(node):
    """Of a node that lets clients in, as one does that has no part in its group yet."""
    node.wait_open()
    return node.port
