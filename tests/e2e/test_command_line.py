"""memcached's command line, as packages, installers and operators write it."""

import os
import pwd
import signal
import socket
import stat
import subprocess

import pytest

from cluster import BINARY
from command_line import (
    ask,
    connect,
    linked_as_memcached,
    pid_alive,
    refusal,
    server,
    stats,
    user_of,
)
from ports import free_port
from processes import STOP_DEADLINE_S
from waiting import wait_until
from wire import read_to_end

IS_ROOT = os.geteuid() == 0
SOMEBODY = "nobody" if IS_ROOT else pwd.getpwuid(os.geteuid()).pw_name
STORED_AND_FOUND = b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"
SET_AND_GET = b"set a 0 60 1\r\nx\r\nget a\r\n"


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def memcached(tmp_path):
    """The binary under the name that a drop-in has."""
    return linked_as_memcached(tmp_path)


@pytest.mark.parametrize(
    "flags",
    [
        "-v -l 127.0.0.1 -p {port} -c 5000 -U 0 -m 256",
        "-v -p {port} -U 0 -c 8192 -m 1024",
        "-m 64 -p {port} -u {user} -l 127.0.0.1 -l ::1 -P {folder}/memcached.pid",
    ],
    ids=["kolla", "openstack-helm", "Debian"],
)
def test_lines_of_packages_start_it_unchanged(flags, memcached, port, tmp_path):
    flags = flags.format(port=port, user=SOMEBODY, folder=tmp_path)
    with server(flags, port, binary=memcached) as program:
        assert ask(port, SET_AND_GET) == STORED_AND_FOUND
        command = open(f"/proc/{program.pid}/cmdline").read().split("\0")
        assert command[0] == str(memcached), "what pgrep -f memcached looks for"


def test_the_line_of_openstack_ansible_makes_a_daemon(memcached, port, tmp_path):
    # Its user has to be allowed to write there, and only the tests' own user surely may.
    own_user = pwd.getpwuid(os.geteuid()).pw_name
    pid_file = tmp_path / "memcached.pid"
    flags = f"-d -v -U 0 -m 64 -p {port} -u {own_user} -l 127.0.0.1 -c 100 -t 2 -P {pid_file}"
    with daemon(f"{memcached} {flags}", pid_file) as pid:
        assert ask(port, SET_AND_GET) == STORED_AND_FOUND
        assert int(stats(port)["pid"]) == pid
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not pid_alive(pid), "the daemon ends")
        assert not pid_file.exists(), "removed at a clean stop"


class daemon:
    """Starts what goes to the background by itself; the `with` ends it by the number it wrote."""

    def __init__(self, command, pid_file):
        self.command = command.split()
        self.pid_file = pid_file

    def __enter__(self):
        # A daemon that kept the terminal's pipe open would keep this call from ending.
        started = subprocess.run(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=STOP_DEADLINE_S,
        )
        assert started.returncode == 0
        text = wait_until(lambda: self.pid_file.exists() and self.pid_file.read_text(), "pid file")
        self.pid = int(text)
        wait_until(lambda: self._listens(), "the daemon listens")
        return self.pid

    def __exit__(self, *_):
        if pid_alive(self.pid):
            os.kill(self.pid, signal.SIGKILL)

    def _listens(self):
        port = int(self.command[self.command.index("-p") + 1])
        try:
            connect(port).close()
        except OSError:
            return False
        return True


def test_a_daemon_has_left_its_terminal_and_its_folder(port, tmp_path):
    pid_file = tmp_path / "pid"
    with daemon(f"{BINARY} -d -p {port} -P {pid_file}", pid_file) as pid:
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        outputs = {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)}
        assert outputs == {"/dev/null"}
        assert os.getsid(pid) != os.getsid(0)


def test_a_daemon_that_cannot_listen_says_so_before_it_leaves(port):
    with server(f"-p {port}", port):
        code, printed = refusal(f"-d -p {port}")
    assert code != 0 and str(port) in error_line(printed)


@pytest.mark.skipif(not IS_ROOT, reason="only root can become somebody else")
def test_root_becomes_the_user_it_is_told(port):
    with server(f"-u nobody -p {port}", port) as program:
        assert user_of(program.pid) == pwd.getpwnam("nobody").pw_uid
        groups = open(f"/proc/{program.pid}/status").read()
        assert "Groups:\t0 " not in groups
    code, printed = refusal(f"-u no-such-user -p {port}")
    assert code == 67 and "no-such-user" in error_line(printed)


def test_a_unix_socket_takes_the_place_of_tcp_and_obeys_its_mask(tmp_path):
    path = tmp_path / "socket"
    with server(f"-s {path} -a 770 -t 2", path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o770
        assert all(ask(path, SET_AND_GET) == STORED_AND_FOUND for _ in range(20))
        assert stats(path, b"settings")["domain_socket"] == str(path)
        code, printed = refusal(f"-s {path}")
        assert code != 0 and "another server" in error_line(printed)
    # What an ended server leaves behind does not keep the next one out.
    assert path.exists()
    with server(f"-s {path}", path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert ask(path, b"get a\r\n") == b"END\r\n"


def test_a_file_is_not_replaced_by_a_socket(tmp_path):
    path = tmp_path / "precious"
    path.write_text("kept")
    code, printed = refusal(f"-s {path}")
    assert code != 0 and str(path) in error_line(printed)
    assert path.read_text() == "kept"


def test_the_file_of_the_ports_names_the_port_that_was_found(tmp_path):
    ports = tmp_path / "ports"
    environment = {**os.environ, "MEMCACHED_PORT_FILENAME": str(ports)}
    with server("-p -1 -l 127.0.0.1,::1 -t 2", environment=environment):
        lines = wait_until(lambda: ports.exists() and ports.read_text(), "the ports").splitlines()
        (four, number), (six, other_number) = (line.split(": ") for line in lines)
        assert (four, six) == ("TCP INET", "TCP INET6")
        assert ask(int(number), SET_AND_GET) == STORED_AND_FOUND
        assert ask(("::1", int(other_number)), b"get a\r\n") == b"VALUE a 0 1\r\nx\r\nEND\r\n"
        assert stats(int(number), b"settings")["tcpport"] == "-1"


def test_each_address_may_have_its_own_port(port):
    other = free_port()
    with server(f"-l 127.0.0.1:{other},127.0.0.2 -p {port}", other):
        assert ask(("127.0.0.2", port), b"get a\r\n") == b"END\r\n"
        with pytest.raises(ConnectionRefusedError):
            connect(port)


@pytest.fixture
def passwords(tmp_path):
    path = tmp_path / "passwords"
    path.write_text("foo:bar\nbaaaz:quux")
    return path


def login(user, password):
    token = f"{user} {password}".encode()
    return b"set x 0 0 %d\r\n%s\r\n" % (len(token), token)


WRONG = b"CLIENT_ERROR authentication failure\r\n"
NOT_LOGGED_IN = b"CLIENT_ERROR unauthenticated\r\n"


def test_nothing_works_before_a_login(port, passwords):
    with server(f"-Y {passwords} -p {port} -l 127.0.0.1", port):
        with connect(port) as connection, connection.makefile("rb") as replies:
            for command, reply in [
                (b"get foo\r\n", NOT_LOGGED_IN),
                (b"stats\r\nversion and more\r\n", NOT_LOGGED_IN * 2),
                (login("foo", "quux"), WRONG),
                (login("foo", "bar"), b"STORED\r\n"),
                (login("foo", "quux"), b"STORED\r\n"),
                (b"get x\r\n", b"VALUE x 0 8\r\nfoo quux\r\nEND\r\n"),
            ]:
                connection.sendall(command)
                assert replies.read(len(reply)) == reply
        in_one_piece = login("baaaz", "quux") + SET_AND_GET + b"stats\r\nquit\r\n"
        with connect(port) as connection:
            connection.sendall(in_one_piece)
            answer = read_to_end(connection)
        assert answer.startswith(b"STORED\r\n" + STORED_AND_FOUND)
        assert b"STAT auth_cmds 3\r\n" in answer and b"STAT auth_errors 1\r\n" in answer


def test_a_login_is_bounded(port, passwords):
    with server(f"-Y {passwords} -p {port} -l 127.0.0.1", port):
        for attempt, reply in [
            (b"set x 0 0 16385\r\n", b"CLIENT_ERROR auth token too long\r\n"),
            (b"x" * 3000, b""),
            (b"mn\r\n", b""),
        ]:
            with connect(port) as connection:
                connection.sendall(attempt)
                assert read_to_end(connection) == reply


def test_sighup_reads_the_passwords_again(port, passwords):
    with server(f"-Y {passwords} -p {port} -l 127.0.0.1", port) as program:
        inside = connect(port)
        inside.sendall(login("foo", "bar"))
        assert inside.recv(100) == b"STORED\r\n"

        passwords.write_text("foo:changed\n")
        os.kill(program.pid, signal.SIGHUP)
        wait_until(lambda: says(port, login("foo", "changed")) == b"STORED\r\n", "the new password")
        assert says(port, login("foo", "bar")) == WRONG

        passwords.write_text("nothing that makes sense\n")
        os.kill(program.pid, signal.SIGHUP)
        wait_until(lambda: "stay as they were" in program.output(), "the complaint")
        assert says(port, login("foo", "changed")) == b"STORED\r\n"

        inside.sendall(b"get a\r\n")
        assert inside.recv(100) == b"END\r\n", "who is in stays in"
        inside.close()


def says(port, command):
    with connect(port) as connection:
        connection.sendall(command)
        return connection.recv(100)


def test_a_password_file_that_cannot_be_used_is_refused(tmp_path, port):
    code, printed = refusal(f"-Y {tmp_path}/missing -p {port}")
    assert code != 0 and "missing" in error_line(printed)
    (tmp_path / "wrong").write_text("a:b\nsecret\n")
    code, printed = refusal(f"-Y {tmp_path}/wrong -p {port}")
    assert code != 0 and "line 2" in error_line(printed) and "secret" not in printed


def test_idle_connections_are_closed_and_counted(port):
    with server(f"-o idle_timeout=1 -p {port}", port), connect(port) as idle:
        idle.sendall(b"get a\r\n")
        assert idle.recv(100) == b"END\r\n"
        assert idle.recv(100) == b"", "closed while nothing was said"
        assert int(stats(port)["idle_kicks"]) >= 1


def test_a_client_that_never_reads_is_idle_too(port):
    with server(f"-o idle_timeout=1 -p {port}", port), connect(port) as deaf:
        value = b"x" * 500_000
        deaf.sendall(b"set a 0 0 %d\r\n%s\r\n" % (len(value), value))
        deaf.setblocking(False)
        asked_for = b"get a a a a a a a a a a\r\n" * 50
        try:
            deaf.sendall(asked_for)
        except BlockingIOError:
            pass
        wait_until(lambda: int(stats(port)["idle_kicks"]) >= 1, "it is let go")


def test_a_full_store_refuses_with_M(port):
    with server(f"-M -m 2 -p {port}", port):
        value = b"x" * 8192
        sets = b"".join(b"set k%d 0 0 8192\r\n%s\r\n" % (number, value) for number in range(400))
        answer = ask(port, sets)
        assert b"SERVER_ERROR out of memory storing object\r\n" in answer
        assert ask(port, b"get k0\r\n").startswith(b"VALUE k0 "), "nothing was dropped"
        assert stats(port)["evictions"] == "0"


def test_flush_all_is_refused_with_F(port):
    with server(f"-F -p {port}", port):
        answer = ask(port, SET_AND_GET + b"flush_all\r\nflush_all noreply\r\nget a\r\n")
        refused = b"CLIENT_ERROR flush_all not allowed\r\n"
        assert answer == STORED_AND_FOUND + refused + b"VALUE a 0 1\r\nx\r\nEND\r\n"


@pytest.mark.parametrize("command", [b"shutdown\r\n", b"shutdown graceful\r\n"])
def test_shutdown_works_with_A_alone(port, command):
    with server(f"-p {port}", port):
        answer = ask(port, command + b"get a\r\n")
        assert answer == b"SERVER_ERROR: shutdown not enabled\r\nEND\r\n"
    with server(f"-A -p {port}", port) as program:
        wrong = ask(port, b"shutdown now\r\n")
        assert wrong == b"CLIENT_ERROR invalid shutdown mode\r\n"
        assert ask(port, command) == b""
        assert program.wait_exit() == 0


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_stop_it_cleanly_and_hup_does_not(port, stop_signal):
    with server(f"-p {port}", port) as program:
        os.kill(program.pid, signal.SIGHUP)
        assert ask(port, b"get a\r\n") == b"END\r\n"
        assert program.stop(stop_signal) == 0


def test_connections_above_the_limit_are_refused(port):
    with server(f"-c 3 -p {port}", port):
        inside = [enter(port) for _ in range(3)]
        with connect(port) as outside:
            assert read_to_end(outside) == b"ERROR Too many open connections\r\n"
        inside.pop().close()
        wait_until(lambda: is_let_in(port), "a place is free")
        assert int(stats_through(inside[0])["rejected_connections"]) >= 1
        for connection in inside:
            connection.close()


def test_connections_above_the_limit_wait_without_maxconns_fast(port):
    with server(f"-c 2 -t 1 -o no_maxconns_fast -p {port}", port):
        first, second = enter(port), enter(port)
        with connect(port) as waiting:
            waiting.sendall(b"get a\r\n")
            wait_until(lambda: stats_through(first)["accepting_conns"] == "0", "a pause")
            waiting.settimeout(0.2)
            with pytest.raises(TimeoutError):
                waiting.recv(100)
            second.close()
            waiting.settimeout(10)
            assert waiting.recv(100) == b"END\r\n"
        figures = stats_through(first)
        assert figures["accepting_conns"] == "1" and figures["rejected_connections"] == "0"
        assert int(figures["listen_disabled_num"]) >= 1
        assert int(figures["time_in_listen_disabled_us"]) > 0
        first.close()


def enter(port):
    """A connection that is surely counted."""
    def try_to():
        connection = connect(port)
        try:
            connection.sendall(b"get a\r\n")
            if connection.recv(100) == b"END\r\n":
                return connection
        except ConnectionError:
            pass  # Refused: closed with the question unread, which may reset it.
        connection.close()
        return None

    return wait_until(try_to, "a place is free")


def is_let_in(port):
    """A refused connection is closed with our question unread, which may reset it."""
    try:
        return ask(port, b"get a\r\n") == b"END\r\n"
    except ConnectionError:
        return False


def stats_through(connection):
    connection.sendall(b"stats\r\n")
    answer = b""
    while not answer.endswith(b"END\r\n"):
        answer += connection.recv(65536)
    return dict(line.split(" ", 2)[1:] for line in answer.decode().splitlines()[:-1])


def test_settings_show_what_was_set(port):
    flags = "-m 128 -c 77 -t 3 -M -F -X -A -I 2m -b 9 -D / -f 1.5 -n 96 -R 7 -C -B ascii"
    options = "-o idle_timeout=60,no_maxconns_fast,hash_algorithm=xxh3,no_lru_crawler"
    with server(f"{flags} {options} -v -p {port} -l 127.0.0.1", port):
        shown = stats(port, b"settings")
    expected = {
        "maxbytes": str(128 << 20),
        "maxconns": "77",
        "tcpport": str(port),
        "udpport": "0",
        "inter": "127.0.0.1",
        "verbosity": "1",
        "evictions": "off",
        "domain_socket": "NULL",
        "umask": "700",
        "shutdown_command": "yes",
        "growth_factor": "1.50",
        "chunk_size": "96",
        "num_threads": "3",
        "stat_key_prefix": "/",
        "detail_enabled": "yes",
        "reqs_per_event": "7",
        "cas_enabled": "no",
        "tcp_backlog": "9",
        "binding_protocol": "ascii",
        "auth_enabled_ascii": "no",
        "item_size_max": str(2 << 20),
        "maxconns_fast": "no",
        "lru_crawler": "no",
        "flush_enabled": "no",
        "dump_enabled": "no",
        "hash_algorithm": "xxh3",
        "idle_timeout": "60",
    }
    assert {name: shown.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    "flags",
    [
        "-U 11211",
        "-S",
        "-Z",
        "-e /dev/shm/items",
        "-N 2",
        "-o ext_path=/tmp/e:1G",
        "-o proxy_config=p.lua",
        "-o ssl_key=key",
        "-o sock_cookie_id=1",
        "-o nonsense",
        "-B http",
        "-c 0",
        "-t 0",
        "-I 1000",
        "-l fooble.invalid",
    ],
)
def test_what_cannot_be_honoured_is_refused_in_one_line(flags, memcached, port):
    code, printed = refusal(f"-p {port} {flags}", binary=memcached)
    assert code == 64
    error_line(printed)


def error_line(printed):
    """The one line that says what is wrong; warnings may stand before it."""
    lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and printed.endswith(f"{lines[0]}\n"), printed
    return lines[0]


def test_help_and_version_print_and_end(memcached):
    for flag, start in [("-h", "memcached 1.6.45"), ("-V", "memcached 1.6.45\n"), ("-i", "")]:
        done = subprocess.run([memcached, flag], capture_output=True, text=True, timeout=10)
        assert done.returncode == 0 and done.stdout.startswith(start) and not done.stderr


def test_a_second_name_of_this_machine_is_bound_where_it_can(port):
    """`localhost` may stand for both families, on a machine that has one."""
    with server(f"-l localhost -p {port}", ("localhost", port)):
        assert ask(("localhost", port), b"get a\r\n") == b"END\r\n"
        families = {family for family, *_ in socket.getaddrinfo("localhost", port)}
        assert families
