"""`make clients`: foreign clients do what a session user does with them, on one node and on a
group of three, where they write to the first node and read through the second.

Prints a table and ends with 0 only if every client passed in every setup; one that is known to
fail in the catalogue may, in the way that stands there.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import packages
from catalogue import CLIENTS
from client_run import Runner
from packages import Missing
from servers import Setup
from table import Table

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY = REPOSITORY / "target/release/sessiond"
FOLDER = REPOSITORY / "target/clients"


def main():
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    try:
        clients = _chosen(options.only)
        packages.install(clients, FOLDER, with_apt=options.install or options.install_only)
        if options.install_only:
            return
        binary = _binary(options.binary)
        table = Table([(client, packages.versions(client, FOLDER)) for client in clients])
        _run_all(clients, binary, options, table)
    except (Missing, ChildProcessError, TimeoutError) as why:
        sys.exit(f"clients: {why}")
    except KeyboardInterrupt:
        sys.exit(130)
    table.print(seconds=time.monotonic() - started)
    sys.exit(0 if table.is_clean else 1)


def _options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, default=BINARY, help="the server to test")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these clients")
    parser.add_argument(
        "--one-node-only", action="store_true", help="no group, for stock memcached"
    )
    parser.add_argument("--install", action="store_true", help="apt-get what is missing, as root")
    parser.add_argument("--install-only", action="store_true", help="the same, and run nothing")
    return parser.parse_args()


def _binary(path):
    found = shutil.which(path)
    if not found:
        raise Missing(f"there is no program {path}")
    return Path(found).absolute()


def _chosen(names):
    known = {client.name: client for client in CLIENTS}
    for name in names or []:
        if name not in known:
            raise Missing(f"no client is called {name}; there are: {' '.join(known)}")
    return [known[name] for name in names] if names else CLIENTS


def _run_all(clients, binary, options, table):
    """One thread a setup: the clients take turns on it, so that they meet what others left."""
    sizes = [1] if options.one_node_only else [1, 3]
    print(f"{len(clients)} clients with {os.path.relpath(binary)}", flush=True)
    runner = Runner(FOLDER)
    with ThreadPoolExecutor(len(sizes)) as pool:
        try:
            setups = [Setup(binary, size) for size in sizes]
            turns = [pool.submit(_take_turns, clients, setup, runner, table) for setup in setups]
            for turn in turns:
                turn.result()
        finally:
            runner.stop()


def _take_turns(clients, setup, runner, table):
    with setup:
        for client in clients:
            run = runner.run(client, setup)
            if runner.is_stopped:
                return
            table.add(run)


if __name__ == "__main__":
    main()
