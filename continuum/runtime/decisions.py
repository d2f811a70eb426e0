"""What an execution decides about its writes: functions from values to values."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from continuum.model.events import PENDING, Answer, Event, EventType
from continuum.model.failure import Failure
from continuum.model.messages import Message, MessageKind
from continuum.model.results import ActivityResult
from continuum.model.runs import Ending, NewChild, NewRun, RunRow
from continuum.model.states import RunState
from continuum.model.writes import Commit, ReadMessage, Start
from continuum.replay.turns import Cancelled, Completed, Failed, RunInfo, ScheduledChild, Stuck, Turn
from continuum.runtime.home import Letter


def pending_start(
    run: NewRun, arguments: bytes, now: datetime, *, chosen: bool, start_at: datetime | None = None
) -> Start:
    """Return the write that inserts a run for whoever claims it, at once or at `start_at`."""
    event = Event(1, EventType.STARTED, now, name=run.workflow, payload=arguments, key=PENDING)
    return Start(run=run, state=RunState.PENDING, owner=None, events=(event,), wake_at=start_at, chosen=chosen)


def beginning(run: NewRun, instance: str, now: datetime) -> RunInfo:
    """Return what a run that begins now says about itself to its own code."""
    trace = run.trace_context
    return RunInfo(run.run_id, run.workflow, run.version, 1, run.namespace, instance, now, trace_context=trace)


def facts_of(row: RunRow, instance: str) -> RunInfo:
    """Return what a run's row says about it to its own code."""
    return RunInfo(
        row.run_id,
        row.workflow,
        row.version,
        row.generation,
        row.namespace,
        instance,
        row.created_at,
        row.parent_id,
        row.depth,
        row.trace_context,
    )


_ANSWERS = {
    MessageKind.SIGNAL: EventType.SIGNAL_RECEIVED,
    MessageKind.ACTIVITY_COMPLETED: EventType.ACTIVITY_COMPLETED,
    MessageKind.ACTIVITY_FAILED: EventType.ACTIVITY_FAILED,
    MessageKind.CHILD_COMPLETED: EventType.CHILD_COMPLETED,
    MessageKind.CHILD_FAILED: EventType.CHILD_FAILED,
    MessageKind.CHILD_CANCELLED: EventType.CHILD_CANCELLED,
    MessageKind.MESSAGE_ANSWERED: EventType.MESSAGE_ANSWERED,
    MessageKind.COMPENSATE: EventType.CANCEL_REQUESTED,
}


def answer_of(message: Message) -> Answer:
    """Return what a message tells the workflow."""
    return Answer(_ANSWERS[message.kind], message.command_id, message.message_id, message.name, message.payload)


def read_by(letters: Sequence[Letter]) -> tuple[ReadMessage, ...]:
    """Return the inbox rows that a commit consumes."""
    return tuple(
        ReadMessage(letter.message.message_id, tombstone=letter.message.delivery_id is not None)
        for letter in letters
        if letter.is_stored
    )


def successes_of(letters: Sequence[Letter]) -> tuple[ActivityResult, ...]:
    """Return the results under idempotency keys that letters bring: they count even if nobody waits for them here."""
    return tuple(letter.result for letter in letters if letter.result is not None)


def why_stuck(turn: Turn, written: int, history_max: int) -> str | None:
    """Return why a turn must not be written, if so: its code is at fault, or the history would become too long."""
    if isinstance(turn.outcome, Stuck):
        return turn.outcome.reason
    if turn.outcome is None and written + len(turn.events) > history_max:
        return too_long(history_max)
    return None


def too_long(history_max: int) -> str:
    """Return what is to be done about a history that would exceed its limit."""
    return (
        f"the history would have more events than history_max={history_max}; "
        "end the generation earlier by continue_as_new, or raise the option"
    )


def end_state(turn: Turn) -> RunState | None:
    """Return the terminal state that a turn leads to, if it does."""
    match turn.outcome:
        case Completed():
            return RunState.COMPLETED
        case Failed():
            return RunState.FAILED
        case Cancelled():
            return RunState.CANCELLED
        case _:
            return None


def ending_of(run_id: str, write: Commit | Start, turn: Turn | None) -> Ending | None:
    """Return what awaiting callers hear once a write has landed, if it ends or blocks the run."""
    state = write.state
    if state is None:
        return None
    if state is RunState.BLOCKED:
        return Ending(run_id, state, reason=write.reason if isinstance(write, Commit) else None)
    if not state.has_ended:
        return None
    match turn.outcome if turn is not None else None:
        case Completed(payload):
            return Ending(run_id, state, payload)
        case Failed(failure):
            return Ending(run_id, state, failure.encode())
        case _:
            return Ending(run_id, state)


def answers_to(letters: Sequence[Letter], generation: int) -> list[Answer]:
    """Return what letters tell the workflow: a cancel first, and nothing that is meant for another generation."""
    answers = [
        answer_of(letter.message)
        for letter in letters
        if letter.message.generation is None or letter.message.generation == generation
    ]
    if any(answer.type is EventType.CANCEL_REQUESTED for answer in answers):
        answers.sort(key=lambda answer: answer.type is not EventType.CANCEL_REQUESTED)
    return answers


def children_of(turn: Turn, parent: RunInfo) -> tuple[NewChild, ...]:
    """Return the children that a turn asked for, as rows to be inserted."""
    return tuple(_child(child, parent, turn.events[0].at) for child in turn.children)


def _child(child: ScheduledChild, parent: RunInfo, at: datetime) -> NewChild:
    taken = Failure(
        type="RunIdTaken",
        message=f"another run has the id {child.run_id} of this child: choose another id for the child",
        retryable=False,
    )
    return NewChild(
        run_id=child.run_id,
        command_id=child.command_id,
        workflow=child.workflow,
        version=child.version,
        arguments=child.arguments,
        namespace=parent.namespace,
        depth=parent.depth + 1,
        fingerprint=hashlib.sha256(child.arguments).digest(),
        at=at,
        taken=taken.encode(),
        retention_seconds=child.retention_seconds,
    )
