"""`--admin-listen`: figures for Prometheus, health, and what strangers get there."""

import os
import signal
import socket
import time
from contextlib import ExitStack

import pytest

import wire
from cluster import Node, cluster_of_three, new_group, ready
from command_line import connect, refusal, server
from ports import free_port
from processes import running
from scrape import PROMTOOL, described, http_get, lint, samples, scrape
from strangers import Stranger
from survivors import ctl, status, until_whole
from talk import talk
from waiting import wait_until

READY_DEADLINE_S = 20.0
UNITS = ("records", "messages", "bytes")
STORED = b"STORED\r\n"


def with_admin(nodes):
    """Each node with a port for figures, known as `admin_port`."""
    for node in nodes:
        node.admin_port = free_port()
        node.command += ["--admin-listen", str(node.admin_port)]
    return nodes


def readiness(node):
    status, _, text = http_get(node.admin_port, "/readyz")
    return status, text


@pytest.fixture
def alone():
    port, admin = free_port(), free_port()
    with server(f"-p {port} --admin-listen {admin}", port):
        yield port, admin


def test_figures_are_those_of_stats_under_the_exporters_names(alone):
    port, admin = alone
    with talk(port) as client:
        assert client.ask(b"set a 0 0 1\r\nx\r\n") == STORED
        client.ask(b"get a none\r\n", b"END\r\n")
        assert client.ask(b"incr none 1\r\n") == b"NOT_FOUND\r\n"
        found, stats = samples(admin), client.stats()
    expected = {
        ("memcached_up",): 1,
        ("memcached_version", "1.6.45"): 1,
        ("memcached_current_items",): 1,
        ("memcached_limit_bytes",): 64 << 20,
        ("memcached_current_bytes",): int(stats["bytes"]),
        ("memcached_commands_total", "get", "hit"): 1,
        ("memcached_commands_total", "get", "miss"): 1,
        ("memcached_commands_total", "incr", "miss"): 1,
        ("memcached_commands_total", "set", "hit"): 1,
        ("memcached_items_evicted_total",): 0,
        ("memcached_current_connections",): 1,
        ("memcached_slab_current_items", "1"): 1,
        ("sessiond_ready",): 1,
        ("sessiond_state", "member"): 1,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["memcached_uptime_seconds",] <= int(stats["uptime"])


def test_promtool_finds_no_fault(alone, figure):
    _, _, text = http_get(alone[1], "/metrics")
    assert len(scrape(alone[1])) > 60
    if not PROMTOOL:
        figure("no promtool on the PATH (Debian: prometheus): the parser for Python read it alone")
        return
    assert lint(text) == []
    assert lint(text.replace("# HELP memcached_up Whether", "# TYPE memcached_up")) != []


def test_health_and_everything_else(alone):
    _, admin = alone
    assert http_get(admin, "/healthz")[::2] == (200, "ok\n")
    assert http_get(admin, "/readyz")[::2] == (200, "ready\n")
    assert http_get(admin, "/healthz?from=here")[0] == 200
    for path in ["/", "/metrics/", "/healthz/x", "//metrics"]:
        assert http_get(admin, path)[0] == 404, path
    for method in ["POST", "PUT", "DELETE", "OPTIONS"]:
        status, headers, _ = http_get(admin, "/metrics", method)
        assert (status, headers["allow"]) == (405, "GET, HEAD"), method
    status, headers, text = http_get(admin, "/metrics", "HEAD")
    assert status == 200 and text == "" and int(headers["content-length"]) > 1000


def test_a_full_server_shows_before_it_evicts_and_when_it_does():
    port, admin = free_port(), free_port()
    with server(f"-m 4 -p {port} --admin-listen {admin}", port), talk(port) as client:
        for number in range(8000):
            assert client.ask(b"set k%d 0 900 1000\r\n%s\r\n" % (number, b"v" * 1000)) == STORED
            if number == 1000:
                some = samples(admin)
        full = samples(admin)
    used = [found["sessiond_memory_used_bytes",] / (4 << 20) for found in (some, full)]
    assert 0.2 < used[0] < 0.6 and 0.9 < used[1] <= 1
    assert some["memcached_items_evicted_total",] == 0 < full["memcached_items_evicted_total",]
    assert full["memcached_malloced_bytes",] <= full["memcached_limit_bytes",] == 4 << 20


def test_a_group_shows_its_peers_its_waits_and_its_log():
    with ready(with_admin(new_group())) as nodes:
        until_whole(nodes)
        with talk(nodes[0].port) as client:
            for number in range(30):
                assert client.ask(b"set key-%d 0 60 1\r\nx\r\n" % number) == STORED
            stats = client.stats(b"replication")
        found = samples(nodes[0].admin_port)
        assert found["sessiond_commit_wait_seconds_count",] == 30
        assert found["sessiond_commit_wait_seconds_bucket", "30"] == 30
        assert 0 < found["sessiond_commit_wait_max_seconds",] < 5
        assert int(stats["commit_wait_us_count"]) == 30
        quantiles = [int(stats[f"commit_wait_us_{name}"]) for name in ["p50", "p99", "max"]]
        assert quantiles == sorted(quantiles) and quantiles[0] > 0
        # By the hash of these names some belong to each node.
        assert 0 < found["sessiond_relayed_commands_total", "write"] < 30
        for peer in ["n2", "n3"]:
            assert found["sessiond_peer_up", peer] == 1
            assert found["sessiond_peer_round_trip_seconds", peer] < 5
            assert found["sessiond_peer_window_bytes", peer] == 64 << 20
            assert stats[f"peer:{peer}:window_bytes"] == str(64 << 20)
        wait_until(
            lambda: samples(nodes[0].admin_port)["sessiond_peer_lag_records", "n2"] == 0, "no lag"
        )
        assert found["sessiond_view_nodes", "member"] == found["sessiond_configured_nodes",] == 3
        assert found["sessiond_log_has_leader",] == 1 and found["sessiond_log_voters",] == 3
        leaders = [samples(node.admin_port)["sessiond_log_is_leader",] for node in nodes]
        assert sum(leaders) == 1
        assert all(readiness(node) == (200, "ready\n") for node in nodes)


def test_what_a_member_lacks_shows_as_lag_until_it_has_it():
    # Left out only after this long.
    patient = ["--suspect", "8000"]
    with ready(with_admin(new_group(patient))) as (first, second, _), ExitStack() as clients:
        writers = [clients.enter_context(connect(first.port)) for _ in range(30)]
        # By the hash of these names some belong to each node.
        lines = [b"set key-%d 0 60 1\r\nx\r\n" % number for number in range(30)]
        for line in lines:
            # Once all of it works, and all links are there.
            assert wire.ask(first.port, line) == STORED
        second.freeze()
        for line, writer in zip(lines, writers):
            writer.sendall(line)

        def lag():
            found = samples(first.admin_port)
            return [found[f"sessiond_peer_lag_{unit}", "n2"] for unit in UNITS]

        wait_until(lambda: all(lag()), "it is behind")
        behind = samples(first.admin_port)
        assert behind["sessiond_waiting_commands",] > 0 and behind["sessiond_pending_keys",] > 0
        assert behind["sessiond_peer_lag_records", "n2"] <= 30
        assert behind["sessiond_peer_lag_bytes", "n2"] < behind["sessiond_peer_window_bytes", "n2"]
        second.thaw()
        assert all(wire_lines(writer, 1) == [b"STORED"] for writer in writers)
        wait_until(lambda: lag() == [0, 0, 0], "it has caught up")
        after = samples(first.admin_port)
        assert after["sessiond_waiting_commands",] == 0
        assert after["sessiond_peer_up", "n2"] == 1
        assert after["sessiond_commit_wait_seconds_count",] == 60


def test_a_node_cut_off_is_not_ready_and_counts_it():
    with ready(with_admin(new_group(["--last-man-standing", "off"]))) as nodes:
        until_whole(nodes)
        first, second, third = nodes
        second.freeze()
        with connect(first.port) as writer:
            # Held back until the frozen one is left out: some of these are its own keys.
            writer.sendall(b"".join(b"set key-%d 0 60 1\r\nx\r\n" % n for n in range(30)))
            assert wire_lines(writer, 30) == [b"STORED"] * 30
        left = samples(first.admin_port)
        assert left["sessiond_peer_up", "n2"] == 0 and left["sessiond_view_nodes", "member"] == 2
        causes = {key[1]: n for key, n in left.items() if key[0] == "sessiond_view_changes_total"}
        assert causes["silence"] + causes["stuck"] >= 1
        assert left["sessiond_commit_wait_max_seconds",] > 0.3
        third.freeze()
        wait_until(lambda: readiness(first)[0] == 503, "fenced", READY_DEADLINE_S)
        assert readiness(first) == (503, "fenced: cannot prove that it is current\n")
        assert http_get(first.admin_port, "/healthz")[0] == 200
        # It looks 40 times a second.
        wait_until(lambda: samples(first.admin_port)["sessiond_fences_total",] == 1, "counted")
        fenced = samples(first.admin_port)
        assert fenced["sessiond_ready",] == 0 and fenced["sessiond_state", "fenced"] == 1
        assert fenced["sessiond_lease_seconds",] == 0
        second.thaw()
        third.thaw()
        until_whole(nodes)
        assert readiness(first)[0] == 200
        again = samples(second.admin_port)
        assert again["sessiond_fences_total",] >= 1 and again["sessiond_ready",] == 1


def wire_lines(connection, count):
    text = b""
    while text.count(b"\r\n") < count:
        piece = connection.recv(1 << 16)
        assert piece, text
        text += piece
    return text.splitlines()


def test_a_node_that_waits_for_the_others_is_not_ready():
    first, *_ = with_admin(new_group())
    with running([first]):
        first.wait_open()
        assert readiness(first) == (503, "waiting: is in no view of its group\n")
        with connect(first.port) as client:
            client.sendall(b"get a\r\n")
            wait_until(
                lambda: samples(first.admin_port)["sessiond_held_commands",] == 1, "it is held"
            )
            assert samples(first.admin_port)["sessiond_commands_held_total",] == 1


def test_the_port_for_figures_comes_back_with_the_server_of_a_supervisor():
    with ready(with_admin(new_group(["--supervise"]))) as nodes:
        until_whole(nodes)
        first = nodes[0]

        def pid():
            lines = [line for line in status(first) if line.startswith("pid ")]
            return int(lines[0].split()[1]) if lines else None

        seen = {None, pid()}
        done = ctl(first, "restart", deadline_s=60)
        assert done.returncode == 0, done.stderr
        assert pid() not in seen and readiness(first) == (200, "ready\n")
        seen.add(pid())
        os.kill(pid(), signal.SIGKILL)
        wait_until(lambda: pid() not in seen, "another server runs")
        until_whole(nodes)
        assert readiness(first) == (200, "ready\n")
        # Whoever asks for the same port is refused, and the supervisor that has it goes on.
        second = Node("second", group_flags=["--supervise", "--admin-listen", str(first.admin_port)])
        with running([second]):
            assert second.wait_exit() == 71
            (line,) = [line for line in second.output().splitlines() if line.startswith("error:")]
            assert f"127.0.0.1:{first.admin_port}" in line
        assert readiness(first) == (200, "ready\n")


def test_a_witness_answers_for_the_log_alone():
    nodes = with_admin(new_group(witness="n3"))
    with running(nodes):
        for node in nodes[:2]:
            node.wait_ready()
        witness = nodes[2]
        wait_until(
            lambda: samples(witness.admin_port)["sessiond_log_has_leader",] == 1, "it has a leader"
        )
        assert http_get(witness.admin_port, "/healthz")[0] == 200
        assert readiness(witness) == (503, "witness: only votes, and serves no clients\n")
        found = samples(witness.admin_port)
        assert found["sessiond_state", "witness"] == 1
        assert not [name for name, *_ in found if name.startswith("memcached_")]
        assert samples(nodes[0].admin_port)["sessiond_peer_witness", "n3"] == 1


def test_a_witness_shows_whom_it_refuses():
    nodes = with_admin(new_group(witness="n3"))
    with running(nodes):
        for node in nodes[:2]:
            node.wait_ready()
        witness = nodes[2]
        shown = {"state witness", "node_name n3", "peers_refused:garbage 0"}
        wait_until(lambda: shown <= status(witness), "it shows none")
        address = witness.command[witness.command.index("--peer-listen") + 1]
        with Stranger(int(address.split(":")[1])) as stranger:
            stranger.say(b"\xff" * 100)
            stranger.hear()
        wait_until(lambda: "peers_refused:garbage 1" in status(witness), "it shows one")
        wait_until(lambda: "whole yes" in status(witness), "it knows that all vote")
        assert samples(witness.admin_port)["sessiond_peers_refused_total", "garbage"] == 1


GARBAGE = [
    b"\r\n\r\n\r\n",
    b"\x00\xff\xfe" * 1000,
    b"GET\r\n\r\n",
    b"GET /metrics HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"x: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"x%d: a\r\n" % n for n in range(1000)) + b"\r\n",
    b"set a 0 0 1\r\nx\r\n",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_ends_its_own_connection_and_nothing_else(alone, garbage):
    port, admin = alone
    with connect(admin) as connection:
        try:
            connection.sendall(garbage)
            answer = wire.read_to_end(connection)
        except (ConnectionError, BrokenPipeError):
            answer = b""
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:100]
    assert http_get(admin, "/readyz")[0] == 200
    assert wire.ask(port, b"version\r\n").startswith(b"VERSION ")


def test_those_that_say_nothing_keep_nobody_out_for_long(alone):
    port, admin = alone
    with ExitStack() as silent:
        started = time.monotonic()
        for number in range(40):
            connection = silent.enter_context(connect(admin))
            if number % 2:
                connection.sendall(b"GET /metrics HT")
        # All places are taken. The first of these wait in the kernel's queue, and so do we.
        wait_until(lambda: is_answered(admin), "a scrape among them", 20)
        assert time.monotonic() - started < 15
        assert wire.ask(port, b"version\r\n").startswith(b"VERSION ")


def is_answered(admin):
    try:
        return http_get(admin, "/healthz")[0] == 200
    except OSError:
        return False


def test_a_line_says_what_is_wrong_with_the_address():
    taken = free_port()
    with socket.create_server(("127.0.0.1", taken)):
        code, line = refusal(f"-p 0 --admin-listen {taken}")
        assert code != 0 and f"cannot listen on 127.0.0.1:{taken}" in line
        assert "--admin-listen" in line
    for wrong in ["nowhere", "127.0.0.1", "1.2.3.4:x", "70000", ""]:
        code, line = refusal(f"-p 0 --admin-listen={wrong}")
        assert code == 64 and line.startswith("error: --admin-listen"), (wrong, line)
        assert line.count("\n") == 1


def test_only_an_address_that_others_reach_is_warned_of(alone):
    port, admin = free_port(), free_port()
    with server(f"-p {port} --admin-listen 0.0.0.0:{admin}", port) as open_to_all:
        assert http_get(admin, "/healthz")[0] == 200
        assert "whoever reaches it can read this node's figures" in open_to_all.output()
    with server(f"-p {port} --admin-listen [::1]:{admin}", port) as closed:
        assert "--admin-listen" not in closed.output()


def test_nobody_listens_unless_asked_to():
    with cluster_of_three() as nodes:
        assert all("/metrics" not in node.output() for node in nodes)


def test_every_family_has_a_type_that_does_not_change():
    with ready(with_admin(new_group())) as nodes:
        texts = [http_get(node.admin_port, "/metrics")[2] for node in nodes]
        kinds = [described(text) for text in texts]
        assert kinds[0] == kinds[1] == kinds[2] and len(kinds[0]) > 100
