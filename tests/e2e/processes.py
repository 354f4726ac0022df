"""Starts, kills and stops one program, and keeps what it printed.

Knows nothing of what the program is; `cluster.py` and `workers.py` do.
"""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager

STOP_DEADLINE_S = 15.0


class Program:
    """One program that may be started more than once; all its output lands in one log."""

    def __init__(self, name, command, environment=None):
        self.name = name
        self.command = [str(word) for word in command]
        self.environment = environment
        self._log = tempfile.TemporaryFile(prefix=f"{name}-")
        self._process = None

    def start(self):
        assert not self.is_running(), f"{self.name} runs already"
        self._process = subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            # A group of its own: Ctrl-C reaches the tests, and they stop the programs in order.
            start_new_session=True,
        )

    def is_running(self):
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self):
        return self._process.pid

    def resident_bytes(self):
        """The memory that it has now."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            line = next(line for line in status if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def kill9(self):
        """Dies without a word, as a host that loses power."""
        self._process.kill()
        self._process.wait(STOP_DEADLINE_S)

    def freeze(self):
        """Says nothing more, and its connections stay open: as a host that hangs."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self._process.send_signal(signal.SIGCONT)

    def stop(self, stop_signal=signal.SIGTERM):
        """Asks it to stop and returns its exit code."""
        self._process.send_signal(stop_signal)
        return self.wait_exit()

    def end(self):
        """Whatever it takes; asked first, so that a program that started others can end them."""
        if not self.is_running():
            return
        self.thaw()
        try:
            self.stop()
        except TimeoutError:
            self.kill9()

    def wait_exit(self, deadline_s=STOP_DEADLINE_S):
        try:
            return self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} did not end within {deadline_s} s") from None

    def output(self):
        # By offset: the position of the open file is the child's to write at.
        log = self._log.fileno()
        return os.pread(log, os.fstat(log).st_size, 0).decode(errors="replace")


@contextmanager
def running(programs):
    """Runs the programs for the length of a `with`, and leaves none behind.

    What is still alive at a good end must stop cleanly; after a failure the logs are shown.
    """
    try:
        for program in programs:
            program.start()
        yield programs
        alive = [program for program in programs if program.is_running()]
        exit_codes = {program.name: program.stop() for program in alive}
        assert not any(exit_codes.values()), f"not a clean stop: {exit_codes}"
    except BaseException:
        for program in programs:
            print(f"--- {program.name} printed:\n{program.output()}", file=sys.stderr)
        raise
    finally:
        for program in programs:
            program.end()
