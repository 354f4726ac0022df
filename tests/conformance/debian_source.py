"""Gets Debian's source package of memcached, once; none of it is ever committed.

Source entries are switched off on most machines. They are written from the enabled binary
entries into a directory of our own, so that the system's apt configuration stays as it is.
"""

import shutil
import subprocess
import tarfile
from pathlib import Path

SYSTEM_SOURCES = Path("/etc/apt")
APT_DEADLINE_S = 300


class NotToBeHad(Exception):
    """One line that says why there is no source package."""

    def __str__(self):
        return f"Debian's source package of memcached is not to be had: {self.args[0]}"


def memcached_source(cache):
    """The unpacked source, e.g. `cache/memcached-1.6.18`."""
    unpacked = sorted(cache.glob("memcached-*/t"))
    if not unpacked:
        archive = _archive(cache / "apt")
        _unpack(archive, cache)
        unpacked = sorted(cache.glob("memcached-*/t"))
    if not unpacked:
        raise NotToBeHad("the package holds no folder t/")
    return unpacked[-1].parent


def _archive(folder):
    downloaded = folder / "packages"
    if not any(downloaded.glob("memcached_*.orig.tar.*")):
        if not shutil.which("apt-get"):
            raise NotToBeHad("there is no apt-get here")
        shutil.rmtree(folder, ignore_errors=True)
        for needed in (downloaded, folder / "lists/partial", folder / "cache/archives/partial"):
            needed.mkdir(parents=True)
        options = _options(folder)
        _apt_get([*options, "update"], folder)
        _apt_get([*options, "--download-only", "source", "memcached"], downloaded)
    archives = [path for path in downloaded.glob("memcached_*.orig.tar.*") if path.suffix != ".asc"]
    if not archives:
        raise NotToBeHad("apt-get downloaded no memcached_*.orig.tar.*")
    return archives[0]


def _options(folder):
    """A private list of sources and a private cache; keys, proxies and the rest as usual."""
    parts = folder / "sources.list.d"
    parts.mkdir()
    lists = [*SYSTEM_SOURCES.glob("sources.list"), *SYSTEM_SOURCES.glob("sources.list.d/*.list")]
    for path in lists:
        lines = [_source_line(line) for line in path.read_text().splitlines()]
        (parts / path.with_suffix(".list").name).write_text("\n".join([*filter(None, lines), ""]))
    for path in SYSTEM_SOURCES.glob("sources.list.d/*.sources"):
        stanzas = [_source_stanza(stanza) for stanza in path.read_text().split("\n\n")]
        (parts / path.name).write_text("\n\n".join([*filter(None, stanzas), ""]))
    settings = {
        "Dir::Etc::sourcelist": "-",
        "Dir::Etc::sourceparts": parts,
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Acquire::Languages": "none",
        # Otherwise `update` succeeds without a network, and `source` complains of something else.
        "APT::Update::Error-Mode": "any",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _source_line(line):
    """`deb ...` as `deb-src ...`; nothing for anything else, and nothing not from Debian."""
    kind, *rest = line.split(None, 1) or [""]
    return f"deb-src {rest[0]}" if kind in ("deb", "deb-src") and "debian" in rest[0] else ""


def _source_stanza(stanza):
    """The same for a paragraph of a `.sources` file."""
    lines = [line for line in stanza.splitlines() if line and not line.startswith("#")]
    if not any(line.startswith("URIs:") and "debian" in line for line in lines):
        return ""
    lines = [line for line in lines if not line.startswith("Types:")]
    return "\n".join(["Types: deb-src", *lines])


def _apt_get(words, folder):
    command = ["apt-get", "-q", *map(str, words)]
    try:
        subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=APT_DEADLINE_S,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise NotToBeHad(f"apt-get {words[-1]}: no answer in {APT_DEADLINE_S} s") from None
    except subprocess.CalledProcessError as failed:
        complaints = [line for line in failed.stderr.splitlines() if line.startswith("E:")]
        why = complaints[0] if complaints else f"exit code {failed.returncode}"
        raise NotToBeHad(f"apt-get {words[-1]}: {why}") from None


def _unpack(archive, cache):
    # Debian's patches touch no test, so the upstream archive alone is enough and dpkg-dev is not
    # needed. Unpacked aside and then moved: an interrupted run must not leave half a package.
    aside = cache / "unpacking"
    shutil.rmtree(aside, ignore_errors=True)
    with tarfile.open(archive) as package:
        package.extractall(aside)
    for folder in aside.glob("memcached-*"):
        folder.rename(cache / folder.name)
    shutil.rmtree(aside)
