"""Real sessiond processes on loopback: one alone, or a group of three."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import wire
from ports import free_port
from processes import Program, running
from waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("SESSIOND", REPOSITORY / "target/release/sessiond")).resolve()

# Nodes wait about two seconds for a late one before they found their group; the rest is for a
# busy machine.
READY_DEADLINE_S = 20.0


class Sessiond(Program):
    """One sessiond of a group, or alone."""

    def state_directory(self):
        return self.command[self.command.index("--state-dir") + 1]


class Node(Sessiond):
    """One sessiond with its ports."""

    def __init__(self, name="alone", port=None, group_flags=()):
        self.port = port or free_port()
        command = [BINARY, "-l", "127.0.0.1", "-p", self.port, "-m", "64", "-t", "2", "-v"]
        super().__init__(name, [*command, *group_flags])

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def wait_ready(self):
        """Until it is a member of its group, or serves alone: it holds everything."""
        wait_until(self._is_member, f"{self.name} is a member", READY_DEADLINE_S)

    def wait_open(self):
        """Until it lets clients in, whether it can answer them or not."""
        wait_until(self._answers, f"{self.name} lets clients in", READY_DEADLINE_S)

    def restart(self):
        """Comes back under its old name and ports, with empty memory."""
        self.start()
        self.wait_ready()

    def _is_member(self):
        return b"STAT state member\r\n" in self._asked(b"stats replication\r\n")

    def _answers(self):
        return self._asked(b"version\r\n").startswith(b"VERSION ")

    def _asked(self, line):
        if not self.is_running():
            raise ChildProcessError(f"{self.name} ended while starting: {self.output()}")
        try:
            return wire.ask(self.port, line)
        except OSError:
            return b""


class Witness(Sessiond):
    """One sessiond that only votes."""

    def __init__(self, name, group_flags):
        super().__init__(name, [BINARY, "-v", "--witness", *group_flags])


@contextmanager
def single_node():
    """A node that was told of no peers."""
    with ready([Node()]) as (node,):
        yield node


@contextmanager
def cluster_of_three():
    """Yields three nodes that form one group and serve clients."""
    with ready(new_group()) as nodes:
        yield nodes


@contextmanager
def ready(nodes):
    with running(nodes):
        for node in nodes:
            node.wait_ready()
        yield nodes


def new_group(more_flags=(), names=("n1", "n2", "n3"), witness=None, cluster="e2e"):
    """The nodes of a group, not started. One of them may be a witness."""
    peer_addresses = {name: f"127.0.0.1:{free_port()}" for name in names}
    folder = tempfile.TemporaryDirectory(prefix="sessiond-e2e-")
    nodes = []
    for name in names:
        state = ["--state-dir", os.path.join(folder.name, name)]
        flags = [*_group_flags(cluster, name, peer_addresses), *state, *more_flags]
        nodes.append(Witness(name, flags) if name == witness else Node(name, group_flags=flags))
        # It goes when the nodes do.
        nodes[-1].state_folder = folder
    return nodes


def _group_flags(cluster, name, peer_addresses):
    peers = ",".join(f"{peer}={address}" for peer, address in peer_addresses.items())
    me = ["--node-name", name, "--peer-listen", peer_addresses[name]]
    return ["--cluster", cluster, *me, "--peers", peers]
