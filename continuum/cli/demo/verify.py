"""Whether everything came out as it should, from the evidence alone.

An order is verified if its result is the expected one, its history is whole, and each activity that was to be performed
has exactly one command and exactly one effect in it. How often the functions really ran is told by the ledger: what is
beyond one run per command and was no failure on purpose is a repeat, the price of at-least-once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from continuum.cli.demo.ledger import Entry
from continuum.cli.demo.orders import Order, Receipt, expected_activities, expected_receipt
from continuum.cli.demo.standing import Seen, Standing, activity_of
from continuum.model.events import ENDINGS, EventType


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known afterwards; `held` maps the runs that the dead node held to their last position then."""

    count: int
    standing: Standing
    results: Mapping[str, Receipt | BaseException]
    ledger: Sequence[Entry]
    killed_pid: int
    killed_at: datetime
    held: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Runs:
    """How often one activity's function ran for one order."""

    all: int
    on_purpose: int

    @property
    def repeats(self) -> int:
        """Runs beyond one that nobody asked for."""
        return max(self.all - 1 - self.on_purpose, 0)


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of one order; verified if there are no `problems`. `pids`: the nodes that worked on it, in order."""

    order: Order
    receipt: Receipt | None
    runs: Mapping[str, Runs]
    pids: tuple[int, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What became of all."""

    count: int
    orders: tuple[Verified, ...]
    killed_pid: int
    takeover_seconds: float | None
    runs_per_second: float
    problems: tuple[str, ...]

    @property
    def verified(self) -> int:
        """How many orders came out as they should."""
        return sum(not order.problems for order in self.orders)

    @property
    def repeats(self) -> int:
        """How many activity runs were lost and made again."""
        return sum(runs.repeats for order in self.orders for runs in order.runs.values())

    @property
    def is_good(self) -> bool:
        """Whether there is nothing to complain about."""
        return self.verified == self.count and not self.problems

    @property
    def summary(self) -> dict[str, object]:
        """The last line of the demo."""
        return {
            "orders": self.count,
            "verified": self.verified,
            "killed_pid": self.killed_pid,
            "takeover_seconds": self.takeover_seconds,
            "repeats": self.repeats,
            "runs_per_second": self.runs_per_second,
        }


def verify(evidence: Evidence) -> Report:
    """Judge the evidence."""
    takeover = _takeover_seconds(evidence)
    problems = []
    if len(evidence.standing.runs) != evidence.count:
        problems.append(f"{evidence.count} orders were to be started, the journal has {len(evidence.standing.runs)}")
    if takeover is None:
        problems.append("nobody went on with what the killed node had held")
    return Report(
        count=evidence.count,
        orders=tuple(_verified(run, evidence) for run in evidence.standing.runs),
        killed_pid=evidence.killed_pid,
        takeover_seconds=takeover,
        runs_per_second=_runs_per_second(evidence.standing),
        problems=tuple(problems),
    )


def _verified(run: Seen, evidence: Evidence) -> Verified:
    entries = [entry for entry in evidence.ledger if entry.run_id == run.run_id]
    ran = Counter(entry.activity for entry in entries)
    on_purpose = Counter(entry.activity for entry in entries if entry.fails)
    result = evidence.results.get(run.run_id)
    problems = [*_problems_of_result(run.order, result), *_problems_of_history(run)]
    problems += [f"{name} never ran" for name in expected_activities(run.order) if not ran[name]]
    return Verified(
        order=run.order,
        receipt=result if isinstance(result, Receipt) else None,
        runs={name: Runs(ran[name], on_purpose[name]) for name in ran},
        pids=tuple(dict.fromkeys(entry.node for entry in entries)),
        problems=tuple(problems),
    )


def _problems_of_result(order: Order, result: Receipt | BaseException | None) -> Iterator[str]:
    expected = expected_receipt(order)
    if result is None:
        yield "it has no result"
    elif isinstance(result, BaseException):
        yield f"it ended with {type(result).__name__}: {result}"
    elif result != expected:
        yield f"the result is {result!r}, expected was {expected!r}"


def _problems_of_history(run: Seen) -> Iterator[str]:
    events = run.events
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        yield "its history has gaps"
    if [event.type for event in events if event.type in ENDINGS] != [EventType.COMPLETED]:
        yield f"its history does not end once, with completed (state {run.state.value})"
    commands = [event for event in events if event.type == EventType.ACTIVITY_SCHEDULED]
    effects = Counter(event.command_id for event in events if event.type == EventType.ACTIVITY_COMPLETED)
    scheduled, expected = sorted(map(activity_of, commands)), sorted(expected_activities(run.order))
    if scheduled != expected:
        yield f"its history commands {', '.join(scheduled) or 'nothing'} instead of {', '.join(expected)}"
    for command in commands:
        if effects[command.command_id] != 1:
            yield f"{activity_of(command)} was journaled {effects[command.command_id]} times"
    if not effects.keys() <= {command.command_id for command in commands}:
        yield "its history has effects that nothing commanded"


def _takeover_seconds(evidence: Evidence) -> float | None:
    """Return how long it took from the SIGKILL to the first event that was written for a run of the dead node.

    What the first turn of a run asks for carries the time of the start, which may lie before the SIGKILL: such events
    say nothing about when they were written.
    """
    later = [
        event.at
        for run in evidence.standing.runs
        if run.run_id in evidence.held
        for event in run.events
        if event.seq > evidence.held[run.run_id] and event.at > evidence.killed_at
    ]
    return round((min(later) - evidence.killed_at).total_seconds(), 3) if later else None


def _runs_per_second(standing: Standing) -> float:
    """Return the rate over all, from the first start to the last end, waits and outage included."""
    ends = [run.ended_at for run in standing.runs if run.ended_at is not None]
    if not ends:
        return 0.0
    seconds = (max(ends) - min(run.started_at for run in standing.runs)).total_seconds()
    return round(len(ends) / seconds, 2) if seconds > 0 else 0.0
