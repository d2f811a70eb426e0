"""The metrics as Prometheus scrapes them. `prometheus_client` is optional: it is imported here alone, loaded by name.

Counting belongs to every run, the page to a scrape in fifteen seconds. So what is counted is kept in bare numbers, and
becomes the library's metrics when somebody scrapes: its own counters take a lock per value, and look through the buckets
one by one. No lock is needed, because a series has its instance among its labels, and an instance has one thread (what its
heartbeat says has a series of its own). A page of a thousand series takes the library a tenth of a second to write: the
numbers are gathered on the loop, at once, and written by a thread.

What is counted is the process' own, so that nothing of the host's is exported twice; a router shows of it what the
instances have that it serves. In a server of several worker processes each scrape is answered by one of them: let every
worker have an address, or export by OpenTelemetry.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from continuum import telemetry
from continuum.telemetry.metrics import RULES, Gauge, Instrument, Kind, Record, Recorder, label_names, of_kind


class Tally:
    """The values of one series: how many, their sum, and how many up to each bound; `add` is called by one thread."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def snapshot(self) -> Tally:
        """Return what stands here now."""
        now = Tally.__new__(Tally)
        now.bounds, now.counts, now.sum = self.bounds, self.counts.copy(), self.sum
        return now

    def add(self, value: float) -> None:
        """Take a value; a bound holds what equals it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def count(self, value: float) -> None:
        """Take what a counter is to grow by."""
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return how many values there were up to each bound, as the library takes it."""
        names = [*map(floatToGoString, self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


class Exporter:
    """A sink of metrics, and their page."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[Instrument, tuple[str, ...]], Tally] = {}
        self._recorder = Recorder(self)

    def listen(self) -> None:
        """Hear of events from now on; doing it again changes nothing."""
        telemetry.attach(self._recorder.hear, list(RULES))

    def series(self, instrument: Instrument, labels: tuple[str, ...]) -> Record:
        """Return what adds to a counter, or to a histogram."""
        tally = self._tallies.setdefault((instrument, labels), Tally(instrument.buckets))
        return tally.count if instrument.kind is Kind.COUNTER else tally.add

    def page(
        self, accept: str, gauges: Sequence[Gauge], served: Collection[str] | None
    ) -> Callable[[], tuple[bytes, str]]:
        """Gather what there is, and return what writes it, on any thread: the page that a scraper takes, its media type."""
        counted = self._tallies.copy()  # at once: another instance's thread may begin a series meanwhile
        tallies = [
            (one, labels, tally.snapshot())
            for (one, labels), tally in counted.items()
            if served is None or labels[0] in served
        ]
        return partial(_write, accept, _Page(tallies, gauges))


def _write(accept: str, content: Collector) -> tuple[bytes, str]:
    encode, media_type = choose_encoder(accept)
    page = CollectorRegistry()
    page.register(content)
    return encode(page), media_type


class _Page(Collector):
    """What one scrape shows."""

    def __init__(self, tallies: list[tuple[Instrument, tuple[str, ...], Tally]], gauges: Sequence[Gauge]) -> None:
        self._tallies = tallies
        self._gauges = gauges

    def describe(self) -> Iterable[Metric]:
        """Say nothing: what names there are is our own table's."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield counters, histograms and gauges, also those without a series."""
        counters = {one: CounterMetricFamily(*_head(one), labels=_labels(one)) for one in of_kind(Kind.COUNTER)}
        histograms = {one: HistogramMetricFamily(*_head(one), labels=_labels(one)) for one in of_kind(Kind.HISTOGRAM)}
        families = {one: GaugeMetricFamily(*_head(one), labels=_labels(one)) for one in of_kind(Kind.GAUGE)}
        for one, labels, tally in self._tallies:
            if one.kind is Kind.COUNTER:
                counters[one].add_metric(labels, tally.sum)
            else:
                histograms[one].add_metric(labels, tally.buckets(), tally.sum)
        for one, value, labels in self._gauges:
            families[one].add_metric(labels, value)
        yield from (*counters.values(), *histograms.values(), *families.values())


def _head(instrument: Instrument) -> tuple[str, str]:
    return instrument.prometheus_name, instrument.meaning


def _labels(instrument: Instrument) -> list[str]:
    return [name.replace(".", "_") for name in label_names(instrument)]


exporter = Exporter()
