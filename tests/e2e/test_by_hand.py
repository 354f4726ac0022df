"""What somebody with a terminal sees: lines typed to a node, signals, exit codes."""

import signal
import socket

import pytest

import wire
from cluster import Node, cluster_of_three, single_node
from processes import running

SET_AND_GET = b"set a 0 60 1\r\nx\r\nget a\r\n"
STORED_AND_FOUND = b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"


def test_what_is_set_on_one_node_is_read_on_every_node():
    with cluster_of_three() as (first, second, third):
        assert wire.ask(first.port, SET_AND_GET) == STORED_AND_FOUND
        assert wire.ask(second.port, b"get a\r\n") == b"VALUE a 0 1\r\nx\r\nEND\r\n"
        assert wire.ask(third.port, b"delete a\r\n") == b"DELETED\r\n"
        assert wire.ask(first.port, b"get a\r\n") == b"END\r\n"


def test_a_single_node_needs_no_peers():
    with single_node() as node:
        assert wire.ask(node.port, SET_AND_GET) == STORED_AND_FOUND


def test_a_client_that_stops_sending_still_gets_its_answers():
    """`printf ... | nc -N` half-closes as soon as it has sent; the writes wait for the group."""
    with cluster_of_three() as (first, *_):
        with socket.create_connection(("127.0.0.1", first.port)) as connection:
            connection.sendall(SET_AND_GET)
            connection.shutdown(socket.SHUT_WR)
            assert wire.read_to_end(connection) == STORED_AND_FOUND


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_a_node_with_exit_code_0(stop_signal):
    with single_node() as node:
        assert node.stop(stop_signal) == 0


def test_a_group_that_is_stopped_node_by_node_ends_with_exit_code_0():
    with cluster_of_three() as nodes:
        assert [node.stop() for node in nodes] == [0, 0, 0]


def test_a_port_in_use_is_one_clear_line():
    with single_node() as node, running([Node("second", port=node.port)]) as (second,):
        assert second.wait_exit() != 0
        error_lines = [line for line in second.output().splitlines() if line.startswith("error:")]
        assert len(error_lines) == 1
        assert str(node.port) in error_lines[0]
        assert wire.ask(node.port, SET_AND_GET) == STORED_AND_FOUND, "the first one serves on"
