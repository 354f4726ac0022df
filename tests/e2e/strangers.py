"""Somebody on the port for peers who is no sessiond: the first messages, made by hand.

Written after docs/protocol-peer.md, so that what stands there is tested too.
"""

import hashlib
import hmac
import os
import socket
import ssl

PROTOCOL = 3
# One that no node knows of, too.
FEATURES = 1 << 40 | 1
HELLO, HELLO_OK, REFUSE, CHALLENGE, PROOF = 1, 2, 3, 8, 9
ITEM_MAX = 1 << 20
DEADLINE_S = 5.0

OF_DIALER = b"sessiond peers 1: who has dialed"
OF_HOST = b"sessiond peers 1: who was dialed"


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def text(word):
    return varint(len(word)) + word.encode()


def frame(kind, body):
    return (len(body) + 2).to_bytes(4, "little") + bytes([kind, 0]) + body


def hello(name, nodes=("n1", "n2", "n3"), cluster="e2e", versions=(PROTOCOL, PROTOCOL)):
    """Of a node that wants to speak on a control connection."""
    as_of_nothing, place = bytes(3), b"\0" + bytes([127, 0, 0, 1]) + varint(1) + b"\1\0"
    places = varint(len(nodes)) + b"".join(text(node) + place for node in sorted(nodes))
    speaks = b"".join(varint(version) for version in versions) + varint(FEATURES)
    life = varint(4711)
    no_former_lives, no_witness, control = varint(0), b"\0", varint(0)
    body = speaks + text(cluster) + text(name) + life
    body += as_of_nothing + places + varint(ITEM_MAX)
    return frame(HELLO, body + no_former_lives + no_witness + control)


class Stranger:
    """One connection to the port for peers of a node."""

    def __init__(self, port, certificates=None):
        self.socket = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
        if certificates is not None:
            self.socket = certificates.wrap_socket(self.socket)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def say(self, frames):
        self.socket.sendall(frames)

    def hear(self):
        """The kind and the whole of the next frame; None when the node has closed instead."""
        try:
            header = self._read(4)
            if header is None:
                return None
            rest = self._read(int.from_bytes(header, "little"))
            return None if rest is None else (rest[0], header + rest)
        except (ConnectionError, ssl.SSLError):
            return None

    def _read(self, length):
        got = b""
        while len(got) < length:
            piece = self.socket.recv(length - len(got))
            if not piece:
                return None
            got += piece
        return got


def trusting(folder, name=None):
    """TLS that believes whoever answers, and shows this node's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if name is not None:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


def introduce(stranger, name, secret):
    """Proves the secret, as a node would; returns all that was said, and the last answer."""
    mine = frame(CHALLENGE, os.urandom(32))
    stranger.say(mine)
    kind, theirs = stranger.hear()
    assert kind == CHALLENGE
    said = mine[6:] + theirs[6:] + hello(name)
    proof = frame(PROOF, sign(secret, OF_DIALER, said))
    stranger.say(hello(name) + proof)
    return said, mine + hello(name) + proof, stranger.hear()


def sign(secret, label, said):
    return hmac.new(secret, label + said, hashlib.sha256).digest()
