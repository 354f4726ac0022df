"""Where the clients go: one node, or a group of three, for as long as the clients take turns.

Starts stock memcached just as well, alone.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import wire
from ports import free_port
from processes import Program
from waiting import wait_until

# A node waits about two seconds for a late peer, then pulls; the rest is for a busy machine.
READY_DEADLINE_S = 20.0


class Setup:
    """One node, or three that form a group."""

    def __init__(self, binary, size):
        self.name = "one node" if size == 1 else "group"
        self._new_nodes = lambda: _nodes(binary, size)
        self._nodes = []

    def __enter__(self):
        self._start()
        return self

    def __exit__(self, *_):
        self._end()

    @property
    def addresses(self):
        """Of the node that is written to, and of the node that is read through."""
        addresses = [node.address for node in self._nodes]
        return [addresses[0], addresses[1 % len(addresses)]]

    def ended(self):
        """What the nodes printed that are no longer there; empty while all run."""
        gone = [node for node in self._nodes if not node.is_running()]
        return "".join(f"{node.name} ended and had printed:\n{node.output()}" for node in gone)

    def start_anew(self):
        """For the next client, which must not suffer for what the last one did."""
        self._end()
        self._start()

    def _start(self):
        self._nodes = self._new_nodes()
        try:
            for node in self._nodes:
                node.start()
            for node in self._nodes:
                node.wait_ready()
        except BaseException:
            self._end()
            raise

    def _end(self):
        for node in self._nodes:
            node.end()


class Node(Program):
    """One server with its port."""

    def __init__(self, name, binary, group_flags=()):
        self.port = free_port()
        command = [binary, "-l", "127.0.0.1", "-p", self.port, "-m", "64", "-t", "2"]
        # Stock memcached does not run as root.
        user = ["-u", "nobody"] if binary.name == "memcached" and os.geteuid() == 0 else []
        super().__init__(name, [*command, *user, *group_flags])

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def wait_ready(self):
        wait_until(self._answers, f"{self.name} answers clients", READY_DEADLINE_S)

    def _answers(self):
        if not self.is_running():
            raise ChildProcessError(f"{self.name} ended while starting: {self.output()}")
        try:
            return wire.ask(self.port, b"version\r\n").startswith(b"VERSION ")
        except OSError:
            return False


def _nodes(binary, size):
    if size == 1:
        return [Node("alone", binary)]
    peers = {f"n{number}": f"127.0.0.1:{free_port()}" for number in range(1, size + 1)}
    return [Node(name, binary, _group_flags(name, peers)) for name in peers]


def _group_flags(name, peer_addresses):
    peers = ",".join(f"{peer}={address}" for peer, address in peer_addresses.items())
    me = ["--node-name", name, "--peer-listen", peer_addresses[name]]
    return ["--cluster", "clients", *me, "--peers", peers]
