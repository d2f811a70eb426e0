"""Replays a history offline: no journal, no clock, no side effect, nothing but the workflow's code.

What a history has come to is compared with what today's code comes to. A wait that history does not answer stays a
wait; where the code asks for more than the history holds, the replay ends there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from continuum.client.reading import History, HistoryEvent, decoded
from continuum.definitions.workflow import Workflow
from continuum.errors import ConfigurationError, DurableValueError
from continuum.model.events import COMMANDS, ENDINGS, Event, EventType
from continuum.model.failure import Failure
from continuum.replay.machine import Machine
from continuum.replay.matching import Drift, describe, same_input
from continuum.replay.offline import OfflineMachine
from continuum.replay.turns import Cancelled, Completed, Continued, Failed, RunInfo

R = TypeVar("R")

State = Literal["completed", "failed", "cancelled", "continued", "suspended", "blocked"]
OWN_ENDINGS = frozenset({EventType.COMPLETED, EventType.FAILED, EventType.CONTINUED})  # what code comes to by itself
UNDONE = {  # by what is it over?
    EventType.CHILD_STARTED: {EventType.CHILD_COMPLETED, EventType.CHILD_FAILED, EventType.CHILD_CANCELLED},
    EventType.MESSAGE_SENT: {EventType.MESSAGE_ANSWERED},
}

NOBODY = "00000000-0000-0000-0000-000000000000"  # the run of bare events: nothing says whose they are


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that a suspended workflow waits for.

    `kind` is "activity", "child", "message", "timer" or "signal"; `data` holds the arguments of an activity or a child,
    or a timer's deadline. Children and messages are those that are not over, whether or not the code waits for them.
    """

    kind: str
    name: str | None = None
    command_id: int | None = None
    data: Any = None


@dataclass(frozen=True, slots=True)
class Replayed(Generic[R]):
    """What a history came to with today's code.

    `waits_for` says what it is suspended on, `more` what the code asks for beyond the history's end: allowed, the run
    would go on with it. `reason` says why it would be blocked.
    """

    state: State
    result: R | None = None
    failure: Failure | None = None
    waits_for: tuple[Waiting, ...] = ()
    more: tuple[HistoryEvent, ...] = ()
    reason: str | None = None


def replay(workflow: Workflow[..., R], history: Sequence[HistoryEvent] | Sequence[Event], /) -> Replayed[R]:
    """Run a workflow against a history, touching nothing, and return what it came to.

    Args:
        workflow: the code to try.
        history: what `env.history()`, `continuum.history()` or `load_history()` returned; or bare events, whose run
            is then nobody in particular.

    Raises:
        Drift: the code does not fit the history; it says where, what was expected and what was found.
    """
    run, records = taken_apart(workflow, history)
    machine = OfflineMachine(workflow, run)
    try:
        stand(machine, workflow, records)
        return _told(machine, workflow, records)
    finally:
        machine.close()


def assert_replays(workflow: Workflow[..., R], history: Sequence[HistoryEvent] | Sequence[Event], /) -> Replayed[R]:
    """Assert that runs with this history would go on with this code; return what it came to.

    Raises:
        AssertionError: the code does not fit the history, or would block the run.
    """
    try:
        replayed = replay(workflow, history)
    except Drift as drift:
        raise AssertionError(f"{workflow!r}: {drift}") from drift
    if replayed.state == "blocked":
        raise AssertionError(f"{workflow!r} would block the run: {replayed.reason}")
    return replayed


def taken_apart(
    workflow: Workflow[..., Any], history: Sequence[HistoryEvent] | Sequence[Event]
) -> tuple[RunInfo, tuple[Event, ...]]:
    """Return whose history it is, and its records."""
    if isinstance(history, History):
        return history.run, history.records
    records = tuple(event for event in history if isinstance(event, Event))
    if len(records) < len(history) or not records:
        raise ConfigurationError(
            "replay() takes the whole history as `env.history()`, `continuum.history()` or `load_history()` returned "
            "it (`history.upto(seq)` is its beginning), or a sequence of journaled events"
        )
    facts = RunInfo(NOBODY, workflow.name, workflow.version, 1, "default", "continuum", records[0].at)
    return facts, records


def stand(machine: Machine, workflow: Workflow[..., Any], records: Sequence[Event]) -> None:
    """Bring a machine to where a history leaves it, and compare how it ends.

    An ending is not replayed but compared as a value: a result that holds a set is written in another order by another
    process, and means the same.

    Raises:
        Drift: the code does not fit.
    """
    *before, last = records
    if last.type in OWN_ENDINGS:
        machine.replay(before)
        if machine.stuck is None:
            _compare(machine, workflow, last)
    elif last.type is EventType.CANCELLED:
        machine.replay(before)
        if machine.is_cancelling and machine.unwritten:  # it undid what it owed; else no code came to that
            _compare(machine, workflow, last)
    else:
        machine.replay(records)


def _compare(machine: Machine, workflow: Workflow[..., Any], ending: Event) -> None:
    asked = machine.turn((), machine.now).events if machine.unwritten else ()
    if len(asked) == 1 and _ends_as(machine, workflow, ending):
        return
    if not asked:
        found = "the workflow waits"
    elif asked[0].type in ENDINGS:
        found = _said(asked[0])
    else:
        found = describe(asked[0])
    raise Drift(seq=ending.seq, expected=_said(ending), found=found, site=None, run_id=machine.info.run_id)


def _ends_as(machine: Machine, workflow: Workflow[..., Any], ending: Event) -> bool:
    match machine.outcome:
        case Completed(payload) if ending.type is EventType.COMPLETED:
            return payload == ending.payload or _means_the_same(workflow, payload, ending.payload)
        case Failed(failure) if ending.type is EventType.FAILED:
            journaled = Failure.decode(ending.payload or b"{}")
            return (failure.type, failure.message) == (journaled.type, journaled.message)
        case Continued(_, arguments) if ending.type is EventType.CONTINUED:
            parameters = workflow.signature.parameters
            return same_input(arguments, ending.payload, parameters.recode, parameters.decode)
        case Cancelled():
            return ending.type is EventType.CANCELLED
        case _:
            return False


def _means_the_same(workflow: Workflow[..., Any], new: bytes, journaled: bytes | None) -> bool:
    shape = workflow.signature.result
    try:
        return bool(shape.decode(new) == shape.decode(journaled or b"null"))
    except DurableValueError:  # today's types cannot read it
        return False


def _said(ending: Event) -> str:
    if ending.type is EventType.FAILED:
        failure = Failure.decode(ending.payload or b"{}")
        return f"failed with {failure.type}: {failure.message}"
    return f"{ending.type.value} with {(ending.payload or b'null').decode()}"


def _told(machine: Machine, workflow: Workflow[..., R], records: Sequence[Event]) -> Replayed[R]:
    if machine.stuck is not None:
        return Replayed("blocked", reason=machine.stuck)
    ended = records[-1].type in ENDINGS
    if records[-1].type is EventType.CANCELLED:
        return Replayed("cancelled")
    asked = machine.turn((), machine.now).events if machine.unwritten else ()
    more = () if ended else tuple(decoded(event) for event in asked)
    match machine.outcome:
        case Completed(payload):
            return Replayed("completed", result=workflow.signature.result.decode(payload), more=more)
        case Failed(failure):
            return Replayed("failed", failure=failure, more=more)
        case Continued():
            return Replayed("continued", more=more)
        case Cancelled():
            return Replayed("cancelled", more=more)
        case _:
            return Replayed("suspended", waits_for=waits_of(machine, (*records, *asked)), more=more)


def waits_of(machine: Machine, events: Sequence[Event]) -> tuple[Waiting, ...]:
    """Return what a machine waits for that these events have brought to where it is."""
    commands = {event.command_id: event for event in events if event.type in COMMANDS}
    open_ones = [commands[command_id] for command_id in sorted(machine.open_activities)]
    over = {(event.type, event.command_id) for event in events}
    for command_id, command in commands.items():
        endings = UNDONE.get(command.type, set())
        if endings and not any((ending, command_id) in over for ending in endings):
            open_ones.append(command)
    waits = [_asked_for(command) for command in open_ones]
    waits += [Waiting("signal", name) for name in machine.waits_for]
    if machine.deadline is not None:
        waits.append(_timer(machine.deadline, commands.values()))
    return tuple(waits)


def _asked_for(command: Event) -> Waiting:
    kind = command.type.value.partition("_")[0]
    return Waiting(kind, command.name, command.command_id, decoded(command).data)


def _timer(deadline: datetime, commands: Any) -> Waiting:
    written = json.dumps(deadline.isoformat()).encode()
    ids = [event.command_id for event in commands if event.type is EventType.TIMER_STARTED and event.payload == written]
    return Waiting("timer", command_id=ids[-1] if ids else None, data=deadline)
