"""Free ports on the loopback address."""

import random
import socket
from pathlib import Path

_handed_out = set()


def free_port():
    """A port nobody listens on, and that the kernel will give to no one meanwhile.

    Taken from below the range of outgoing connections: a node that is killed and restarted
    must find its port free, and a poll of a closed port inside the range can connect to itself.
    """
    outgoing_from = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(1000):
        port = random.randrange(min(10_000, outgoing_from // 2), outgoing_from)
        if port not in _handed_out and _can_bind(port):
            _handed_out.add(port)
            return port
    raise RuntimeError("no free port found")


def _can_bind(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
