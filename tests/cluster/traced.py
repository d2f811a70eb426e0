"""A node that traces: the real SDK, its spans as lines of a file, and a span per request, as a host's instrumentation has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

import continuum.otel
from tests.otel.looking import as_line


class Lines(SpanExporter):
    """Writes each span at once: a process that is killed has told what it had finished."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write spans."""
        for span in spans:
            self._file.write(as_line(span) + "\n")
        return SpanExportResult.SUCCESS


class Serving:
    """ASGI middleware: the span of a request, below the one that its headers name."""

    def __init__(self, app: Any, provider: TracerProvider) -> None:
        self._app = app
        self._tracer = provider.get_tracer("host")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        name = f"{scope['method']} {scope['path']}"
        with self._tracer.start_as_current_span(name, context=extract(headers), kind=SpanKind.SERVER):
            await self._app(scope, receive, send)


def trace(app: FastAPI, path: Path) -> FastAPI:
    """Trace a host and what Continuum does in it."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Lines(path)))
    continuum.otel.setup(tracer_provider=provider)
    app.add_middleware(Serving, provider=provider)
    return app
