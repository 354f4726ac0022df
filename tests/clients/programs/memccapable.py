"""memccapable: libmemcached's own tests of a server, those of the text protocol."""

import sys

from checks import checks_of
from tool import run_tool

TESTS = 27


def main(name, first_address, other_address):
    with checks_of(name) as checks:
        for address in dict.fromkeys([first_address, other_address]):
            host, port = address.split(":")
            answer = run_tool("memccapable", "-a", "-v", "-h", host, "-p", port)
            passed = answer.output.count("[pass]")
            checks.equal(f"{answer.output}\npassed, of {TESTS}", passed, TESTS)
            checks.equal("exit code", answer.exit_code, 0)


main(*sys.argv[1:])
