"""`make conformance`: memcached's own test files, from Debian's source package, with sessiond
in place of the server they were written for.

Prints a line per file and ends with 0 only if every file passes that is not in `left-out.txt`.
A subtest in `differences.txt` may fail: where releases differ, or UDP is asked for. One in
`explained.txt` fails today; its file does not pass, but does not fail the run either.

Needs Debian's perl, gcc and libc6-dev; a bare Debian 12 has a perl without the suite's modules.
The source package comes through the machine's own apt, which needs no deb-src line for it.
"""

import argparse
import os
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import isolation
import lists
import tap
from debian_source import NotToBeHad, memcached_source
from lists import BadList
from suite import CannotRun, Suite, ToolMissing, check_tools

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
PASSED, EXPLAINED, FAILED = "ok", "explained", "FAILED"


def main():
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        left_out = lists.left_out()
        tally = Tally(lists.differences(), lists.explained())
        binary = options.binary.resolve()
        if not os.access(binary, os.X_OK):
            raise CannotRun(f"there is no program {options.binary}")
        check_tools()
        CACHE.mkdir(parents=True, exist_ok=True)
        source = memcached_source(CACHE)
        # Only now: there is no way out of the new network to a package archive.
        isolation.own_ports()
        isolation.adopt_orphans()
        try:
            with Suite(source, binary, CACHE) as suite:
                names = _chosen(options, suite.files(), left_out)
                _announce(source, options.binary, names)
                _run_all(suite, names, tally, options)
        finally:
            isolation.kill_orphans()
    except (NotToBeHad, ToolMissing) as why:
        if options.or_skip:
            print(f"conformance: skipped: {why}")
            return
        sys.exit(f"conformance: {why}")
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
    parser.add_argument(
        "--or-skip",
        action="store_true",
        help="succeed, with a line that says why, where the suite or its tools cannot be had",
    )
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


def _run_all(suite, names, tally, options):
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            for run in pool.map(lambda name: suite.run(name, FILE_LIMIT_S), names):
                tally.add(run, suite.logs)
        finally:
            # After Ctrl-C there are tests left, in sessions of their own that did not hear of it.
            pool.shutdown(wait=False, cancel_futures=True)
            suite.stop()


class Tally:
    """Judges each file, says so, and counts."""

    def __init__(self, differences, explained):
        self._differences = differences
        self._explained = explained
        self._subtests = self._subtests_passed = self._known = self._skipped = 0
        # Files, by the first word of their verdict.
        self._verdicts = Counter()
        self._subtests_explained = 0

    @property
    def is_clean(self):
        return self._verdicts.total() > 0 and not self._verdicts[FAILED]

    def add(self, run, logs):
        results = run.results
        if results.skipped is not None:
            self._skipped += 1
            self._say(run, f"skipped by the suite: {results.skipped}")
            return
        known = self._differences.get(run.name, lists.Subtests())
        explained = self._explained.get(run.name, lists.Subtests())
        verdict = _judge(run, known, explained)
        self._verdicts[verdict.word] += 1
        self._subtests += results.total
        self._subtests_passed += results.total - len(results.failed)
        self._known += len(verdict.known)
        self._subtests_explained += len(verdict.explained)
        self._say(run, verdict)
        self._detail(verdict, logs / f"{run.name}.log")
        for reason in explained.reasons_for(verdict.explained):
            print(f"    {reason}")
        for path, entries in ((lists.DIFFERENCES, known), (lists.EXPLAINED, explained)):
            if passing := entries.out_of_date(results.failed):
                print(f"    {path.name} lists what passes here: {', '.join(passing)}")

    @staticmethod
    def _detail(verdict, log):
        if verdict.word != FAILED:
            return
        reported = {n: name for n, name in verdict.bad.items() if name != tap.NEVER_REPORTED}
        for number, name in list(sorted(reported.items()))[:FAILURES_SHOWN]:
            print(f"    {number} {name}")
        if len(reported) > FAILURES_SHOWN:
            print(f"    ... and {len(reported) - FAILURES_SHOWN} more")
        print(f"    see {os.path.relpath(log)}")

    @staticmethod
    def _say(run, verdict):
        print(f"{run.name:<24}{run.seconds:5.1f} s  {verdict}", flush=True)

    def print(self):
        print(
            f"{self._verdicts[PASSED]} of {self._verdicts.total()} files, "
            f"{self._subtests_passed} of {self._subtests} subtests"
            f" ({self._known} known to differ; {self._subtests_explained} in "
            f"{self._verdicts[EXPLAINED]} files explained; "
            f"{self._skipped} files skipped by the suite itself)"
        )


@dataclass
class Verdict:
    """Of one file: a word, and the subtests that failed, by what the lists say of them."""

    word: str
    total: int
    known: set
    explained: set
    bad: dict
    death: str | None

    def __str__(self):
        count = {
            PASSED: self.total - len(self.known),
            EXPLAINED: len(self.explained),
            FAILED: len(self.bad),
        }
        known = f", {len(self.known)} known to differ" if self.known else ""
        died = f", {self.death}" if self.death and self.word == FAILED else ""
        return f"{self.word} {count[self.word]} of {self.total} subtests{known}{died}"


def _judge(run, known, explained):
    results, death = run.results, run.manner_of_death()
    may_die = any(listed.may_end_after(results.seen) for listed in (known, explained))
    # One that never came did not differ: the file died before it.
    listed = {
        number
        for number, name in results.failed.items()
        if name != tap.NEVER_REPORTED or may_die
    }
    differing = {number for number in listed if known.may_fail(number)}
    wanting = {number for number in listed - differing if explained.may_fail(number)}
    bad = {n: name for n, name in results.failed.items() if n not in differing | wanting}
    if bad or (death and not may_die):
        word = FAILED
    else:
        word = EXPLAINED if wanting else PASSED
    return Verdict(word, results.total, differing, wanting, bad, death)


if __name__ == "__main__":
    main()
