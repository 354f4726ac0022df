"""A group whose nodes know more or less of the peer protocol: it uses what all of them know."""

import wire
from cluster import new_group, ready
from processes import running
from scrape import samples
from strangers import PROTOCOL, REFUSE, Stranger, hello
from survivors import status
from test_admin import with_admin
from test_strangers import peer_port, stats, undisturbed, wait_refused
from waiting import wait_until

OLDER = ["--peer-features", "none"]


def until_all_use(nodes, features):
    for node in nodes:
        wait_until(
            lambda node=node: stats(node)["features_in_use"] == features,
            f"{node.name} uses {features}",
        )


def known(nodes):
    """By name, what the others know of each node."""
    told = {node.name: set() for node in nodes}
    for node in nodes:
        figures = stats(node)
        for other in nodes:
            if other is node:
                told[node.name].add(figures["features"])
            else:
                assert figures[f"peer:{other.name}:protocol"] == str(PROTOCOL)
                told[other.name].add(figures[f"peer:{other.name}:features"])
    return {name: said.pop() for name, said in told.items() if len(said) == 1}


def replicates(nodes, round):
    """What is written through any node is read through any other, many keys of each."""
    for writer in nodes:
        keys = [f"{writer.name}.{round}.{n}" for n in range(30)]
        lines = "".join(f"set {key} 0 0 {len(key)}\r\n{key}\r\n" for key in keys).encode()
        assert wire.ask(writer.port, lines) == b"STORED\r\n" * len(keys)
        for reader in nodes:
            assert all(wire.holds(reader.port, key) for key in keys), (writer.name, reader.name)


def test_a_group_is_upgraded_node_by_node_and_back_again():
    nodes = new_group()
    for node in nodes:
        node.command += OLDER
    with ready(nodes):
        until_all_use(nodes, "none")
        replicates(nodes, "old")
        for upgraded in nodes:
            assert known(nodes)[upgraded.name] == "none"
            del upgraded.command[-2:]
            upgraded.kill9()
            upgraded.restart()
            assert known(nodes)[upgraded.name] == "lifetimes"
            mixed = upgraded is not nodes[-1]
            until_all_use(nodes, "none" if mixed else "lifetimes")
            replicates(nodes, f"upgraded.{upgraded.name}")
        assert all(wire.holds(node.port, "n1.old.0") for node in nodes)
        nodes[0].command += OLDER
        nodes[0].kill9()
        nodes[0].restart()
        until_all_use(nodes, "none")
        replicates(nodes, "back")


def test_a_witness_shows_what_its_peers_speak():
    nodes = with_admin(new_group(witness="n3"))
    first, second, witness = nodes
    first.command += OLDER

    def shows(peer, features):
        lines = {f"peer:{peer}:protocol {PROTOCOL}", f"peer:{peer}:features {features}"}
        wait_until(lambda: lines <= status(witness), f"{peer} speaks with {features}")
        found = samples(witness.admin_port)
        assert found["sessiond_peer_protocol", peer] == PROTOCOL
        assert found["sessiond_peer_feature", peer, "lifetimes"] == int(features == "lifetimes")

    with running(nodes):
        first.wait_ready(), second.wait_ready()
        assert "features lifetimes" in status(witness)
        shows("n1", "none")
        shows("n2", "lifetimes")
        del first.command[-2:]
        first.kill9()
        first.restart()
        shows("n1", "lifetimes")


def test_a_node_of_another_version_is_told_which_ones_are_spoken():
    with ready(new_group()) as nodes, undisturbed(nodes):
        newer = (PROTOCOL + 1, PROTOCOL + 2)
        says = f"it speaks protocol {newer[0]} to {newer[1]}, this node {PROTOCOL} to {PROTOCOL}"
        with Stranger(peer_port(nodes[0])) as stranger:
            stranger.say(hello("n3", versions=newer))
            kind, frame = stranger.hear()
            assert kind == REFUSE and says.encode() in frame
            assert stranger.hear() is None
        wait_refused(nodes[0], "version", 0, says)
