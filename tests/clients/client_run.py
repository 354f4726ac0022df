"""Runs a client's program in a setup, within its time limit, and judges what it printed."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import packages

PROGRAMS = Path(__file__).resolve().parent / "programs"
# The slowest takes eight seconds, most of them asleep until an item expires; the rest is for a
# busy machine. A client that hangs is a finding, so there is no second try.
TIME_LIMIT_S = 60
# What a program prints at a good end, e.g. `ok memjs 3 checks: refused after 12 ms`.
GOOD_END = re.compile(r"^ok (?P<name>\S+) (?P<checks>[1-9]\d*) checks(: (?P<remark>.+))?$")
FAILS_AS_KNOWN = "fails as known"


@dataclass(frozen=True)
class ClientRun:
    """How one client fared in one setup."""

    client: str
    setup: str
    seconds: float
    # Empty unless it failed, and was not known to fail just so.
    failure: str
    # For the table's cell.
    summary: str
    # For the end, about a client that is known to fail.
    remark: str = ""

    @property
    def fails_as_known(self):
        return self.summary == FAILS_AS_KNOWN


class Runner:
    """Runs the programs, several at a time if asked, until it is told to stop."""

    def __init__(self, folder):
        self._folder = folder
        self._logs = folder / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._lock = Lock()
        self._running = set()
        self.is_stopped = False

    def run(self, client, setup):
        started = time.monotonic()
        log_path = self._logs / f"{client.name}.{setup.name.replace(' ', '-')}.txt"
        with open(log_path, "w+b") as log:
            exit_code = self._exit_code(self._command(client, setup), log)
            log.seek(0)
            output = log.read().decode(errors="replace")
        seconds = time.monotonic() - started
        ended = setup.ended()
        if ended:
            setup.start_anew()
        good_end = _good_end(client, exit_code, output)
        if good_end and not ended:
            remark = _remark(client, "passes, although the catalogue says that")
            return ClientRun(client.name, setup.name, seconds, "", _summary(good_end), remark)
        if _is_known(client, output) and not ended:
            remark = _remark(client, f"{FAILS_AS_KNOWN}:")
            return ClientRun(client.name, setup.name, seconds, "", FAILS_AS_KNOWN, remark)
        failure = "" if good_end else f"{_ending(exit_code)}\n{output.strip()}"
        failure = f"{failure}\n{ended}".strip()
        return ClientRun(client.name, setup.name, seconds, failure, "FAILED")

    def stop(self):
        """Ends what runs; nothing starts any more."""
        with self._lock:
            self.is_stopped = True
            for process in self._running:
                _kill_session(process)

    def _command(self, client, setup):
        program = PROGRAMS / client.program
        words = [
            self._interpreter(client),
            program,
            *client.arguments,
            client.name,
            *setup.addresses,
        ]
        return [str(word) for word in words]

    def _interpreter(self, client):
        if client.language == "py":
            is_for_venv = client.from_source(packages.PYPI)
            return packages.venv_python(self._folder) if is_for_venv else sys.executable
        return {"js": "node", "php": "php", "rb": "ruby", "pl": "perl"}[client.language]

    def _exit_code(self, command, log):
        """None when its time was up; what it started ends with it then."""
        with self._lock:
            if self.is_stopped:
                return None
            process = self._start(command, log)
            self._running.add(process)
        try:
            return process.wait(TIME_LIMIT_S)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with self._lock:
                self._running.discard(process)
            _kill_session(process)
            process.wait()

    def _start(self, command, log):
        environment = {**os.environ, "NODE_PATH": str(packages.node_modules(self._folder))}
        # A checkout stays as it was.
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        # The tools take their servers from here when they are given none.
        environment.pop("MEMCACHED_SERVERS", None)
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _kill_session(process):
    # Once it has been waited for, its number may be somebody else's.
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _good_end(client, exit_code, output):
    last_line = output.strip().rpartition("\n")[2]
    match = GOOD_END.match(last_line)
    return match if exit_code == 0 and match and match["name"] == client.name else None


def _is_known(client, output):
    known = client.known_failure
    return known is not None and output.strip().endswith(known.check)


def _remark(client, how):
    return f"{how} {client.known_failure.reason}" if client.known_failure else ""


def _ending(exit_code):
    if exit_code is None:
        return f"not done within {TIME_LIMIT_S} s"
    return f"exit code {exit_code}"


def _summary(good_end):
    checks = f"ok, {good_end['checks']} checks"
    return f"{checks}: {good_end['remark']}" if good_end["remark"] else checks
