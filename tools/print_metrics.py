"""`python -m tools.print_metrics FILE`: write the reference of metrics from its one source in code."""

from __future__ import annotations

import sys
from pathlib import Path

from continuum.telemetry.metrics import INCIDENT_EVENTS, INSTRUMENTS, RULES, SERIES_MAX, Instrument, Kind

HEAD = f"""# Metrics

`continuum.otel.setup()` exports them by OpenTelemetry, `GET {{prefix}}/metrics` of `continuum.http.router` to Prometheus (the
extra `prometheus`), under the same names: `continuum.run.duration` is `continuum_run_duration_seconds` there. Each has the
label `continuum.instance` (`continuum_instance`) and those named below. A label's values are names from your code or words
from a closed list, never the id of a run; past {SERIES_MAX:,} series of one metric and instance all others are counted as `other`.

Counters and histograms say what one process saw happen, from the events of [telemetry.md](telemetry.md). Gauges are read
when somebody collects: those of the database come from one bounded query per instance, asked at most every ten seconds, and
are the same on every node, so take their `max`.

| OpenTelemetry | Prometheus | kind | labels | what it says |
| --- | --- | --- | --- | --- |
"""


def reference() -> str:
    """Return the page."""
    counted = ", ".join(f"`{name}`" for name in INCIDENT_EVENTS)
    return HEAD + "".join(map(_line, INSTRUMENTS)) + f"\n`continuum.incidents` counts, by `event`: {counted}.\n"


def _line(one: Instrument) -> str:
    labels = ", ".join(f"`{label}`" for label in one.labels) or "-"
    events = [name for name, rules in RULES.items() if any(rule.instrument is one and rule.adds for rule in rules)]
    of = "" if one.kind is Kind.GAUGE or len(events) > 4 else f" ({', '.join(f'`{name}`' for name in events)})"
    return f"| `{one.name}` | `{one.prometheus_name}` | {one.kind.value} | {labels} | {one.meaning}{of} |\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
