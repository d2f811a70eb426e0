"""A run without a journal: what history it has, what it asked for, and a second machine that must agree after each turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import pytest

from continuum.codec import shape_of
from continuum.definitions.activity import activity
from continuum.definitions.catalog import scoped_catalog
from continuum.definitions.workflow import Workflow, workflow
from continuum.model.events import Answer, Event, EventType
from continuum.model.failure import Failure, failure_of
from continuum.replay import loop as loop_module
from continuum.replay.machine import Machine
from continuum.replay.matching import Drift
from continuum.replay.turns import Completed, Failed, RunInfo, ScheduledActivity, Stuck, Turn

START = datetime(2026, 1, 1, tzinfo=UTC)
RUN_ID = "01900000-0000-7000-8000-000000000001"


@activity(name="charge")
async def charge(cents: int) -> int:
    raise AssertionError("workflow tests perform no activity")


@activity(name="refund")
async def refund(cents: int) -> int:
    raise AssertionError("workflow tests perform no activity")


@activity(name="ping")
async def ping() -> int:
    raise AssertionError("workflow tests perform no activity")


async def _settle(cents: int, times: int = 1) -> int:
    return cents * times


async def _audit(cents: int) -> int:
    return cents


with scoped_catalog():  # children that tests start; a fixture makes them known while a test runs
    settle = workflow(name="settle")(_settle)
    audit = workflow(name="audit")(_audit)


FIRST_CHILD = str(uuid5(UUID(RUN_ID), "1/1"))  # the run id of what the first command starts
CANCEL = Answer(EventType.CANCEL_REQUESTED, message_id="00000000-0000-4000-8000-00000000000c")


def an_info(**changes: Any) -> RunInfo:
    facts: dict[str, Any] = {
        "run_id": RUN_ID,
        "workflow": "flow",
        "version": 1,
        "generation": 1,
        "namespace": "default",
        "instance": "continuum",
        "started_at": START,
    }
    return RunInfo(**{**facts, **changes})


def done(command_id: int, value: object = 0) -> Answer:
    return Answer(EventType.ACTIVITY_COMPLETED, command_id, payload=shape_of(object).encode(value))


def broken(command_id: int, error: BaseException | Failure) -> Answer:
    failure = error if isinstance(error, Failure) else failure_of(error)
    return Answer(EventType.ACTIVITY_FAILED, command_id, payload=failure.encode())


def signal(name: str, value: object = None) -> Answer:
    payload = None if value is None else shape_of(object).encode(value)
    return Answer(EventType.SIGNAL_RECEIVED, name=name, payload=payload)


def ended(run_id: str, value: object = None, error: BaseException | None = None) -> Answer:
    """A child completed with a value, or failed with an error."""
    if error is not None:
        return Answer(EventType.CHILD_FAILED, name=run_id, payload=failure_of(error).encode())
    return Answer(EventType.CHILD_COMPLETED, name=run_id, payload=shape_of(object).encode(value))


def line(event: Event) -> str:
    """Write an event as one line: type, command, name, what it carries."""
    payload = (event.payload or b"").decode()
    if event.type is EventType.TIMER_STARTED:
        payload = f"+{(datetime.fromisoformat(payload.strip(chr(34))) - START).total_seconds():g}"
    if event.type in (EventType.FAILED, EventType.ACTIVITY_FAILED):
        failure = Failure.decode(event.payload or b"")
        payload = f"{failure.type.removeprefix('builtins.')}: {failure.message}"
    if event.type is EventType.STARTED:
        return "started"
    words = (event.type.value, event.command_id, event.name, payload, event.key)
    return " ".join(str(word) for word in words if word not in (None, ""))


def lines(events: tuple[Event, ...] | list[Event]) -> list[str]:
    return [line(event) for event in events]


class ARun:
    """A run that is driven turn by turn.

    After every turn a machine that only knows the history must stand where this one stands (unless it is `alone`).
    """

    def __init__(
        self, flow: Workflow[..., Any], *args: Any, info: RunInfo | None = None, alone: bool = False, **kwargs: Any
    ) -> None:
        self.flow = flow
        self.alone = alone
        self.info = info or an_info()
        self.arguments = flow.signature.parameters.encode(args, kwargs)
        self.machine = self.fresh()
        self.at = START
        self.history: list[Event] = []
        self.cuts: list[int] = []
        self.last: Turn
        self._take(self.machine.begin(self.arguments, self.at))

    def fresh(self, flow: Workflow[..., Any] | None = None) -> Machine:
        return Machine(flow or self.flow, self.info)

    def turn(self, *answers: Answer, after: float = 0.0) -> list[str]:
        """Give the answers, `after` seconds later; return the new events as lines."""
        self.at += timedelta(seconds=after)
        return self._take(self.machine.turn(answers, self.at))

    def replayed(self, flow: Workflow[..., Any] | None = None) -> Machine:
        machine = self.fresh(flow)
        machine.replay(self.history)
        return machine

    @property
    def events(self) -> list[str]:
        return lines(self.history)

    @property
    def scheduled(self) -> list[str]:
        return [described(activity) for activity in self.last.scheduled]

    @property
    def outcome(self) -> object:
        """The result of a completed run, else the outcome itself."""
        outcome = self.last.outcome
        return self.flow.signature.result.decode(outcome.payload) if isinstance(outcome, Completed) else outcome

    @property
    def failure(self) -> str:
        assert isinstance(self.last.outcome, Failed), self.last.outcome
        failure = self.last.outcome.failure
        return f"{failure.type}: {failure.message}"

    @property
    def reason(self) -> str:
        assert isinstance(self.last.outcome, Stuck), self.last.outcome
        return self.last.outcome.reason

    def _take(self, turn: Turn) -> list[str]:
        self.last = turn
        if not isinstance(turn.outcome, Stuck):  # of such a turn nothing is written
            self.history.extend(turn.events)
            self.cuts.append(len(self.history))
        if not isinstance(turn.outcome, Stuck) and not self.alone:
            again = self.replayed()
            assert state_of(again) == state_of(self.machine)
            if turn.outcome is None:
                rest = Turn(
                    (),
                    (),
                    (),
                    turn.deadline,
                    None,
                    has_errands=turn.has_errands,
                    is_cancelling=turn.is_cancelling,
                )
                assert again.turn((), self.at) == rest
            again.close()
        return lines(turn.events)


def described(scheduled: ScheduledActivity) -> str:
    return f"{scheduled.command_id} {scheduled.activity} {scheduled.arguments.decode()}"


def state_of(machine: Machine) -> tuple[object, ...]:
    return (
        machine.last_seq,
        machine.now,
        machine.outcome,
        machine.open_activities,
        machine.deadline,
        machine.waits_for,
        machine.random.getstate(),
    )


def a_flow(fn: Callable[..., Any], **options: Any) -> Workflow[..., Any]:
    """Make a workflow of a function; another one of the same name may be another day's code of it.

    The mind must cope with code that no check would let through, and tests look at what code does.
    """
    with scoped_catalog():
        return workflow(name="flow", purity="off", **options)(fn)


def a_run(fn: Callable[..., Any], *args: Any, **options: Any) -> ARun:
    return ARun(a_flow(fn), *args, **options)


def drift_of(run: ARun, code: Callable[..., Any]) -> Drift:
    """Replay a run's history with other code; it must drift, write nothing and be of no more use."""
    machine = run.fresh(a_flow(code))
    with pytest.raises(Drift) as caught:
        machine.replay(run.history)
    turn = machine.turn((), run.at)
    assert (turn.events, turn.scheduled, turn.outcome) == ((), (), None)
    machine.close()
    return caught.value


class CancelledOnArrival:
    """Awaits something in such a way that its task is cancelled when the answer has arrived but was not yet seen."""

    def __init__(self, coroutine: Coroutine[Any, Any, object]) -> None:
        self.coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, None]:
        inner = self.coroutine.__await__()
        future = next(inner)
        task = asyncio.current_task()
        assert task is not None
        future.add_done_callback(lambda _: task.cancel())  # before asyncio adds what wakes the task
        try:
            yield future
        except asyncio.CancelledError as cancelled:
            inner.throw(cancelled)


@contextmanager
def no_machine_outlives() -> Iterator[None]:
    """Shut what a test leaves behind, and hold that nothing of it reports an error that nobody sees."""
    before = set(loop_module._open_loops)
    yield
    for loop in list(loop_module._open_loops):
        if loop not in before:
            loop.shut()
