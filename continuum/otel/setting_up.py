"""`setup()` and `shutdown()`: one tracer and one set of meters per process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from continuum import telemetry
from continuum.otel.meters import meters_of
from continuum.otel.spans import HEARD, Spans, harmless
from continuum.runtime import tracing
from continuum.telemetry.metrics import RULES, Recorder

SCOPE = "continuum"


@dataclass(frozen=True, slots=True)
class _Active:
    """What was set up, and how it is undone."""

    tracer_provider: TracerProvider | None
    meter_provider: MeterProvider | None
    undo: Callable[[], None]


_active: _Active | None = None


def setup(*, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None) -> None:
    """Trace and measure all instances of this process from now on; doing it again changes nothing.

    Call it before the instances are entered: what runs already is traced from its next turn on.

    Args:
        tracer_provider: whose spans to make; default: OpenTelemetry's global one, also if it is set later.
        meter_provider: the same for metrics.
    """
    global _active  # noqa: PLW0603  # one per process, as OpenTelemetry's providers are
    if _active is not None:
        if (_active.tracer_provider, _active.meter_provider) == (tracer_provider, meter_provider):
            return
        shutdown()
    spans = Spans(trace.get_tracer(SCOPE, tracer_provider=tracer_provider))
    meters = meters_of(meter_provider or metrics.get_meter_provider())
    recorder = harmless(Recorder(meters).hear)
    tracing.use(spans)
    telemetry.attach(spans.told, HEARD)
    telemetry.attach(recorder, list(RULES))
    meters.is_on = True

    def undo() -> None:
        meters.is_on = False
        telemetry.detach(recorder)
        telemetry.detach(spans.told)
        tracing.use(None)
        spans.close()

    _active = _Active(tracer_provider, meter_provider, undo)


def shutdown() -> None:
    """Undo `setup`: end the spans that are open, hear of nothing any more. The providers are the host's to shut down."""
    global _active  # noqa: PLW0603
    if _active is not None:
        _active.undo()
        _active = None
