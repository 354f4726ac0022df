"""What `make run` promises: three nodes in the foreground, one Ctrl-C, one line when it fails."""

import os
import re
import signal
from contextlib import contextmanager

import pytest

import wire
from cluster import BINARY, READY_DEADLINE_S, REPOSITORY, single_node
from ports import free_port
from processes import Program, running
from waiting import wait_until


def run_script(client_port):
    ports = {"CLIENT_PORT": str(client_port), "PEER_PORT": str(free_port())}
    return Program("run.sh", [REPOSITORY / "tests/cluster/run.sh", BINARY], {**os.environ, **ports})


@contextmanager
def run_script_ready(client_port):
    script = run_script(client_port)
    with running([script]):
        wait_until(lambda: is_ready(script), "run.sh is ready", READY_DEADLINE_S)
        yield script


def is_ready(script):
    assert script.is_running(), script.output()
    return "Ctrl-C stops all" in script.output()


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGTERM])
def test_three_nodes_run_until_one_signal_stops_them_all(stop_signal):
    port = free_port()
    with run_script_ready(port) as script:
        assert wire.ask(port, b"set a 0 60 1\r\nx\r\n") == b"STORED\r\n"
        for address in ("127.0.0.2", "127.0.0.3"):
            assert wire.ask(port, b"get a\r\n", address) == b"VALUE a 0 1\r\nx\r\nEND\r\n"
        # A terminal's Ctrl-C goes to the whole group, nodes included.
        os.killpg(script.pid, stop_signal)
        assert script.wait_exit() == 0
        for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            assert wire.is_refused(port, address)


def test_the_cache_settings_to_paste_are_printed():
    port = free_port()
    with run_script_ready(port) as script:
        assert "PyMemcacheCache" in script.output()
        for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            assert f"{address}:{port}" in script.output()


def test_a_port_in_use_is_exactly_one_line_and_nothing_stays_running():
    with single_node() as taken, running([run_script(taken.port)]) as (script,):
        assert script.wait_exit() == 1
        (line,) = script.output().splitlines()
        assert line.startswith("error:") and str(taken.port) in line
        assert wire.is_refused(taken.port, "127.0.0.2")


def test_a_node_killed_by_hand_leaves_the_others_running():
    port = free_port()
    with run_script_ready(port) as script:
        (pid,) = re.findall(r"kill -9 (\d+)", script.output())
        os.kill(int(pid), signal.SIGKILL)
        wait_until(lambda: "n3 has ended" in script.output(), "run.sh tells that n3 has ended")
        for address in ("127.0.0.1", "127.0.0.2"):
            assert wire.ask(port, b"set a 0 60 1\r\nx\r\n", address) == b"STORED\r\n"
        assert "Killed" not in script.output()
        assert script.stop() == 0
