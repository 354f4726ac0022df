"""Peers that prove who they are, and strangers on their port: what the group does, and what not."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import strangers
import wire
from cluster import BINARY, REPOSITORY, new_group, ready
from processes import running
from scrape import samples
from strangers import HELLO_OK, PROOF, REFUSE, Stranger, frame, hello, introduce, trusting
from survivors import status
from test_admin import with_admin
from waiting import wait_until

SECRET = b"what all of this group know"
NAMES = ("n1", "n2", "n3")
SET = b"set a 0 60 1\r\nx\r\n"
FOUND = b"VALUE a 0 1\r\nx\r\nEND\r\n"
# Strangers, far more than are asked at once.
CROWD = 500


def certify(folder, *names, days=30):
    """Certificates of the authority in that folder, which is made with it."""
    tool = BINARY.parent / "examples" / "certs"
    if not tool.exists():
        build = ["cargo", "build", "--quiet", "--locked", "--release", "--example", "certs"]
        subprocess.run(build, cwd=REPOSITORY, check=True)
    subprocess.run([tool, folder, str(days), *names], check=True)


def with_certificates(node, folder, name=None):
    cert = Path(folder) / (name or node.name)
    files = ["--peer-cert", f"{cert}.pem", "--peer-key", f"{cert}.key"]
    node.command += [*files, "--peer-ca", str(Path(folder) / "ca.pem")]


@contextmanager
def certified_group():
    with tempfile.TemporaryDirectory(prefix="sessiond-certs-") as folder:
        certify(folder, *NAMES)
        nodes = new_group()
        for node in nodes:
            with_certificates(node, folder)
        with ready(nodes):
            yield nodes, Path(folder)


@contextmanager
def secret_group(text=SECRET):
    with tempfile.NamedTemporaryFile(prefix="sessiond-secret-") as file:
        file.write(text + b"\n")
        file.flush()
        nodes = new_group(["--peer-secret-file", file.name])
        with ready(nodes):
            yield nodes, Path(file.name)


def peer_port(node):
    return int(node.command[node.command.index("--peer-listen") + 1].rsplit(":", 1)[1])


def stats(node):
    answer = wire.ask(node.port, b"stats replication\r\n").decode()
    lines = (line.split(" ", 2) for line in answer.splitlines() if line.startswith("STAT "))
    return {name: value for _, name, value in lines}


def refused(node, why):
    return int(stats(node)[f"peers_refused:{why}"])


def wait_refused(node, why, before, reason):
    """It was counted, and the log says from where and why."""
    wait_until(lambda: refused(node, why) > before, f"a refusal for {why}")
    lines = [line for line in node.output().splitlines() if "peer refused" in line]
    told = [line for line in lines if reason in line]
    assert told and all("address=127.0.0.1:" in line for line in told), lines


@contextmanager
def undisturbed(nodes):
    """No view changes meanwhile, and the group serves."""
    before = [stats(node)["epoch"] for node in nodes]
    yield
    assert [stats(node)["epoch"] for node in nodes] == before
    assert wire.ask(nodes[0].port, SET) == b"STORED\r\n"
    assert wire.ask(nodes[1].port, b"get a\r\n") == FOUND


def test_a_group_with_certificates_serves_and_notices_a_killed_process_at_once():
    with certified_group() as (nodes, _):
        assert wire.ask(nodes[0].port, SET) == b"STORED\r\n"
        for node in nodes:
            assert wire.ask(node.port, b"get a\r\n") == FOUND
            assert refused(node, "certificate") == 0
        nodes[2].kill9()
        since = time.monotonic()
        assert wire.ask(nodes[0].port, SET) == b"STORED\r\n"
        # Silence would cost 1.2 s.
        assert time.monotonic() - since < 0.9
        nodes[2].restart()
        assert wire.ask(nodes[2].port, b"get a\r\n") == FOUND


def shown_by(node, folder):
    """The certificate that the node shows."""
    with Stranger(peer_port(node), trusting(folder, node.name)) as stranger:
        return stranger.socket.getpeercert(binary_form=True)


def in_file(folder, name):
    return ssl.PEM_cert_to_DER_cert((folder / f"{name}.pem").read_text())


def test_certificates_are_read_again_and_the_group_goes_on():
    with certified_group() as (nodes, folder):
        old = in_file(folder, "n1")
        assert shown_by(nodes[0], folder) == old
        certify(folder, *NAMES)
        assert in_file(folder, "n1") != old
        with undisturbed(nodes):
            for node in nodes:
                os.kill(node.pid, signal.SIGHUP)
            new = in_file(folder, "n1")
            wait_until(lambda: shown_by(nodes[0], folder) == new, "the new certificate")
        nodes[2].kill9()
        nodes[2].restart()
        # What can't be used changes nothing.
        certify(folder, "n1", days=-1)
        with undisturbed(nodes):
            os.kill(nodes[0].pid, signal.SIGHUP)
            wait_until(lambda: "stays as it was" in nodes[0].output(), "the refusal")
            assert shown_by(nodes[0], folder) == new
        assert "expired" in nodes[0].output().lower()


DAY_S = 24 * 60 * 60


def assert_ends_in(days, text):
    left_s = int(float(text)) - time.time()
    assert abs(left_s - days * DAY_S) < 2 * 60 * 60, f"{left_s} s are left"


def test_when_certificates_end_is_shown():
    with tempfile.TemporaryDirectory(prefix="sessiond-certs-") as name:
        folder = Path(name)
        for node, days in zip(NAMES, (30, 20, 10), strict=True):
            certify(folder, node, days=days)
        nodes = with_admin(new_group(witness="n3"))
        for node in nodes:
            with_certificates(node, folder)
        with running(nodes):
            for node in nodes[:2]:
                node.wait_ready()
            first, second, witness = nodes
            key = "peer:{}:certificate_not_after_s"
            wait_until(lambda: key.format("n3") in stats(first), "the witness was met")
            shown = stats(first)
            assert_ends_in(30, shown["certificate_not_after_s"])
            assert_ends_in(20, shown[key.format("n2")])
            assert_ends_in(10, shown[key.format("n3")])
            own = "sessiond_certificate_not_after_timestamp_seconds"
            figures = samples(first.admin_port)
            assert_ends_in(30, figures[own,])
            assert_ends_in(20, figures["sessiond_peer_certificate_not_after_timestamp_seconds", "n2"])
            assert_ends_in(10, samples(witness.admin_port)[own,])
            (line,) = [line for line in status(witness) if line.startswith("certificate_")]
            assert_ends_in(10, line.split()[1])
            # Renewed: its own figure at once, with the others when it is met again.
            before = stats(second)["certificate_not_after_s"]
            certify(folder, "n2", days=90)
            os.kill(second.pid, signal.SIGHUP)
            wait_until(lambda: stats(second)["certificate_not_after_s"] != before, "it is read")
            assert_ends_in(90, stats(second)["certificate_not_after_s"])
            second.kill9()
            second.restart()
            assert_ends_in(90, stats(first)[key.format("n2")])


def test_what_has_no_certificates_shows_no_end_of_any():
    with secret_group() as (nodes, _):
        assert not [name for name in stats(nodes[0]) if "certificate_not_after" in name]


def test_certificates_that_are_no_good_are_refused():
    with certified_group() as (nodes, folder), tempfile.TemporaryDirectory() as elsewhere:
        elsewhere = Path(elsewhere)
        certify(elsewhere, "n3")
        port = peer_port(nodes[0])
        with undisturbed(nodes):
            # What is right is welcome, so the others are not refused for something else.
            with Stranger(port, trusting(folder, "n3")) as stranger:
                stranger.say(hello("n3", cluster="another"))
                kind, why = stranger.hear()
                assert kind == REFUSE and b"of cluster" in why
            for certificates, what in [
                (trusting(elsewhere, "n3"), "of another authority"),
                (trusting(folder), "none"),
                (run_out(folder), "run out"),
            ]:
                before = refused(nodes[0], "certificate")
                assert answer_to_hello(port, certificates, "n3") is None
                wait_refused(nodes[0], "certificate", before, "TLS")
                assert refused(nodes[0], "certificate") == before + 1, what
            before = refused(nodes[0], "certificate")
            assert answer_to_hello(port, trusting(folder, "n2"), "n3") is None, "swapped"
            assert refused(nodes[0], "certificate") == before + 1
            before = refused(nodes[0], "garbage")
            assert answer_to_hello(port, None, "n3") is None, "plain"
            wait_refused(nodes[0], "garbage", before, "TLS")


def run_out(folder):
    certify(folder, "late", days=-1)
    return trusting(folder, "late")


def answer_to_hello(port, certificates, name):
    """What comes back; with TLS 1.3 a certificate is refused after the handshake."""
    try:
        with Stranger(port, certificates) as stranger:
            stranger.say(hello(name))
            answer = stranger.hear()
            # An alert may look like a frame to a stranger that speaks no TLS.
            return answer if certificates or answer is None else answer_of_alert(answer)
    except (ConnectionError, ssl.SSLError):
        return None


def answer_of_alert(answer):
    return answer if answer[0] in (HELLO_OK, REFUSE) else None


def test_a_stolen_address_without_a_certificate_gets_nothing():
    with certified_group() as (nodes, folder), tempfile.TemporaryDirectory() as elsewhere:
        assert wire.ask(nodes[0].port, SET) == b"STORED\r\n"
        victim, others = nodes[2], nodes[:2]
        victim.kill9()
        wait_until(lambda: stats(others[0])["members"] == "n1,n2", "n3 is out")
        certify(elsewhere, *NAMES)
        (*_, thief) = new_group(["--hold-timeout", "500"])
        for flag in "--peer-listen", "--peers":
            stolen = victim.command[victim.command.index(flag) + 1]
            thief.command[thief.command.index(flag) + 1] = stolen
        with_certificates(thief, elsewhere, "n3")
        with running([thief]):
            thief.wait_open()
            before = [refused(node, "certificate") for node in others]
            with undisturbed(others):
                for node, count in zip(others, before):
                    # It dials, and it is dialed: both are refused.
                    wait_until(lambda: refused(node, "certificate") > count + 10, "refusals")
                with socket.create_connection(("127.0.0.1", thief.port), 10) as client:
                    client.sendall(b"get a\r\n")
                    try:
                        assert client.recv(100) == b"", "it answers for the group"
                    except ConnectionResetError:
                        pass
                assert stats(thief)["state"] == "waiting"
                assert stats(others[0])["members"] == "n1,n2"
        victim.restart()
        assert wire.ask(victim.port, b"get a\r\n") == FOUND


def test_garbage_half_frames_and_silence_disturb_nobody():
    # The beginning of what a peer would say: a record of TLS, and a frame.
    half = {certified_group: b"\x16\x03\x01\x02\x00\x01", secret_group: hello("n3")[:20]}
    for group, beginning in half.items():
        with group() as (nodes, _), undisturbed(nodes):
            port = peer_port(nodes[0])
            before = refused(nodes[0], "garbage")
            for garbage in b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n" + b"x" * 100, frame(200, b"x"):
                with Stranger(port) as stranger:
                    stranger.say(garbage)
                    answer = stranger.hear()
                    assert answer is None or answer[0] != HELLO_OK
            wait_refused(nodes[0], "garbage", before + 1, "reason=")
            before = refused(nodes[0], "ended")
            with Stranger(port) as stranger:
                stranger.say(beginning)
            wait_refused(nodes[0], "ended", before, "it went")
            before, since = refused(nodes[0], "slow"), time.monotonic()
            with Stranger(port) as stranger:
                stranger.say(beginning)
                assert stranger.hear() is None
            assert 0.5 < time.monotonic() - since < 3.0
            wait_refused(nodes[0], "slow", before, "no answer within")


def test_a_crowd_of_strangers_does_not_keep_a_peer_out():
    with certified_group() as (nodes, _):
        port, crowd = peer_port(nodes[0]), []
        resident = nodes[0].resident_bytes()
        nodes[2].kill9()
        # They come faster than it looks, as on a busy machine: whoever finds the kernel's queue
        # full waits for a second, and that is all the time that a peer has.
        nodes[0].freeze()
        try:
            for _ in range(CROWD):
                crowd.append(Stranger(port))
            nodes[0].thaw()
            nodes[2].restart()
            # Each of them, for want of room or, if that took long, of words.
            wait_until(lambda: turned_away(nodes[0]) >= CROWD, "all of them are turned away")
        finally:
            nodes[0].thaw()
            for stranger in crowd:
                stranger.__exit__()
        assert refused(nodes[0], "crowded") > 0
        assert nodes[0].resident_bytes() < resident + (16 << 20)
        told = [line for line in nodes[0].output().splitlines() if "peer refused" in line]
        assert len(told) < 20, f"{len(told)} lines in the log"


def turned_away(node):
    return refused(node, "crowded") + refused(node, "slow")


def test_a_secret_is_proven_both_ways_and_a_proof_is_good_once():
    with secret_group() as (nodes, _), undisturbed(nodes):
        port = peer_port(nodes[0])
        # Where the group is another, all else is right: so nobody is disturbed.
        with Stranger(port) as stranger:
            _, everything, answer = introduce(stranger, "n9", SECRET)
            assert answer[0] == REFUSE and b"add-node" in answer[1]
        for wrong in replayed(everything), reflected, with_another_secret, without_any:
            before = refused(nodes[0], "secret")
            with Stranger(port) as stranger:
                answer = wrong(stranger)
                assert answer[0] == REFUSE and b"secret" in answer[1], wrong
                assert stranger.hear() is None
            wait_refused(nodes[0], "secret", before, "secret")


def replayed(everything):
    def say_again(stranger):
        stranger.say(everything)
        assert stranger.hear()[0] == strangers.CHALLENGE
        return stranger.hear()

    return say_again


def reflected(stranger):
    """With the node's own number, and the label of the other side."""
    mine = frame(strangers.CHALLENGE, bytes(32))
    stranger.say(mine)
    _, theirs = stranger.hear()
    said = mine[6:] + theirs[6:] + hello("n3")
    stranger.say(hello("n3") + frame(PROOF, strangers.sign(SECRET, strangers.OF_HOST, said)))
    return stranger.hear()


def with_another_secret(stranger):
    return introduce(stranger, "n3", b"what somebody else knows")[2]


def without_any(stranger):
    stranger.say(hello("n3"))
    return stranger.hear()


def test_a_node_proves_the_secret_to_whoever_has_proven_it():
    (first, *_) = new_group()
    with tempfile.NamedTemporaryFile(prefix="sessiond-secret-") as file:
        file.write(SECRET)
        file.flush()
        first.command += ["--peer-secret-file", file.name]
        # Alone, so that speaking for another node takes nothing away from it.
        with running([first]):
            first.wait_open()
            with Stranger(peer_port(first)) as stranger:
                said, _, (kind, welcome) = introduce(stranger, "n2", SECRET)
                assert kind == HELLO_OK
                kind, proof = stranger.hear()
                expected = strangers.sign(SECRET, strangers.OF_HOST, said + welcome)
                assert (kind, proof[6:]) == (PROOF, expected)


def test_a_secret_is_replaced_while_the_group_runs():
    newer = b"what all of them will know"
    with secret_group() as (nodes, path), undisturbed(nodes):
        for text in SECRET + b"\n" + newer, newer + b"\n" + SECRET, newer:
            path.write_bytes(text)
            for node in nodes:
                os.kill(node.pid, signal.SIGHUP)
            port = peer_port(nodes[0])
            known = text.splitlines()
            for secret in SECRET, newer:
                def answer():
                    with Stranger(port) as stranger:
                        return introduce(stranger, "n9", secret)[2][1]

                why = b"add-node" if secret in known else b"does not know the secret"
                wait_until(lambda: why in answer(), f"{why} for {secret}")


def test_files_that_are_no_good_are_one_clear_line():
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as elsewhere:
        certify(folder, "n1", "n2")
        certify(elsewhere, "n1")
        (Path(folder) / "short").write_text("abc\n")
        run_out = tempfile.mkdtemp(dir=folder)
        for file in "ca.pem", "ca.key":
            shutil.copy(f"{folder}/{file}", run_out)
        certify(run_out, "n1", days=-1)
        cases = [
            (files(folder, "n2"), "--node-name"),
            (files(folder, "n1", ca=f"{elsewhere}/ca.pem"), "the others would refuse it"),
            (files(run_out, "n1"), "expired"),
            (files(folder, "n1", key=f"{folder}/n2.key"), "--peer-key"),
            (files(folder, "n1", cert=f"{folder}/none.pem"), "No such file"),
            (files(folder, "n1", cert=f"{folder}/n1.key"), "no certificate"),
            (["--peer-secret-file", f"{folder}/short"], "head -c 32 /dev/urandom"),
        ]
        for flags, says in cases:
            (node, *_) = new_group(flags)
            with running([node]):
                assert node.wait_exit() != 0, says
            errors = [line for line in node.output().splitlines() if line.startswith("error:")]
            assert len(errors) == 1 and says in errors[0], (says, node.output())


def files(folder, name, cert=None, key=None, ca=None):
    flags = ["--peer-cert", cert or f"{folder}/{name}.pem"]
    flags += ["--peer-key", key or f"{folder}/{name}.key"]
    return [*flags, "--peer-ca", ca or f"{folder}/ca.pem"]
