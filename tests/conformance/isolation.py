"""Keeps a run from meeting anybody else: ports of its own, and no process left behind.

Linux only. What is not allowed here is left undone: the tests then share the machine's ports,
and a file that finds memcached's own port taken says so itself.
"""

import ctypes
import fcntl
import os
import signal
import socket
import struct

CLONE_NEWNET = 0x40000000
CLONE_NEWUSER = 0x10000000
PR_SET_CHILD_SUBREAPER = 36
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
IFREQ_FLAGS = "16sh22x"

_libc = ctypes.CDLL(None, use_errno=True)


def own_ports():
    """Moves this process into a network of its own, where only the loopback addresses exist."""
    if _libc.unshare(CLONE_NEWNET) != 0 and not _unshare_as_user():
        return
    with socket.socket() as any_socket:
        request = struct.pack(IFREQ_FLAGS, b"lo", 0)
        answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, request)
        flags = struct.unpack(IFREQ_FLAGS, answer)[1]
        request = struct.pack(IFREQ_FLAGS, b"lo", flags | IFF_UP)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)


def _unshare_as_user():
    """Whoever is not root may do it among users of its own, of which there is one: itself."""
    user, group = os.getuid(), os.getgid()
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return False
    _write("uid_map", f"{user} {user} 1")
    # The kernel maps a group only for those who can then not leave their other groups.
    _write("setgroups", "deny")
    _write("gid_map", f"{group} {group} 1")
    return True


def _write(name, words):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(words)


def adopt_orphans():
    """A daemon leaves its group; from now on it becomes our child when its parent ends."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_orphans():
    """Ends all children that are left, by number; called when none of our own runs any more."""
    for child in _children():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _children():
    me = os.getpid()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and _parent(entry) == me:
            yield int(entry)


def _parent(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            # The name in brackets may hold anything; after its last bracket: state, then parent.
            return int(stat.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None
