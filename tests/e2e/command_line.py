"""One sessiond started with a command line of the test's own, under a name of its own."""

import os
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import wire
from cluster import BINARY
from processes import STOP_DEADLINE_S, Program, running
from waiting import wait_until

READY_DEADLINE_S = 10.0


def linked_as_memcached(folder):
    """What a package does that wants to be a drop-in."""
    link = Path(folder) / "memcached"
    link.symlink_to(BINARY)
    return link


@contextmanager
def server(flags, address=None, binary=BINARY, environment=None):
    """Runs it for the length of a `with`, and yields it when it accepts clients at `address`."""
    program = Program("server", [binary, *flags.split()], environment)
    with running([program]):
        if address:
            wait_until(lambda: accepts(program, address), "it accepts clients", READY_DEADLINE_S)
        yield program


def accepts(program, address):
    assert program.is_running(), program.output()
    try:
        with connect(address):
            return True
    except OSError:
        return False


def connect(address):
    """To a port of this machine, a (host, port), or a path."""
    if isinstance(address, int):
        address = ("127.0.0.1", address)
    if isinstance(address, tuple):
        return socket.create_connection(address, wire.ANSWER_DEADLINE_S)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(wire.ANSWER_DEADLINE_S)
    try:
        connection.connect(str(address))
    except OSError:
        connection.close()
        raise
    return connection


def ask(address, lines):
    """Sends the lines, then `quit`; returns all that comes back."""
    with connect(address) as connection:
        connection.sendall(lines + b"quit\r\n")
        return wire.read_to_end(connection)


def stats(address, what=b""):
    answer = ask(address, b"stats %s\r\n" % what if what else b"stats\r\n").decode()
    lines = [line.split(" ", 2) for line in answer.splitlines() if line.startswith("STAT ")]
    return {name: value for _, name, value in lines}


def refusal(flags, binary=BINARY):
    """The exit code and what is printed by a command line that does not start."""
    done = subprocess.run(
        [binary, *flags.split()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STOP_DEADLINE_S,
    )
    return done.returncode, done.stderr


def pid_alive(pid):
    """Whether there is such a process; one that only waits to be buried is none."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def user_of(pid):
    return os.stat(f"/proc/{pid}").st_uid
