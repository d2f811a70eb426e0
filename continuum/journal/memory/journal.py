"""The asynchronous face of the tables: one method of the port, one step of the specification."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import ParamSpec, Protocol, TypeVar

from continuum.errors import SchemaTaken, SessionInvalid
from continuum.journal.memory import census, families, reads, recovery, runs, schedules, tasks, versions, writes
from continuum.journal.memory.notices import Listener
from continuum.journal.memory.store import MemoryStore
from continuum.journal.port import (
    Claims,
    DueSchedules,
    Evidence,
    Firing,
    Held,
    Hosted,
    LoadedRun,
    OwnerJournal,
    RunFilter,
    Swept,
)
from continuum.model.census import Census
from continuum.model.events import Event
from continuum.model.messages import Message
from continuum.model.owners import Owner
from continuum.model.results import ActivityResult, ResultKey
from continuum.model.runs import Ending, RunRow, Standing
from continuum.model.schedules import Definition, Progress, ScheduleRow, ScheduleState
from continuum.model.states import RunState
from continuum.model.tasks import Attempt, Beat, ClaimedTask
from continuum.model.versions import Carrier, OpenRun, OpenRuns, PatchMarks
from continuum.model.writes import Verdict, Write

P = ParamSpec("P")
T = TypeVar("T")


class Faults(Protocol):
    """What may go wrong around a step, named as in the port: raise, or wait. The step itself stays atomic."""

    async def before(self, step: str) -> None:
        """Stand before a step, which does not happen if this raises."""
        ...

    async def after(self, step: str) -> None:
        """Stand after a step, whose answer is lost if this raises."""
        ...


class MemoryJournal:
    """A journal over a store, for one instance on one node; `faults` stands between the two in simulations."""

    has_notices = True
    deafness: str | None = None
    lanes = 2

    def __init__(self, store: MemoryStore, *, faults: Faults | None = None) -> None:
        self._store = store
        self._faults = faults
        self._listeners: dict[Listener, None] = {}

    async def _step(self, step: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._faults is None:
            return step(*args, **kwargs)
        name = step.__name__.lstrip("_")
        await self._faults.before(name)
        answer = step(*args, **kwargs)
        await self._faults.after(name)
        return answer

    # --- life ---------------------------------------------------------------------------------------------------------

    async def open(self, instance: str) -> None:
        """Claim the tables for an instance name."""
        await self._step(self._open, instance)

    def _open(self, instance: str) -> None:
        if self._store.instance not in {None, instance}:
            raise SchemaTaken(
                f"these tables belong to the instance {self._store.instance!r}, not to {instance!r}: "
                "give each instance a database or a schema of its own"
            )
        self._store.instance = instance

    async def look(self) -> str | None:
        """Return whose tables these are, claiming nothing."""
        return self._store.instance

    async def close(self) -> None:
        """End every `listen` of this journal."""
        for listener in tuple(self._listeners):
            listener.close()

    def heart(self) -> OwnerJournal:
        """Return this journal: there is no connection to share or not to share."""
        return self

    async def close_heart(self) -> None:
        """Do nothing."""

    # --- writes -------------------------------------------------------------------------------------------------------

    async def write(self, lane: int, batch: Sequence[Write]) -> Sequence[Verdict]:
        """Write a batch; see `continuum.journal.memory.writes`."""
        return await self._step(self._write, lane, batch)

    def _write(self, lane: int, batch: Sequence[Write]) -> Sequence[Verdict]:  # noqa: ARG002  one step at a time: no lanes needed
        writes.check(batch)
        return [writes.apply(self._store, write) for write in batch]

    async def hosted(self, session: object) -> Hosted:
        """Refuse: there is no database whose transaction this could be part of."""
        raise SessionInvalid(
            f"session={session!r} has nothing to do with a journal in memory: give the instance the engine that makes your "
            "sessions (application(engine), children(engine=...)), or leave session= out"
        )

    async def judge(self, write: Write) -> Verdict | None:
        """Say what became of a write whose answer was lost."""
        return await self._step(writes.judge, self._store, write)

    # --- owners and recovery ------------------------------------------------------------------------------------------

    async def register(self, owner: Owner, *, ttl_seconds: float) -> datetime:
        """Insert an owner row."""
        await self._step(recovery.register, self._store, owner, ttl_seconds=ttl_seconds)
        return self._store.now()

    async def renew(self, owner: str, *, ttl_seconds: float) -> datetime | None:
        """Extend an owner row."""
        renewed = await self._step(recovery.renew, self._store, owner, ttl_seconds=ttl_seconds)
        return self._store.now() if renewed else None

    async def retire(self, owner: str) -> None:
        """Delete an owner row."""
        await self._step(recovery.retire, self._store, owner)

    async def declare_dead(self) -> Sequence[str]:
        """Delete the owner rows that have expired."""
        return await self._step(recovery.declare_dead, self._store)

    async def owners(self) -> Sequence[Owner]:
        """Return the owners that have a row."""
        return await self._step(recovery.owners, self._store)

    async def sweep(self, *, crashes_max: int, backoff_seconds: float, task_backoff_seconds: float) -> Swept:
        """Free what owners without a row hold."""
        return await self._step(
            recovery.sweep,
            self._store,
            crashes_max=crashes_max,
            backoff_seconds=backoff_seconds,
            task_backoff_seconds=task_backoff_seconds,
        )

    async def evidence(self) -> Evidence:
        """Say whether there is anything to do."""
        return await self._step(runs.evidence, self._store)

    async def held(self, owner: str) -> Held:
        """Return what is leased to an owner."""
        return await self._step(recovery.held, self._store, owner)

    async def release_run(
        self,
        run_id: str,
        *,
        owner: str,
        token: int,
        state: RunState | None = None,
        backoff_seconds: float | None = None,
        reason: str | None = None,
    ) -> bool:
        """Give a lease back if it is still this one."""
        return await self._step(
            recovery.release_run,
            self._store,
            run_id,
            owner=owner,
            token=token,
            state=state,
            backoff_seconds=backoff_seconds,
            reason=reason,
        )

    # --- runs ---------------------------------------------------------------------------------------------------------

    async def claim_runs(
        self,
        owner: str,
        *,
        workflows: Sequence[tuple[str, int]],
        limit: int,
        run_ids: Sequence[str] | None = None,
    ) -> Claims:
        """Lease unleased runs that have evidence."""
        return await self._step(runs.claim_runs, self._store, owner, workflows=workflows, limit=limit, run_ids=run_ids)

    async def load_runs(self, run_ids: Sequence[str]) -> Sequence[LoadedRun]:
        """Read all that is needed to resume runs."""
        return await self._step(runs.load_runs, self._store, run_ids)

    async def unread(self, owner: str, *, limit: int) -> Sequence[Message]:
        """Return unread messages of an owner's runs, oldest first."""
        return await self._step(runs.unread, self._store, owner, limit=limit)

    async def upcoming(self, *, horizon_seconds: float, limit: int) -> Sequence[tuple[str, datetime]]:
        """Return unleased runs that become due within the horizon, soonest first."""
        return await self._step(runs.upcoming, self._store, horizon_seconds=horizon_seconds, limit=limit)

    # --- tasks --------------------------------------------------------------------------------------------------------

    async def claim_tasks(
        self, owner: str, *, activities: Sequence[str], slots: Mapping[str, int], default_slots: int
    ) -> Sequence[ClaimedTask]:
        """Lease due tasks."""
        return await self._step(
            tasks.claim_tasks, self._store, owner, activities=activities, slots=slots, default_slots=default_slots
        )

    async def heartbeat_tasks(self, beats: Sequence[Beat]) -> Sequence[Attempt]:
        """Store details; return the attempts that still run."""
        return await self._step(tasks.heartbeat_tasks, self._store, beats)

    async def results(self, keys: Sequence[ResultKey]) -> Sequence[ActivityResult]:
        """Return what is remembered under these keys."""
        return await self._step(tasks.results, self._store, keys)

    async def next_task_at(self, activities: Sequence[str]) -> datetime | None:
        """Return when the first free task is available."""
        return await self._step(tasks.next_task_at, self._store, activities)

    # --- reads and care -----------------------------------------------------------------------------------------------

    async def now(self) -> datetime:
        """Return the database's time."""
        return await self._step(self._store.now)

    async def run(self, run_id: str) -> RunRow | None:
        """Return a run's row."""
        return await self._step(reads.run, self._store, run_id)

    async def run_by_key(self, namespace: str, workflow: str, key: str) -> RunRow | None:
        """Return the run that a start key made."""
        return await self._step(reads.run_by_key, self._store, namespace, workflow, key)

    async def history(self, run_id: str, *, generation: int | None = None) -> Sequence[Event]:
        """Return a generation's events."""
        return await self._step(reads.history, self._store, run_id, generation)

    async def events_after(self, run_id: str, *, generation: int, seq: int, limit: int) -> Sequence[tuple[int, Event]]:
        """Return what stands behind a place in a history."""
        return await self._step(reads.events_after, self._store, run_id, generation=generation, seq=seq, limit=limit)

    async def endings(self, run_ids: Sequence[str]) -> Sequence[Ending]:
        """Return how runs ended, or that they are blocked."""
        return await self._step(reads.endings, self._store, run_ids)

    async def standings(self, run_ids: Sequence[str]) -> Sequence[Standing]:
        """Return how runs stand for callers who begin to wait."""
        return await self._step(reads.standings, self._store, run_ids)

    async def list_runs(self, where: RunFilter, *, limit: int, before: tuple[datetime, str] | None) -> Sequence[RunRow]:
        """Return a page of runs, newest first."""
        return await self._step(reads.list_runs, self._store, where, limit=limit, before=before)

    async def active_children(self, parents: Sequence[str]) -> Sequence[tuple[str, str | None, str | None]]:
        """Return the active children of runs, and where they live."""
        return await self._step(families.active_children, self._store, parents)

    async def save_snapshot(self, run_id: str, *, generation: int, seq: int, blob: bytes) -> bool:
        """Keep the newest compacted prefix of a history."""
        return await self._step(reads.save_snapshot, self._store, run_id, generation=generation, seq=seq, blob=blob)

    async def prune(self, *, limit: int) -> Sequence[str]:
        """Delete ended runs whose retention has passed."""
        return await self._step(reads.prune, self._store, limit=limit)

    async def prune_generations(self, *, limit: int) -> int:
        """Delete generations that runs have left behind for longer than their retention."""
        return await self._step(reads.prune_generations, self._store, limit=limit)

    async def prune_results(self, *, age_seconds: float, limit: int) -> int:
        """Forget old results of activities."""
        return await self._step(reads.prune_results, self._store, age_seconds=age_seconds, limit=limit)

    # --- schedules ----------------------------------------------------------------------------------------------------

    async def define_schedule(self, definition: Definition, progress: Progress, *, revision: int | None) -> bool:
        """Insert or change a schedule."""
        return await self._step(schedules.define_schedule, self._store, definition, progress, revision=revision)

    async def schedule(self, schedule_id: str) -> ScheduleRow | None:
        """Return a schedule."""
        return await self._step(schedules.schedule, self._store, schedule_id)

    async def list_schedules(
        self, *, state: ScheduleState | None, limit: int, after: str | None
    ) -> Sequence[ScheduleRow]:
        """Return schedules in the order of their ids."""
        return await self._step(schedules.list_schedules, self._store, state=state, limit=limit, after=after)

    async def delete_schedule(self, schedule_id: str) -> bool:
        """Delete a schedule."""
        return await self._step(schedules.delete_schedule, self._store, schedule_id)

    async def due_schedules(self, *, workflows: Sequence[str], grace_seconds: float, limit: int) -> DueSchedules:
        """Return the schedules that somebody is to look at."""
        return await self._step(
            schedules.due_schedules, self._store, workflows=workflows, grace_seconds=grace_seconds, limit=limit
        )

    async def fire(self, firings: Sequence[Firing]) -> Sequence[bool]:
        """Move schedules on and insert their runs."""
        return await self._step(schedules.fire, self._store, firings)

    # --- code ---------------------------------------------------------------------------------------------------------

    async def carry(self, owner: str, *, workflows: Sequence[tuple[str, int]]) -> None:
        """Record what an owner carries."""
        await self._step(versions.carry, self._store, owner, workflows=workflows)

    async def retry_blocked(
        self, *, workflows: Sequence[tuple[str, int]], crashes_max: int, limit: int
    ) -> Sequence[str]:
        """Let blocked runs be due now."""
        return await self._step(
            versions.retry_blocked, self._store, workflows=workflows, crashes_max=crashes_max, limit=limit
        )

    async def carriers(self) -> Sequence[Carrier]:
        """Return who carries what."""
        return await self._step(versions.carriers, self._store)

    async def open_counts(self) -> Sequence[OpenRuns]:
        """Count open runs."""
        return await self._step(versions.open_counts, self._store)

    async def census(self, *, limit: int) -> Census:
        """Count what there is."""
        return await self._step(census.census, self._store, limit=limit)

    async def patch_marks(self) -> Sequence[PatchMarks]:
        """Count open runs that take patches."""
        return await self._step(versions.patch_marks, self._store)

    async def open_runs(
        self, *, workflow: str | None, limit: int, before: tuple[datetime, str] | None
    ) -> Sequence[OpenRun]:
        """List open runs."""
        return await self._step(versions.open_runs, self._store, workflow=workflow, limit=limit, before=before)

    # --- notices ------------------------------------------------------------------------------------------------------

    async def notify(self, notices: Sequence[str]) -> None:
        """Tell the other journals on this store."""
        await self._step(self._notify, notices)

    def _notify(self, notices: Sequence[str]) -> None:
        for listener in self._store.listeners:
            if listener not in self._listeners:
                listener.hear(tuple(notices))

    async def listen(self) -> AsyncIterator[Sequence[str]]:
        """Yield what other journals on this store notify, after an empty first item."""
        listener = Listener()
        self._store.listeners[listener] = self._listeners[listener] = None
        try:
            yield ()
            async for notices in listener:
                yield notices
        finally:
            del self._store.listeners[listener], self._listeners[listener]
