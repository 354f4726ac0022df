"""`make conformance`: memcached's own test files, from Debian's source package, with sessiond
in place of the server they were written for.

Prints a line per file and ends with 0 only if every file passes that is not in `left-out.txt`;
a subtest in `differences.txt` may fail.
"""

import argparse
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import isolation
import lists
import tap
from debian_source import NotToBeHad, memcached_source
from lists import BadList
from suite import CannotRun, Suite

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / "target/conformance"
BINARY = REPOSITORY / "target/release/sessiond"
# The release that the lists are written for.
SOURCE_VERSION = "1.6.18"
# Five times what the slowest file takes with stock memcached on a busy machine of two cores.
FILE_LIMIT_S = 120
# The files spend most of their time asleep.
JOBS = 4
FAILURES_SHOWN = 5


def main():
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        left_out, differences = lists.left_out(), lists.differences()
        binary = options.binary.resolve()
        if not os.access(binary, os.X_OK):
            raise CannotRun(f"there is no program {options.binary}")
        CACHE.mkdir(parents=True, exist_ok=True)
        source = memcached_source(CACHE)
        # Only now: there is no way out of the new network to a package archive.
        isolation.own_ports()
        isolation.adopt_orphans()
        try:
            with Suite(source, binary, CACHE) as suite:
                names = _chosen(options, suite.files(), left_out)
                _announce(source, options.binary, names)
                tally = _run_all(suite, names, differences, options)
        finally:
            isolation.kill_orphans()
    except NotToBeHad as why:
        sys.exit(f"conformance: Debian's source package of memcached is not to be had: {why}")
    except (BadList, CannotRun) as why:
        sys.exit(f"conformance: {why}")
    except KeyboardInterrupt:
        sys.exit(130)
    tally.print()
    sys.exit(0 if tally.is_clean else 1)


def _options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="only the files of short.txt")
    parser.add_argument("--only", nargs="+", metavar="FILE", help="only these, e.g. cas.t")
    parser.add_argument("--binary", type=Path, default=BINARY, help="the server to test")
    parser.add_argument("--jobs", type=int, default=JOBS, help="files at a time")
    return parser.parse_args()


def _chosen(options, files, left_out):
    unknown = [name for name in left_out if name not in files]
    if unknown:
        raise BadList(f"left-out.txt: the suite has no {unknown[0]}")
    if options.only:
        names = [Path(name).stem for name in options.only]
    elif options.short:
        names = lists.short()
    else:
        names = [name for name in files if name not in left_out]
    for name in names:
        if name not in files:
            raise CannotRun(f"the suite has no {name}.t")
        if name in left_out:
            raise CannotRun(f"{name}.t is left out: {left_out[name]}")
    return names


def _announce(source, binary, names):
    server = os.path.relpath(binary)
    print(f"{source.name}'s t/*.t, {len(names)} files, with {server}", flush=True)
    if source.name != f"memcached-{SOURCE_VERSION}":
        print(f"beware: the lists of differences were made for {SOURCE_VERSION}")


def _run_all(suite, names, differences, options):
    tally = Tally(differences, suite.logs)
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            for run in pool.map(lambda name: suite.run(name, FILE_LIMIT_S), names):
                tally.add(run)
        finally:
            # After Ctrl-C there are tests left, in sessions of their own that did not hear of it.
            pool.shutdown(wait=False, cancel_futures=True)
            suite.stop()
    return tally


class Tally:
    """Judges each file, says so, and counts."""

    def __init__(self, differences, logs):
        self._differences = differences
        self._logs = logs
        self._files = self._files_passed = self._subtests = self._subtests_passed = 0
        self._known = self._skipped = 0

    @property
    def is_clean(self):
        return self._files > 0 and self._files_passed == self._files

    def add(self, run):
        results = run.results
        if results.skipped is not None:
            self._skipped += 1
            self._say(run, f"skipped by the suite: {results.skipped}")
            return
        known = self._differences.get(run.name, lists.Subtests())
        bad = _unexpected(results, known)
        verdict = self._verdict(run, known, bad)
        self._files += 1
        self._files_passed += verdict.startswith("ok")
        self._subtests += results.total
        self._subtests_passed += results.total - len(results.failed)
        self._known += len(results.failed) - len(bad)
        self._say(run, verdict)
        self._explain(run, known, bad, verdict)

    @staticmethod
    def _verdict(run, known, bad):
        results = run.results
        death = run.manner_of_death()
        if not bad and (death is None or known.may_end_after(results.seen)):
            differing = len(results.failed)
            suffix = f", {differing} known to differ" if differing else ""
            return f"ok {results.total - differing} of {results.total} subtests{suffix}"
        return f"FAILED {len(bad)} of {results.total} subtests" + (f", {death}" if death else "")

    def _explain(self, run, known, bad, verdict):
        reported = {n: name for n, name in sorted(bad.items()) if name != tap.NEVER_REPORTED}
        for number, name in list(reported.items())[:FAILURES_SHOWN]:
            print(f"    {number} {name}")
        if len(reported) > FAILURES_SHOWN:
            print(f"    ... and {len(reported) - FAILURES_SHOWN} more")
        if not verdict.startswith("ok"):
            print(f"    see {os.path.relpath(self._logs / run.name)}.log")
        passing = sorted(known.listed - run.results.failed.keys())
        if passing:
            print(f"    differences.txt lists what passes here: {passing}")

    @staticmethod
    def _say(run, verdict):
        print(f"{run.name:<24}{run.seconds:5.1f} s  {verdict}", flush=True)

    def print(self):
        print(
            f"{self._files_passed} of {self._files} files, "
            f"{self._subtests_passed} of {self._subtests} subtests"
            f" ({self._known} known to differ; {self._skipped} files skipped by the suite itself)"
        )


def _unexpected(results, known):
    """What failed and may not. One that never came did not differ: the file died before it."""
    died_badly = not known.may_end_after(results.seen)
    return {
        number: name
        for number, name in results.failed.items()
        if not known.may_fail(number) or (name == tap.NEVER_REPORTED and died_badly)
    }


if __name__ == "__main__":
    main()
