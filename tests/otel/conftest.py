"""The real SDK, with exporters to memory."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import continuum.otel
from continuum import telemetry
from continuum.http.scraping import exporter
from tests.otel.looking import Seen
from tests.scenarios.conftest import app, database, database_of, place, postgres_scenarios, sqlite_template

__all__ = ["app", "database", "database_of", "place", "postgres_scenarios", "sqlite_template"]


@pytest.fixture(autouse=True)
def _nobody_listens_afterwards() -> Iterator[None]:
    """The exporter of the page listens from when a router is made, for as long as the process lives."""
    yield
    telemetry.detach(exporter._recorder.hear)


@pytest.fixture
def seen() -> Iterator[Seen]:
    """What OpenTelemetry was told since `continuum.otel.setup`."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    continuum.otel.setup(tracer_provider=tracers, meter_provider=meters)
    try:
        yield Seen(spans, reader, tracers.get_tracer("a host's own"))
    finally:
        continuum.otel.shutdown()
        tracers.shutdown()
        meters.shutdown()
