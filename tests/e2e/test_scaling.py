"""docs/scaling.md: several groups side by side, by client hashing and behind twemproxy; and groups of
five and seven."""

import os
import shutil
import signal
import socket
from contextlib import ExitStack, contextmanager

import pytest
from pymemcache.client.hash import HashClient
from pymemcache.exceptions import MemcacheServerError, MemcacheUnexpectedCloseError

import wire
from cluster import REPOSITORY, new_group, ready
from ports import free_port
from processes import Program, running
from survivors import put, until_whole
from waiting import wait_until

GROUPS = ("sessions-a", "sessions-b")
HOSTS = range(3)
KEYS = [f"session-{number}" for number in range(300)]
# Debian keeps it out of the way of users.
NUTCRACKER = shutil.which("nutcracker", path=f"{os.environ['PATH']}:/usr/sbin")
PAGE = REPOSITORY / "docs/scaling.md"


@contextmanager
def two_groups():
    """Of each group a node on each of three hosts: a list of groups, each by host."""
    with ExitStack() as stack:
        groups = [new_group(cluster=cluster) for cluster in GROUPS]
        for nodes in groups:
            stack.enter_context(ready(nodes))
        for nodes in groups:
            until_whole(nodes)
        yield groups


class Names:
    """The socket module as a web host sees it: there, each group's name is the host's own node.

    On real hosts the addresses are the same everywhere, such as 127.0.0.1:11211 and
    127.0.0.1:11221; here all hosts are one.
    """

    def __init__(self, groups, host):
        self._ports = {name: nodes[host].port for name, nodes in zip(GROUPS, groups, strict=True)}

    def __getattr__(self, name):
        return getattr(socket, name)

    def getaddrinfo(self, name, _port, *more):
        return socket.getaddrinfo("127.0.0.1", self._ports[name], *more)


def hashing_client(groups, host):
    """With the options of the page: whoever is down, no key ever goes to another group."""
    return HashClient(
        [(name, 11211) for name in GROUPS],
        socket_module=Names(groups, host),
        retry_attempts=1_000_000,
        retry_timeout=0,
        default_noreply=False,
    )


def store(client, suffix):
    for key in KEYS:
        assert client.set(key, f"{key}-{suffix}".encode(), expire=600) is True


def read(client, keys=KEYS):
    return {key: value.decode() for key, value in client.get_many(keys).items()}


def values(suffix, keys=KEYS):
    return {key: f"{key}-{suffix}" for key in keys}


def held(node):
    """Those of the keys that the node has."""
    return {key for key in KEYS if wire.holds(node.port, key)}


def parted(groups):
    """Which keys each group has: all its nodes the same ones, and no key is in two."""
    by_group = []
    for nodes in groups:
        first, *others = [held(node) for node in nodes]
        assert all(other == first for other in others)
        by_group.append(sorted(first))
    assert sorted(by_group[0] + by_group[1]) == sorted(KEYS)
    assert min(map(len, by_group)) > len(KEYS) // 5, "both have their share"
    return by_group


def lose_a_node(groups, clients, errors):
    """Everything is there while a node of one group is dead and when it is back; `errors` are what the
    clients of its host see meanwhile, for keys of that group alone."""
    store(clients[0], "first")
    of_a, of_b = parted(groups)
    assert [read(client) for client in clients] == [values("first")] * 3
    groups[0][1].kill9()
    for host in (0, 2):
        assert read(clients[host]) == values("first")
    store(clients[2], "second")
    assert read(clients[0]) == values("second")
    # On the host of the dead node: an error, and never "not found".
    assert read(clients[1], of_b) == values("second", of_b)
    for key in of_a[:5]:
        with pytest.raises(errors):
            clients[1].get(key)
        with pytest.raises(errors):
            clients[1].set(key, b"lost")
    groups[0][1].restart()
    until_whole(groups[0])
    assert [read(client) for client in clients] == [values("second")] * 3
    assert parted(groups) == [of_a, of_b], "nothing has moved"
    for client in clients:
        client.close()


def test_two_groups_behind_the_clients_own_hashing():
    with two_groups() as groups:
        clients = [hashing_client(groups, host) for host in HOSTS]
        lose_a_node(groups, clients, (OSError, MemcacheUnexpectedCloseError))


class Nutcracker(Program):
    """twemproxy on one web host, as the page has it."""

    def __init__(self, folder, groups, host):
        self.port, self._stats_port = free_port(), free_port()
        config = folder / f"nutcracker-{host}.yml"
        config.write_text(configuration(self.port, [nodes[host].port for nodes in groups]))
        command = [NUTCRACKER, "-c", config, "-o", folder / f"nutcracker-{host}.log"]
        command += ["-p", folder / f"nutcracker-{host}.pid", "-a", "127.0.0.1"]
        super().__init__(f"nutcracker-{host}", [*command, "-s", self._stats_port])

    def wait_ready(self):
        wait_until(lambda: not wire.is_refused(self.port), f"{self.name} serves")

    def stop(self, stop_signal=signal.SIGTERM):
        """It has no other end than by the signal."""
        code = super().stop(stop_signal)
        return 0 if code == -stop_signal else code

    def client(self):
        return HashClient([("127.0.0.1", self.port)], default_noreply=False, **PATIENT)


# As with a node of one's own: there is nobody else to ask.
PATIENT = {"retry_attempts": 1_000_000, "retry_timeout": 0}


def configuration(port, ports):
    """The page's own, with other ports."""
    text = PAGE.read_text().split("```yaml\n")[1].split("```")[0]
    assert text.count("127.0.0.1:") == 3
    for documented, real in zip(("22121", "11211", "11221"), (port, *ports), strict=True):
        assert text.count(f"127.0.0.1:{documented}") == 1
        text = text.replace(f"127.0.0.1:{documented}", f"127.0.0.1:{real}")
    return text


@pytest.mark.skipif(NUTCRACKER is None, reason="nutcracker (twemproxy) is not installed")
def test_two_groups_behind_twemproxy(tmp_path):
    with two_groups() as groups:
        proxies = [Nutcracker(tmp_path, groups, host) for host in HOSTS]
        with running(proxies):
            for proxy in proxies:
                proxy.wait_ready()
            errors = (OSError, MemcacheUnexpectedCloseError, MemcacheServerError)
            lose_a_node(groups, [proxy.client() for proxy in proxies], errors)


@pytest.mark.parametrize("size", [5, 7])
def test_larger_groups_hold_a_copy_on_each_node_and_lose_a_minority(size):
    names = tuple(f"n{number}" for number in range(1, size + 1))
    with ready(new_group(["-t", "1"], names)) as nodes:
        until_whole(nodes)
        put(nodes[0], b"begun")
        assert all(wire.holds(node.port, "a") for node in nodes)
        victims, others = nodes[: size // 2], nodes[size // 2 :]
        for victim in victims:
            victim.kill9()
        put(others[0], b"without them")
        for node in others:
            assert b"without them" in wire.ask(node.port, b"get a\r\n")
        for victim in victims:
            victim.start()
        until_whole(nodes)
        for node in nodes:
            assert b"without them" in wire.ask(node.port, b"get a\r\n")
        # Not in order: the last two of five have no majority that could agree on their leave.
        for node in nodes:
            node.kill9()
