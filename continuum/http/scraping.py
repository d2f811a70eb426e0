"""The metrics as Prometheus scrapes them. `prometheus_client` is optional: it is imported here alone, loaded by name.

One registry of our own for the process, so that nothing of the host's is exported twice; a router shows of it what the
instances have that it serves. In a server of several worker processes each scrape is answered by one of them: let every
worker have an address, or export by OpenTelemetry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from continuum import telemetry
from continuum.telemetry.metrics import INSTANCE, RULES, Gauge, Instrument, Kind, Record, Recorder, label_names, of_kind

_INSTANCE = INSTANCE.replace(".", "_")


class Exporter:
    """A sink of metrics, and their page."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._counters = {
            one.name: Counter(one.prometheus_name, one.meaning, _labels(one), registry=self._registry)
            for one in of_kind(Kind.COUNTER)
        }
        self._histograms = {
            one.name: Histogram(
                one.prometheus_name, one.meaning, _labels(one), registry=self._registry, buckets=one.buckets
            )
            for one in of_kind(Kind.HISTOGRAM)
        }
        self._recorder = Recorder(self)

    def listen(self) -> None:
        """Hear of events from now on; doing it again changes nothing."""
        telemetry.attach(self._recorder, list(RULES))

    def series(self, instrument: Instrument, labels: tuple[str, ...]) -> Record:
        """Return what adds to a counter, or to a histogram."""
        if instrument.kind is Kind.COUNTER:
            return self._counters[instrument.name].labels(*labels).inc
        return self._histograms[instrument.name].labels(*labels).observe

    def page(self, accept: str, gauges: Sequence[Gauge], served: Collection[str] | None) -> tuple[bytes, str]:
        """Return the page in the format that a scraper takes, and its media type."""
        encode, media_type = choose_encoder(accept)
        page = CollectorRegistry()
        page.register(_Page(self._registry, gauges, served))
        return encode(page), media_type


class _Page(Collector):
    """What one scrape shows."""

    def __init__(self, registry: CollectorRegistry, gauges: Sequence[Gauge], served: Collection[str] | None) -> None:
        self._registry = registry
        self._gauges = gauges
        self._served = served

    def describe(self) -> Iterable[Metric]:
        """Say nothing: what names there are was checked when they were registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield counters and histograms of the instances served, and the gauges."""
        for metric in self._registry.collect():
            if self._served is not None:
                metric.samples = [one for one in metric.samples if one.labels.get(_INSTANCE) in self._served]
            yield metric
        for instrument in of_kind(Kind.GAUGE):
            family = GaugeMetricFamily(instrument.prometheus_name, instrument.meaning, labels=_labels(instrument))
            for one, value, labels in self._gauges:
                if one is instrument:
                    family.add_metric(labels, value)
            yield family


def _labels(instrument: Instrument) -> list[str]:
    return [name.replace(".", "_") for name in label_names(instrument)]


exporter = Exporter()
