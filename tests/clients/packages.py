"""Brings the clients here: PyPI's into a venv, npm's into a folder, Debian's by apt-get when asked.

Knows nothing of what the packages do.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from catalogue import DEBIAN, NPM, PYPI

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
# The second names every version, also of what the packages need in turn.
NODE_RECIPE = [HERE / "package.json", HERE / "package-lock.json"]
INSTALL_DEADLINE_S = 600
# npm says first what is wrong, apt-get and pip last.
FIRST_LINES, LAST_LINES = 3, 6
# What Debian's maintainer scripts ask before they start a service; 101 means no.
SERVICE_POLICY = Path("/usr/sbin/policy-rc.d")


class Missing(Exception):
    """Says what is not there, and how to get it or why it is not to be had."""


def install(clients, folder, with_apt):
    """Everything the clients need that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    _install_debian(clients, with_apt)
    if any(client.from_source(PYPI) for client in clients):
        _once_for([REQUIREMENTS], folder / "venv", _make_venv)
    if any(client.from_source(NPM) for client in clients):
        _once_for(NODE_RECIPE, folder / "node", _make_node_folder)


def versions(client, folder):
    """E.g. `Django 5.2.19, pymemcache 4.0.0`."""
    version_of = {DEBIAN: _debian_version, PYPI: _pypi_version, NPM: _npm_version}
    known = [(package, version_of[source](package, folder)) for source, package in client.packages]
    return ", ".join(f"{package} {version}" for package, version in known)


def venv_python(folder):
    return folder / "venv/bin/python"


def node_modules(folder):
    return folder / "node/node_modules"


def _install_debian(clients, with_apt):
    needed = sorted({package for client in clients for package in client.debian_packages()})
    missing = [package for package in needed if not _is_there(package)]
    if not missing:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if not with_apt or os.geteuid() != 0:
        how = "(--install does it, as root)"
        raise Missing(f"Debian packages are missing: {' '.join(command)}\n{how}")
    print(f"installing {' '.join(missing)}", flush=True)
    with _services_stay_down():
        _bring(DEBIAN, ["apt-get", "update", "--quiet"])
        _bring(DEBIAN, [*command, "--quiet"], DEBIAN_FRONTEND="noninteractive")


def _is_there(package):
    # Python, node and npm often come from elsewhere than Debian.
    if package == "python3-venv":
        return find_spec("ensurepip") is not None
    if package in ("nodejs", "npm"):
        return shutil.which({"nodejs": "node"}.get(package, package)) is not None
    return bool(_debian_version(package))


def _debian_version(package, _folder=None):
    query = ["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Version}", package]
    answer = subprocess.run(query, capture_output=True, text=True).stdout
    status, _, version = answer.partition(" ")
    return version if status == "installed" else ""


@contextmanager
def _services_stay_down():
    """A test brings up its own servers; a memcached on the usual port is in everybody's way."""
    is_ours = not SERVICE_POLICY.exists()
    if is_ours:
        SERVICE_POLICY.write_text("#!/bin/sh\nexit 101\n")
        SERVICE_POLICY.chmod(0o755)
    try:
        yield
    finally:
        if is_ours:
            SERVICE_POLICY.unlink()


def _once_for(recipe, folder, make):
    """Made anew when the recipe has changed, and when the last making did not end."""
    stamp = folder / "made-for"
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in recipe)).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    print(f"installing what {recipe[0].name} lists", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    make(folder)
    stamp.write_text(digest)


def _make_venv(folder):
    _bring(DEBIAN, [sys.executable, "-m", "venv", folder])
    pip = [folder / "bin/python", "-m", "pip"]
    _bring(PYPI, [*pip, "install", "--quiet", "--requirement", REQUIREMENTS])


def _make_node_folder(folder):
    folder.mkdir()
    for path in NODE_RECIPE:
        shutil.copy(path, folder)
    # None of them has anything to build, and so no reason to run a script.
    _bring(NPM, ["npm", "ci", "--prefix", folder, "--no-audit", "--no-fund", "--ignore-scripts"])


def _pypi_version(package, folder):
    command = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
    answer = subprocess.run(
        [venv_python(folder), "-c", command, package], capture_output=True, text=True, check=True
    )
    return answer.stdout.strip()


def _npm_version(package, folder):
    description = json.loads((node_modules(folder) / package / "package.json").read_text())
    return description["version"]


def _bring(source, command, **environment):
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=INSTALL_DEADLINE_S,
        )
    except FileNotFoundError:
        raise Missing(f"there is no {words[0]}") from None
    except subprocess.TimeoutExpired as slow:
        printed = (slow.output or b"").decode(errors="replace")
        why = f"not done within {INSTALL_DEADLINE_S} s"
        raise _not_to_be_had(source, words, why, printed) from None
    if done.returncode != 0:
        raise _not_to_be_had(source, words, f"exit code {done.returncode}", done.stdout)


def _not_to_be_had(source, words, why, printed):
    lines = printed.splitlines()
    if len(lines) > FIRST_LINES + LAST_LINES:
        lines = [*lines[:FIRST_LINES], "...", *lines[-LAST_LINES:]]
    complaint = "\n".join(f"    {line}" for line in lines)
    command = " ".join(words)
    return Missing(f"packages from {source} are not to be had; `{command}`: {why}\n{complaint}")
