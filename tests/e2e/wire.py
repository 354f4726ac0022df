"""Speaks to a node as telnet would: bytes out, bytes back, no client library in between."""

import socket

ANSWER_DEADLINE_S = 10.0


def ask(port, lines, address="127.0.0.1"):
    """Sends the lines and `quit`, and returns all that comes back until the node closes."""
    with socket.create_connection((address, port), ANSWER_DEADLINE_S) as connection:
        connection.sendall(lines + b"quit\r\n")
        return read_to_end(connection)


def receive(connection, length):
    """As many bytes as are expected, or fewer when the node closes."""
    received = bytearray()
    while len(received) < length and (piece := connection.recv(length - len(received))):
        received += piece
    return bytes(received)


def read_to_end(connection):
    connection.settimeout(ANSWER_DEADLINE_S)
    received = bytearray()
    while piece := connection.recv(65536):
        received += piece
    return bytes(received)


def holds(port, key):
    """Whether the node has the key, as the node itself says."""
    answer = ask(port, b"get " + key.encode() + b"\r\n")
    assert answer.endswith(b"END\r\n"), f"unexpected answer to get: {answer[:80]!r}"
    return answer.startswith(b"VALUE ")


def is_refused(port, address="127.0.0.1"):
    try:
        with socket.create_connection((address, port), ANSWER_DEADLINE_S):
            return False
    except ConnectionRefusedError:
        return True
