"""Lists of all keys, and `watch`: what they show, and that a reader who dawdles harms nobody."""

import re
import socket
import threading
from contextlib import contextmanager
from urllib.parse import unquote_to_bytes

import pytest

from cluster import cluster_of_three
from command_line import server
from ports import free_port
from talk import Talk, talk
from waiting import wait_until

ITEMS = 5000
# A key may hold anything but spaces and line ends.
ODD_KEYS = [
    b"user:7",
    b"50%/day",
    b"a+b&c=d?",
    b"tab\there",
    b"\xc3\xa9",
    b"\x01\xff",
    b"%41",
]


@pytest.fixture
def port():
    return free_port()


def store(client, keys, exptime=0, value=b"x"):
    head = b"%d %d" % (exptime, len(value))
    client.send(b"".join(b"set %s 7 %s\r\n%s\r\n" % (key, head, value) for key in keys))
    for _ in keys:
        assert client.until(b"\r\n") == b"STORED\r\n"


def metadump(client, classes=b"all"):
    """The lines as dicts, each with its key decoded."""
    client.send(b"lru_crawler metadump %s\r\n" % classes)
    assert client.until(b"\r\n") == b"OK\r\n"
    return [described(line) for line in client.until(b"END\r\n").splitlines()[:-1]]


def described(line):
    words = dict(word.split(b"=", 1) for word in line.split())
    assert list(words) == [b"key", b"exp", b"la", b"cas", b"fetch", b"cls", b"size", b"flags"]
    return {name.decode(): value for name, value in words.items()} | {
        "key": unquote_to_bytes(words[b"key"])
    }


def mgdump(client, classes=b"all"):
    client.send(b"lru_crawler mgdump %s\r\n" % classes)
    lines = client.until(b"EN\r\n").split(b"\r\n")[:-2]
    assert all(line.startswith(b"mg ") for line in lines)
    return [line[3:] for line in lines]


@contextmanager
def busy_writer(port):
    """Stores, rewrites and deletes keys of its own for as long as the `with` lasts."""
    done = threading.Event()
    rounds = []

    def write():
        with talk(port) as client:
            while not done.is_set():
                number = len(rounds)
                keys = [b"new-%d-%d" % (number, each) for each in range(20)]
                store(client, keys + [b"again-%d" % each for each in range(20)])
                for key in keys[:10]:
                    assert client.ask(b"delete %s\r\n" % key) == b"DELETED\r\n"
                rounds.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_until(lambda: rounds, "it writes")
        yield rounds
    finally:
        done.set()
        writer.join()


def test_dumps_show_every_live_key_once_while_others_write(port):
    steady = [b"steady:%d" % number for number in range(ITEMS)]
    with server(f"-t 2 -p {port} -o no_lru_crawler", port), talk(port) as client:
        assert client.ask(b"lru_crawler enable\r\n") == b"OK\r\n"
        store(client, steady)
        store(client, [b"short:%d" % number for number in range(500)], exptime=1)
        store(client, [b"deleted:%d" % number for number in range(500)])
        for number in range(500):
            assert client.ask(b"delete deleted:%d\r\n" % number) == b"DELETED\r\n"
        is_over = lambda: client.ask(b"get short:499\r\n", b"END\r\n") == b"END\r\n"
        wait_until(is_over, "what is short is over")
        classes = {item["cls"] for item in metadump(client)}
        with busy_writer(port) as rounds:
            before = len(rounds)
            for words in [b"all", b"hash", b",".join(sorted(classes))]:
                listed = [item["key"] for item in metadump(client, words)]
                assert the_steady_of(listed) == sorted(steady)
                assert the_steady_of(mgdump(client, words)) == sorted(steady)
            assert len(rounds) > before, "it was not kept from writing"
        assert mgdump(client, b"63") == []


def the_steady_of(keys):
    """Sorted and with their repetitions; nothing over or deleted may be among the others."""
    kinds = {re.split(rb"[:-]", key)[0] for key in keys}
    assert kinds <= {b"steady", b"new", b"again"}, kinds
    return sorted(key for key in keys if key.startswith(b"steady"))


def test_what_a_dump_says_of_an_item_is_what_others_say(port):
    with server(f"-p {port}", port), talk(port) as client:
        store(client, ODD_KEYS, exptime=1000, value=b"12345")
        assert client.ask(b"get %s\r\n" % ODD_KEYS[0], b"END\r\n").startswith(b"VALUE")
        assert client.ask(b"ms AAEC 2 b\r\nhi\r\n") == b"HD\r\n"
        items = metadump(client)
        assert sorted(item["key"] for item in items) == sorted([*ODD_KEYS, b"\0\1\2"])
        assert sorted(mgdump(client)) == sorted([*ODD_KEYS, b"AAEC b"])
        now_s = int(client.stats()["time"])
        for item in (item for item in items if item["key"] in ODD_KEYS):
            assert abs(int(item["exp"]) - now_s - 1000) <= 3
            assert abs(int(item["la"]) - now_s) <= 3
            assert item["flags"] == b"7"
            assert item["fetch"] == (b"yes" if item["key"] == ODD_KEYS[0] else b"no")
            described = client.ask(b"me %s\r\n" % item["key"])
            for name in ["cas", "cls", "size"]:
                assert b" %s=%s" % (name.encode(), item[name]) in described, described
            got = client.ask(b"gets %s\r\n" % item["key"], b"END\r\n")
            assert got.split(b"\r\n")[0].endswith(b" 7 5 " + item["cas"])


def test_each_node_of_a_group_lists_all_keys():
    with cluster_of_three() as nodes, talk(nodes[0].port) as writer:
        keys = [b"group:%d" % number for number in range(300)]
        store(writer, keys)
        assert writer.ask(b"delete group:0\r\n") == b"DELETED\r\n"
        for node in nodes:
            with talk(node.port) as client:
                assert sorted(item["key"] for item in metadump(client)) == sorted(keys[1:])


@contextmanager
def deaf(port):
    """A client with a small window, so that little is on its way when it does not read."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 10)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", port))
        yield Talk(connection)


def hears_again(client):
    """It reads from now on, and not through that small window."""
    client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)


def test_a_client_that_does_not_read_its_dump_stalls_nobody(port):
    keys = [b"%s-%d" % (b"long" * 60, number) for number in range(30_000)]
    # One worker: whoever kept it busy would keep it from all.
    with server(f"-t 1 -m 256 -p {port}", port) as program, talk(port) as client:
        store(client, keys)
        before = program.resident_bytes()
        with deaf(port) as slow, deaf(port) as leaving:
            for dump in [slow, leaving]:
                dump.send(b"lru_crawler metadump all\r\n")
                assert dump.until(b"key=").startswith(b"OK\r\n")
            wait_until(lambda: not is_growing(client), "the dumps wait for their readers")
            for number in range(200):
                assert client.ask(b"set other-%d 0 0 1\r\nx\r\n" % number) == b"STORED\r\n"
                assert client.ask(b"delete other-%d\r\n" % number) == b"DELETED\r\n"
            assert len(mgdump(client)) == len(keys), "a second dump beside the first"
            assert program.resident_bytes() - before < 4 << 20
            # Closed in the middle of its dump.
            leaving.connection.close()
            wait_until(lambda: connections(client) == 2, "it is let go")
            # What was not read is still there.
            hears_again(slow)
            rest = b"key=" + slow.until(b"END\r\n")
            listed = {unquote_to_bytes(word[4:]) for word in rest.split() if word[:4] == b"key="}
            assert listed == set(keys)
            assert slow.ask(b"mn\r\n") == b"MN\r\n", "its connection goes on"


def is_growing(client):
    """Whether more is written than the answers to these questions."""
    before = int(client.stats()["bytes_written"])
    return int(client.stats()["bytes_written"]) - before > 10_000


def connections(client):
    return int(client.stats()["curr_connections"])


@contextmanager
def watching(port, kinds):
    with talk(port) as watcher:
        assert watcher.ask(b"watch %s\r\n" % kinds) == b"OK\r\n"
        yield watcher


def events(watcher, last):
    """What it is shown, up to the line that has `last` in it: each without time and number."""
    lines = (watcher.until(last) + watcher.until(b"\n")).splitlines()
    texts = [re.fullmatch(rb"ts=\d+\.\d{6} gid=\d+ (.*)", line) for line in lines]
    assert all(texts), lines
    # Which descriptor and which class it was is the server's choice; class 0 is none.
    return [re.sub(rb"( cfd=| clsid=(?!0))\d+", rb"\1N", text[1]) for text in texts]


def change(client):
    """One change of each kind that is shown, and one of each that is not."""
    for question, answer in [
        (b"set a%b 0 60 4\r\n1234\r\n", b"STORED\r\n"),
        (b"add a%b 0 0 1\r\nx\r\n", b"NOT_STORED\r\n"),
        (b"delete a%b\r\n", b"DELETED\r\n"),
        (b"ms m 3\r\nxyz\r\n", b"HD\r\n"),
        (b"touch m 0\r\n", b"TOUCHED\r\n"),
        (b"md m\r\n", b"HD\r\n"),
        (b"delete gone\r\n", b"NOT_FOUND\r\n"),
        (b"set last 0 0 1\r\nx\r\n", b"STORED\r\n"),
        (b"get last\r\n", b"END\r\n"),
    ]:
        assert client.ask(question, answer).endswith(answer)


CHANGES = [
    b"type=item_store key=a%25b status=stored cmd=set ttl=60 clsid=N cfd=N size=4",
    b"type=item_store key=a%25b status=not_stored cmd=add ttl=0 clsid=0 cfd=N size=1",
    b"type=deleted key=a%25b cmd=delete clsid=N size=4",
    b"type=item_store key=m status=stored cmd=set ttl=0 clsid=N cfd=N size=3",
    b"type=deleted key=m cmd=md clsid=N size=3",
    b"type=item_store key=last status=stored cmd=set ttl=0 clsid=N cfd=N size=1",
]


def test_watchers_see_the_kinds_that_they_asked_for(port):
    with (
        server(f"-p {port}", port),
        watching(port, b"fetchers") as fetchers,
        watching(port, b"mutations deletions") as changes,
        watching(port, b"connevents") as visitors,
    ):
        with talk(port) as client:
            rport = client.connection.getsockname()[1]
            change(client)
        assert events(changes, b"key=last") == CHANGES
        reads = events(fetchers, b"key=last status=found")
        assert reads[-1] == b"type=item_get key=last status=found clsid=N cfd=N size=1"
        assert reads[0] == b"type=item_get key=a%25b status=not_found clsid=0 cfd=N size=0"
        assert all(line.startswith(b"type=item_get ") for line in reads)
        visit = b" rip=127.0.0.1 rport=%d transport=tcp " % rport
        closed = b"type=conn_close%sreason=normal cfd=N" % visit
        seen = events(visitors, b"type=conn_close" + visit)
        assert [line for line in seen if visit in line] == [
            b"type=conn_new%scfd=N" % visit,
            closed,
        ]
        assert {line.split()[0] for line in seen} <= {b"type=conn_new", b"type=conn_close"}


def test_a_watcher_sees_the_changes_that_clients_of_its_node_make():
    with (
        cluster_of_three() as (first, second, _),
        watching(first.port, b"mutations deletions") as here,
        watching(second.port, b"mutations deletions") as elsewhere,
    ):
        with talk(first.port) as client:
            change(client)
        assert events(here, b"key=last") == CHANGES
        with talk(second.port) as client:
            store(client, [b"last"])
        assert len(events(elsewhere, b"key=last")) == 1


def test_a_watcher_sees_what_is_evicted(port):
    with (
        server(f"-m 4 -p {port}", port),
        watching(port, b"evictions") as watcher,
        talk(port) as client,
    ):
        keys = [b"%d" % number for number in range(5000)]
        for first in range(0, len(keys), 100):
            store(client, keys[first : first + 100], exptime=500, value=b"v" * 1000)
        figures = client.stats()
        sent, evicted = int(figures["log_watcher_sent"]), int(figures["evictions"])
        assert evicted == sent > 0 and figures["log_watcher_skipped"] == "0"
        lines = [watcher.until(b"\n") for _ in range(sent)]
        pattern = (
            rb"ts=\S+ gid=\d+ type=eviction key=(\d+) fetch=no ttl=(\d+) la=\d+ "
            rb"clsid=\d+ size=1000\n"
        )
        seen = [re.fullmatch(pattern, line) for line in lines]
        assert all(490 <= int(line[2]) <= 500 for line in seen)
        listed = {item["key"] for item in metadump(client)}
        assert listed == set(keys) - {line[1] for line in seen}


def test_a_watcher_that_does_not_read_misses_lines_and_harms_nobody(port):
    key = b"k" * 200
    reads = b"get %s\r\n" % b" ".join([key] * 1000)
    with server(f"-t 1 -p {port}", port) as program, talk(port) as client:
        before = program.resident_bytes()
        with deaf(port) as watcher:
            assert watcher.ask(b"watch fetchers\r\n") == b"OK\r\n"

            def has_missed_many():
                assert client.ask(reads, b"END\r\n") == b"END\r\n"
                return int(client.stats()["log_watcher_skipped"]) > 20_000

            wait_until(has_missed_many, "its buffers are full")
            assert program.resident_bytes() - before < 4 << 20
            figures = client.stats()
            written = int(figures["log_worker_written"])
            sent, skipped = (int(figures[f"log_watcher_{word}"]) for word in ("sent", "skipped"))
            assert written == sent + skipped and figures["log_watchers"] == "1"
            # It is told, once it reads again and something new is shown.
            ends = threading.Event()
            hears_again(watcher)
            reader = threading.Thread(target=lambda: (watcher.until(b"skipped="), ends.set()))
            reader.start()
            wait_until(lambda: client.ask(reads, b"END\r\n") and ends.is_set(), "it is told")
            reader.join()
            assert 0 < int(watcher.until(b"\n")) <= int(client.stats()["log_watcher_skipped"])
            wait_until(lambda: has_missed_more(client, reads), "it is full again")
        # Gone in the middle of a write that could not go on.
        wait_until(lambda: client.stats()["log_watchers"] == "0", "it is let go")
        written = client.stats()["log_worker_written"]
        client.ask(reads, b"END\r\n")
        assert client.stats()["log_worker_written"] == written, "nobody looks, nothing is logged"


def has_missed_more(client, reads):
    before = int(client.stats()["log_watcher_skipped"])
    client.ask(reads, b"END\r\n")
    return int(client.stats()["log_watcher_skipped"]) > before


def test_a_watcher_is_not_idle_and_sees_those_who_are(port):
    with (
        server(f"-o idle_timeout=1 -p {port}", port),
        watching(port, b"connevents") as watcher,
        talk(port) as idle,
    ):
        rport = idle.connection.getsockname()[1]
        assert idle.ask(b"mn\r\n") == b"MN\r\n"
        assert b" rport=%d " % rport in events(watcher, b"reason=idle_timeout")[-1]
        # It has been silent for longer than that one, and is shown what comes next all the same.
        with talk(port) as another:
            rport = another.connection.getsockname()[1]
        assert b"rport=%d " % rport in events(watcher, b"type=conn_close")[-1]


def test_a_watcher_that_leaves_makes_room_for_another(port):
    with server(f"-p {port}", port), talk(port) as client:
        for _ in range(25):
            with watching(port, b"mutations"):
                pass
        wait_until(lambda: client.stats()["log_watchers"] == "0", "all are let go")


@pytest.mark.parametrize(
    "flag, refusals",
    [
        (
            "-X",
            {
                b"lru_crawler metadump all": b"ERROR metadump not allowed",
                b"lru_crawler mgdump all": b"ERROR key dump not allowed",
                b"stats cachedump 1 0": b"CLIENT_ERROR stats cachedump not allowed",
                b"stats detail on": b"CLIENT_ERROR stats detail not allowed",
            },
        ),
        ("-W", {b"watch mutations": b"CLIENT_ERROR watch commands not allowed"}),
    ],
)
def test_what_is_switched_off_is_refused_and_the_rest_works(port, flag, refusals):
    with server(f"{flag} -p {port}", port), talk(port) as client:
        store(client, [b"k"])
        for question, refused in refusals.items():
            assert client.ask(question + b"\r\n") == refused + b"\r\n"
        assert client.ask(b"get k\r\n", b"END\r\n") == b"VALUE k 7 1\r\nx\r\nEND\r\n"
        settings = client.stats(b"settings")
        assert settings["dump_enabled"] == ("no" if flag == "-X" else "yes")
        if flag == "-X":
            assert client.ask(b"watch\r\n") == b"OK\r\n"
        else:
            assert [item["key"] for item in metadump(client)] == [b"k"]
