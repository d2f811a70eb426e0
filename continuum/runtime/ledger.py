"""What the disk says of a run, and the commits that change it.

After every commit the disk alone must suffice: each open wait has its evidence there (a timer: `wake_at` no later than
the earliest deadline; an activity: its task; a signal: the inbox). State and wake_at stand in the predicates of indexes,
so that writing them makes an update dear; a busy run leaves them alone, for waking once too early costs less.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from continuum.model.attributes import merged
from continuum.model.events import Event, EventType
from continuum.model.families import ended
from continuum.model.messages import MessageKind
from continuum.model.results import ActivityResult
from continuum.model.runs import NewRun
from continuum.model.states import RunState
from continuum.model.tasks import Attempt, ClaimedTask, NewTask, TaskKey
from continuum.model.writes import Commit, NextGeneration, ReadMessage, Start
from continuum.replay.machine import Machine
from continuum.replay.turns import Continued, RunInfo, ScheduledActivity, Turn
from continuum.runtime.decisions import children_of, end_state, read_by, successes_of
from continuum.runtime.home import Letter

REASON_MAX = 16_384  # characters; a reason carries a traceback at most
# Until a blocked run is tried again, in proportion to how long it has stood still: a hundred thousand of them must not be
# replayed every ten seconds all weekend, and whoever mends a bug waits a tenth longer than it has lasted. New code lets
# them be tried at once (`carrying`); this is for what heals by itself, and for old nodes that were quicker than new ones.
BLOCKED_BACKOFF_SECONDS, BLOCKED_BACKOFF_MAX_SECONDS = 10.0, 300.0
BLOCKED_BACKOFF_SHARE = 0.1


def backoff_after(stood_seconds: float) -> float:
    """Return when a blocked run is tried again whose history has not moved for so long."""
    return max(BLOCKED_BACKOFF_SECONDS, min(stood_seconds * BLOCKED_BACKOFF_SHARE, BLOCKED_BACKOFF_MAX_SECONDS))


def _resting(turn: Turn) -> RunState:
    """Return the state in which a turn leaves a run: what nobody else will bring is evidence only while it runs."""
    if turn.is_cancelling:
        return RunState.CANCELLING
    return RunState.RUNNING if turn.has_errands else RunState.SUSPENDED


class Ledger:
    """Writes one run's commits under one lease."""

    __slots__ = ("_facts", "_state", "_wake_at", "owner", "token")

    def __init__(self, facts: RunInfo, *, owner: str, token: int) -> None:
        self._facts = facts
        self.owner = owner
        self.token = token
        self._state = RunState.RUNNING  # what a claim leaves
        self._wake_at: datetime | None = None

    def start(self, run: NewRun, turn: Turn, tasks: tuple[NewTask, ...], *, chosen: bool) -> Start:
        """Return the insert of a new run with its first turn."""
        self._state, self._wake_at = end_state(turn) or _resting(turn), turn.deadline
        if turn.attributes is not None:
            run = replace(run, attributes=merged(run.attributes, turn.attributes))
        return Start(
            run=run,
            state=self._state,
            owner=self.owner,
            events=turn.events,
            tasks=tasks,
            children=children_of(turn, self._facts) if turn.children else (),
            wake_at=turn.deadline,
            chosen=chosen,
        )

    def of_turn(
        self, turn: Turn, tasks: tuple[NewTask, ...], letters: Sequence[Letter], *, base_seq: int
    ) -> Commit | None:
        """Return the commit of a turn on letters; None if it changed nothing."""
        read, results = read_by(letters), successes_of(letters)
        state, wake_at = self._change(turn)
        if state is not None:
            self._state, self._wake_at = state, wake_at
        elif not (turn.events or tasks or turn.resolved or read or results):
            return None
        commit = self._commit(
            base_seq,
            events=turn.events,
            tasks=tasks,
            resolved=turn.resolved,
            read=read,
            results=results,
            state=state,
            wake_at=wake_at,
        )
        if turn.children or turn.attributes:
            commit = replace(commit, children=children_of(turn, self._facts), attributes=turn.attributes)
        if state is not None and state.has_ended:
            return self._told(commit, MessageKind.COMPENSATE)
        return commit

    def cancellation(self, now: datetime, letters: Sequence[Letter], *, base_seq: int) -> Commit:
        """Return the commit that ends a run as cancelled."""
        event = Event(base_seq + 1, EventType.CANCELLED, now)
        read, results = read_by(letters), successes_of(letters)
        commit = self._commit(base_seq, events=(event,), read=read, results=results, state=RunState.CANCELLED)
        return self._told(commit, MessageKind.CANCEL)

    def continuation(self, turn: Turn, outcome: Continued, letters: Sequence[Letter], *, base_seq: int) -> Commit:
        """Return the commit that ends a generation and opens the next one, which the caller then asks for its commits."""
        commit = self._commit(base_seq, events=turn.events, read=read_by(letters), results=successes_of(letters))
        self._state, self._wake_at = RunState.RUNNING, None
        return replace(
            commit,
            children=children_of(turn, self._facts),
            attributes=turn.attributes,
            continues=NextGeneration(outcome.version, turn.carried),
        )

    def opened(self, facts: RunInfo) -> None:
        """Write for the next generation from now on."""
        self._facts = facts

    def release(self, machine: Machine, *, base_seq: int) -> Commit:
        """Return the commit that gives a quiescent run's lease back."""
        state = RunState.CANCELLING if machine.is_cancelling else RunState.SUSPENDED
        return self._commit(base_seq, state=state, wake_at=machine.deadline, releases=True)

    def block(self, reason: str, *, base_seq: int, stood_seconds: float) -> Commit:
        """Return the commit that gives a run back as blocked, to be tried again after a while; it has stood that long."""
        return self._commit(
            base_seq,
            state=RunState.BLOCKED,
            reason=reason.replace("\x00", "�")[:REASON_MAX],
            backoff_seconds=backoff_after(stood_seconds),
            releases=True,
        )

    def claimed(self, wanted: ScheduledActivity, available_at: datetime | None) -> ClaimedTask:
        """Return the task of an activity that will begin here once its commit has landed."""
        facts = self._facts
        return ClaimedTask(
            attempt=Attempt(TaskKey(facts.run_id, facts.generation, wanted.command_id), self.owner, 1),
            workflow=facts.workflow,
            version=facts.version,
            namespace=facts.namespace,
            activity=wanted.activity,
            arguments=wanted.arguments,
            options=wanted.options,
            idempotency_key=wanted.key,
            trace_context=facts.trace_context,
            available_at=available_at,
        )

    def keys(self, commands: Sequence[int]) -> list[TaskKey]:
        """Return the task keys of commands."""
        return [TaskKey(self._facts.run_id, self._facts.generation, command) for command in commands]

    def _change(self, turn: Turn) -> tuple[RunState | None, datetime | None]:
        """Return the state and wake_at to write, or (None, None) where the disk already says enough."""
        ended = end_state(turn)
        if ended is not None:
            return ended, None
        is_nearer = turn.deadline is not None and (self._wake_at is None or turn.deadline < self._wake_at)
        resting = _resting(turn)
        if self._state is not resting or is_nearer:
            return resting, turn.deadline
        return None, None

    def _told(self, commit: Commit, cascade: MessageKind) -> Commit:
        """Add what a run's end means to its parent and, if it was cancelled, to its children."""
        assert commit.state is not None
        facts, is_cancelled = self._facts, commit.state is RunState.CANCELLED
        if facts.parent is None and not is_cancelled:
            return commit
        told = () if facts.parent is None else (ended(facts.parent, facts.run_id, commit.state, commit.events[-1]),)
        return replace(commit, posts=told, cascade=cascade if is_cancelled else None)

    def _commit(
        self,
        base_seq: int,
        *,
        events: tuple[Event, ...] = (),
        tasks: tuple[NewTask, ...] = (),
        resolved: tuple[int, ...] = (),
        read: tuple[ReadMessage, ...] = (),
        results: tuple[ActivityResult, ...] = (),
        state: RunState | None = None,
        wake_at: datetime | None = None,
        releases: bool = False,
        reason: str | None = None,
        backoff_seconds: float | None = None,
    ) -> Commit:
        return Commit(
            run_id=self._facts.run_id,
            generation=self._facts.generation,
            owner=self.owner,
            token=self.token,
            base_seq=base_seq,
            events=events,
            tasks=tasks,
            resolved=resolved,
            read=read,
            results=results,
            state=state,
            wake_at=wake_at,
            releases=releases,
            reason=reason,
            backoff_seconds=backoff_seconds,
        )
