"""A new program that is filled beside the present one and takes its place: nothing is lost, nobody gets an
error, and there is no moment with one copy less. Where it does not come to that, nothing happens."""

import os
import random
import re
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest

import wire
from cluster import BINARY, new_group, ready
from ports import free_port
from processes import running
from survivors import ctl, status
from test_restarts import (
    KeepAlive,
    PerRequest,
    longest,
    own_program,
    replace,
    replaced_by,
    server_pid,
    supervised_group,
    under_load,
    with_one_that_fails,
)
from test_strangers import NAMES, certify, with_certificates
from test_versions import replicates, until_all_use
from waiting import wait_until

ITEMS = 3000
VALUE = b"x" * 1000
# On a busy machine a node may be silent for a moment, and would be left out for that.
PATIENTLY = ["--suspect", "2000"]
# So slow that filling takes seconds: there is time for something to go wrong.
SLOWLY = ["--sync-rate", "262144"]


def children(supervisor):
    path = f"/proc/{supervisor.pid}/task/{supervisor.pid}/children"
    with open(path, encoding="ascii") as pids:
        return {int(pid) for pid in pids.read().split()}


def store(port, count=ITEMS):
    lines = b"".join(b"set item-%d 0 0 %d\r\n%s\r\n" % (n, len(VALUE), VALUE) for n in range(count))
    assert wire.ask(port, lines).count(b"STORED") == count


def stored(port, count=ITEMS):
    found = wire.ask(port, b"".join(b"get item-%d\r\n" % n for n in range(count)))
    return found.count(b"VALUE ")


def views(node, since=0):
    """Members of each view that the node has told of, and its cause, from that character of its log."""
    pattern = r'INFO view epoch=\d+ members="([^"]*)" learners="[^"]*" cause=(.*)'
    return [(members.split(","), cause) for members, cause in re.findall(pattern, node.output()[since:])]


def patient_group(more=()):
    return supervised_group([*PATIENTLY, *more])


def upgrade(node):
    replaced_by(node, "upgrade")
    lines = status(node)
    assert {"state member", "log_seated 1"} <= lines, lines


def begin_upgrade(node):
    said = ctl(node, "upgrade", "--no-wait")
    assert said.returncode == 0, said.stderr


def assert_not_upgraded(said):
    assert said.returncode == 1 and said.stdout == "", said
    assert said.stderr == "error: not upgraded: the former program goes on; its log says why\n"


@contextmanager
def upgrade_that_fails(node):
    """Whoever waits for it is told, as soon as it is known."""
    command = [BINARY, "ctl", "--state-dir", node.state_directory(), "upgrade"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as order:
        try:
            yield
            out, err = order.communicate(timeout=20)
        finally:
            order.kill()
    assert_not_upgraded(subprocess.CompletedProcess(command, order.returncode, out, err))
    assert "upgrade failed" in ctl(node, "status").stdout


def has_changed(node, before):
    wait_until(
        lambda: server_pid(node) not in (None, before) and "state member" in ctl(node, "status").stdout,
        f"{node.name}'s new process has taken over",
        40.0,
    )


def is_being_filled(node, before):
    """The new process that is a learner by now."""
    wait_until(lambda: f'learners="{node.name}"' in node.output(), "it is being filled")
    # The one that looked at the command line has ended before.
    (new,) = children(node) - {before}
    return new


@contextmanager
def no_copy_less(nodes):
    """No node ever tells of a view that lacks somebody."""
    names = sorted(node.name for node in nodes)
    marks = [len(node.output()) for node in nodes]
    yield
    for node, mark in zip(nodes, marks):
        seen = views(node, mark)
        assert seen and all(members == names for members, _ in seen), seen
        # Above all: no message between two nodes is lost.
        errors = [line for line in node.output()[mark:].splitlines() if " ERROR " in line]
        assert all("not upgraded" in line for line in errors), errors


@pytest.mark.parametrize("threads", ["4", "1"])
def test_an_upgrade_beside_is_not_noticed_and_costs_no_copy(threads, figure):
    # A single one has the data links as well, before it has clients.
    with ready(patient_group(["-t", threads])) as nodes:
        store(nodes[0].port)
        clients = [kind(node.port, 10 * n + i) for n, node in enumerate(nodes) for i, kind in enumerate((PerRequest, KeepAlive))]
        with no_copy_less(nodes), under_load(clients):
            # Twice: the second time the parts of the links have changed.
            for node in nodes * 2:
                upgrade(node)
        figure(f"rolling upgrade beside, twice, {threads} threads: {longest(clients)}")
        assert [cause for _, cause in views(nodes[0])].count("upgrade") >= 6
        for node in nodes:
            assert stored(node.port) == ITEMS
        # Its death is noticed as that of any other, and it is back.
        before = server_pid(nodes[0])
        os.kill(before, signal.SIGKILL)
        assert stored(nodes[1].port) == ITEMS
        has_changed(nodes[0], before)


def test_all_nodes_may_be_upgraded_at_once():
    with ready(patient_group()) as nodes:
        store(nodes[0].port)
        clients = [KeepAlive(node.port, number) for number, node in enumerate(nodes)]
        with no_copy_less(nodes), under_load(clients):
            before = [server_pid(node) for node in nodes]
            for node in nodes:
                begin_upgrade(node)
            for node, pid in zip(nodes, before):
                has_changed(node, pid)
        assert [stored(node.port) for node in nodes] == [ITEMS] * 3


def test_a_group_of_two_has_two_copies_all_the_time():
    pair = new_group(["--supervise", "--tie-breaker", "n1", *PATIENTLY], names=("n1", "n2"))
    with ready(pair) as nodes:
        first, second = nodes
        store(second.port)
        with no_copy_less(nodes), under_load([KeepAlive(node.port, n) for n, node in enumerate(nodes)]):
            upgrade(first)
        second.kill9()
        wait_until(lambda: 'members="n1"' in first.output(), "it goes on alone")
        assert stored(first.port) == ITEMS


def test_a_node_that_was_upgraded_is_found_by_one_that_begins_later():
    with ready(patient_group()) as nodes:
        upgrade(nodes[0])
        assert ctl(nodes[1], "restart", deadline_s=60).returncode == 0
        upgrade(nodes[1])
        upgrade(nodes[0])


@pytest.mark.parametrize("proof", ["certificates", "secret"])
def test_the_new_process_proves_who_it_is_and_answers_at_all_addresses(proof, tmp_path):
    nodes = patient_group()
    if proof == "certificates":
        certify(tmp_path, *NAMES)
        for node in nodes:
            with_certificates(node, tmp_path)
    else:
        (tmp_path / "secret").write_text("what all of this group know, and nobody else\n")
        for node in nodes:
            node.command += ["--peer-secret-file", str(tmp_path / "secret")]
    figures = free_port()
    nodes[0].command += ["--admin-listen", f"127.0.0.1:{figures}"]
    with ready(nodes):
        store(nodes[0].port, 100)
        with no_copy_less(nodes):
            for _ in range(2):
                upgrade(nodes[0])
        wait_until(lambda: not wire.is_refused(figures), "it tells its figures")
        assert stored(nodes[0].port, 100) == 100


def test_a_witness_knows_the_new_process_too():
    more = ["--supervise", *PATIENTLY]
    nodes = new_group(more, witness="n3")
    first, second, witness = nodes
    witness.command.remove("--supervise")
    with running(nodes):
        for node in (first, second):
            node.wait_ready()
        store(first.port, 100)
        for node in (first, second, first):
            upgrade(node)
        for node in (first, second):
            assert {"n1", "n2"} == set(views(node)[-1][0])
        wait_until(lambda: "log_voters n1,n2,n3" in ctl(first, "status").stdout, "all vote")
        # With the witness there is a majority.
        second.kill9()
        wait_until(lambda: 'members="n1"' in first.output(), "it goes on")
        assert stored(first.port, 100) == 100


def test_a_program_that_knows_less_and_one_that_knows_more_take_the_place_of_each_other(tmp_path):
    program = tmp_path / "sessiond"
    older = f'#!/bin/sh\nexec {BINARY} --peer-features none "$@"\n'.encode()
    replace(program, BINARY.read_bytes())
    nodes = patient_group()
    for node in nodes:
        node.command[0] = str(program)
    with ready(nodes):
        store(nodes[0].port, 100)
        for content, features in ((older, "none"), (BINARY.read_bytes(), "lifetimes")):
            replace(program, content)
            with no_copy_less(nodes):
                for node in nodes:
                    upgrade(node)
                    # All go by what all know: the one beside too, while it is filled.
                    until_all_use(nodes, features if node is nodes[-1] else "none")
                    replicates(nodes, f"{features}.{node.name}")
        assert [stored(node.port, 100) for node in nodes] == [100] * 3


# It is not to be.


@pytest.fixture
def replaceable(tmp_path):
    """A group whose first node runs from a file of its own."""
    nodes = patient_group(["--upgrade-timeout", "2000"])
    program = own_program(nodes[0], tmp_path)
    with ready(nodes):
        yield nodes, program


@with_one_that_fails
def test_a_new_program_that_fails_leaves_the_old_one_as_it_is(replaceable, content):
    nodes, program = replaceable
    clients = [kind(nodes[0].port, n) for n, kind in enumerate((PerRequest, KeepAlive))]
    with under_load(clients):
        before = server_pid(nodes[0])
        replace(program, content)
        with upgrade_that_fails(nodes[0]):
            wait_until(lambda: "not upgraded" in nodes[0].output(), "it is given up")
        wait_until(lambda: children(nodes[0]) == {before}, "it is stopped")
    # After a crash too, as the program that is there is known to be no good.
    os.kill(before, signal.SIGKILL)
    has_changed(nodes[0], before)


def test_one_that_is_not_filled_in_time_is_stopped_and_the_old_one_goes_on():
    with ready(patient_group([*SLOWLY, "--upgrade-timeout", "1500"])) as nodes:
        store(nodes[0].port)
        with no_copy_less(nodes), under_load([KeepAlive(node.port, n) for n, node in enumerate(nodes)]):
            before = server_pid(nodes[0])
            with upgrade_that_fails(nodes[0]):
                is_being_filled(nodes[0], before)
                wait_until(lambda: "not upgraded" in nodes[0].output(), "it is given up")
            wait_until(lambda: "cause=learner left" in nodes[1].output(), "the others know")
        wait_until(lambda: children(nodes[0]) == {before}, "it is stopped")
        assert stored(nodes[0].port) == ITEMS


def test_a_new_process_that_dies_while_it_is_filled_disturbs_nobody():
    with ready(patient_group(SLOWLY)) as nodes:
        store(nodes[0].port)
        with no_copy_less(nodes), under_load([KeepAlive(node.port, n) for n, node in enumerate(nodes)]):
            before = server_pid(nodes[0])
            with upgrade_that_fails(nodes[0]):
                os.kill(is_being_filled(nodes[0], before), signal.SIGKILL)
                wait_until(lambda: "not upgraded: the new program has ended" in nodes[0].output(), "it is seen")
            wait_until(lambda: "cause=learner left" in nodes[1].output(), "the others know")
        assert children(nodes[0]) == {before}


def test_when_the_old_process_dies_the_new_one_goes_on_with_what_it_has():
    with ready(patient_group(SLOWLY)) as nodes:
        store(nodes[0].port)
        with under_load([KeepAlive(node.port, n) for n, node in enumerate(nodes[1:])]):
            before = server_pid(nodes[0])
            begin_upgrade(nodes[0])
            new = is_being_filled(nodes[0], before)
            os.kill(before, signal.SIGKILL)
            wait_until(lambda: children(nodes[0]) == {new}, "it is dead")
            # Whoever comes is answered through the others.
            assert stored(nodes[0].port, 10) == 10
            has_changed(nodes[0], before)
            assert server_pid(nodes[0]) == new
        assert stored(nodes[0].port) == ITEMS


@pytest.mark.parametrize("seed", range(8))
def test_whichever_process_dies_at_whatever_moment_nothing_is_lost(seed):
    chance = random.Random(seed)
    with ready(supervised_group()) as nodes:
        store(nodes[1].port)
        node = nodes[seed % 3]
        begin_upgrade(node)
        # No condition is waited for: it is to be any moment of the upgrade, in the middle of a step too.
        time.sleep(chance.uniform(0.0, 0.3))
        victim = chance.choice(sorted(children(node)))
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it was the one that only looked at the command line
        wait_until(lambda: len(children(node)) == 1 and all(map(is_whole, nodes)), "all are there", 40.0)
        assert [stored(each.port) for each in nodes] == [ITEMS] * 3


def is_whole(node):
    wanted = {"state member", "members n1,n2,n3", "log_voters n1,n2,n3", "log_changing 0"}
    return wanted <= status(node)


def test_the_end_of_the_service_is_the_end_of_both():
    with ready(patient_group([*SLOWLY, "--drain-timeout", "2000"])) as nodes:
        store(nodes[0].port)
        before = server_pid(nodes[0])
        begin_upgrade(nodes[0])
        new = is_being_filled(nodes[0], before)
        assert nodes[0].stop() == 0
        for pid in (before, new):
            wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), "it has ended")
        assert stored(nodes[1].port) == ITEMS


def test_the_present_way_is_there_for_those_who_want_memory_once():
    with ready(patient_group(["--upgrade", "restart"])) as nodes:
        upgrade(nodes[0])
        assert "cause=leave" in nodes[1].output() and "cause=upgrade" not in nodes[1].output()


def test_without_memory_for_two_the_one_ends_before_the_other_begins():
    with open("/proc/meminfo", encoding="ascii") as lines:
        (available,) = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    nodes = patient_group()
    nodes[0].command[nodes[0].command.index("-m") + 1] = str(available // 1024 + 100_000)
    with ready(nodes):
        upgrade(nodes[0])
        assert "no memory for a second server" in nodes[0].output()
        assert "cause=leave" in nodes[1].output()


def test_a_wrong_way_is_one_line():
    said = subprocess.run([BINARY, "--supervise", "--upgrade", "twice"], capture_output=True, text=True, timeout=10)
    assert said.returncode == 64
    assert said.stderr == "error: --upgrade twice: expected beside or restart\n"
