"""What a node answers on its admin port, and what Prometheus makes of it."""

import http.client
import shutil
import subprocess

from prometheus_client.parser import text_string_to_metric_families

ANSWER_DEADLINE_S = 5.0
PROMTOOL = shutil.which("promtool")
# Debian's promtool finds fault with names that are the exporter's.
OLD_NAMES = {
    "memcached_slab_items_moves_to_cold",
    "memcached_slab_items_moves_to_warm",
    "memcached_slab_items_moves_within_lru",
}


def http_get(port, path, method="GET"):
    """Status, headers and text of one answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_DEADLINE_S)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    finally:
        connection.close()


def scrape(port):
    """The families by name, as Prometheus' own parser for Python reads them."""
    status, headers, text = http_get(port, "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    return {family.name: family for family in text_string_to_metric_families(text)}


def described(text):
    """The names that have a type; those without samples too."""
    lines = [line.split(" ") for line in text.splitlines() if line.startswith("# TYPE ")]
    return {words[2]: words[3] for words in lines}


def each_sample(port):
    """Every sample's name, labels and value."""
    for family in scrape(port).values():
        for sample in family.samples:
            # The parser gives every counter the end that newer names have.
            short = sample.name.removesuffix("_total")
            yield short if short in OLD_NAMES else sample.name, sample.labels, sample.value


def samples(port):
    """Every value by its name and its labels' values, in their order."""
    return {(name, *labels.values()): value for name, labels, value in each_sample(port)}


def lint(text):
    """What promtool says against it, line by line."""
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30
    )
    said = (done.stdout + done.stderr).splitlines()
    return [line for line in said if line.split(" ")[0] not in OLD_NAMES]
