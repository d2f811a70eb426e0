"""The dashboard and the alert rules ask for nothing that is not exported."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from continuum.model.states import RunState
from continuum.telemetry.metrics import INCIDENT_EVENTS, RULES
from tests.otel.test_metrics import Scrape, fed_page

DOCS = Path(__file__).resolve().parents[2] / "docs" / "observability"
OF_PROMETHEUS = {"instance", "le"}  # labels that it adds itself, or that histograms have
VALUES = {
    "state": {state.value for state in RunState},
    "outcome": {"completed", "retried", "failed", "cancelled", "arrived", "unreachable", "refused", "shared"},
    "event": set(INCIDENT_EVENTS),
}
QUOTED = re.compile(r'"[^"]*"')
SELECTOR = re.compile(r"\b(continuum_\w+)\s*(?:\{([^}]*)\})?(?=\s*[\[)=><,+/ ]|$)")
GROUPED = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def of_dashboard() -> Iterator[tuple[str, str]]:
    board = json.loads((DOCS / "grafana.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']}", target["expr"]


def of_alerts() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load((DOCS / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((DOCS / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def samples() -> dict[str, set[str]]:
    """Every exported sample and its labels."""
    scrape: Scrape = fed_page()
    found: dict[str, set[str]] = {}
    for family in scrape.families.values():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_the_dashboard_and_the_alerts_name_only_what_is_exported(samples: dict[str, set[str]]) -> None:
    asked: set[str] = set()
    for where, expression in (*of_dashboard(), *of_alerts()):
        grouped = GROUPED.sub(" ", expression)
        selectors = SELECTOR.findall(grouped)
        assert selectors, (where, expression)
        names = {name for name, _ in selectors}
        assert names <= set(samples), (where, names - set(samples))
        asked |= names
        assert "continuum_" not in SELECTOR.sub("", QUOTED.sub("", grouped)), (where, "not understood", expression)
        for name, matchers in selectors:
            for label, _, wanted in MATCHER.findall(matchers):
                assert label in samples[name] | OF_PROMETHEUS, (where, name, label)
                if label in VALUES:
                    assert set(wanted.split("|")) <= VALUES[label], (where, label, wanted)
        labels = {label.strip() for group in GROUPED.findall(expression) for label in group.split(",")}
        known = set.intersection(*(samples[name] for name in names)) | OF_PROMETHEUS
        assert labels <= known, (where, labels - known)
    bases = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in samples if not name.endswith("_created")}
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked}
    assert bases == shown, f"exported and shown nowhere: {bases - shown}"


def test_an_alert_sees_the_first_of_what_should_never_happen() -> None:
    """The first value of a series is no increase: it begins with nothing, or the rule looks for new series as well."""
    begun = {rule.instrument.prometheus_name for rule in RULES["instance.started"] if not rule.adds}
    for alert, expression in of_alerts():
        for name in re.findall(r"increase\((\w+)", expression):
            assert name in begun or f"{name} unless {name} offset" in expression, alert


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "description"}
        labels = {label.strip() for group in GROUPED.findall(rule["expr"]) for label in group.split(",")}
        used = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert used <= labels, (rule["alert"], used - labels)


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    board = json.loads((DOCS / "grafana.json").read_text())
    assert {one["name"] for one in board["templating"]["list"]} == {"datasource", "continuum_instance"}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
