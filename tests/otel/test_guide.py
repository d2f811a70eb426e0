"""What the guide says of traces and metrics is so, and the reference is the code's."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import FastAPI

import continuum.otel
from continuum.telemetry import EVENTS
from tests.http.hosts import caller
from tests.otel.looking import ATTEMPT, RUN, Seen
from tools.print_metrics import reference

DOCS = Path(__file__).resolve().parents[2] / "docs"
GUIDE = (DOCS / "guides" / "observability.md").read_text()
TRACES = GUIDE[GUIDE.index("## Traces") : GUIDE.index("## Metrics")]


def test_the_reference_of_metrics_is_up_to_date() -> None:
    page = (DOCS / "metrics.md").read_text()
    assert page == reference(), "run: python -m tools.print_metrics docs/metrics.md"


async def test_the_code_about_traces_and_metrics_runs() -> None:
    names: dict[str, Any] = {"__name__": "guide_of_observability"}
    code = GUIDE[GUIDE.index("## Traces") :]
    try:
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", code, re.DOTALL)):
            exec(compile(block, f"observability.md block {number}", "exec"), names)
        assert await names["main"]() == "charge-o-17"
        app: FastAPI = names["app"]
        async with caller(app, "http://host") as http:
            assert (await http.get("/continuum/metrics")).status_code == 200
    finally:
        continuum.otel.shutdown()
    (scrape,) = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", code, re.DOTALL)[0])["scrape_configs"]
    assert scrape["metrics_path"] == "/continuum/metrics"


async def test_the_guide_knows_every_attribute_and_only_events_that_there_are(seen: Seen) -> None:
    @continuum.activity(name="guide.act", retry=continuum.Retry(max_attempts=1))
    async def act() -> None:
        raise ValueError

    @continuum.workflow(name="guide.flow")
    async def flow() -> None:
        await act()

    async with continuum.application():
        run = await continuum.start(flow)
        with pytest.raises(continuum.RunFailed):
            await run.result(timeout=20)
    rows = re.findall(r"^\| (`[^|]*`) \| (both|runs|attempts) \|", TRACES, re.MULTILINE)
    said = {kind: {name for cell, where in rows if where in {"both", kind} for name in re.findall(r"`([^`]+)`", cell)}
            for kind in ("runs", "attempts")}  # fmt: skip
    for name, kind in ((RUN, "runs"), (ATTEMPT, "attempts")):
        found = {key for span in seen.spans(name) for key in span.attributes or {}}
        assert found == said[kind]
    named = {name for name in re.findall(r"`([a-z]+\.[a-z_]+)`", TRACES) if name.split(".")[0] in KINDS}
    assert named
    assert named <= set(EVENTS)


KINDS = {name.split(".")[0] for name in EVENTS}


def test_every_alert_that_the_guide_names_is_a_rule() -> None:
    (group,) = yaml.safe_load((DOCS / "observability" / "alerts.yaml").read_text())["groups"]
    rules = {rule["alert"] for rule in group["rules"]}
    named = set(re.findall(r"^\| `(Continuum\w+)` \|", GUIDE, re.MULTILINE))
    assert len(named) == 5
    assert named <= rules
