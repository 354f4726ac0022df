"""memcached-tool: the script that comes with memcached, and that its operators know."""

import re
import socket
import sys
import time
from urllib.parse import quote

from checks import checks_of
from tool import DEADLINE_S, succeeds

SCRIPT = "/usr/share/memcached/scripts/memcached-tool"
HOUR_S = 3600
# Between the write and the look.
CLOCK_SLACK_S = 30
# The key holds what has to be escaped in a list, the value a line end.
ITEMS = {"tool:plain": b"one", "tool:50%/day": b"two\r\nlines"}
FLAGS = 7
STATS = (
    "pid",
    "uptime",
    "version",
    "curr_items",
    "cmd_get",
    "get_hits",
    "limit_maxbytes",
    "threads",
)
SETTINGS = ("maxbytes", "maxconns", "evictions", "item_size_max", "num_threads", "dump_enabled")
# Number, size, age, pages, count, full, evicted, time of it, out of memory.
DISPLAYED = re.compile(r"^ *\d+ +[\d.]+[BK] +\d+s +\d+ +(?P<count>\d+) +(yes|no) +\d+ +\d+ +\d+$")


def main(name, first_address, other_address):
    with checks_of(name) as checks:
        _write(checks, first_address)
        for address in dict.fromkeys([first_address, other_address]):
            _displays(checks, address)
            _tells(checks, address)
            _dumps(checks, address)


def _write(checks, address):
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), DEADLINE_S) as connection:
        for key, value in ITEMS.items():
            head = f"set {key} {FLAGS} {HOUR_S} {len(value)}\r\n".encode()
            connection.sendall(head + value + b"\r\n")
            checks.equal("set", connection.recv(64), b"STORED\r\n")


def _displays(checks, address):
    output = succeeds(checks, SCRIPT, address, "display")
    rows = [DISPLAYED.match(line) for line in output.splitlines()[1:]]
    checks.holds(f"display shows classes:\n{output}", rows and all(rows))
    counted = sum(int(row["count"]) for row in rows)
    checks.holds(f"display counts the items:\n{output}", counted >= len(ITEMS))
    checks.equal(
        "display is what it does unasked", succeeds(checks, SCRIPT, address)[:40], output[:40]
    )


def _tells(checks, address):
    for mode, names in (("stats", STATS), ("settings", SETTINGS)):
        output = succeeds(checks, SCRIPT, address, mode)
        shown = {line.split()[0] for line in output.splitlines()[1:]}
        checks.equal(f"{mode} lacks", sorted(set(names) - shown), [])
    port = address.split(":")[1]
    checks.holds(f"settings know the port:\n{output}", re.search(rf" tcpport +{port}\s", output))
    sizes = succeeds(checks, SCRIPT, address, "sizes")
    checks.holds(f"sizes have a status:\n{sizes}", "sizes_status" in sizes)


def _dumps(checks, address):
    listed = succeeds(checks, SCRIPT, address, "keys")
    for key in ITEMS:
        encoded = quote(key, safe="")
        checks.holds(f"keys lists {encoded}:\n{listed}", f"key={encoded} exp=" in listed)
    output = succeeds(checks, SCRIPT, address, "dump")
    for key, value in ITEMS.items():
        text = re.escape(value.decode())
        head = rf"add {re.escape(key)} {FLAGS} (\d+) {len(value)}"
        added = re.search(rf"^{head}\r\n{text}\r\n", output, re.MULTILINE)
        checks.holds(f"dump has {key}:\n{output[:1000]}", added)
        left_s = int(added[1]) - time.time()
        checks.holds(f"dump knows its end: {left_s}", abs(left_s - HOUR_S) < CLOCK_SLACK_S)
    limited = succeeds(checks, SCRIPT, address, "dump", "1")
    checks.holds(f"dump 1 has at most one:\n{limited}", limited.count("\nadd ") <= 1)


main(*sys.argv[1:])
