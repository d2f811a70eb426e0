"""The metrics: what is counted and measured, and from which events. OpenTelemetry and Prometheus both export this table.

Names are OpenTelemetry's, with dots; Prometheus writes them with underscores, the unit and `_total` behind them. Counters
and histograms are what this process saw happen. Gauges are of two kinds: what lives in this process, and what stands in
the database (the census), which every node reports alike.

A label's values come from code (names of workflows, activities, queues) or from a closed list; never an id of a run. If a
host makes up names as it goes, a metric has `SERIES_MAX` series of an instance and one more for all the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from operator import itemgetter
from typing import Any, Protocol

from continuum.telemetry.emitting import TelemetryEvent

INSTANCE = "continuum.instance"  # not `instance`: that is Prometheus' own name for what it scrapes
SERIES_MAX = 1_000
OTHER = "other"

SWIFT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ATTEMPTS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0)
RUNS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0)


class Kind(Enum):
    """What an instrument does with its values."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric; `labels` on top of the instance's, `unit` as UCUM writes it."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def prometheus_name(self) -> str:
        """How Prometheus calls it."""
        unit = {"s": "_seconds"}.get(self.unit, "")
        return self.name.replace(".", "_") + unit + ("_total" if self.kind is Kind.COUNTER else "")


def _counter(name: str, unit: str, meaning: str, *labels: str) -> Instrument:
    return Instrument(name, Kind.COUNTER, unit, meaning, labels)


def _histogram(name: str, meaning: str, *labels: str, buckets: tuple[float, ...] = SWIFT) -> Instrument:
    return Instrument(name, Kind.HISTOGRAM, "s", meaning, labels, buckets)


def _gauge(name: str, unit: str, meaning: str, *labels: str) -> Instrument:
    return Instrument(name, Kind.GAUGE, unit, meaning, labels)


RUNS_STARTED = _counter("continuum.runs.started", "{run}", "runs whose first turn is durable", "workflow")
RUNS_FINISHED = _counter("continuum.runs.finished", "{run}", "runs that have ended", "workflow", "state")
RUN_DURATION = _histogram(
    "continuum.run.duration", "from a run's insertion to its end", "workflow", "state", buckets=RUNS
)
ACTIVITY_DURATION = _histogram(
    "continuum.activity.duration",
    "attempts, by what came of them: completed, retried, failed, cancelled",
    "activity",
    "outcome",
    buckets=ATTEMPTS,
)
SCHEDULE_TO_START = _histogram(
    "continuum.activity.schedule_to_start", "from when an attempt could have begun to its begin", "activity", "queue"
)
WAKE_LATENCY = _histogram(
    "continuum.wake.latency", "from when a signal stood in an inbox to when its run had journaled it"
)
TIMER_LAG = _histogram("continuum.timer.lag", "from a timer's deadline to the turn that it moved")
SCHEDULE_LAG = _histogram("continuum.schedule.lag", "from a schedule's fire time to the start of its run")
LEASES_LOST = _counter("continuum.lease.lost", "{run}", "runs whose lease became another's")
REPLAY_DURATION = _histogram("continuum.replay.duration", "bringing code to where its history ends", "workflow")
REPLAY_DRIFT = _counter("continuum.replay.drift", "{run}", "runs whose code does not fit their history", "workflow")
POOL_WAIT = _histogram(
    "continuum.db.pool.wait", "for the committer's connection, by the oldest write of each batch", "lane"
)
COMMIT_DURATION = _histogram("continuum.commit.duration", "batches, from begin to end", "lane")
COMMIT_WRITES = _counter("continuum.commit.writes", "{write}", "starts, turns, messages and results written", "lane")
PEER_WAKES = _counter("continuum.peer.wakes", "{run}", "runs named in calls to peers: arrived, or why not", "outcome")
INCIDENTS = _counter("continuum.incidents", "{event}", "events that somebody may want to know of", "event")

RUNS_ACTIVE = _gauge(
    "continuum.runs.active",
    "{run}",
    "open runs on all nodes, counted up to 50,000; suspended ones wait for a timer, or for a message alone",
    "state",
    "waits_for",
)
QUEUE_DEPTH = _gauge("continuum.queue.depth", "{task}", "tasks that are due and that nobody has taken", "queue")
QUEUE_DELAYED = _gauge("continuum.queue.delayed", "{task}", "retries that wait for their time", "queue")
QUEUE_AGE = _gauge("continuum.queue.oldest_age", "s", "how long the oldest of them has been due", "queue")
RUNS_RESIDENT = _gauge("continuum.runs.resident", "{run}", "runs in this process' memory")
ATTEMPTS_RUNNING = _gauge("continuum.attempts.running", "{attempt}", "attempts in this process")
READY = _gauge("continuum.ready", "", "1 while this process takes work for the instance, else 0")

INSTRUMENTS: tuple[Instrument, ...] = (
    RUNS_STARTED, RUNS_FINISHED, RUN_DURATION, ACTIVITY_DURATION, SCHEDULE_TO_START, WAKE_LATENCY, TIMER_LAG,
    SCHEDULE_LAG, LEASES_LOST, REPLAY_DURATION, REPLAY_DRIFT, POOL_WAIT, COMMIT_DURATION, COMMIT_WRITES, PEER_WAKES,
    INCIDENTS, RUNS_ACTIVE, QUEUE_DEPTH, QUEUE_DELAYED, QUEUE_AGE, RUNS_RESIDENT, ATTEMPTS_RUNNING, READY,
)  # fmt: skip

# What somebody on call wants counted by name: each is rare, and none of them is another metric's business.
INCIDENT_EVENTS = (
    "activity.fenced", "commit.ambiguous", "commit.blocked", "commit.contended", "commit.failed", "commit.refused",
    "commit.split", "handler.detached", "instance.left_leases", "lease.renewal_failed", "listener.lost",
    "loop.blocked", "loop.crashed", "notices.lost", "owner.dead", "owner.lost", "peer.refused", "recovery.swept",
    "run.blocked", "run.unservable", "schedule.failed", "snapshot.skipped", "versions.untold",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """What an event adds to an instrument: a measurement, or one; a label is a key of its metadata, or a fixed `=word`.

    A counter of what should not happen begins with nothing (`adds=0`): nobody sees that a series has grown from its first.
    """

    instrument: Instrument
    measurement: str | None = None
    labels: tuple[str, ...] = ()
    adds: float = 1.0


def _attempt(outcome: str) -> tuple[Rule, ...]:
    return (Rule(ACTIVITY_DURATION, "duration_seconds", ("activity", f"={outcome}")),)


def _run(state: str) -> tuple[Rule, ...]:
    labels = ("workflow", f"={state}")
    return Rule(RUNS_FINISHED, None, labels), Rule(RUN_DURATION, "duration_seconds", labels)


_BEGIN = (Rule(LEASES_LOST, adds=0.0), *(Rule(INCIDENTS, None, (f"={event}",), adds=0.0) for event in INCIDENT_EVENTS))

RULES: Mapping[str, tuple[Rule, ...]] = {
    "instance.started": _BEGIN,
    "lease.renewed": _BEGIN,  # for who begins to listen later
    **{event: (Rule(INCIDENTS, None, (f"={event}",)),) for event in INCIDENT_EVENTS},
    "run.started": (Rule(RUNS_STARTED, None, ("workflow",)),),
    "run.completed": _run("completed"),
    "run.failed": _run("failed"),
    "run.cancelled": _run("cancelled"),
    "run.replayed": (Rule(REPLAY_DURATION, "duration_seconds", ("workflow",)),),
    "run.drifted": (Rule(REPLAY_DRIFT, None, ("workflow",)),),
    "activity.started": (Rule(SCHEDULE_TO_START, "waited_seconds", ("activity", "queue")),),
    "activity.completed": _attempt("completed"),
    "activity.retried": _attempt("retried"),
    "activity.failed": _attempt("failed"),
    "activity.cancelled": _attempt("cancelled"),
    "signal.received": (Rule(WAKE_LATENCY, "waited_seconds"),),
    "timer.fired": (Rule(TIMER_LAG, "lateness_seconds"),),
    "schedule.fired": (Rule(SCHEDULE_LAG, "lateness_seconds"),),
    "lease.lost": (Rule(LEASES_LOST),),
    "commit.flushed": (
        Rule(POOL_WAIT, "wait_seconds", ("lane",)),
        Rule(COMMIT_DURATION, "duration_seconds", ("lane",)),
        Rule(COMMIT_WRITES, "writes", ("lane",)),
    ),
    "peer.called": (Rule(PEER_WAKES, "runs", ("=arrived",)),),
    "peer.failed": (Rule(PEER_WAKES, "runs", ("reason",)),),
}


Record = Callable[[float], object]  # adds to one series


class Sink(Protocol):
    """Where values go."""

    def series(self, instrument: Instrument, labels: tuple[str, ...]) -> Record:
        """Return what records values of one series; `labels` are the instance's and then the instrument's, in order."""
        ...


class Recorder:
    """Tells a sink of what the rules say: some microseconds per event, once a series is known."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._numbers: dict[tuple[str, str], int] = {}  # of series, by instrument and instance
        self._takers = {name: tuple(_Taker(rule, self._series) for rule in rules) for name, rules in RULES.items()}

    def hear(self, event: TelemetryEvent) -> None:
        """Hear an event: the telemetry handler."""
        metadata, measurements = event.metadata, event.measurements
        for taker in self._takers[event.name]:
            value = taker.adds if taker.measurement is None else measurements.get(taker.measurement)
            if value is None:
                continue
            try:
                record = taker.known[taker.place(metadata)]
            except KeyError:
                taker.begin(metadata, value)
            else:
                if value or taker.measurement is not None:  # else it has begun
                    record(value)

    def _series(self, instrument: Instrument, labels: tuple[str, ...]) -> tuple[Record, bool]:
        """Return what records a series, and whether it is its own: past a number they are all one."""
        number = self._numbers.get((instrument.name, labels[0]), 0)
        if number >= SERIES_MAX:
            return self._sink.series(instrument, (labels[0], *(OTHER for _ in labels[1:]))), False
        self._numbers[instrument.name, labels[0]] = number + 1
        return self._sink.series(instrument, labels), True


class _Taker:
    """What one rule takes of an event; the series that it has met are `known`, each at its `place`."""

    __slots__ = ("_keys", "_rule", "_series", "adds", "known", "measurement", "place")

    def __init__(self, rule: Rule, series: Callable[[Instrument, tuple[str, ...]], tuple[Record, bool]]) -> None:
        self.measurement = rule.measurement
        self.adds = rule.adds
        self.known: dict[Any, Record] = {}
        self._rule = rule
        self._series = series
        self._keys = ("instance", *(key for key in rule.labels if key[0] != "="))
        self.place: Callable[[Mapping[str, Any]], Any] = itemgetter(*self._keys)

    def begin(self, metadata: Mapping[str, Any], value: float) -> None:
        """Record in a series that is new, or whose labels are not all there: not everything is known of what a sweep finds."""
        place = self.place({key: metadata.get(key, "") for key in self._keys})
        record = self.known.get(place)
        if record is None:
            labels = (key[1:] if key[0] == "=" else str(metadata.get(key, "")) for key in self._rule.labels)
            record, is_own = self._series(self._rule.instrument, (metadata["instance"], *labels))
            if is_own:
                self.known[place] = record
        record(value)


Gauge = tuple[Instrument, float, tuple[str, ...]]  # its value, and its labels as a sink takes them


def label_names(instrument: Instrument) -> tuple[str, ...]:
    """Return the names of an instrument's labels, the instance's first."""
    return (INSTANCE, *instrument.labels)


def of_kind(*kinds: Kind) -> Iterator[Instrument]:
    """Yield the instruments of these kinds."""
    return (one for one in INSTRUMENTS if one.kind in kinds)
