"""Reads what the SDK has exported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

RUN, ATTEMPT = "continuum.run_attempt", "continuum.activity_attempt"


@dataclass
class Seen:
    """What was exported; `tracer` makes spans as a host does."""

    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    tracer: Tracer

    def spans(self, name: str | None = None, **attributes: Any) -> list[ReadableSpan]:
        """Return finished spans, in the order of their beginnings; `run_id` means the attribute `continuum.run.id`."""
        wanted = {KEYS[key]: value for key, value in attributes.items()}
        found = [
            span
            for span in self.exporter.get_finished_spans()
            if name in {None, span.name} and all((span.attributes or {}).get(k) == v for k, v in wanted.items())
        ]
        return sorted(found, key=lambda span: span.start_time or 0)

    def values(self) -> dict[str, dict[tuple[tuple[str, Any], ...], float]]:
        """Return what the metrics say: name → labels → value (of histograms the count)."""
        data = self.reader.get_metrics_data()
        found: dict[str, dict[tuple[tuple[str, Any], ...], float]] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = found.setdefault(metric.name, {})
                    for point in metric.data.data_points:
                        value = point.count if hasattr(point, "count") else getattr(point, "value", 0.0)
                        points[tuple(sorted((point.attributes or {}).items()))] = value
        return found

    def everything(self) -> str:
        """Return all that was exported, as text."""
        spans = "\n".join(span.to_json() for span in self.exporter.get_finished_spans())
        data = self.reader.get_metrics_data()
        return spans + (data.to_json() if data is not None else "")


KEYS = {
    "instance": "continuum.instance",
    "run_id": "continuum.run.id",
    "activity": "continuum.activity.name",
    "attempt": "continuum.attempt",
    "node": "continuum.node",
}


def links(span: ReadableSpan) -> list[int]:
    """Return the ids of the spans that a span links to."""
    return [link.context.span_id for link in span.links]


def events(span: ReadableSpan) -> list[str]:
    """Return the names of a span's events."""
    return [event.name for event in span.events]


def said(span: ReadableSpan, name: str) -> Mapping[str, Any]:
    """Return the attributes of the first event of a name."""
    return next(event.attributes or {} for event in span.events if event.name == name)


def id_of(span: ReadableSpan) -> int:
    """Return a span's id."""
    return int(span.context.span_id)


def parent_of(span: ReadableSpan) -> int | None:
    """Return the id of a span's parent."""
    return None if span.parent is None else span.parent.span_id


def took(span: ReadableSpan) -> float:
    """Return how many seconds a span lasted."""
    return ((span.end_time or 0) - (span.start_time or 0)) / 1e9


def as_line(span: ReadableSpan) -> str:
    """Return a span as one line of JSON, for a file that another process reads."""
    return json.dumps(
        {
            "name": span.name,
            "id": id_of(span),
            "parent": parent_of(span),
            "trace": span.context.trace_id,
            "links": links(span),
            "attributes": dict(span.attributes or {}),
            "events": [[event.name, dict(event.attributes or {})] for event in span.events],
            "start": span.start_time,
            "end": span.end_time,
            "status": span.status.status_code.name,
        }
    )
