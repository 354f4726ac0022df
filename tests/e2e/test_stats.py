"""`stats` and its sub-commands: real figures after traffic that is known."""

import re
from contextlib import ExitStack

import pytest

from cluster import cluster_of_three
from command_line import connect, server
from ports import free_port
from talk import talk
from waiting import wait_until
from wire import read_to_end

# What the Prometheus exporter of memcached reads, from each of the lists.
EXPORTED = """
    uptime time rusage_user rusage_system bytes_read bytes_written curr_connections
    total_connections rejected_connections conn_yields listen_disabled_num accepting_conns bytes
    limit_maxbytes curr_items total_items evictions reclaimed store_too_large store_no_memory
    get_hits get_misses delete_hits delete_misses incr_hits incr_misses decr_hits decr_misses
    cas_hits cas_misses cas_badval touch_hits touch_misses cmd_flush cmd_set cmd_get
    lru_crawler_starts crawler_items_checked crawler_reclaimed direct_reclaims moves_to_cold
    moves_to_warm moves_within_lru
"""
EXPORTED_SETTINGS = """
    maxconns lru_crawler_sleep lru_crawler_tocrawl hot_lru_pct warm_lru_pct hot_max_factor
    warm_max_factor
"""
EXPORTED_OF_ITEMS = """
    number age hits_to_hot hits_to_warm hits_to_cold hits_to_temp crawler_reclaimed evicted
    evicted_nonzero evicted_time evicted_unfetched expired_unfetched outofmemory reclaimed
    tailrepairs mem_requested moves_to_cold moves_to_warm moves_within_lru number_hot number_warm
    number_cold number_temp age_hot age_warm
"""
EXPORTED_OF_SLABS = """
    chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks free_chunks_end
    get_hits delete_hits incr_hits decr_hits cas_hits cas_badval touch_hits cmd_set
"""
NUMBER = re.compile(r"\d+(\.\d+)?")
STORED, END = b"STORED\r\n", b"END\r\n"


@pytest.fixture
def port():
    return free_port()


def figures(client, what=b""):
    """Those of the lines that are whole numbers."""
    lines = client.stats(what).items()
    return {name: int(value) for name, value in lines if re.fullmatch(r"-?\d+", value)}


def picked(figures, names):
    return {name: figures.get(name) for name in names}


def over_all_classes(client, what, name):
    """The sum of `items:<class>:<name>` or `<class>:<name>`."""
    pattern = re.compile(rf"(items:)?\d+:{name}")
    return sum(value for key, value in figures(client, what).items() if pattern.fullmatch(key))


def store(client, keys, value=b"x", exptime=0):
    head = b"%d %d" % (exptime, len(value))
    client.send(b"".join(b"set %s 0 %s\r\n%s\r\n" % (key, head, value) for key in keys))
    for _ in keys:
        assert client.until(b"\r\n") == STORED


def keys_of(count, prefix=b"key"):
    return [b"%s-%d" % (prefix, number) for number in range(count)]


def test_each_command_is_counted_under_its_name(port):
    with server(f"-t 2 -p {port}", port), talk(port) as client:
        for question, answer in [
            (b"set a 0 0 1\r\nx\r\n", STORED),
            (b"set b 0 0 1\r\nx\r\n", STORED),
            (b"add a 0 0 1\r\nx\r\n", b"NOT_STORED\r\n"),
            (b"replace none 0 0 1\r\nx\r\n", b"NOT_STORED\r\n"),
            (b"append a 0 0 1\r\ny\r\n", STORED),
            (b"get a b none\r\n", b"VALUE a 0 2\r\nxy\r\nVALUE b 0 1\r\nx\r\nEND\r\n"),
            (b"touch a 0\r\n", b"TOUCHED\r\n"),
            (b"touch none 0\r\n", b"NOT_FOUND\r\n"),
            (b"gat 0 a\r\n", b"VALUE a 0 2\r\nxy\r\nEND\r\n"),
            (b"gat 0 none\r\n", END),
            (b"delete b\r\n", b"DELETED\r\n"),
            (b"delete b\r\n", b"NOT_FOUND\r\n"),
            (b"set n 0 0 1\r\n5\r\n", STORED),
            (b"incr n 3\r\n", b"8\r\n"),
            (b"incr none 3\r\n", b"NOT_FOUND\r\n"),
            (b"decr n 1\r\n", b"7\r\n"),
            (b"decr n 1\r\n", b"6\r\n"),
            (b"decr none 3\r\n", b"NOT_FOUND\r\n"),
            (b"cas none 0 0 1 1\r\nx\r\n", b"NOT_FOUND\r\n"),
            (b"cas a 0 0 1 1\r\nx\r\n", b"EXISTS\r\n"),
            (b"mg a v\r\n", b"VA 2\r\nxy\r\n"),
            (b"mg none v\r\n", b"EN\r\n"),
            (b"ms m 1\r\nx\r\n", b"HD\r\n"),
            (b"ma n D1\r\n", b"HD\r\n"),
            (b"md m\r\n", b"HD\r\n"),
            (b"flush_all\r\n", b"OK\r\n"),
            (b"set big 0 0 1048576\r\n" + b"x" * 1048576 + b"\r\n", b"SERVER_ERROR"),
        ]:
            assert client.ask(question, answer) == answer
        client.until(b"\r\n")
        unique = client.ask(b"set c 0 0 1\r\nx\r\ngets c\r\n", END).split(b" ")[-1].split()[0]
        assert client.ask(b"cas c 0 0 1 %s\r\ny\r\n" % unique) == STORED
        expected = {
            "cmd_set": 11,
            "cmd_get": 6,
            "get_hits": 4,
            "get_misses": 2,
            "cmd_touch": 4,
            "touch_hits": 2,
            "touch_misses": 2,
            "delete_hits": 2,
            "delete_misses": 1,
            "incr_hits": 2,
            "incr_misses": 1,
            "decr_hits": 2,
            "decr_misses": 1,
            "cas_hits": 1,
            "cas_misses": 1,
            "cas_badval": 1,
            "cmd_meta": 5,
            "cmd_flush": 1,
            "store_too_large": 1,
            "store_no_memory": 0,
            "evictions": 0,
            "auth_cmds": 0,
        }
        counted = figures(client)
        assert picked(counted, expected) == expected
        assert counted["bytes_read"] > 1048576


def test_items_and_their_bytes_come_and_go(port):
    with server(f"-p {port}", port), talk(port) as client:
        keys, value = keys_of(100), b"v" * 1000
        store(client, keys, value)
        store(client, keys[:50], value)
        held = figures(client)
        assert (held["curr_items"], held["total_items"]) == (100, 150)
        assert 100 * 1000 < held["bytes"] < 100 * 1200
        assert held["limit_maxbytes"] == 64 << 20
        for key in keys[:40]:
            assert client.ask(b"delete %s\r\n" % key) == b"DELETED\r\n"
        left = figures(client)
        assert left["curr_items"] == 60 and left["total_items"] == 150
        assert 60 * 1000 < left["bytes"] < 60 * 1200
        assert client.ask(b"flush_all\r\n") == b"OK\r\n"
        wait_until(lambda: figures(client)["curr_items"] == 0, "what was flushed is swept")
        assert figures(client)["bytes"] == 0


def test_a_node_counts_its_own_clients_and_all_items():
    with cluster_of_three() as nodes, ExitStack() as open_connections:
        clients = [open_connections.enter_context(talk(node.port)) for node in nodes]
        first, second, third = clients
        keys = keys_of(60)
        store(first, keys)
        # A write is answered when all have it.
        for client in clients:
            held = figures(client)
            assert held["curr_items"] == 60 and held["total_items"] == 60
        assert len({figures(client)["bytes"] for client in clients}) == 1
        assert second.ask(b"get %s none\r\n" % b" ".join(keys), END).count(b"VALUE") == 60
        assert third.ask(b"set n 0 0 1\r\n1\r\n") == STORED
        for number in range(2, 8):
            assert third.ask(b"incr n 1\r\n") == b"%d\r\n" % number
        assert third.ask(b"incr none 1\r\n") == b"NOT_FOUND\r\n"
        assert third.ask(b"touch n 0\r\n") == b"TOUCHED\r\n"
        for key in keys[:10]:
            assert second.ask(b"delete %s\r\n" % key) == b"DELETED\r\n"
        assert second.ask(b"delete %s\r\n" % keys[0]) == b"NOT_FOUND\r\n"
        names = (
            "cmd_set cmd_get get_hits get_misses incr_hits incr_misses touch_hits delete_hits "
            "delete_misses curr_items evictions"
        ).split()
        counted = [list(picked(figures(client), names).values()) for client in clients]
        assert counted == [
            [60, 0, 0, 0, 0, 0, 0, 0, 0, 51, 0],
            [0, 61, 60, 1, 0, 0, 0, 10, 1, 51, 0],
            [1, 0, 0, 0, 6, 1, 1, 0, 0, 51, 0],
        ]
        assert first.ask(b"flush_all\r\n") == b"OK\r\n"
        assert [figures(client)["cmd_flush"] for client in clients] == [1, 0, 0]
        for client in clients:
            wait_until(lambda: figures(client)["curr_items"] == 0, "all have swept")


def test_connections_are_counted_up_to_the_limit(port):
    with server(f"-c 4 -p {port}", port), talk(port) as client:
        # The one that saw it accept has to be gone.
        wait_until(lambda: figures(client)["curr_connections"] == 1, "one is left")
        before = figures(client)
        assert before["max_connections"] == 4
        with ExitStack() as others:
            for number in range(2, 5):
                other = others.enter_context(talk(port))
                other.ask(b"mn\r\n")
                assert figures(client)["curr_connections"] == number
            for _ in range(3):
                with connect(port) as refused:
                    assert read_to_end(refused) == b"ERROR Too many open connections\r\n"
            after = figures(client)
        assert after["total_connections"] - before["total_connections"] == 3
        assert after["rejected_connections"] - before["rejected_connections"] == 3
        wait_until(lambda: figures(client)["curr_connections"] == 1, "they are given back")


def test_evictions_are_counted_and_memory_stays_below_the_limit(port):
    with server(f"-m 4 -p {port}", port), talk(port) as client:
        store(client, keys_of(8000), b"v" * 1000, exptime=1000)
        held = figures(client)
        assert held["evictions"] > 1000
        assert held["curr_items"] + held["evictions"] == held["total_items"] == 8000
        assert held["evicted_unfetched"] == held["evictions"]
        assert held["bytes"] <= held["limit_maxbytes"] == 4 << 20
        assert figures(client, b"slabs")["total_malloced"] <= 4 << 20
        assert over_all_classes(client, b"items", "evicted") == held["evictions"]
        assert over_all_classes(client, b"items", "evicted_nonzero") == held["evictions"]
        assert client.ask(b"get key-7999\r\n", END).startswith(b"VALUE")


def test_what_is_over_is_counted_where_it_is_found(port):
    with server(f"-o no_lru_crawler -p {port}", port), talk(port) as client:
        store(client, [b"flushed"])
        assert client.ask(b"flush_all\r\nget flushed\r\n", END) == b"OK\r\nEND\r\n"
        store(client, keys_of(20), exptime=1)
        store(client, [b"stays"])
        wait_until(lambda: client.ask(b"get key-0\r\n", END) == END, "its second is over")
        found = figures(client)
        assert found["get_flushed"] == 1 and found["get_expired"] == 1
        assert found["crawler_reclaimed"] == 0
        assert client.ask(b"lru_crawler enable\r\n") == b"OK\r\n"
        wait_until(lambda: figures(client)["curr_items"] == 1, "the others are swept")
        swept = figures(client)
        assert swept["reclaimed"] + swept["crawler_reclaimed"] >= 19
        assert swept["crawler_reclaimed"] > 0
        assert swept["crawler_items_checked"] >= swept["crawler_reclaimed"]
        assert swept["get_expired"] == 1 and swept["evictions"] == 0


def test_settings_follow_what_operators_change(port):
    with server(f"-m 100 -p {port}", port), talk(port) as client:
        before = client.stats(b"settings")
        assert before["maxbytes"] == str(100 << 20)
        assert before["detail_enabled"] == "no" and before["lru_crawler"] == "yes"
        for command in [b"cache_memlimit 32", b"stats detail on", b"lru_crawler disable"]:
            assert client.ask(command + b"\r\n") == b"OK\r\n"
        after = client.stats(b"settings")
        changed = {"maxbytes": str(32 << 20), "detail_enabled": "yes", "lru_crawler": "no"}
        assert after == {**before, **changed}
        assert figures(client)["limit_maxbytes"] == 32 << 20


def test_the_lists_by_class_agree_with_the_general_one(port):
    with server(f"-p {port}", port), talk(port) as client:
        assert client.ask(b"stats items\r\n", END) == END
        assert figures(client, b"slabs")["active_slabs"] == 0
        store(client, keys_of(50), b"small")
        store(client, keys_of(20, b"large"), b"v" * 20_000)
        client.ask(b"get key-1 key-2 none\r\n", END)
        assert client.ask(b"touch key-1 0\r\n") == b"TOUCHED\r\n"
        assert client.ask(b"delete key-1\r\n") == b"DELETED\r\n"
        general = figures(client)
        assert over_all_classes(client, b"items", "number") == general["curr_items"] == 69
        assert over_all_classes(client, b"items", "mem_requested") == general["bytes"]
        assert over_all_classes(client, b"slabs", "used_chunks") == 69
        for name in ["cmd_set", "get_hits"]:
            assert over_all_classes(client, b"slabs", name) == general[name], name
        slabs = figures(client, b"slabs")
        assert slabs["active_slabs"] >= 1
        assert 400_000 < slabs["total_malloced"] <= general["limit_maxbytes"]
        assert client.stats(b"sizes") == {"sizes_status": "disabled"}


def test_every_name_that_exporters_read_is_there_and_is_a_number(port):
    with server(f"-p {port}", port), talk(port) as client:
        store(client, keys_of(3))
        general = client.stats()
        assert general["version"] == "1.6.45"
        assert not unreadable(general, EXPORTED)
        settings = client.stats(b"settings")
        assert not unreadable(settings, EXPORTED_SETTINGS)
        assert {settings["lru_crawler"], settings["lru_maintainer_thread"]} <= {"yes", "no"}
        items, slabs = client.stats(b"items"), client.stats(b"slabs")
        classes = {name.split(":")[1] for name in items}
        assert classes and classes == {name.split(":")[0] for name in slabs if ":" in name}
        for number in classes:
            assert not unreadable(items, EXPORTED_OF_ITEMS, f"items:{number}:")
            assert not unreadable(slabs, EXPORTED_OF_SLABS, f"{number}:")


def unreadable(shown, names, prefix=""):
    return [name for name in names.split() if not NUMBER.fullmatch(shown.get(prefix + name, ""))]


def test_conns_shows_what_each_connection_does(port):
    with server(f"-t 2 -p {port} -l 127.0.0.1", port), ExitStack() as others:
        client = others.enter_context(talk(port))
        idle, sending, watching = (others.enter_context(talk(port)) for _ in range(3))
        idle.ask(b"mn\r\n")
        sending.ask(b"mn\r\nset k 0 0 10\r\n12345")
        watching.ask(b"watch evictions\r\n")
        expected = {
            address(client): "conn_parse_cmd",
            address(idle): "conn_read",
            address(sending): "conn_nread",
            address(watching): "conn_watch",
        }
        wait_until(lambda: shown_connections(client) == expected, "all are as they should be")
        shown = client.stats(b"conns")
        listening = [value for name, value in shown.items() if value == "conn_listening"]
        assert len(listening) == 2, "one for each worker"
        assert set(shown_with(shown, "listen_addr").values()) == {f"tcp:127.0.0.1:{port}"}
        assert all(int(idle_s) < 30 for idle_s in shown_with(shown, "secs_since_last_cmd").values())
        watching.connection.close()
        del expected[address_gone := shown_watcher(shown)]
        wait_until(lambda: address_gone not in shown_connections(client), "it is gone")
        assert shown_connections(client) == expected


def address(client):
    host, number = client.connection.getsockname()
    return f"tcp:{host}:{number}"


def shown_with(shown, name):
    return {key.split(":")[0]: value for key, value in shown.items() if key.endswith(":" + name)}


def shown_connections(client):
    """The state of each client, by its address."""
    shown = client.stats(b"conns")
    states, addresses = shown_with(shown, "state"), shown_with(shown, "addr")
    clients = {number: state for number, state in states.items() if state != "conn_listening"}
    return {addresses[number]: state for number, state in clients.items()}


def shown_watcher(shown):
    watchers = [key for key, state in shown_with(shown, "state").items() if state == "conn_watch"]
    return shown_with(shown, "addr")[watchers[0]]


def test_detail_counts_by_prefix_between_on_and_off(port):
    with server(f"-p {port}", port), talk(port) as client:
        store(client, [b"early:1"])
        assert client.ask(b"stats detail dump\r\n", END) == END
        assert client.ask(b"stats detail on\r\n") == b"OK\r\n"
        store(client, [b"user:1", b"user:2", b"cart:1", b"plain"])
        client.ask(b"get user:1 user:3 cart:1 plain\r\n", END)
        assert client.ask(b"delete cart:1\r\n") == b"DELETED\r\n"
        assert client.ask(b"stats detail off\r\n") == b"OK\r\n"
        store(client, [b"user:4"])
        lines = client.ask(b"stats detail dump\r\n", END).splitlines()
        assert sorted(lines[:-1]) == [
            b"PREFIX cart get 1 hit 1 set 1 del 1",
            b"PREFIX user get 2 hit 1 set 2 del 0",
        ]


def test_D_counts_by_prefix_from_the_start(port):
    with server(f"-D / -p {port}", port), talk(port) as client:
        store(client, [b"app/1", b"app:2"])
        dump = client.ask(b"stats detail dump\r\n", END)
        assert dump == b"PREFIX app get 0 hit 0 set 1 del 0\r\nEND\r\n"


def test_cachedump_shows_what_is_in_a_class(port):
    with server(f"-p {port}", port), talk(port) as client:
        keys = keys_of(30)
        store(client, keys, b"five.", exptime=500)
        classes = {name.split(":")[1] for name in client.stats(b"items")}
        found = []
        for number in sorted(classes):
            dump = client.ask(b"stats cachedump %s 0\r\n" % number.encode(), END).splitlines()
            found += dump[:-1]
            some = client.ask(b"stats cachedump %s 2\r\n" % number.encode(), END).splitlines()
            assert some[:-1] == dump[:2]
        lines = [re.fullmatch(rb"ITEM (\S+) \[5 b; (\d+) s\]", line) for line in found]
        assert sorted(line[1] for line in lines) == sorted(keys)
        now_s = figures(client)["time"]
        assert all(abs(int(line[2]) - now_s - 500) <= 3 for line in lines)


def test_reset_starts_the_counts_again_and_keeps_the_rest(port):
    with server(f"-m 4 -p {port}", port), talk(port) as client:
        store(client, keys_of(6000), b"v" * 1000)
        client.ask(b"get key-5999 none\r\n", END)
        before = figures(client)
        assert before["evictions"] and before["get_hits"] and before["total_connections"]
        assert client.ask(b"stats reset\r\n") == b"RESET\r\n"
        after = figures(client)
        zeroed = (
            "cmd_get cmd_set get_hits get_misses evictions evicted_unfetched total_items "
            "total_connections rejected_connections"
        ).split()
        assert picked(after, zeroed) == dict.fromkeys(zeroed, 0)
        for name in ["curr_items", "bytes", "limit_maxbytes", "curr_connections", "pid"]:
            assert after[name] == before[name], name
        assert after["bytes_read"] < 100, "nothing but this question"
