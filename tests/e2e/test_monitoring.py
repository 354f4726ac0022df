"""docs/monitoring.md, the alert rules and the dashboard speak of the figures that there are."""

import json
import re
import subprocess

import pytest

from cluster import REPOSITORY, new_group
from processes import running
from scrape import PROMTOOL, described, each_sample, http_get
from talk import talk
from test_admin import with_admin

PAGE = REPOSITORY / "docs/monitoring.md"
RULES = REPOSITORY / "docs/monitoring/alerts.yml"
STORIES = REPOSITORY / "tests/e2e/alerts/group.yml"
DASHBOARD = REPOSITORY / "docs/monitoring/grafana.json"

# What Prometheus itself adds to every scrape.
OF_PROMETHEUS = {"up": {"job", "instance", "cluster"}}
OF_THE_SCRAPE = {"job", "instance", "cluster"}
WORDS = {"by", "without", "on", "ignoring", "and", "or", "unless", "bool", "offset"}


@pytest.fixture(scope="module")
def figures():
    """Every family of a group with a witness, with its labels and their values."""
    nodes = with_admin(new_group(witness="n3"))
    with running(nodes):
        for node in nodes[:2]:
            node.wait_ready()
        with talk(nodes[0].port) as client:
            assert client.ask(b"set a 0 60 1\r\nx\r\n") == b"STORED\r\n"
        known = {}
        for node in nodes:
            names = described(http_get(node.admin_port, "/metrics")[2])
            known.update({name: known.get(name, {}) for name in names})
            for name, labels, _ in each_sample(node.admin_port):
                for label, value in labels.items():
                    known.setdefault(name, {}).setdefault(label, set()).add(value)
        yield known


def families(figures):
    """Those of histograms are asked for by their parts."""
    parts = re.compile(r"(_bucket|_sum|_count)$")
    return {name for name in figures if not (parts.search(name) and parts.sub("", name) in figures)}


def expressions():
    rules = re.findall(r"^ +expr: (.+)$", RULES.read_text(), re.MULTILINE)
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert len(rules) > 10 and len(asked) > 20
    return rules + asked


def selectors(expression):
    """The metrics of an expression, each with what is asked of its labels."""
    text = re.sub(r"\[[^\]]*\]", "", expression)
    # Lists of labels are no metrics; nor are functions, which a bracket follows.
    text = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", text)
    found = re.findall(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\s*\()?(\{[^}]*\})?", text_without_values(text))
    return [
        (name, re.findall(r"([a-z_]+)(=~|=|!=|!~)<(.*?)>", matchers))
        for name, is_function, matchers in found
        if not is_function and name not in WORDS
    ]


def text_without_values(text):
    """Quoted values would be taken for names."""
    return re.sub(r'"([^"]*)"', r"<\1>", text) if '"' in text else text


def labels_named(expression):
    lists = re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", expression)
    return {label.strip() for one in lists for label in one.split(",")}


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_names_only_what_there_is(figures, expression):
    asked = selectors(expression)
    assert asked, "no metric was found"
    known_labels = set(OF_THE_SCRAPE)
    for name, matchers in asked:
        assert name in figures or name in OF_PROMETHEUS, name
        labels = figures.get(name, {})
        known_labels |= set(labels)
        for label, operator, value in matchers:
            assert label in labels or label in OF_THE_SCRAPE, (name, label)
            if label not in OF_THE_SCRAPE and operator in ("=", "=~"):
                assert set(value.split("|")) <= labels[label], (name, label, value)
    assert labels_named(expression) <= known_labels


def test_a_metric_that_does_not_exist_would_be_found():
    names = [name for name, _ in selectors('rate(no_such_total{a="b c"}[5m]) > bool other')]
    assert names == ["no_such_total", "other"]
    found = selectors('max by (x) (one{l="m"}) / on (y) sum(two{k=~"a|b"})')
    assert found == [("one", [("l", "=", "m")]), ("two", [("k", "=~", "a|b")])]


def test_the_page_has_every_figure_and_no_other(figures):
    page = PAGE.read_text()
    tables = page[page.index("## Figures of memcached") :]
    named = set(re.findall(r"`((?:memcached|sessiond)_[a-z0-9_]+)`", tables))
    assert named == families(figures)


def test_the_page_explains_every_alert():
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert re.findall(r"^\| (Sessiond\w+) \|", PAGE.read_text(), re.MULTILINE) == alerts


def test_every_label_of_a_summary_comes_out_of_its_expression():
    rules = RULES.read_text().split("- alert: ")[1:]
    for rule in rules:
        expression = re.search(r"expr: (.+)", rule)[1]
        used = set(re.findall(r"\$labels\.(\w+)", rule))
        by = re.search(r"\bby \(([^)]*)\)", expression)
        if by:
            assert used <= {label.strip() for label in by[1].split(",")}, rule
        else:
            assert used <= OF_THE_SCRAPE | {"peer"}, rule


def test_every_alert_has_a_story_in_which_it_is_raised():
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    told = STORIES.read_text()
    assert set(re.findall(r"alertname: (\w+)\n +exp_alerts:\n", told)) == set(alerts)


@pytest.mark.parametrize("order", [["check", "rules", RULES], ["test", "rules", STORIES]])
def test_promtool_takes_the_rules(order, figure):
    if not PROMTOOL:
        figure(f"no promtool on the PATH (Debian: prometheus): not run: {order[0]} {order[1]}")
        return
    done = subprocess.run([PROMTOOL, *order], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr


def test_the_dashboard_places_no_panel_upon_another():
    taken = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
