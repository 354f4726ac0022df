"""What systemd is told, and the units in docs/deploy."""

import os
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager

import pytest

from cluster import BINARY, REPOSITORY, Node, new_group
from processes import running
from waiting import wait_until

UNITS = REPOSITORY / "docs/deploy"


@contextmanager
def listening(path):
    """systemd's side: all that it is told, one word after the other."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.setblocking(False)
        yield News(receiver)


class News:
    def __init__(self, receiver):
        self.receiver = receiver
        self.words = []

    def has(self, word):
        try:
            while True:
                self.words += self.receiver.recv(4096).decode().splitlines()
        except BlockingIOError:
            pass
        return word in self.words

    def wait(self, word):
        wait_until(lambda: self.has(word), f"systemd hears {word}")


def told(node, path, **more):
    node.environment = {**os.environ, "NOTIFY_SOCKET": str(path), **more}
    return node


@pytest.mark.parametrize("flags", [[], ["--supervise"]], ids=["alone", "supervised"])
def test_a_node_says_that_it_serves_lives_and_stops(flags, tmp_path):
    path = tmp_path / "notify"
    with listening(path) as news:
        node = told(Node(group_flags=flags), path, WATCHDOG_USEC="300000")
        with running([node]):
            news.wait("READY=1")
            news.wait("STATUS=serving, alone")
            news.wait("WATCHDOG=1")
            node._process.send_signal(signal.SIGTERM)
            news.wait("STOPPING=1")
            assert node.wait_exit() == 0


def test_a_server_that_gives_way_to_another_is_not_the_end_of_the_service(tmp_path):
    path = tmp_path / "notify"
    with listening(path) as news:
        with running([told(Node(group_flags=["--supervise"]), path)]) as (node,):
            news.wait("READY=1")
            news.words.clear()
            node._process.send_signal(signal.SIGUSR2)
            news.wait("STATUS=restarting")
            news.wait("READY=1")
            assert not news.has("STOPPING=1")


def test_a_node_of_a_group_is_ready_when_it_is_a_member(tmp_path):
    path = tmp_path / "notify"
    nodes = new_group()
    with listening(path) as news:
        told(nodes[0], path)
        with running(nodes[:1]):
            news.wait("STATUS=waiting for the other nodes")
            nodes[0].wait_open()
            assert not news.has("READY=1"), "it holds nothing yet"
            with running(nodes[1:]):
                news.wait("READY=1")
                wait_until(
                    lambda: news.has("STATUS=member of n1 n2 n3") or news.has("STATUS=member of n1 n2"),
                    "the members are told",
                )


def test_a_watchdog_of_another_process_is_not_fed(tmp_path):
    path = tmp_path / "notify"
    with listening(path) as news:
        with running([told(Node(), path, WATCHDOG_USEC="50000", WATCHDOG_PID="1")]):
            news.wait("STATUS=serving, alone")
            assert not news.has("WATCHDOG=1")


@pytest.fixture(scope="module")
def analyze():
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not on this machine: the units are not checked")
    return tool


@pytest.fixture
def units(tmp_path):
    """The units, with a program that is there."""
    for unit in UNITS.glob("sessiond*"):
        text = unit.read_text().replace("/usr/bin/sessiond", str(BINARY))
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def test_the_units_are_right(analyze, units):
    paths = sorted(units.glob("sessiond*"))
    assert len(paths) >= 2
    checked = subprocess.run(
        [analyze, "verify", "--man=no", *paths], capture_output=True, text=True, timeout=60
    )
    about_ours = [line for line in checked.stderr.splitlines() if "sessiond" in line]
    assert checked.returncode == 0 and about_ours == [], checked.stderr


def test_the_service_is_hardened(analyze, units):
    checked = subprocess.run(
        [analyze, "security", "--offline=yes", "--threshold=20", units / "sessiond.service"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "unrecognized option" in checked.stderr:
        pytest.skip("this systemd-analyze cannot look at units that are not loaded")
    assert checked.returncode == 0, checked.stdout[-2000:] + checked.stderr
