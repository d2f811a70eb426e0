"""Says what happened to a run: one telemetry event per transition, from what a landed commit made durable.

Whatever moved a run (its own code, a caller, its parent, a sweep, a schedule) moved it by a commit of the execution that
held it. So the commit that landed is the one place where its transitions are told, the same whichever path led there.
Nobody comes here unless somebody listens; what is only gathered for one event is gathered if that one is heard.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from continuum.model.events import Event, EventType
from continuum.model.failure import Failure
from continuum.model.runs import NewRun
from continuum.model.states import RunState
from continuum.model.tasks import Attempt, ClaimedTask
from continuum.model.writes import Commit, Start
from continuum.replay.machine import Machine
from continuum.replay.turns import Cancelled, Failed, LogLine, RunInfo, Turn
from continuum.runtime.home import Letter
from continuum.telemetry import Emitter, heard
from continuum.telemetry.saying import say

workflow_logger = logging.getLogger("continuum.workflow")


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
    told = facts_of_attempt(task.attempt)
    told["workflow"] = task.workflow
    told["namespace"] = task.namespace
    told["activity"] = task.activity
    told["queue"] = task.options.queue
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


def logged(emit: Emitter, facts: RunInfo, lines: Sequence[LogLine]) -> None:
    """Log what a workflow said in a turn that is durable; its lease may be gone by now, so nothing is told of that."""
    for line in lines:
        say(workflow_logger, line.level, line.message, extra={**log_context(facts), "fields": line.fields})
        if "run.logged" in heard:
            emit(
                "run.logged",
                run_id=facts.run_id,
                workflow=facts.workflow,
                version=facts.version,
                namespace=facts.namespace,
                generation=facts.generation,
                level=logging.getLevelName(line.level),
                message=line.message,
            )


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
    if "signal.awaited" in heard:
        for name in machine.waits_for:
            emit("signal.awaited", **facts_of_run(run), signal=name)


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
    since: Callable[[datetime], float],
) -> None:
    """Say everything that a landed commit changed; `since` returns how many seconds ago something was."""
    if isinstance(write, Start):
        tell(emit, run, "lease.acquired")
        tell(emit, run, "run.started", {"waited_seconds": 0.0})
    if turn is not None:
        _turned(emit, run, turn, letters)
    if write.state is not None and write.state.has_ended:
        _ended(emit, run, write.state, turn, since)
    elif isinstance(write, Commit) and write.continues is not None:
        opened = {"generation": run.facts.generation + 1, "version": write.continues.version}
        tell(emit, run, "run.continued", **opened)
    elif isinstance(write, Commit) and write.releases:
        _released(emit, run, write, is_draining=is_draining)


def tell(
    emit: Emitter, run: Living, name: str, measurements: Mapping[str, float] | None = None, /, **more: Any
) -> None:
    """Emit an event about a run that lives here, if somebody listens."""
    if name in heard:
        facts = facts_of_run(run)
        facts.update(more)
        emit.hand(name, measurements or {}, facts)


def _released(emit: Emitter, run: Living, write: Commit, *, is_draining: bool) -> None:
    """Say that the lease was given back, and why."""
    if write.state is RunState.BLOCKED:
        reason = "blocked"
        tell(emit, run, "run.blocked", reason=write.reason)
    elif is_draining:
        reason = "drained"
        tell(emit, run, "run.drained")
    else:
        reason = "evicted"
        tell(emit, run, "run.evicted")
    tell(emit, run, "lease.released", reason=reason)


def _ended(emit: Emitter, run: Living, state: RunState, turn: Turn | None, since: Callable[[datetime], float]) -> None:
    """Say how the run ended."""
    outcome = turn.outcome if turn is not None else None
    took = {"duration_seconds": since(run.facts.started_at)}
    if isinstance(outcome, Failed):
        tell(emit, run, "run.failed", took, error=outcome.failure.type, message=outcome.failure.message)
    elif state is RunState.CANCELLED:
        tell(emit, run, "run.cancelled", took, compensated=isinstance(outcome, Cancelled))
    else:
        tell(emit, run, "run.completed", took)


def _turned(emit: Emitter, run: Living, turn: Turn, letters: Sequence[Letter]) -> None:
    """Say what was journaled, in its order, and what was asked for."""
    journaled = None
    for event in turn.events:
        told = _TOLD.get(event.type)
        if told is not None:
            journaled = journaled or _Journaled(emit, run, turn, letters)
            told(journaled, event)
    for wanted in turn.scheduled:
        activity, command_id = wanted.activity, wanted.command_id
        if "activity.scheduled" in heard:
            queue = wanted.options.queue
            tell(emit, run, "activity.scheduled", activity=activity, command_id=command_id, queue=queue)
        if wanted.undoes is not None:
            undoes = wanted.undoes
            tell(emit, run, "compensation.scheduled", activity=activity, command_id=command_id, undoes=undoes)
    for undone in turn.undone:
        done: dict[str, Any] = {"activity": undone.compensation, "command_id": undone.command_id}
        if undone.failure is None:
            tell(emit, run, "compensation.completed", **done, undoes=undone.activity)
        else:
            error = undone.failure.type
            tell(emit, run, "compensation.failed", **done, undoes=undone.activity, error=error)
    for child in turn.children:
        born = {"command_id": child.command_id, "child_run_id": child.run_id, "child_workflow": child.workflow}
        tell(emit, run, "child.started", **born)
        if "run.enqueued" in heard:
            parent = run.facts
            waiting = NewRun(child.run_id, child.workflow, child.version, parent.namespace)
            enqueued(emit, waiting, parent_run_id=parent.run_id)


class _Journaled:
    """Says what single events of the history that a turn wrote mean."""

    def __init__(self, emit: Emitter, run: Living, turn: Turn, letters: Sequence[Letter]) -> None:
        self._run = run
        self._deadlines = iter(turn.fired)
        self._letters = letters
        self.tell = partial(tell, emit, run)

    def begun(self, event: Event) -> None:
        info = self._run.facts
        if info.generation == 1:  # a later one begins as well
            waited = {"waited_seconds": max((event.at - info.started_at).total_seconds(), 0.0)}
            parent = {} if info.parent is None else {"parent_run_id": info.parent}
            self.tell("run.started", waited, **parent)

    def cancelling(self, _event: Event) -> None:
        self.tell("run.cancelling")

    def patched(self, event: Event) -> None:
        self.tell("run.patched", patch=event.name)

    def timer_started(self, event: Event) -> None:
        deadline = datetime.fromisoformat(json.loads(event.payload or b'""'))
        delay = {"delay_seconds": (deadline - event.at).total_seconds()}
        self.tell("timer.scheduled", delay, command_id=event.command_id)

    def timer_fired(self, event: Event) -> None:
        late = {"lateness_seconds": (event.at - next(self._deadlines)).total_seconds()}
        self.tell("timer.fired", late, command_id=event.command_id)

    def signal_received(self, event: Event) -> None:
        posted = next((one.message.at for one in self._letters if one.message.message_id == event.message_id), None)
        waited = {} if posted is None else {"waited_seconds": max((event.at - posted).total_seconds(), 0.0)}
        self.tell("signal.received", waited, signal=event.name)
        machine = self._run.machine
        if "signal.buffered" in heard and machine is not None and machine.keeps_signal(event.message_id):
            self.tell("signal.buffered", signal=event.name)

    def child_completed(self, event: Event) -> None:
        self.tell("child.completed", command_id=event.command_id, child_run_id=event.name)

    def child_cancelled(self, event: Event) -> None:
        self.tell("child.cancelled", command_id=event.command_id, child_run_id=event.name)

    def child_failed(self, event: Event) -> None:
        error = Failure.decode(event.payload or b"{}").type
        self.tell("child.failed", command_id=event.command_id, child_run_id=event.name, error=error)

    def message_sent(self, event: Event) -> None:
        kind = (event.name or "").partition("/")[0]
        self.tell("message.sent", command_id=event.command_id, kind=kind, target_run_id=event.key)

    def message_answered(self, event: Event) -> None:
        self.tell("message.answered", command_id=event.command_id)

    def side_effect_recorded(self, event: Event) -> None:
        self.tell("side_effect.recorded", command_id=event.command_id)


_TOLD: Mapping[EventType, Callable[[_Journaled, Event], None]] = {
    EventType.BEGUN: _Journaled.begun,
    EventType.CANCEL_REQUESTED: _Journaled.cancelling,
    EventType.PATCHED: _Journaled.patched,
    EventType.TIMER_STARTED: _Journaled.timer_started,
    EventType.TIMER_FIRED: _Journaled.timer_fired,
    EventType.SIGNAL_RECEIVED: _Journaled.signal_received,
    EventType.CHILD_COMPLETED: _Journaled.child_completed,
    EventType.CHILD_CANCELLED: _Journaled.child_cancelled,
    EventType.CHILD_FAILED: _Journaled.child_failed,
    EventType.MESSAGE_SENT: _Journaled.message_sent,
    EventType.MESSAGE_ANSWERED: _Journaled.message_answered,
    EventType.SIDE_EFFECT_RECORDED: _Journaled.side_effect_recorded,
}
