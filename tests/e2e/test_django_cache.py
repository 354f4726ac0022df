"""Django's own tests of its memcached backend hold for a single node."""

import re

from cluster import single_node
from django_cache_suite import run_suite


def test_djangos_own_cache_and_session_tests_pass(figure):
    with single_node() as node:
        exit_code, printed = run_suite(node.address)
    closing_lines = re.findall(r"^(?:Ran|OK|FAILED).*", printed, re.MULTILINE)
    figure(f"Django's own cache and session tests: {'; '.join(closing_lines)}")
    assert exit_code == 0, printed
