"""libmemcached's command-line tools: what an operator has at hand."""

import sys
import tempfile
from functools import partial
from pathlib import Path

from checks import checks_of
from tool import run_tool, succeeds

# Enough that every thread meets the others, little enough for a busy machine.
SLAP_THREADS = 4
SLAP_ROUNDS = 500
LIST_DEADLINE_S = 6


def main(name, first, other):
    with checks_of(name) as checks, tempfile.TemporaryDirectory() as folder:
        _stores(checks, first, other, Path(folder))
        _looks(checks, first, other)
        _slaps(checks, first, other)
        succeeds(checks, "memcflush", f"--servers={first}")
        gone = run_tool("memcexist", f"--servers={other}", "second.txt")
        checks.holds("memcexist after memcflush finds nothing", gone.exit_code != 0)


def _stores(checks, first, other, folder):
    """memccp names the item as its file."""
    for file, value in (("first.txt", "one"), ("second.txt", "two")):
        (folder / file).write_text(value)
        succeeds(checks, "memccp", f"--servers={first}", "--expire=3600", folder / file)
    checks.equal("memccat", _cat(checks, other, "first.txt"), "one")
    checks.equal("memccat of two", _cat(checks, other, "first.txt", "second.txt"), "one\ntwo")
    succeeds(checks, "memcexist", f"--servers={other}", "first.txt")
    missing = run_tool("memcexist", f"--servers={first}", "missing.txt")
    checks.holds("memcexist of a missing key fails", missing.exit_code != 0)
    succeeds(checks, "memctouch", f"--servers={first}", "--expire=60", "first.txt")
    succeeds(checks, "memcrm", f"--servers={first}", "first.txt")
    removed = run_tool("memcexist", f"--servers={other}", "first.txt")
    checks.holds("memcexist after memcrm fails", removed.exit_code != 0)


def _cat(checks, address, *keys):
    return succeeds(checks, "memccat", f"--servers={address}", *keys).strip()


def _looks(checks, first, other):
    for address in dict.fromkeys([first, other]):
        servers = f"--servers={address}"
        succeeds(checks, "memcping", servers)
        stats = succeeds(checks, "memcstat", servers)
        for field in ("pid", "version", "curr_items", "get_hits", "limit_maxbytes"):
            checks.holds(f"memcstat shows {field}", f"\t{field}: " in stats)
        # Stock memcached lists what has left the queue of the newest, within a second or two.
        is_listed = partial(_is_listed, servers, "second.txt")
        checks.becomes("memcdump lists the key", is_listed, LIST_DEADLINE_S)


def _is_listed(servers, key):
    dumped = run_tool("memcdump", servers)
    return dumped.exit_code == 0 and key in dumped.output.split()


def _slaps(checks, first, other):
    load = [f"--concurrency={SLAP_THREADS}", f"--execute-number={SLAP_ROUNDS}"]
    # Through both nodes at the same time, as two hosts would.
    servers = f"--servers={first},{other}"
    for test in ("set", "get", "mget"):
        output = succeeds(checks, "memcslap", servers, f"--test={test}", *load)
        checks.holds(f"memcslap {test}: {output}", f"Time to {test}" in output)
        checks.holds(f"memcslap {test} sees no error: {output}", "ERROR" not in output.upper())


main(*sys.argv[1:])
