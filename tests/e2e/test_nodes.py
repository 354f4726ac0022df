"""A group that grows and shrinks under its clients: `sessiond ctl add-node|remove-node|replace-node`."""

import os
import threading
from contextlib import contextmanager

import wire
from cluster import Node, new_group, ready
from ports import free_port
from processes import running
from survivors import TWO, ctl, held, put, state, until_whole
from waiting import wait_until

CLUSTER = "e2e"


class Writer:
    """Stores one key after the other, wherever it is answered, and knows what was confirmed."""

    def __init__(self, nodes):
        self.nodes = nodes
        self.confirmed = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def _write(self):
        count = 0
        while not self._is_over.is_set():
            count += 1
            node = self.nodes[count % len(self.nodes)]
            key = f"k{count}"
            line = f"set {key} 0 0 {len(key)}\r\n{key}\r\n".encode()
            try:
                if wire.ask(node.port, line) == b"STORED\r\n":
                    self.confirmed.append(key)
            except OSError:
                pass  # The node is dead: what became of the command, nobody knows.

    def until_more(self, count=100):
        """Until so many more were confirmed."""
        wanted = len(self.confirmed) + count
        wait_until(lambda: len(self.confirmed) >= wanted, "writes are confirmed", 30.0)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self._thread.join()


def peer_address(node):
    return node.command[node.command.index("--peer-listen") + 1]


def newcomer(name, nodes, address=None):
    """A node, not started, whose --peers name itself and these."""
    address = address or f"127.0.0.1:{free_port()}"
    peers = [f"{node.name}={peer_address(node)}" for node in nodes] + [f"{name}={address}"]
    folder = os.path.join(os.path.dirname(nodes[0].state_directory()), f"{name}-state")
    flags = ["--cluster", CLUSTER, "--node-name", name, "--peer-listen", address]
    flags += ["--peers", ",".join(peers), "--state-dir", folder]
    return Node(name, group_flags=flags)


def told(node, *words):
    """What an operator is answered, who is refused nothing."""
    done = ctl(node, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(node, *words):
    """Why an operator is refused: one line."""
    done = ctl(node, *words)
    assert done.returncode == 1, f"{done.stdout!r} {done.stderr!r}"
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    return done.stderr


@contextmanager
def added(nodes, name):
    """One more node, added and started."""
    node = newcomer(name, nodes)
    assert f"{name} is a node of the group" in told(
        nodes[0], "add-node", f"{name}={peer_address(node)}"
    )
    with running([node]):
        until_whole([*nodes, node])
        yield node


def assert_all_hold(nodes, keys):
    for node in nodes:
        for start in range(0, len(keys), 100):
            some = keys[start : start + 100]
            answer = wire.ask(node.port, b"get " + " ".join(some).encode() + b"\r\n")
            lost = [key for key in some if f"VALUE {key} ".encode() not in answer]
            assert not lost, f"{node.name} lost {lost}"


def test_a_group_grows_loses_a_machine_and_shrinks_under_its_clients():
    with ready(new_group()) as (n1, n2, n3):
        until_whole([n1, n2, n3])
        with Writer([n1, n2]) as writer:
            writer.until_more()
            with added([n1, n2, n3], "n4") as n4, added([n1, n2, n3, n4], "n5") as n5:
                writer.until_more()
                # A machine is gone; another one takes its place, under a new name and address.
                n3.kill9()
                writer.until_more()
                n6 = newcomer("n6", [n1, n2, n4, n5])
                answer = told(n2, "replace-node", "n3", f"n6={peer_address(n6)}")
                assert "n3 is no node of the group any more" in answer
                with running([n6]):
                    until_whole([n1, n2, n4, n5, n6])
                    assert_all_hold([n1, n2, n4, n5, n6], list(writer.confirmed))
                    writer.until_more()
                    for gone in n4, n5:
                        told(n1, "remove-node", gone.name)
                        wait_until(lambda gone=gone: state(gone) == "removed", "removed")
                        assert gone.output().count("an operator has removed this node") == 1
                    until_whole([n1, n2, n6])
                    writer.until_more()
                    assert_all_hold([n1, n2, n6], list(writer.confirmed))
                    # And it is a group of three: one of them may die.
                    n1.kill9()
                    writer.nodes = [n2, n6]
                    writer.until_more()
                    assert_all_hold([n2, n6], list(writer.confirmed))


def test_a_dead_node_comes_back_at_another_address():
    with ready(new_group()) as (n1, n2, n3):
        until_whole([n1, n2, n3])
        put(n1, b"kept")
        n3.kill9()
        moved = newcomer("n3", [n1, n2])
        told(n1, "replace-node", f"n3={peer_address(moved)}")
        with running([moved]):
            until_whole([n1, n2, moved])


def assert_another_takes_its_place(first, second):
    """The last of two makes a group of two again, with a machine of another name and address."""
    third = newcomer("n3", [first])
    wait_until(lambda: f"log_voters {first.name}" in status_lines(first), "it votes alone")
    answer = told(first, "replace-node", second.name, f"n3={peer_address(third)}")
    assert f"{second.name} is no node of the group any more: {first.name},n3" in answer
    with running([third]):
        until_whole([first, third])
        assert held(third) == b"kept"
        put(third, b"of two again")
        assert held(first) == b"of two again"


def test_one_of_two_that_died_for_good_is_replaced():
    with ready(new_group(names=TWO)) as (first, second):
        until_whole([first, second])
        put(first, b"kept")
        second.kill9()
        assert_another_takes_its_place(first, second)


def test_one_of_two_that_ended_in_order_for_good_is_replaced():
    with ready(new_group(names=TWO)) as (first, second):
        until_whole([first, second])
        put(first, b"kept")
        second.stop()
        # Both still vote, so that nothing can be agreed on, and nothing proves the second dead.
        why = refused(first, "replace-node", "n2", f"n3=127.0.0.1:{free_port()}")
        assert "force-solo" in why and f"members {first.name}" in status_lines(first)
        wait_until(lambda: "log_leader -" in status_lines(first), "nobody leads without it")
        told(first, "force-solo")
        assert_another_takes_its_place(first, second)


def test_one_of_two_that_ended_before_its_vote_was_gone_is_replaced():
    with ready(new_group(names=TWO)) as (first, second):
        until_whole([first, second])
        put(first, b"kept")
        third = newcomer("n3", [first])
        answers = []
        order = "replace-node", "n2", f"n3={peer_address(third)}"
        operator = threading.Thread(target=lambda: answers.append(ctl(first, *order)))
        operator.start()
        try:
            out = "the group consists of others now"
            wait_until(lambda: out in first.output(), "n2 is out", ask_again_s=0)
        finally:
            # At once: mostly it still votes.
            second.kill9()
        with running([third]):
            wait_until(lambda: has_lost_or_settled(first), "its vote is gone, or it is missed")
            if "log_leader -" in status_lines(first):
                ctl(first, "force-solo")
            until_whole([first, third])
            assert held(third) == b"kept"
            operator.join()
            assert answers[0].returncode == 0, answers[0].stderr
        assert first.output().count("cannot change the voters") < 5


def has_lost_or_settled(node):
    lines = status_lines(node)
    return "log_leader -" in lines or "log_voters n1,n3" in lines


def status_lines(node):
    return ctl(node, "status").stdout.splitlines()


def test_a_restarted_node_knows_the_group_though_its_peers_are_old():
    with ready(new_group()) as (n1, n2, n3):
        until_whole([n1, n2, n3])
        with added([n1, n2, n3], "n4") as n4:
            told(n1, "remove-node", "n2")
            until_whole([n1, n3, n4])
            n2.kill9()
            n3.kill9()
            n3.start()
            until_whole([n1, n3, n4])
            wait_until(lambda: "--peers is out of date" in n3.output(), "a warning")
            # Whoever was removed is told so, and its clients wait.
            n2.start()
            wait_until(lambda: "is no node of this group" in n2.output(), "n2 is refused")
            assert state(n2) != "member"


def status_of_member(node):
    status = set(status_lines(node))
    return status if "state member" in status else None


def test_whoever_is_a_member_again_has_its_vote():
    with ready(new_group()) as nodes:
        until_whole(nodes)
        for back, victim in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
            back.kill9()
            # Without the file it is another voter.
            os.remove(os.path.join(back.state_directory(), "membership"))
            back.start()
            status = wait_until(lambda back=back: status_of_member(back), "a member again")
            assert {"log_role follower", "log_changing 0", "log_voters n1,n2,n3"} <= status
            victim.kill9()
            third = next(node for node in nodes if node not in (back, victim))
            put(third, b"from the third")
            put(back, b"from the one that is back")
            victim.restart()
            until_whole(nodes)


def test_a_group_begins_with_one_and_grows():
    with ready(new_group(names=("n1",))) as (n1,):
        put(n1, b"first")
        with added([n1], "n2") as n2, added([n1, n2], "n3") as n3:
            n1.kill9()
            put(n3, b"second")
            assert wire.holds(n2.port, "a")


def test_what_can_not_be_is_refused_in_one_line():
    with ready(new_group()) as (n1, n2, n3):
        until_whole([n1, n2, n3])
        free = f"127.0.0.1:{free_port()}"
        assert "is called \"n2\" already" in refused(n1, "add-node", f"n2={free}")
        assert "the address of \"n2\"" in refused(n1, "add-node", f"n4={peer_address(n2)}")
        assert "no node is called \"n9\"" in refused(n1, "remove-node", "n9")
        assert "n2 is alive" in refused(n1, "replace-node", f"n2={free}")
        assert "not encrypted" in refused(n1, "add-node", "n4=192.0.2.1:7")
        wrong = ctl(n1, "add-node", "n4=no.such.host.invalid:7")
        assert wrong.returncode == 64 and wrong.stderr.count("\n") == 1
        assert "ask another node than n1" in refused(n1, "remove-node", "n1")
        n3.kill9()
        assert "would be without a majority" in refused(n1, "remove-node", "n2")
        told(n1, "remove-node", "n3")
        until_whole([n1, n2])
        told(n1, "remove-node", "n2")
        wait_until(lambda: state(n2) == "removed", "removed")
        assert "n1 is the last node" in refused(n1, "remove-node", "n1")
        put(n1, b"alone")
