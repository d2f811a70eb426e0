"""The metrics as OpenTelemetry's instruments."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, Counter, Histogram, MeterProvider, Observation

from continuum.composition.gauges import latest_gauges
from continuum.telemetry.metrics import Gauge, Instrument, Kind, Record, label_names, of_kind

SHARED_SECONDS = 1.0  # the callbacks of one collection, which come one after the other, share what was read


class Meters:
    """A sink of metrics; its gauges are read by callbacks, for as long as it `is_on`."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("continuum")
        self.is_on = False
        self._counters: dict[str, Counter] = {
            one.name: meter.create_counter(one.name, one.unit, one.meaning) for one in of_kind(Kind.COUNTER)
        }
        self._histograms: dict[str, Histogram] = {
            one.name: meter.create_histogram(
                one.name, one.unit, one.meaning, explicit_bucket_boundaries_advisory=one.buckets
            )
            for one in of_kind(Kind.HISTOGRAM)
        }
        self._gauges: Sequence[Gauge] = ()
        self._read_at: float | None = None
        for one in of_kind(Kind.GAUGE):
            meter.create_observable_gauge(one.name, [self._observing(one)], one.unit, one.meaning)

    def series(self, instrument: Instrument, labels: tuple[str, ...]) -> Record:
        """Return what adds to a counter, or to a histogram."""
        attributes = dict(zip(label_names(instrument), labels, strict=True))
        if instrument.kind is Kind.COUNTER:
            return partial(self._counters[instrument.name].add, attributes=attributes)
        return partial(self._histograms[instrument.name].record, attributes=attributes)

    def _observing(self, instrument: Instrument) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(value, dict(zip(label_names(instrument), labels, strict=True)))
                for one, value, labels in self._read()
                if one is instrument
            ]

        return observe

    def _read(self) -> Sequence[Gauge]:
        if not self.is_on:  # a callback cannot be taken back
            return ()
        now = time.perf_counter()
        if self._read_at is None or now - self._read_at > SHARED_SECONDS:
            self._gauges, self._read_at = latest_gauges(), now
        return self._gauges


_made: WeakKeyDictionary[MeterProvider, Meters] = WeakKeyDictionary()


def meters_of(provider: MeterProvider) -> Meters:
    """Return the instruments of a provider; they are made once, for their callbacks stay."""
    found = _made.get(provider)
    if found is None:
        found = _made[provider] = Meters(provider)
    return found
