"""Runs Django's own tests of the memcached backend and of cached sessions against a node.

They are in Django's source package only, so that is fetched once, in the installed version,
and kept inside the virtual environment. Run as a program it starts a node of its own:
`python django_cache_suite.py [label...]`.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cluster import single_node

LABELS = ["cache.tests.PyMemcacheCacheTests", "sessions_tests"]
# The suite sleeps for its expiry tests; it takes 15 s on an idle machine.
SUITE_DEADLINE_S = 240
FETCH_DEADLINE_S = 240


def run_suite(location, labels=LABELS):
    """Returns the exit code and all that Django's runner printed."""
    here = str(Path(__file__).parent)
    runner = [sys.executable, "runtests.py", "--settings=django_cache_settings", "--parallel=1"]
    finished = subprocess.run(
        [*runner, *labels],
        cwd=django_source() / "tests",
        env={**os.environ, "PYTHONPATH": here, "LOCATION": location},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SUITE_DEADLINE_S,
    )
    return finished.returncode, finished.stdout


def django_source():
    """The unpacked source of the Django that is installed here."""
    version = importlib.metadata.version("Django")
    kept_in = Path(sys.prefix) / "src"
    source = kept_in / f"django-{version}"
    if not source.exists():
        archive = kept_in / f"django-{version}.tar.gz"
        if not archive.exists():
            fetch(version, kept_in)
        # Unpacked beside its place and then moved: an interrupted run must not leave half a Django.
        unpacked = kept_in / "unpacking"
        shutil.rmtree(unpacked, ignore_errors=True)
        shutil.unpack_archive(archive, unpacked)
        (unpacked / source.name).rename(source)
    return source


def fetch(version, directory):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary", ":all:", "--dest", directory, f"Django=={version}"]
    subprocess.run(command, check=True, timeout=FETCH_DEADLINE_S)


if __name__ == "__main__":
    with single_node() as node:
        exit_code, printed = run_suite(node.address, sys.argv[1:] or LABELS)
    print(printed)
    sys.exit(exit_code)
