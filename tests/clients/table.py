"""Shows each run as it ends, and all of them as a table."""

from threading import Lock


class Table:
    """One line a client, one column a setup."""

    def __init__(self, clients):
        # As (client, version), in the table's order.
        self._clients = clients
        self._runs = {}
        # Two setups report at the same time.
        self._lock = Lock()

    @property
    def is_clean(self):
        return not any(run.failure for run in self._runs.values())

    def add(self, run):
        with self._lock:
            self._runs[run.client, run.setup] = run
            print(f"  {run.client:28} {run.setup:9} {run.summary}, {run.seconds:.1f} s", flush=True)

    def print(self, seconds):
        setups = list(dict.fromkeys(setup for _, setup in self._runs))
        setups.sort(reverse=True)
        rows = [self._line(client, version, setups) for client, version in self._clients]
        lines = [["client", "version", *setups], *rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        print()
        for line in lines:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
        failed = [run for run in self._runs.values() if run.failure]
        for run in failed:
            indented = run.failure.replace("\n", "\n    ")
            print(f"\n{run.client}, {run.setup}:\n    {indented}")
        print()
        for run in self._runs.values():
            if run.remark:
                print(f"{run.client}, {run.setup}: {run.remark}")
        known = sum(run.fails_as_known for run in self._runs.values())
        print(f"{seconds:.0f} s" + (f"; {known} failed as known" if known else ""))
        print(f"{len(self._runs) - len(failed) - known} passed, {len(failed)} failed")

    def _line(self, client, version, setups):
        note = f" ({client.note})" if client.note else ""
        cells = [self._runs[client.name, setup].summary for setup in setups]
        return [client.name, version + note, *cells]
