"""A server that ends and comes back, and clients that do not notice: nobody is refused, reset or
answered with an error, whether they connect for each request or stay connected."""

import os
import re
import signal
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest

import wire
from cluster import BINARY, READY_DEADLINE_S, Node, new_group, ready
from ports import free_port
from processes import Program, running
from survivors import ctl, status, until_whole
from waiting import wait_until

# Longer than any pause that is allowed, so that a client that is not answered shows as one.
ANSWER_DEADLINE_S = 15.0
# Between two commands of a client that stays connected: there it can go over to the next server.
REST_S = 0.02


class Client(threading.Thread):
    """Writes and reads a key of its own until told to stop, and keeps what went wrong."""

    def __init__(self, port, number):
        super().__init__(daemon=True)
        self.port = port
        self.key = b"client-%d" % number
        self.requests = 0
        self.longest_s = 0.0
        self.surprises = []
        self.is_leaving = threading.Event()

    def leave(self):
        self.is_leaving.set()
        self.join(2 * ANSWER_DEADLINE_S)
        assert not self.is_alive(), f"{self.key} hangs"

    def stored_and_read(self, connection):
        began = time.monotonic()
        value = b"%d" % self.requests
        self.expect(connection, b"set %s 0 60 %d\r\n%s\r\n" % (self.key, len(value), value), b"STORED\r\n")
        self.expect(
            connection,
            b"get %s\r\n" % self.key,
            b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (self.key, len(value), value),
        )
        self.requests += 1
        self.longest_s = max(self.longest_s, time.monotonic() - began)

    def expect(self, connection, command, answer):
        connection.sendall(command)
        heard = b""
        while len(heard) < len(answer):
            piece = connection.recv(4096)
            if not piece:
                raise EOFError("closed")
            heard += piece
        assert heard == answer, f"{command!r}: {heard!r}"

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), ANSWER_DEADLINE_S)


class PerRequest(Client):
    """As Django does: connects, works, closes."""

    def run(self):
        while not self.is_leaving.is_set():
            try:
                with self.connect() as connection:
                    self.stored_and_read(connection)
            except (OSError, EOFError, AssertionError) as surprise:
                self.surprises.append(repr(surprise))


class KeepAlive(Client):
    """Stays connected; works now and then, unlike one that is idle."""

    def run(self):
        try:
            with self.connect() as connection:
                while not self.is_leaving.wait(REST_S):
                    self.stored_and_read(connection)
        except (OSError, EOFError, AssertionError) as surprise:
            self.surprises.append(repr(surprise))


@contextmanager
def under_load(clients):
    """Runs clients, and says that nothing has surprised them."""
    for client in clients:
        client.start()
    wait_until(lambda: all(client.requests for client in clients), "clients work")
    try:
        yield
        done = [client.requests for client in clients]
        wait_until(
            lambda: all(
                client.surprises or client.requests > before
                for client, before in zip(clients, done)
            ),
            "clients work on",
        )
    finally:
        for client in clients:
            client.leave()
    assert [client.surprises for client in clients if client.surprises] == []


def supervised_group(more_flags=()):
    return new_group(["--supervise", *more_flags])


def server_pid(supervisor):
    """The child of a supervisor."""
    children = f"/proc/{supervisor.pid}/task/{supervisor.pid}/children"
    with open(children, encoding="ascii") as pids:
        found = pids.read().split()
    return int(found[0]) if len(found) == 1 else None


def replaced_by(node, order):
    """Returns when another process serves, as the order does: a restart, or an upgrade."""
    before = server_pid(node)
    said = ctl(node, order, deadline_s=60)
    assert said.returncode == 0, said.stderr
    # Nothing is waited for: that is what the order does.
    assert said.stdout.startswith(f"{node.name} is a member again after "), said.stdout
    assert server_pid(node) not in (None, before)


def restart(node):
    replaced_by(node, "restart")
    assert {"state member", "whole yes"} <= status(node)


def has_begun_anew(node, before):
    wait_until(lambda: server_pid(node) not in (None, before), "another process serves", 40.0)
    node.wait_ready()


def longest(clients):
    return f"longest request {max(client.longest_s for client in clients) * 1000:.0f} ms"


def test_a_server_that_dies_is_back_at_once_and_knows_everything(figure):
    with ready(supervised_group()) as nodes:
        first = nodes[0]
        clients = [PerRequest(node.port, number) for number, node in enumerate(nodes[1:])]
        with under_load(clients):
            assert wire.ask(first.port, b"set a 0 60 1\r\nx\r\n") == b"STORED\r\n"
            before = server_pid(first)
            os.kill(before, signal.SIGKILL)
            began = time.monotonic()
            # Whoever comes now waits in the queue of the socket, and is answered through the others.
            assert wire.ask(first.port, b"get a\r\n") == b"VALUE a 0 1\r\nx\r\nEND\r\n"
            figure(f"killed server: answers again after {(time.monotonic() - began) * 1000:.0f} ms")
            has_begun_anew(first, before)
            assert "died: starting it again" in first.output()


@pytest.mark.parametrize("kind", [PerRequest, KeepAlive])
def test_nobody_notices_a_restart_of_all_nodes_one_after_the_other(kind, figure):
    with ready(supervised_group()) as nodes:
        clients = [kind(node.port, number) for number, node in enumerate(nodes * 2)]
        with under_load(clients):
            for node in nodes:
                restart(node)
        figure(f"rolling restart, {kind.__name__}: {longest(clients)}")


def test_the_others_hardly_notice_a_member_that_leaves(figure):
    with ready(new_group()) as (first, second, third):
        clients = [KeepAlive(second.port, 0), KeepAlive(third.port, 1)]
        with under_load(clients):
            assert first.stop() == 0
        # A grant is 800 ms: it is not waited for.
        assert max(client.longest_s for client in clients) < 0.5
        figure(f"a member leaves: {longest(clients)}")


def test_a_client_that_stays_is_served_until_the_time_is_over_and_closed_in_order():
    with ready([Node(group_flags=["--drain-timeout", "1500"])]) as (node,):
        with socket.create_connection(("127.0.0.1", node.port), 10) as connection:
            connection.sendall(b"set a 0 0 1\r\nx\r\n")
            assert connection.recv(100) == b"STORED\r\n"
            os.kill(node.pid, signal.SIGTERM)
            began = time.monotonic()
            while time.monotonic() - began < 1.0:
                connection.sendall(b"get a\r\n")
                assert connection.recv(100) == b"VALUE a 0 1\r\nx\r\nEND\r\n"
            assert connection.recv(100) == b"", "closed in order"
            assert node.wait_exit() == 0
            assert 1.3 < time.monotonic() - began < 5


def test_clients_that_relay_through_a_leaving_node_lose_nothing():
    with ready(new_group(["--drain-timeout", "5000"])) as (first, second, third):
        with socket.create_connection(("127.0.0.1", first.port), 10) as connection:
            os.kill(first.pid, signal.SIGTERM)
            wait_until(lambda: "cause=leave" in first.output(), "the others do without it")
            for number in range(200):
                connection.sendall(b"set k%d 0 60 1\r\nx\r\nget k%d\r\n" % (number, number))
                answer = b"STORED\r\nVALUE k%d 0 1\r\nx\r\nEND\r\n" % number
                assert wire.receive(connection, len(answer)) == answer
        assert first.wait_exit() == 0
        keys = b"".join(b"get k%d\r\n" % number for number in range(200))
        assert wire.ask(second.port, keys).count(b"VALUE ") == 200


# Sockets that are handed over.


def listening_socket(port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(1024)
    return listener


class Activated(Program):
    """A server that is started as systemd would: with sockets, from descriptor 3 on."""

    def __init__(self, sockets, count=None, flags=()):
        numbers = " ".join(f"{3 + n}<&{one.fileno()}" for n, one in enumerate(sockets))
        count = len(sockets) if count is None else count
        names = ":".join(f"socket{n}" for n in range(len(sockets)))
        environment = f"LISTEN_FDS={count} LISTEN_PID=$$ LISTEN_FDNAMES={names}"
        script = f'export {environment}; exec "$0" "$@" {numbers}'
        super().__init__("activated", ["bash", "-c", script, BINARY, "-m", "16", *flags])
        self.sockets = [one.fileno() for one in sockets]

    def start(self):
        for number in self.sockets:
            os.set_inheritable(number, True)
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=self.sockets,
            start_new_session=True,
        )


def test_sockets_of_systemd_are_served_and_outlive_the_server(tmp_path):
    port = free_port()
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "socket"))
    unix.listen(16)
    with listening_socket(port) as tcp, unix:
        server = Activated([tcp, unix])
        for _ in range(2):
            with running([server]):
                assert wire.ask(port, b"set a 0 0 1\r\nx\r\n") == b"STORED\r\n"
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(tmp_path / "socket"))
                    client.sendall(b"get a\r\n")
                    assert client.recv(100) == b"VALUE a 0 1\r\nx\r\nEND\r\n"
            # Nobody serves, and nobody is refused.
            socket.create_connection(("127.0.0.1", port), 5).close()


@pytest.mark.parametrize("more", [[], ["--supervise"]], ids=["server", "supervisor"])
def test_nobody_notices_that_systemd_restarts_the_whole_service(more, figure):
    nodes = new_group(["--drain-timeout", "3000"])
    port = free_port()

    def is_member():
        return b"STAT state member\r\n" in wire.ask(port, b"stats replication\r\n")

    with listening_socket(port) as held, running(nodes[1:]):
        service = Activated([held], flags=[*nodes[0].command[1:], *more])
        with running([service]):
            wait_until(is_member, "it is a member", READY_DEADLINE_S)
            clients = [PerRequest(port, number) for number in range(4)]
            with under_load(clients):
                for _ in range(2):
                    assert service.stop() == 0
                    service.start()
                    wait_until(is_member, "it is a member", READY_DEADLINE_S)
    figure(f"restart by systemd: {longest(clients)}")


def test_what_is_handed_over_wrongly_is_one_line():
    port = free_port()
    with socket.socket() as idle:
        idle.bind(("127.0.0.1", port))
        cases = [
            (Activated([idle]), "descriptor 3: it does not listen"),
            (Activated([idle], count=3), "LISTEN_FDS: descriptor 3"),
            (Activated([], count="many"), "LISTEN_FDS=many: expected how many"),
        ]
        for server, expected in cases:
            with running([server]):
                assert server.wait_exit() == 71
                (line,) = [line for line in server.output().splitlines() if "WARN" not in line]
                assert line.startswith("error: LISTEN_FDS") and expected in line


# The supervisor.


@pytest.fixture
def supervised():
    with ready([Node(group_flags=["--supervise", "--drain-timeout", "2000"])]) as (node,):
        yield node


def test_a_second_supervisor_on_the_same_port_is_one_line_and_disturbs_nobody(supervised):
    second = Node("second", port=supervised.port, group_flags=["--supervise"])
    with running([second]):
        assert second.wait_exit() == 71
        (line,) = [line for line in second.output().splitlines() if "WARN" not in line]
        assert line.startswith("error:") and str(supervised.port) in line
    assert wire.ask(supervised.port, b"version\r\n").startswith(b"VERSION")


def test_a_server_that_can_not_start_ends_its_supervisor(tmp_path):
    flags = ["--supervise", "-Y", str(tmp_path / "nothing")]
    with running([Node(group_flags=flags)]) as (node,):
        assert node.wait_exit() == 71
        assert node.output().count("error:") == 1


def test_a_server_that_keeps_dying_is_started_less_and_less_often(supervised):
    for pause_s in (0, 0.1, 0.2, 0.4, 0.8, 1.6):
        before, killed_at = server_pid(supervised), time.monotonic()
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: server_pid(supervised) not in (None, before), "the next one")
        assert time.monotonic() - killed_at >= pause_s
    assert wire.ask(supervised.port, b"version\r\n").startswith(b"VERSION")


def test_the_end_of_the_supervisor_is_the_end_of_the_server(supervised):
    supervised.kill9()
    wait_until(lambda: wire.is_refused(supervised.port), "the server ends")
    assert "stopping" in supervised.output()


def test_the_pid_file_holds_the_supervisor_and_stats_the_server(tmp_path):
    path = tmp_path / "pid"
    with ready([Node(group_flags=["--supervise", "-P", str(path)])]) as (node,):
        assert int(path.read_text()) == node.pid
        (pid,) = re.findall(rb"STAT pid (\d+)", wire.ask(node.port, b"stats\r\n"))
        assert int(pid) == server_pid(node)


def test_clients_go_over_with_their_login_and_others_are_let_go(tmp_path):
    (tmp_path / "users").write_text("foo:bar\n")
    login = b"set x 0 0 7\r\nfoo bar\r\n"
    flags = ["--supervise", "-Y", str(tmp_path / "users")]
    with running([Node(group_flags=flags)]) as (node,):
        wait_until(lambda: not wire.is_refused(node.port), "clients are let in")
        before = server_pid(node)
        with ExitStack() as stack:
            connect = lambda: stack.enter_context(socket.create_connection(("127.0.0.1", node.port), 10))
            known, unknown, listener, half = connect(), connect(), connect(), connect()
            for client in (known, listener, half):
                client.sendall(login)
                assert client.recv(100) == b"STORED\r\n"
            listener.sendall(b"watch fetchers\r\n")
            assert listener.recv(100) == b"OK\r\n"
            half.sendall(b"set half 0 0 1\r\n")
            os.kill(node.pid, signal.SIGUSR2)
            assert listener.recv(100) == b"", "closed in order"
            assert half.recv(100) == b"", "closed in order"
            known.sendall(b"set a 0 0 1\r\nx\r\nget a\r\n")
            expected = b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"
            assert wire.receive(known, len(expected)) == expected
            assert server_pid(node) != before
            unknown.sendall(b"get a\r\n")
            assert unknown.recv(100) == b"CLIENT_ERROR unauthenticated\r\n"


def test_clients_of_a_unix_socket_go_over_too(tmp_path):
    path = tmp_path / "socket"
    command = [BINARY, "--supervise", "-s", str(path), "-m", "16", "-v"]
    with running([Program("unix", command)]) as (node,), socket.socket(socket.AF_UNIX) as client:
        wait_until(path.exists, "the socket is there")
        client.settimeout(10)
        client.connect(str(path))
        pids = set()
        for _ in range(3):
            client.sendall(b"stats\r\n")
            answer = b""
            while not answer.endswith(b"END\r\n"):
                answer += client.recv(65536)
            pids.add(re.search(rb"STAT pid (\d+)", answer)[1])
            os.kill(node.pid, signal.SIGUSR2)
            wait_until(lambda: str(server_pid(node)).encode() not in pids | {b"None"}, "another one serves")
        assert len(pids) == 3


# Another program, after the present one has ended; beside it: test_upgrades.py.


@pytest.fixture
def replaceable(tmp_path):
    """A group whose first node runs from a file of its own."""
    more = ["--drain-timeout", "3000", "--upgrade-timeout", "3000", "--upgrade", "restart"]
    nodes = supervised_group(more)
    program = own_program(nodes[0], tmp_path)
    with ready(nodes):
        yield nodes, program


def own_program(node, folder):
    program = folder / "sessiond"
    replace(program, BINARY.read_bytes())
    node.command[0] = str(program)
    return program


def replace(program, content):
    """As a package does: another file takes its place."""
    draft = program.with_suffix(".new")
    draft.write_bytes(content)
    draft.chmod(0o755)
    draft.rename(program)


def test_nobody_notices_an_upgrade(replaceable, figure):
    nodes, program = replaceable
    clients = [PerRequest(node.port, number) for number, node in enumerate(nodes * 2)]
    with under_load(clients):
        before = server_pid(nodes[0])
        replace(program, BINARY.read_bytes())
        said = ctl(nodes[0], "upgrade", deadline_s=60)
        assert said.returncode == 0, said.stderr
        assert server_pid(nodes[0]) not in (None, before)
        assert "state member" in status(nodes[0])
    figure(f"upgrade: {longest(clients)}")


@pytest.mark.parametrize(
    "content",
    [b"no program", b"#!/bin/sh\nexit 3\n", b"#!/bin/sh\necho error: no >&2; exit 64\n"],
)
def test_a_new_program_that_can_not_be_run_disturbs_nobody(replaceable, content):
    nodes, program = replaceable
    clients = [PerRequest(node.port, number) for number, node in enumerate(nodes)]
    with under_load(clients):
        before = server_pid(nodes[0])
        replace(program, content)
        os.kill(nodes[0].pid, signal.SIGUSR2)
        wait_until(lambda: "not upgraded: the new program" in nodes[0].output(), "it is refused")
        assert server_pid(nodes[0]) == before
        os.unlink(program)
        os.kill(nodes[0].pid, signal.SIGUSR2)
        wait_until(lambda: nodes[0].output().count("not upgraded") == 2, "it is refused")
        # Whoever waits for it is told.
        said = ctl(nodes[0], "upgrade")
        assert said.returncode == 1
        assert said.stderr == "error: not upgraded: the former program goes on; its log says why\n"
        assert server_pid(nodes[0]) == before


# It takes the command line, and then it fails.
DIES = b"#!/bin/sh\ncase \"$*\" in *--check*) exit 0;; esac\nexit 1\n"
HANGS = b"#!/bin/sh\ncase \"$*\" in *--check*) exit 0;; esac\nexec sleep 60\n"
with_one_that_fails = pytest.mark.parametrize("content", [DIES, HANGS], ids=["dies", "hangs"])


@with_one_that_fails
def test_a_new_program_that_does_not_get_to_serve_gives_way_to_the_former_one(replaceable, content):
    nodes, program = replaceable
    clients = [kind(nodes[0].port, number) for number, kind in enumerate((PerRequest, KeepAlive))]
    with under_load(clients):
        before = server_pid(nodes[0])
        replace(program, content)
        said = ctl(nodes[0], "upgrade", deadline_s=60)
        assert said.returncode == 1
        assert "not upgraded: the former program serves again" in said.stderr
        assert "the former one begins again" in nodes[0].output()
        assert server_pid(nodes[0]) not in (None, before)
        assert "state member" in status(nodes[0])
        # And after a crash too, as the program that is there is known to be no good.
        before = server_pid(nodes[0])
        clients.pop().leave()
        clients.pop().leave()
        os.kill(before, signal.SIGKILL)
        has_begun_anew(nodes[0], before)


def test_whoever_waits_for_a_restart_is_told_when_it_takes_too_long():
    with ready(supervised_group()) as nodes:
        first, *others = nodes
        until_whole(nodes)
        before = server_pid(first)
        # Without them nobody lets the old server go, nor the new one in.
        servers = [server_pid(other) for other in others]
        for server in servers:
            os.kill(server, signal.SIGSTOP)
        said = ctl(first, "restart", "--timeout", "300")
        assert said.returncode == 1 and said.stdout == ""
        assert said.stderr.startswith("error: not done after 3") and said.stderr.count("\n") == 1
        for server in servers:
            os.kill(server, signal.SIGCONT)
        # The order goes on.
        has_begun_anew(first, before)
        until_whole(nodes)
        before = server_pid(first)
        said = ctl(first, "restart", "--no-wait")
        assert said.returncode == 0 and "is started anew" in said.stdout
        has_begun_anew(first, before)


def test_the_last_node_that_has_the_items_is_not_restarted():
    with ready(supervised_group()) as (first, second, third):
        assert wire.ask(first.port, b"set a 0 0 1\r\nx\r\n") == b"STORED\r\n"
        for other in (second, third):
            assert other.stop() == 0
        for order in ("restart", "upgrade"):
            said = ctl(first, order)
            assert said.returncode == 1 and "no other node has the items" in said.stderr
        assert wire.ask(first.port, b"get a\r\n").startswith(b"VALUE a")


def test_restart_and_upgrade_are_refused_where_nobody_starts_it_again():
    with ready(new_group()) as nodes:
        environment = {k: v for k, v in os.environ.items() if k != "INVOCATION_ID"}
        assert "INVOCATION_ID" not in environment
        for order in ("restart", "upgrade"):
            said = ctl(nodes[0], order)
            assert said.returncode == 1 and "--supervise" in said.stderr
        assert ctl(nodes[0], "restart", "--no-wait", "--timeout", "1").returncode == 64


# One process after the other, without a supervisor and without systemd.


def heir_of(node, more=()):
    """Another process of the same node, which is to take its place."""
    heir = Node(node.name, port=node.port)
    own = [word for word in node.command if word != "--take-over"]
    heir.command = [*own, "--take-over", *more]
    return heir


@pytest.mark.parametrize("kind", [PerRequest, KeepAlive])
def test_nobody_notices_that_another_process_takes_over(kind, figure):
    with ExitStack() as stack:
        nodes = stack.enter_context(ready(new_group()))
        until_whole(nodes)
        clients = [kind(node.port, number) for number, node in enumerate(nodes * 3)]
        holder = nodes[0]
        with under_load(clients):
            # The second time with other threads, which have to share the sockets of the first.
            for more in ([], ["-t", "3"], ["-t", "1"]):
                heir = heir_of(holder, more)
                stack.enter_context(running([heir]))
                assert holder.wait_exit() == 0
                heir.wait_ready()
                assert "taken over sockets=" in heir.output()
                until_whole([heir, *nodes[1:]])
                holder = heir
        figure(f"another process takes over, {kind.__name__}: {longest(clients)}")


def test_a_unix_socket_is_taken_over_with_its_clients(tmp_path):
    path = str(tmp_path / "socket")
    nodes = new_group()
    nodes[0].command += ["-s", path]
    heir = heir_of(nodes[0])
    with ExitStack() as stack:
        stack.enter_context(running(nodes))
        wait_until(lambda: "whole yes" in status(nodes[0]), "it is a member", READY_DEADLINE_S)
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.settimeout(10)
        client.connect(path)
        client.sendall(b"set a 0 60 1\r\nx\r\n")
        assert client.recv(100) == b"STORED\r\n"
        stack.enter_context(running([heir]))
        assert nodes[0].wait_exit() == 0
        newcomer = stack.enter_context(socket.socket(socket.AF_UNIX))
        newcomer.settimeout(10)
        newcomer.connect(path)
        for one in (client, newcomer):
            one.sendall(b"get a\r\n")
            expected = b"VALUE a 0 1\r\nx\r\nEND\r\n"
            assert wire.receive(one, len(expected)) == expected
            one.close()


def test_there_need_not_be_anybody_to_take_over_from():
    nodes = new_group(["--take-over"])
    with ready(nodes):
        assert all("taking over" not in node.output() for node in nodes)


def assert_refused(heir, reason):
    with running([heir]):
        assert heir.wait_exit() == 71
        (line,) = [line for line in heir.output().splitlines() if line.startswith("error:")]
        assert reason in line, line


def test_a_process_that_must_not_be_taken_over_goes_on():
    with ready(supervised_group()) as (first, second, third):
        heir = heir_of(first)
        heir.command.remove("--supervise")
        assert_refused(heir, "use sessiond ctl upgrade")
        assert wire.ask(first.port, b"set a 0 0 1\r\nx\r\n") == b"STORED\r\n"
    with ready(new_group()) as (first, second, third):
        # By mistake: it is not said that it should take over.
        by_mistake = heir_of(first)
        by_mistake.command.remove("--take-over")
        assert_refused(by_mistake, "in use")
        # What is wrong with the new one shows before the old one is asked.
        assert_refused(heir_of(first, ["-Y", "/no/such/file"]), "-Y /no/such/file")
        assert wire.ask(first.port, b"set a 0 0 1\r\nx\r\n") == b"STORED\r\n"
        for other in (second, third):
            assert other.stop() == 0
        assert_refused(heir_of(first), "no other node has the items")
        assert wire.ask(first.port, b"get a\r\n").startswith(b"VALUE a")
