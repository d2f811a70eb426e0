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
    now: Callable[[], datetime],
) -> None:
    """Say everything that a landed commit changed."""
    telling = _Telling(emit, run, turn, letters)
    if isinstance(write, Start):
        telling.tell("lease.acquired")
        telling.tell("run.started", {"waited_seconds": 0.0})
    if turn is not None:
        telling.turn(turn)
    if write.state is not None and write.state.has_ended:
        telling.ended(write.state, turn, now())
    elif isinstance(write, Commit) and write.continues is not None:
        opened = {"generation": run.facts.generation + 1, "version": write.continues.version}
        if "run.continued" in heard:
            emit("run.continued", **{**facts_of_run(run), **opened})
    elif isinstance(write, Commit) and write.releases:
        telling.released(write, is_draining=is_draining)


class _Telling:
    """Tells of one commit; what all its events carry is gathered for the first that is heard."""

    def __init__(self, emit: Emitter, run: Living, turn: Turn | None, letters: Sequence[Letter]) -> None:
        self._emit = emit
        self._run = run
        self._facts: dict[str, Any] | None = None
        self._deadlines = iter(turn.fired if turn is not None else ())
        self._letters = letters

    def tell(self, name: str, measurements: Mapping[str, float] | None = None, /, **more: Any) -> None:
        """Emit an event about the run, if somebody listens."""
        if name in heard:
            if self._facts is None:
                self._facts = facts_of_run(self._run)
            self._emit(name, measurements, **self._facts, **more)

    def released(self, write: Commit, *, is_draining: bool) -> None:
        """Say that the lease was given back, and why."""
        if write.state is RunState.BLOCKED:
            reason = "blocked"
            self.tell("run.blocked", reason=write.reason)
        elif is_draining:
            reason = "drained"
            self.tell("run.drained")
        else:
            reason = "evicted"
            self.tell("run.evicted")
        self.tell("lease.released", reason=reason)

    def ended(self, state: RunState, turn: Turn | None, now: datetime) -> None:
        """Say how the run ended."""
        outcome = turn.outcome if turn is not None else None
        took = {"duration_seconds": max((now - self._run.facts.started_at).total_seconds(), 0.0)}
        if isinstance(outcome, Failed):
            self.tell("run.failed", took, error=outcome.failure.type, message=outcome.failure.message)
        elif state is RunState.CANCELLED:
            self.tell("run.cancelled", took, compensated=isinstance(outcome, Cancelled))
        else:
            self.tell("run.completed", took)

    def turn(self, turn: Turn) -> None:
        """Say what was journaled, in its order, and what was asked for."""
        for event in turn.events:
            told = _TOLD.get(event.type)
            if told is not None:
                told(self, event)
        for wanted in turn.scheduled:
            asked: dict[str, Any] = {"activity": wanted.activity, "command_id": wanted.command_id}
            self.tell("activity.scheduled", **asked, queue=wanted.options.queue)
            if wanted.undoes is not None:
                self.tell("compensation.scheduled", **asked, undoes=wanted.undoes)
        for undone in turn.undone:
            done: dict[str, Any] = {"activity": undone.compensation, "command_id": undone.command_id}
            if undone.failure is None:
                self.tell("compensation.completed", **done, undoes=undone.activity)
            else:
                self.tell("compensation.failed", **done, undoes=undone.activity, error=undone.failure.type)
        for child in turn.children:
            self.tell(
                "child.started", command_id=child.command_id, child_run_id=child.run_id, child_workflow=child.workflow
            )
            if "run.enqueued" in heard:
                parent = self._run.facts
                born = NewRun(child.run_id, child.workflow, child.version, parent.namespace)
                enqueued(self._emit, born, parent_run_id=parent.run_id)

    # --- single events of the history ---------------------------------------------------------------------------------

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


_TOLD: Mapping[EventType, Callable[[_Telling, Event], None]] = {
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
