"""What operators can tell a node that has lost the others, and what they can allow beforehand."""

import os
import socket
import stat
from contextlib import contextmanager

from cluster import new_group, ready
from processes import running
from survivors import TWO, asked, assert_silent_for, ctl, held, put, state, until_fenced, until_whole
from waiting import wait_until

# A grant, twice, and then some.
SOLO_MAX_S = 5.0


@contextmanager
def silent_port(node):
    """Takes its peers' connections and never says a word, as a host that hangs."""
    host, port = node.command[node.command.index("--peer-listen") + 1].split(":")
    with socket.create_server((host, int(port))):
        yield


def test_status_is_told_to_the_owner_of_the_socket_only():
    with ready(new_group(names=TWO)) as (first, second):
        until_whole([first, second])
        lines = ctl(first, "status").stdout.splitlines()
        assert "state member" in lines and "members n1,n2" in lines
        assert "log_voters n1,n2" in lines
        path = os.path.join(first.state_directory(), "ctl.sock")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        second.kill9()
        refused = ctl(second, "status")
        assert refused.returncode != 0 and "no sessiond runs there" in refused.stderr


def test_force_solo_is_refused_while_another_member_lives():
    with ready(new_group(names=TWO)) as (first, second):
        until_whole([first, second])
        refused = ctl(first, "force-solo")
        assert refused.returncode != 0
        assert refused.stderr == "error: n2 is alive and a member\n"


def test_force_solo_lets_a_member_go_on_with_all_it_has():
    with ready(new_group(names=TWO)) as (first, second):
        put(first, b"kept")
        # Silent, so nothing proves it dead.
        second.freeze()
        until_fenced(first, second)
        with asked(first, b"set b 0 60 1\r\nx\r\n") as writer:
            assert_silent_for(writer, 0.5)
            assert ctl(first, "force-solo").returncode == 0
            writer.settimeout(SOLO_MAX_S)
            assert writer.recv(100) == b"STORED\r\n"
        assert held(first) == b"kept"
        put(first, b"alone")
        assert "force-solo" in first.output()
        # It was not dead after all: it gives up what it had.
        second.thaw()
        until_whole([first, second])
        assert held(second) == b"alone"


def test_force_solo_begins_with_nothing_where_nobody_has_anything():
    with ready(new_group()) as (first, second, third):
        put(first, b"lost")
        for node in first, second, third:
            node.kill9()
        # The third may have lived longest, and nothing says that it is dead: no refusal either.
        with silent_port(third), running([first]):
            first.wait_open()
            with asked(first, b"get a\r\n") as reader:
                assert_silent_for(reader, 1.0)
                assert ctl(first, "force-solo").returncode == 0
                reader.settimeout(SOLO_MAX_S)
                assert reader.recv(100) == b"END\r\n"
            put(first, b"new")
            second.start()
            second.wait_ready()
            assert held(second) == b"new"


def test_isolated_reads_show_the_own_copy_where_that_is_allowed():
    with ready(new_group(["--isolated-reads", "stale"], TWO)) as (first, second):
        put(first, b"old")
        until_whole([first, second])
        settled = "pending_keys 0"
        wait_until(lambda: settled in ctl(first, "status").stdout.splitlines(), settled)
        second.freeze()
        wait_until(lambda: state(first) == "isolated", "isolated")
        assert held(first) == b"old"
        with asked(first, b"set b 0 60 1\r\nx\r\n") as writer:
            assert_silent_for(writer, 0.5)
            second.thaw()
            assert writer.recv(100) == b"STORED\r\n"
        wait_until(lambda: state(first) == "member", "member again")
        assert first.output().count("may be old") == 1
        assert first.output().count("nothing old any more") == 1
