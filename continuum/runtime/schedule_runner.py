"""Fires schedules: exactly one run per fire time, whichever nodes look and whatever becomes of them.

A pass reads what is due, decides (`model.firing`), and writes: each schedule is moved on behind the revision that was
read, in one transaction with the runs that this starts. So of two nodes that decide at once one is refused, with its
runs; a node that dies has either done both or neither; and one that wakes up from a long pause finds its revision gone.
The runs' ids are made of schedule and fire time, so that a backfill of the same times starts nothing twice.

The next fire time is known from the pass before, and a nudge is planned for it; what other nodes have changed meanwhile
is found by the pulse. Schedules of workflows that are not known here are left to nodes that know them, and only when
nobody has come for a while they are tried, which then counts as a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from continuum.errors import ContinuumError, RunNotActive, RunNotFound
from continuum.ids import scheduled_run_id
from continuum.journal.port import BadData, Contended, Firing, ScheduleJournal
from continuum.model.firing import Plan, failed, plan
from continuum.model.runs import Ending, NewRun
from continuum.model.schedules import Definition, ScheduleRow, ScheduleState, attributes_at, input_at
from continuum.model.writes import Start
from continuum.runtime.component import Loop
from continuum.runtime.decisions import pending_start
from continuum.runtime.node import Node
from continuum.runtime.pubsub import PubSub
from continuum.runtime.pulse import Pulse
from continuum.runtime.telling import enqueued
from continuum.runtime.wakes import Wakes

CONTENDED_SECONDS = 0.1  # before what met a lock is tried again
REASON_MAX = 1_000  # characters of what is kept of an error
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Startable(Protocol):
    """What a schedule's workflow must offer."""

    name: str
    version: int
    retention_seconds: float | None
    signature: Any


FindWorkflow = Callable[[str], Startable]


class _Move(Struct, frozen=True):
    """What one pass does with one schedule; `fault` says why its runs cannot be started."""

    row: ScheduleRow
    plan: Plan
    starts: tuple[Start, ...]
    fault: str | None = None


class ScheduleRunner(Loop):
    """One pass fires a batch of schedules; while more is due the next follows at once."""

    def __init__(
        self,
        name: str,
        *,
        node: Node,
        journal: ScheduleJournal,
        pulse: Pulse,
        pubsub: PubSub,
        wakes: Wakes,
        workflows: Callable[[], Sequence[str]],
        find_workflow: FindWorkflow,
        cancel: Callable[[str], Awaitable[object]],
        interval: float | None,
        batch: int,
        attempts: int,
        backoff: float,
    ) -> None:
        super().__init__(name, interval=interval, clock=node.clock, draw=node.draw, emit=node.emit)
        self._node = node
        self._journal = journal
        self._pulse = pulse
        self._wakes = wakes
        self._workflows = workflows
        self._find_workflow = find_workflow
        self._cancel = cancel
        self._batch = batch
        self._attempts_max = attempts
        self._backoff_seconds = backoff
        self._watched: dict[str, None] = {}  # runs whose end here lets a put-off one start
        pubsub.subscribe(self._heard)

    async def once(self) -> bool:
        """Fire what is due; a node that drains fires nothing."""
        if self._node.is_draining:
            return False
        if not self.was_asked and not (await self._pulse.evidence()).schedules:
            return False
        due = await self._journal.due_schedules(
            workflows=self._workflows(), grace_seconds=self._backoff_seconds, limit=self._batch
        )
        self._node.stamp(due.now)
        moves: list[_Move] = []
        for row in due.rows:
            if (move := self._decide(row, due.now)) is not None:
                moves.append(move)
                if move.plan.missed:  # counting them takes its time, which is the host's too
                    await asyncio.sleep(0)
        is_complete = await self._carry_out([move for move in moves if move.plan.cancels is None], due.now)
        replacing = [move for move in moves if move.plan.cancels is not None]
        await self._cancel_others(replacing)  # which may have to wait for another node: so the others came first
        is_complete = await self._carry_out(replacing, due.now) and is_complete and len(due.rows) < self._batch
        if is_complete and due.upcoming is not None:
            self.nudge((due.upcoming - due.now).total_seconds())
        return not is_complete

    # --- deciding -----------------------------------------------------------------------------------------------------

    def _decide(self, row: ScheduleRow, now: datetime) -> _Move | None:
        planned = plan(row, now)
        if planned is None:
            return None
        try:
            starts = tuple(self._start(row, moment, now) for moment in planned.fires)
        except Exception as error:  # noqa: BLE001  # reading arguments runs the host's code: validators may raise anything
            return _Move(row, planned, (), fault=str(error) if isinstance(error, ContinuumError) else repr(error))
        return _Move(row, planned, starts)

    def _start(self, row: ScheduleRow, moment: datetime, now: datetime) -> Start:
        if row.unreadable is not None:
            raise ContinuumError(row.unreadable)
        run_id = scheduled_run_id(row.definition.schedule_id, (moment - _EPOCH) // _MICROSECOND)
        return start_of(row.definition, self._find_workflow(row.definition.workflow), run_id, moment, now)

    async def _cancel_others(self, moves: Sequence[_Move]) -> None:
        """Cancel the runs that others replace: recorded before those others exist, so that it is never forgotten."""
        runs = [move.plan.cancels for move in moves if move.plan.cancels is not None and move.fault is None]
        await asyncio.gather(*(self._cancel_quietly(run_id) for run_id in runs))

    async def _cancel_quietly(self, run_id: str) -> None:
        with suppress(RunNotActive, RunNotFound):  # it has ended by itself
            await self._cancel(run_id)

    # --- doing --------------------------------------------------------------------------------------------------------

    async def _carry_out(self, moves: Sequence[_Move], now: datetime) -> bool:
        """Write all moves together; if the database refuses a value, each alone. False: there is more to do at once."""
        if not moves:
            return True
        firings = [self._firing(move, now) for move in moves]
        try:
            landed = await self._journal.fire(firings)
        except Contended:  # another node moves the same ones on, or a host inserts a run of the same id
            self.nudge(self._draw.uniform(0.5, 1.5) * CONTENDED_SECONDS)
            return True
        except BadData as error:
            if len(moves) > 1:
                return all([await self._carry_out([move], now) for move in moves])
            if moves[0].fault is not None:  # not a run, but the row itself: no other value would do
                raise
            return await self._carry_out([replace(moves[0], starts=(), fault=str(error))], now)
        if any(firing.starts for firing, has_landed in zip(firings, landed, strict=True) if has_landed):
            self._wakes.runs_waiting()
        for move, firing, has_landed in zip(moves, firings, landed, strict=True):
            if has_landed:
                self._tell(move, firing, now)
        return all(landed) and not any(self._plan_next(firing, now) for firing in firings)

    def _firing(self, move: _Move, now: datetime) -> Firing:
        schedule_id, revision = move.row.definition.schedule_id, move.row.revision
        if move.fault is None:
            last = move.starts[-1].run_id if move.starts else move.row.progress.last_run_id
            return Firing(schedule_id, revision, replace(move.plan.progress, last_run_id=last), move.starts)
        progress = failed(
            move.plan,
            now,
            move.fault[:REASON_MAX],
            attempts_max=self._attempts_max,
            backoff_seconds=self._backoff_seconds,
        )
        return Firing(schedule_id, revision, progress)

    def _plan_next(self, firing: Firing, now: datetime) -> bool:
        """Come again when the schedule is due; True: it is due now."""
        wake_at = firing.progress.wake_at
        if wake_at is not None and wake_at > now:
            self.nudge((wake_at - now).total_seconds())
        return wake_at is not None and wake_at <= now

    # --- telling ------------------------------------------------------------------------------------------------------

    def _tell(self, move: _Move, firing: Firing, now: datetime) -> None:
        schedule, planned = firing.schedule_id, move.plan
        if planned.missed:
            self.emit("schedule.skipped", {"fire_times": planned.missed}, schedule=schedule, reason="missed")
        if move.fault is not None:
            self._tell_failure(firing, now)
            return
        for moment, start in zip(planned.fires, move.starts, strict=True):
            lateness = (now - moment).total_seconds()
            self.emit("schedule.fired", {"lateness_seconds": lateness}, schedule=schedule, run_id=start.run_id)
            enqueued(self.emit, start.run)
        if planned.skipped:
            self.emit("schedule.skipped", {"fire_times": planned.skipped}, schedule=schedule, reason="overlap")
        if planned.buffered is not None:
            self.emit("schedule.buffered", schedule=schedule, run_id=firing.progress.last_run_id)
            self._watch(firing.progress.last_run_id)

    def _tell_failure(self, firing: Firing, now: datetime) -> None:
        schedule, progress = firing.schedule_id, firing.progress
        if progress.state is ScheduleState.FAILED:
            self.emit("schedule.failed", {"attempts": progress.attempts}, schedule=schedule, error=progress.reason)
        elif progress.wake_at is not None:
            numbers = {"attempts": progress.attempts, "backoff_seconds": (progress.wake_at - now).total_seconds()}
            self.emit("schedule.retried", numbers, schedule=schedule, error=progress.reason)

    # --- runs that others wait for ------------------------------------------------------------------------------------

    def _watch(self, run_id: str | None) -> None:
        if run_id is not None:
            self._watched[run_id] = None

    def _heard(self, ending: Ending) -> None:
        if ending.run_id in self._watched and ending.state.has_ended:
            del self._watched[ending.run_id]
            self.nudge()


def start_of(definition: Definition, workflow: Startable, run_id: str, moment: datetime, now: datetime) -> Start:
    """Return the write that inserts a schedule's run for a fire time.

    Raises:
        InputInvalid, DurableValueError: today's parameters do not take the arguments any more.
    """
    arguments: bytes = workflow.signature.parameters.recode(input_at(definition, moment))
    run = NewRun(
        run_id=run_id,
        workflow=workflow.name,
        version=workflow.version,
        namespace=definition.namespace,
        attributes=attributes_at(definition, moment),
        retention_seconds=workflow.retention_seconds,
    )
    return pending_start(run, arguments, now, chosen=True)
