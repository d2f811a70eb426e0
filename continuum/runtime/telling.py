"""Says what happened to a run: one telemetry event per transition, from what a landed commit made durable.

Whatever moved a run (its own code, a caller, its parent, a sweep, a schedule) moved it by a commit of the execution that
held it. So the commit that landed is the one place where its transitions are told, the same whichever path led there.
Nobody comes here unless somebody listens; what is only gathered for one event is gathered if that one is heard.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from continuum.model.events import Event, EventType
from continuum.model.failure import Failure
from continuum.model.runs import NewRun
from continuum.model.states import RunState
from continuum.model.tasks import Attempt, ClaimedTask
from continuum.model.writes import Commit, Start
from continuum.replay.machine import Machine
from continuum.replay.turns import Cancelled, Failed, RunInfo, Turn
from continuum.runtime.home import Letter
from continuum.telemetry import Emitter, heard


class Living(Protocol):
    """A run that lives here."""

    facts: RunInfo
    machine: Machine | None

    @property
    def owner(self) -> str:
        """Under whom it is leased."""
        ...

    @property
    def token(self) -> int:
        """The lease's token."""
        ...


def facts_of_run(run: Living) -> dict[str, Any]:
    """Return what every event about a run that lives here carries."""
    return facts_of_lease(run.facts, run.owner, run.token)


def facts_of_lease(facts: RunInfo, owner: str, token: int) -> dict[str, Any]:
    """Return the same, of a run that is not or no longer living here."""
    told: dict[str, Any] = {
        "run_id": facts.run_id,
        "workflow": facts.workflow,
        "version": facts.version,
        "namespace": facts.namespace,
        "generation": facts.generation,
        "owner": owner,
        "token": token,
    }
    if facts.trace_context is not None:
        told["trace_context"] = facts.trace_context
    return told


def facts_of_task(task: ClaimedTask) -> dict[str, Any]:
    """Return what every event about an attempt carries."""
    told: dict[str, Any] = {
        "workflow": task.workflow,
        "namespace": task.namespace,
        "activity": task.activity,
        "queue": task.options.queue,
        **facts_of_attempt(task.attempt),
    }
    if task.trace_context is not None:
        told["trace_context"] = task.trace_context
    return told


def facts_of_attempt(attempt: Attempt) -> dict[str, Any]:
    """Return what is known of an attempt without its task."""
    return {
        "run_id": attempt.key.run_id,
        "command_id": attempt.key.command_id,
        "generation": attempt.key.generation,
        "attempt": attempt.attempt,
        "owner": attempt.owner,
    }


def log_context(facts: RunInfo) -> dict[str, Any]:
    """Return what a log line about a run says of it, as `extra`; see `continuum.logs`."""
    return {
        "instance": facts.instance,
        "run_id": facts.run_id,
        "workflow": facts.workflow,
        "version": facts.version,
    }


def lasted(seconds: float | None) -> dict[str, float]:
    """Return a duration as a measurement; nothing if nobody listened when it began."""
    return {} if seconds is None else {"duration_seconds": seconds}


# --- runs that rest and move ------------------------------------------------------------------------------------------


def enqueued(emit: Emitter, run: NewRun, *, wake_at: datetime | None = None, parent_run_id: str | None = None) -> None:
    """Say that a run was inserted for whoever claims it."""
    facts: dict[str, Any] = {"run_id": run.run_id, "workflow": run.workflow, "version": run.version}
    if parent_run_id is not None:
        facts["parent_run_id"] = parent_run_id
    if wake_at is not None:
        facts["wake_at"] = wake_at.isoformat()
    emit("run.enqueued", **facts, namespace=run.namespace)


def suspended(emit: Emitter, run: Living) -> None:
    """Say that a run waits, and for what."""
    machine = run.machine
    assert machine is not None, "what rests has code"
    facts = facts_of_run(run)
    if machine.deadline is not None:
        facts["wake_at"] = machine.deadline.isoformat()
    emit("run.suspended", {"activities": len(machine.open_activities)}, **facts, signals=machine.waits_for)


def resumed(emit: Emitter, run: Living, *, source: str, events: int) -> None:
    """Say that a run that waited moves again."""
    emit("run.resumed", {"events": events}, **facts_of_run(run), source=source)


# --- what a commit made durable ---------------------------------------------------------------------------------------


def landed(
    emit: Emitter,
    run: Living,
    write: Commit | Start,
    turn: Turn | None,
    letters: Sequence[Letter],
    *,
    is_draining: bool,
    now: datetime,
) -> None:
    """Say everything that a landed commit changed."""
    facts = facts_of_run(run)
    if isinstance(write, Start):
        emit("lease.acquired", **facts)
        emit("run.started", {"waited_seconds": 0.0}, **facts)
    if turn is not None:
        _turn(emit, run, facts, turn, letters)
    if write.state is not None and write.state.has_ended:
        _ended(emit, run, facts, write.state, turn, now)
    elif isinstance(write, Commit) and write.continues is not None:
        opened = {"generation": facts["generation"] + 1, "version": write.continues.version}
        emit("run.continued", **{**facts, **opened})
    elif isinstance(write, Commit) and write.releases:
        _released(emit, facts, write, is_draining=is_draining)


def _released(emit: Emitter, facts: Mapping[str, Any], write: Commit, *, is_draining: bool) -> None:
    if write.state is RunState.BLOCKED:
        emit("run.blocked", **facts, reason=write.reason)
        reason = "blocked"
    else:
        reason = "drained" if is_draining else "evicted"
        emit(f"run.{reason}", **facts)
    emit("lease.released", **facts, reason=reason)


def _ended(
    emit: Emitter, run: Living, facts: Mapping[str, Any], state: RunState, turn: Turn | None, now: datetime
) -> None:
    outcome = turn.outcome if turn is not None else None
    took = {"duration_seconds": max((now - run.facts.started_at).total_seconds(), 0.0)}
    if isinstance(outcome, Failed):
        emit("run.failed", took, **facts, error=outcome.failure.type, message=outcome.failure.message)
    elif state is RunState.CANCELLED:
        emit("run.cancelled", took, **facts, compensated=isinstance(outcome, Cancelled))
    else:
        emit("run.completed", took, **facts)


def _turn(emit: Emitter, run: Living, facts: Mapping[str, Any], turn: Turn, letters: Sequence[Letter]) -> None:
    tell = _Telling(emit, run, facts, turn, letters)
    for event in turn.events:
        say = _SAY.get(event.type)
        if say is not None:
            say(tell, event)
    for wanted in turn.scheduled:
        asked = {"activity": wanted.activity, "command_id": wanted.command_id}
        emit("activity.scheduled", **facts, **asked, queue=wanted.options.queue)
        if wanted.undoes is not None:
            emit("compensation.scheduled", **facts, **asked, undoes=wanted.undoes)
    for undone in turn.undone:
        done = {"activity": undone.compensation, "command_id": undone.command_id, "undoes": undone.activity}
        if undone.failure is None:
            emit("compensation.completed", **facts, **done)
        else:
            emit("compensation.failed", **facts, **done, error=undone.failure.type)
    for child in turn.children:
        asked = {"command_id": child.command_id, "child_run_id": child.run_id, "child_workflow": child.workflow}
        emit("child.started", **facts, **asked)
        born = NewRun(child.run_id, child.workflow, child.version, run.facts.namespace)
        enqueued(emit, born, parent_run_id=run.facts.run_id)


class _Telling:
    """Tells of the events of one turn, in their order."""

    def __init__(
        self, emit: Emitter, run: Living, facts: Mapping[str, Any], turn: Turn, letters: Sequence[Letter]
    ) -> None:
        self._emit = emit
        self._run = run
        self._facts = facts
        self._deadlines = iter(turn.fired)
        self._letters = letters

    def begun(self, event: Event) -> None:
        info = self._run.facts
        if info.generation == 1:  # a later one begins as well
            waited = {"waited_seconds": max((event.at - info.started_at).total_seconds(), 0.0)}
            parent = {} if info.parent is None else {"parent_run_id": info.parent}
            self._emit("run.started", waited, **self._facts, **parent)

    def cancelling(self, _event: Event) -> None:
        self._emit("run.cancelling", **self._facts)

    def patched(self, event: Event) -> None:
        self._emit("run.patched", **self._facts, patch=event.name)

    def timer_started(self, event: Event) -> None:
        deadline = datetime.fromisoformat(json.loads(event.payload or b'""'))
        delay = {"delay_seconds": (deadline - event.at).total_seconds()}
        self._emit("timer.scheduled", delay, **self._facts, command_id=event.command_id)

    def timer_fired(self, event: Event) -> None:
        late = {"lateness_seconds": (event.at - next(self._deadlines)).total_seconds()}
        self._emit("timer.fired", late, **self._facts, command_id=event.command_id)

    def signal_received(self, event: Event) -> None:
        posted = next((one.message.at for one in self._letters if one.message.message_id == event.message_id), None)
        waited = {} if posted is None else {"waited_seconds": max((event.at - posted).total_seconds(), 0.0)}
        self._emit("signal.received", waited, **self._facts, signal=event.name)
        machine = self._run.machine
        if "signal.buffered" in heard and machine is not None and machine.keeps_signal(event.message_id):
            self._emit("signal.buffered", **self._facts, signal=event.name)

    def child_completed(self, event: Event) -> None:
        self._emit("child.completed", **self._facts, command_id=event.command_id, child_run_id=event.name)

    def child_cancelled(self, event: Event) -> None:
        self._emit("child.cancelled", **self._facts, command_id=event.command_id, child_run_id=event.name)

    def child_failed(self, event: Event) -> None:
        error = Failure.decode(event.payload or b"{}").type
        self._emit("child.failed", **self._facts, command_id=event.command_id, child_run_id=event.name, error=error)

    def message_sent(self, event: Event) -> None:
        kind = (event.name or "").partition("/")[0]
        self._emit("message.sent", **self._facts, command_id=event.command_id, kind=kind, target_run_id=event.key)

    def message_answered(self, event: Event) -> None:
        self._emit("message.answered", **self._facts, command_id=event.command_id)

    def side_effect_recorded(self, event: Event) -> None:
        self._emit("side_effect.recorded", **self._facts, command_id=event.command_id)


_SAY: Mapping[EventType, Callable[[_Telling, Event], None]] = {
    EventType.BEGUN: _Telling.begun,
    EventType.CANCEL_REQUESTED: _Telling.cancelling,
    EventType.PATCHED: _Telling.patched,
    EventType.TIMER_STARTED: _Telling.timer_started,
    EventType.TIMER_FIRED: _Telling.timer_fired,
    EventType.SIGNAL_RECEIVED: _Telling.signal_received,
    EventType.CHILD_COMPLETED: _Telling.child_completed,
    EventType.CHILD_CANCELLED: _Telling.child_cancelled,
    EventType.CHILD_FAILED: _Telling.child_failed,
    EventType.MESSAGE_SENT: _Telling.message_sent,
    EventType.MESSAGE_ANSWERED: _Telling.message_answered,
    EventType.SIDE_EFFECT_RECORDED: _Telling.side_effect_recorded,
}
