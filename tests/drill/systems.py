"""What is drilled: three nodes of sessiond, three stock memcached, or a store that never dies.

All know the same verbs, as far as they make sense there.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import wire
from cluster import BINARY, Node
from ports import free_port
from processes import Program
from survivors import ctl
from waiting import wait_until

NAMES = ("n1", "n2", "n3")
PROXY = Path(__file__).with_name("proxy.py")
# A node that fell silent often waits longer each time before it may come back.
WHOLE_DEADLINE_S = 30.0


class System:
    """Servers, of which the first three are what clients and hosts see."""

    def __init__(self, nodes, helpers=()):
        self.nodes = nodes
        self.programs = [*helpers, *nodes]

    def wait_ready(self):
        for program in self.programs:
            program.wait_ready()

    @property
    def addresses(self):
        return [node.address for node in self.nodes]

    def kill(self, number):
        self.nodes[number].kill9()

    def start(self, number):
        """Brings one back that was killed or stopped."""
        self.nodes[number].start()
        self.wait_whole()

    def restart(self, number):
        """As an operator does who has read no guide, and stops and starts the service."""
        self.nodes[number].stop()
        self.start(number)

    def wait_whole(self):
        for node in self.nodes:
            node.wait_ready()

    def kept(self, keys):
        """Those that some living node still has, of which no user knows any more."""
        living = [node for node in self.nodes if node.is_running()]
        return set().union(*(_held(node, keys) for node in living))


class Sessiond(System):
    """A group, each node under its supervisor."""

    name = "sessiond"

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="sessiond-drill-")
        ports = {name: free_port() for name in NAMES}
        super().__init__([self._node(name, ports, self._ways(name, ports)) for name in NAMES])

    def _ways(self, _name, ports):
        """At which port the node reaches each peer."""
        return ports

    def _node(self, name, ports, ways):
        peers = ",".join(f"{peer}=127.0.0.1:{port}" for peer, port in ways.items())
        me = ["--node-name", name, "--peer-listen", f"127.0.0.1:{ports[name]}"]
        state = ["--state-dir", os.path.join(self._folder.name, name)]
        return SupervisedNode(name, ["--cluster", "drill", *me, "--peers", peers, *state])

    def wait_whole(self):
        """Until all are members and all vote: from then on one of them may go.

        A node that has just begun knows from its file who was in, and is no member itself yet.
        """
        names = ",".join(NAMES)
        wanted = {"state member", f"members {names}", f"log_voters {names}", "whole yes"}
        for node in self.nodes:
            wait_until(
                lambda node=node: wanted <= set(ctl(node, "status").stdout.splitlines()),
                f"{node.name} knows {names}",
                WHOLE_DEADLINE_S,
            )

    def freeze(self, number):
        self.nodes[number].freeze()

    def thaw(self, number):
        self.nodes[number].thaw()

    def planned_restart(self, number):
        """As the guide has it: the order returns when the node is a member again."""
        _run_ctl(self.nodes[number], "restart")
        self.wait_whole()

    def upgrade(self, number):
        """The same with another program, which is filled beside the present one."""
        node = self.nodes[number]
        self._replace_child(node, lambda: _run_ctl(node, "upgrade"))

    def crash(self, number):
        """Only the server dies; its supervisor starts it again. Returns when it is dead."""
        server = os.pidfd_open(self.nodes[number].child_pid())
        try:
            signal.pidfd_send_signal(server, signal.SIGKILL)
            dead, _, _ = select.select([server], [], [], WHOLE_DEADLINE_S)
            assert dead, f"{self.nodes[number].name} survives kill -9"
        finally:
            os.close(server)

    def _replace_child(self, node, order):
        old = node.child_pid()
        order()
        wait_until(lambda: _is_gone(old), f"{node.name}'s old server ends", WHOLE_DEADLINE_S)
        self.wait_whole()


class CableSessiond(Sessiond):
    """A group whose third node has its peers behind a cable that can be cut.

    Only for that: a cable also hides that a process is dead, and that its port refuses.
    """

    def __init__(self):
        self._pairs = []
        super().__init__()
        self._cable = Proxy("cable", self._pairs)
        self.programs.insert(0, self._cable)

    def cut_off(self):
        self._cable.freeze()

    def join_again(self):
        self._cable.thaw()

    def _ways(self, name, ports):
        return {peer: self._way(name, peer, port) for peer, port in ports.items()}

    def _way(self, name, peer, port):
        if name == peer or NAMES[-1] not in (name, peer):
            return port
        door = free_port()
        self._pairs.append(f"{door}:{port}")
        return door


class SupervisedNode(Node):
    """A supervisor and its server, which die and hang together: as a host does."""

    def __init__(self, name, group_flags):
        super().__init__(name, group_flags=["--supervise", *group_flags])

    def child_pid(self):
        answer = wire.ask(self.port, b"stats\r\n")
        return int(re.search(rb"STAT pid (\d+)", answer)[1])

    def kill9(self):
        os.killpg(self.pid, signal.SIGKILL)
        self.wait_exit()

    def freeze(self):
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self):
        os.killpg(self.pid, signal.SIGCONT)


class Memcached(System):
    """Three servers that know nothing of each other."""

    name = "memcached"

    def __init__(self):
        super().__init__([StockNode(f"memcached-{name}") for name in NAMES])

    def freeze(self, number):
        self.nodes[number].freeze()

    def thaw(self, number):
        self.nodes[number].thaw()

    def planned_restart(self, number):
        self.restart(number)

    def crash(self, number):
        """Its service manager starts it again."""
        self.nodes[number].kill9()
        self.nodes[number].start()


class Ideal(System):
    """One store behind three doors: replication without a fault and without a delay.

    What users lose here when a door shuts is the client's own doing; no server can mend that.
    """

    name = "ideal"

    def __init__(self):
        store = StockNode("store")
        doors = [Door(f"door-{name}", store) for name in NAMES]
        super().__init__(doors, [store])


class StockNode(Program):
    """Stock memcached."""

    def __init__(self, name):
        self.port = free_port()
        command = [memcached(), "-l", "127.0.0.1", "-p", self.port, "-m", "64", "-t", "2"]
        # It does not run as root.
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        super().__init__(name, [*command, *user])

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def wait_ready(self):
        wait_until(lambda: _answers(self), f"{self.name} answers", WHOLE_DEADLINE_S)


class Proxy(Program):
    """Carries connections; stopped, it is a cable that was cut."""

    def __init__(self, name, pairs):
        super().__init__(name, [sys.executable, PROXY, *pairs])

    def wait_ready(self):
        wait_until(lambda: "carrying" in self.output(), f"{self.name} carries", WHOLE_DEADLINE_S)

    def stop(self, stop_signal=signal.SIGKILL):
        """It has nothing to lose."""
        super().stop(stop_signal)
        return 0


class Door(Proxy):
    """One of several ways to one server."""

    def __init__(self, name, server):
        self.port = free_port()
        super().__init__(name, [f"{self.port}:{server.port}"])

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def wait_ready(self):
        wait_until(lambda: _answers(self), f"{self.name} is open", WHOLE_DEADLINE_S)


def memcached():
    return os.environ.get("MEMCACHED", "memcached")


def is_there(system):
    return issubclass(system, Sessiond) or shutil.which(memcached()) is not None


def versions(systems):
    """One line for each program that is drilled."""
    lines = [_printed(BINARY, "-V").splitlines()[-1]]
    if systems != [Sessiond]:
        lines.append(_printed(memcached(), "-V").strip())
    return lines


def _printed(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _run_ctl(node, order):
    answer = ctl(node, order, deadline_s=WHOLE_DEADLINE_S)
    if answer.returncode != 0:
        raise ChildProcessError(f"ctl {order} of {node.name}: {answer.stdout}{answer.stderr}")


def _answers(program):
    if not program.is_running():
        raise ChildProcessError(f"{program.name} ended: {program.output()}")
    try:
        return wire.ask(program.port, b"version\r\n").startswith(b"VERSION ")
    except OSError:
        return False


def _held(node, keys):
    gets = b"".join(b"get %s\r\n" % key.encode() for key in keys)
    found = re.findall(rb"VALUE (\S+) ", wire.ask(node.port, gets))
    return {key.decode() for key in found}


def _is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
