"""Runs memcached's own test files against another server.

The suite finds its server by name in the directory it is started from, so each run gets a
directory with the tests, the suite's own `timedrun`, and our server under the name it looks for.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import tap

# The name the suite starts is the debug build's. UDP is left out: sessiond refuses every UDP port
# but 0, and the suite picks one whenever it passes -l. What remains of `-U N` is what it says
# about TCP: memcached takes N for both when there is no -p. A later -p wins.
SERVER = """\
#!/bin/sh
for word; do
    shift
    if [ "$previous" = -U ] && [ "$word" != 0 ]; then
        port="-p $word"
        word=0
    fi
    set -- "$@" "$word"
    previous=$word
done
exec "${0%/*}/memcached" $port "$@"
"""

# A debug build moves its clock when it is told to; with any other the time has to pass. One
# second more, because memcached's clock may be that late.
MOVE_TIME = """\
sub mem_move_time {
    my ($sock, $move) = @_;
    print $sock "debugtime $move\\r\\n";
    my $reply = <$sock>;
    sleep($move + 1) if $reply =~ /ERROR/;
}
"""

# Set by hand, these would send the suite to another server or another kind of connection.
FOREIGN_SETTINGS = ("T_MEMD_", "SSL_TEST", "VALGRIND", "MEMCACHED_", "PERL")
LOG_LINE_MAX = 400
ASK_AGAIN_S = 0.05


# Debian's package `perl`: the perl that every Debian has comes without them.
PERL_MODULES = ("Test::More", "FindBin", "IO::Socket::INET", "IO::Socket::UNIX")


class CannotRun(Exception):
    """One line that says why."""


class ToolMissing(CannotRun):
    """One line that says what this machine lacks."""


def check_tools():
    """Says what is missing before anything is downloaded for it."""
    for tool, package in (("perl", "perl"), ("cc", "gcc")):
        if not shutil.which(tool):
            raise ToolMissing(f"the suite needs {tool} (Debian's package {package})")
    asked = [f"-M{module}" for module in PERL_MODULES]
    if subprocess.run(["perl", *asked, "-e", "1"], stderr=subprocess.DEVNULL).returncode != 0:
        raise ToolMissing("the suite needs perl's own modules (Debian's package perl)")


@dataclass
class Run:
    """What became of one test file."""

    name: str
    results: tap.Results
    exit_code: int
    timed_out: bool
    seconds: float

    def manner_of_death(self):
        """How it ended before its last subtest was done, or nothing."""
        reported = self.results.planned is not None and self.results.seen >= self.results.planned
        if self.timed_out:
            return f"not done after {self.seconds:.0f} s"
        if self.exit_code < 0:
            return f"killed by signal {-self.exit_code}"
        # Perl's exit code counts the failures; without any it must be 0.
        if not reported or (self.exit_code != 0 and not self.results.failed):
            return f"died with {self.exit_code} after subtest {self.results.seen}"
        return None


class Suite:
    """The tests with a server in place; a context manager that removes them again."""

    def __init__(self, source, binary, cache):
        self.source = source
        self.binary = binary
        self.cache = cache
        self.logs = cache / "logs"
        self._stopping = threading.Event()

    def __enter__(self):
        self.logs.mkdir(exist_ok=True)
        self.tree = Path(tempfile.mkdtemp(prefix="run-", dir=self.cache))
        try:
            self._lay_out()
        except BaseException:
            shutil.rmtree(self.tree)
            raise
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.tree)

    def _lay_out(self):
        shutil.copytree(self.source / "t", self.tree / "t")
        compile_command = ["cc", "-o", self.tree / "timedrun", self.source / "timedrun.c"]
        if subprocess.run(compile_command, stderr=subprocess.DEVNULL).returncode != 0:
            raise ToolMissing("cc cannot compile a program (Debian's package libc6-dev)")
        (self.tree / "memcached").symlink_to(self.binary)
        server = self.tree / "memcached-debug"
        server.write_text(SERVER)
        server.chmod(0o755)
        library = self.tree / "t/lib/MemcachedTest.pm"
        old_text = library.read_text()
        move_time = re.compile(r"^sub mem_move_time \{.*?^\}\n", re.MULTILINE | re.DOTALL)
        library.write_text(move_time.sub(lambda _: MOVE_TIME, old_text))

    def files(self):
        """Names of all files that start a server; the others check the source's style."""
        tests = sorted(self.source.glob("t/*.t"))
        return [path.stem for path in tests if "use MemcachedTest" in path.read_text()]

    def stop(self):
        """Makes every `run` end its test at once, in whatever thread it is."""
        self._stopping.set()

    def run(self, name, limit_s):
        """Runs one file, and ends whatever it has left behind in its process group."""
        printed = self.tree / f"{name}.out"
        log = self.logs / f"{name}.log"
        started = time.monotonic()
        # Into files, not pipes: a server that outlives its test would hold a pipe open.
        with open(printed, "wb") as output, open(log, "wb") as errors:
            test = subprocess.Popen(
                ["perl", f"t/{name}.t"],
                cwd=self.tree,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        try:
            timed_out = not self._has_ended(test.pid, limit_s)
        finally:
            # Not reaped yet, so that its number is still its group's and nobody else's.
            os.killpg(test.pid, signal.SIGKILL)
            test.wait()
            _remove_sockets(test.pid)
        seconds = time.monotonic() - started
        with open(printed, "rb") as lines:
            results = tap.read(lines)
        _append(printed, log)
        printed.unlink()
        return Run(name, results, test.returncode, timed_out, seconds)

    def _has_ended(self, pid, limit_s):
        end = time.monotonic() + limit_s
        while time.monotonic() < end and not self._stopping.is_set():
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return True
            time.sleep(ASK_AGAIN_S)
        return False

    def _environment(self):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN_SETTINGS)}
        return {**kept, "LC_ALL": "C", "TMPDIR": str(self.tree)}


def _remove_sockets(pid):
    """A test that was killed could not remove what it had put into /tmp under its number."""
    names = ("memcachetest.{}.*", "memcachetest{}", "ports.{}", "ports.{}.lck")
    for pattern in (name.format(pid) for name in names):
        for path in Path("/tmp").glob(pattern):
            path.unlink(missing_ok=True)


def _append(printed, log):
    with open(printed, "rb") as lines, open(log, "ab") as out:
        for line in lines:
            out.write(line if len(line) <= LOG_LINE_MAX else line[:LOG_LINE_MAX] + b"...\n")
