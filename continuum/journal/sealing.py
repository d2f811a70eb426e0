# long: the port once more, method by method, with a codec around what carries payloads
"""The host's payload codec around a journal: everything that is stored passes it, nothing else knows of it.

Sealed are event payloads, messages, heartbeat details and snapshots: whatever a user's value is in. Attributes, names
and ids stay readable, for they are searched. A payload that cannot be opened raises `DurableValueError` naming its run.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from msgspec.structs import replace

from continuum.codec import PayloadCodec, PayloadContext
from continuum.errors import DurableValueError
from continuum.journal.port import (
    Claims,
    DueSchedules,
    Evidence,
    Firing,
    Held,
    Hosted,
    Journal,
    LoadedRun,
    OwnerJournal,
    RunFilter,
    Swept,
)
from continuum.model.census import Census
from continuum.model.events import Event, EventType
from continuum.model.messages import Message, MessageKind
from continuum.model.owners import Owner
from continuum.model.packing import pack_history, unpack_history
from continuum.model.results import ActivityResult, ResultKey
from continuum.model.runs import Ending, NewChild, RunRow, Standing
from continuum.model.schedules import Definition, Progress, ScheduleRow, ScheduleState
from continuum.model.states import RunState
from continuum.model.tasks import Attempt, Beat, ClaimedTask
from continuum.model.versions import Carrier, OpenRun, OpenRuns, PatchMarks
from continuum.model.writes import Commit, Finish, Post, Start, StartMany, Verdict, Write
from continuum.telemetry.saying import say

logger = logging.getLogger(__name__)

SEALED = b"\x01"  # before every sealed payload; JSON never begins so


def sealed(journal: Journal, codec: PayloadCodec | None) -> Journal:
    """Return the journal behind a codec, or as it is without one."""
    return journal if codec is None else SealedJournal(journal, codec)


class SealedJournal:
    """A journal whose payloads pass a codec on their way in and out."""

    def __init__(self, journal: Journal, codec: PayloadCodec) -> None:
        self._journal = journal
        self._codec = codec
        self.has_notices = journal.has_notices
        self.lanes = journal.lanes

    @property
    def deafness(self) -> str | None:
        """Why this process hears no notices."""
        return self._journal.deafness

    # --- in and out ---------------------------------------------------------------------------------------------------

    def _seal(self, payload: bytes | None, run_id: str, kind: str, name: str | None) -> bytes | None:
        return None if payload is None else SEALED + self._codec.encode(payload, PayloadContext(run_id, kind, name))

    def _open(self, payload: bytes | None, run_id: str, kind: str, name: str | None) -> bytes | None:
        if payload is None or not payload.startswith(SEALED):  # the journal's own, such as an exhausted attempt's
            return payload
        try:
            return self._codec.decode(payload[1:], PayloadContext(run_id, kind, name))
        except Exception as error:  # a host's codec may raise anything
            message = f"the payload codec cannot open a {kind} of run {run_id}: {error!r}"
            raise DurableValueError(message, run_id=run_id) from error

    def _seal_event(self, run_id: str, event: Event) -> Event:
        return replace(event, payload=self._seal(event.payload, run_id, event.type.value, event.name))

    def _open_event(self, run_id: str, event: Event) -> Event:
        return replace(event, payload=self._open(event.payload, run_id, event.type.value, event.name))

    def open_events(self, run_id: str, events: Sequence[Event]) -> list[Event]:
        """Open what a history carries."""
        return [self._open_event(run_id, event) for event in events]

    def _seal_message(self, message: Message) -> Message:
        return replace(message, payload=self._seal(message.payload, *_belongs(message)))

    def _open_message(self, message: Message) -> Message:
        return replace(message, payload=self._open(message.payload, *_belongs(message)))

    def _seal_child(self, child: NewChild) -> NewChild:
        arguments = self._seal(child.arguments, child.run_id, EventType.STARTED.value, child.workflow)
        taken = self._seal(child.taken, child.run_id, EventType.FAILED.value, None)
        return replace(child, arguments=arguments or b"", taken=taken or b"")

    def _seal_turn(self, write: Start | Commit) -> Start | Commit:
        write = replace(
            write,
            events=self._seal_events(write.run_id, write.events),
            children=tuple(self._seal_child(child) for child in write.children),
        )
        if isinstance(write, Start):
            return write
        opened = write.continues
        if opened is not None:
            opened = replace(opened, events=self._seal_events(write.run_id, opened.events))
        return replace(
            write,
            posts=tuple(self._seal_message(message) for message in write.posts),
            results=tuple(self._seal_result(result) for result in write.results),
            continues=opened,
        )

    def _seal_start(self, start: Start) -> Start:
        return replace(start, events=self._seal_events(start.run_id, start.events))

    def _seal_events(self, run_id: str, events: Sequence[Event]) -> tuple[Event, ...]:
        return tuple(self._seal_event(run_id, event) for event in events)

    def _seal_result(self, result: ActivityResult) -> ActivityResult:
        run_id, activity = result.run_id, result.key.activity
        return replace(
            result,
            arguments=self._seal(result.arguments, run_id, EventType.ACTIVITY_SCHEDULED.value, activity),
            payload=self._seal(result.payload, run_id, RESULT, activity),
        )

    def _open_result(self, result: ActivityResult) -> ActivityResult:
        run_id, activity = result.run_id, result.key.activity
        try:
            return replace(
                result,
                arguments=self._open(result.arguments, run_id, EventType.ACTIVITY_SCHEDULED.value, activity),
                payload=self._open(result.payload, run_id, RESULT, activity),
            )
        except DurableValueError as error:
            return replace(result, unreadable=str(error))

    def seal_write(self, write: Write) -> Write:
        """Seal what a write carries."""
        match write:
            case Start() | Commit():
                return self._seal_turn(write)
            case StartMany(starts):
                return StartMany(tuple(self._seal_start(start) for start in starts))
            case Post(message):
                return Post(self._seal_message(message))
            case Finish(message=message, result=result):
                sealed_result = None if result is None else self._seal_result(result)
                return replace(write, message=self._seal_message(message), result=sealed_result)
            case _:
                return write

    # --- what carries payloads ----------------------------------------------------------------------------------------

    async def write(self, lane: int, batch: Sequence[Write]) -> Sequence[Verdict]:
        """Seal and write."""
        return await self._journal.write(lane, [self.seal_write(write) for write in batch])

    async def hosted(self, session: object) -> Hosted:
        """Take part in a host's transaction, sealing and opening there too."""
        return SealedHosted(self, await self._journal.hosted(session))

    async def load_runs(self, run_ids: Sequence[str]) -> Sequence[LoadedRun]:
        """Load and open; a run that cannot be opened says so, and does not stand in the way of the others."""
        return [self._open_run(loaded) for loaded in await self._journal.load_runs(run_ids)]

    def _open_run(self, loaded: LoadedRun) -> LoadedRun:
        try:
            return replace(
                loaded,
                history=tuple(self._open_event(loaded.row.run_id, event) for event in loaded.history),
                messages=tuple(self._open_message(message) for message in loaded.messages),
            )
        except DurableValueError as error:
            return replace(loaded, unreadable=str(error))

    async def unread(self, owner: str, *, limit: int) -> Sequence[Message]:
        """Read and open; what cannot be opened waits for whoever loads its run, which is then blocked."""
        opened = []
        for message in await self._journal.unread(owner, limit=limit):
            with suppress(DurableValueError):
                opened.append(self._open_message(message))
        return opened

    async def claim_tasks(
        self, owner: str, *, activities: Sequence[str], slots: Mapping[str, int], default_slots: int
    ) -> Sequence[ClaimedTask]:
        """Claim and open; what cannot be opened is left to the audit, which gives it back after a while."""
        claimed = await self._journal.claim_tasks(
            owner, activities=activities, slots=slots, default_slots=default_slots
        )
        opened = []
        for task in claimed:
            with suppress(DurableValueError):
                opened.append(self._open_task(task))
        return opened

    def _open_task(self, task: ClaimedTask) -> ClaimedTask:
        run_id = task.attempt.key.run_id
        arguments = self._open(task.arguments, run_id, EventType.ACTIVITY_SCHEDULED.value, task.activity)
        details = self._open(task.details, run_id, HEARTBEAT, task.activity)
        return replace(task, arguments=arguments or b"{}", details=details)

    async def results(self, keys: Sequence[ResultKey]) -> Sequence[ActivityResult]:
        """Read and open; one that cannot be opened says so."""
        return [self._open_result(result) for result in await self._journal.results(keys)]

    async def heartbeat_tasks(self, beats: Sequence[Beat]) -> Sequence[Attempt]:
        """Seal and store; details that cannot be sealed are left out, or the hearts of all the others would stop as well."""
        return await self._journal.heartbeat_tasks([self._seal_beat(beat) for beat in beats])

    def _seal_beat(self, beat: Beat) -> Beat:
        run_id = beat.attempt.key.run_id
        try:
            return replace(beat, details=self._seal(beat.details, run_id, HEARTBEAT, beat.activity))
        except Exception as error:  # noqa: BLE001  # a host's codec may raise anything
            said = "the payload codec cannot seal the heartbeat of activity %s: it is sent without"
            say(logger, logging.WARNING, said, beat.activity, exc_info=error, extra={"run_id": run_id})
            return replace(beat, details=None)

    async def history(self, run_id: str, *, generation: int | None = None) -> Sequence[Event]:
        """Read and open."""
        return self.open_events(run_id, await self._journal.history(run_id, generation=generation))

    async def events_after(self, run_id: str, *, generation: int, seq: int, limit: int) -> Sequence[tuple[int, Event]]:
        """Read and open."""
        found = await self._journal.events_after(run_id, generation=generation, seq=seq, limit=limit)
        return [(one, self._open_event(run_id, event)) for one, event in found]

    async def endings(self, run_ids: Sequence[str]) -> Sequence[Ending]:
        """Read and open; an ending that cannot be opened is told as blocked, to those alone who wait for it."""
        return [self._open_ending(ending) for ending in await self._journal.endings(run_ids)]

    async def standings(self, run_ids: Sequence[str]) -> Sequence[Standing]:
        """Read and open, as endings are."""
        return [
            replace(standing, ending=self._open_ending(standing.ending)) if standing.ending is not None else standing
            for standing in await self._journal.standings(run_ids)
        ]

    def _open_ending(self, ending: Ending) -> Ending:
        try:
            return replace(ending, payload=self._open(ending.payload, ending.run_id, ending.state.value, None))
        except DurableValueError as error:
            return Ending(ending.run_id, RunState.BLOCKED, reason=str(error))

    async def save_snapshot(self, run_id: str, *, generation: int, seq: int, blob: bytes) -> bool:
        """Seal each event of the snapshot and store it."""
        events = [self._seal_event(run_id, event) for event in unpack_history(blob)]
        return await self._journal.save_snapshot(run_id, generation=generation, seq=seq, blob=pack_history(events))

    async def define_schedule(self, definition: Definition, progress: Progress, *, revision: int | None) -> bool:
        """Seal the arguments and store."""
        stored = self._seal(definition.input, definition.schedule_id, SCHEDULE, definition.workflow)
        return await self._journal.define_schedule(
            replace(definition, input=stored or b""), progress, revision=revision
        )

    def _open_schedule(self, row: ScheduleRow) -> ScheduleRow:
        definition = row.definition
        try:
            opened = self._open(definition.input, definition.schedule_id, SCHEDULE, definition.workflow)
        except DurableValueError as error:  # told when it is to be fired, and no obstacle to the others
            return replace(row, unreadable=str(error))
        return replace(row, definition=replace(definition, input=opened or b""))

    async def schedule(self, schedule_id: str) -> ScheduleRow | None:
        """Read and open."""
        row = await self._journal.schedule(schedule_id)
        return None if row is None else self._open_schedule(row)

    async def list_schedules(
        self, *, state: ScheduleState | None, limit: int, after: str | None
    ) -> Sequence[ScheduleRow]:
        """Read and open."""
        rows = await self._journal.list_schedules(state=state, limit=limit, after=after)
        return [self._open_schedule(row) for row in rows]

    async def due_schedules(self, *, workflows: Sequence[str], grace_seconds: float, limit: int) -> DueSchedules:
        """Read and open."""
        due = await self._journal.due_schedules(workflows=workflows, grace_seconds=grace_seconds, limit=limit)
        return replace(due, rows=tuple(self._open_schedule(row) for row in due.rows))

    async def fire(self, firings: Sequence[Firing]) -> Sequence[bool]:
        """Seal the arguments of the runs and write."""
        return await self._journal.fire(
            [replace(firing, starts=tuple(self._seal_start(start) for start in firing.starts)) for firing in firings]
        )

    # --- what does not ------------------------------------------------------------------------------------------------

    async def open(self, instance: str) -> None:
        """Open the journal."""
        await self._journal.open(instance)

    async def look(self) -> str | None:
        """Look."""
        return await self._journal.look()

    async def close(self) -> None:
        """Close the journal."""
        await self._journal.close()

    def heart(self) -> OwnerJournal:
        """Return the owner statements."""
        return self._journal.heart()

    async def close_heart(self) -> None:
        """Close their connection."""
        await self._journal.close_heart()

    async def judge(self, write: Write) -> Verdict | None:
        """Judge."""
        return await self._journal.judge(write)

    async def register(self, owner: Owner, *, ttl_seconds: float) -> datetime:
        """Register."""
        return await self._journal.register(owner, ttl_seconds=ttl_seconds)

    async def renew(self, owner: str, *, ttl_seconds: float) -> datetime | None:
        """Renew."""
        return await self._journal.renew(owner, ttl_seconds=ttl_seconds)

    async def retire(self, owner: str) -> None:
        """Retire."""
        await self._journal.retire(owner)

    async def declare_dead(self) -> Sequence[str]:
        """Declare dead."""
        return await self._journal.declare_dead()

    async def owners(self) -> Sequence[Owner]:
        """Return the owners."""
        return await self._journal.owners()

    async def sweep(self, *, crashes_max: int, backoff_seconds: float, task_backoff_seconds: float) -> Swept:
        """Sweep."""
        return await self._journal.sweep(
            crashes_max=crashes_max, backoff_seconds=backoff_seconds, task_backoff_seconds=task_backoff_seconds
        )

    async def evidence(self) -> Evidence:
        """Say whether there is anything to do."""
        return await self._journal.evidence()

    async def held(self, owner: str) -> Held:
        """Return what is held."""
        return await self._journal.held(owner)

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
        """Release."""
        return await self._journal.release_run(
            run_id, owner=owner, token=token, state=state, backoff_seconds=backoff_seconds, reason=reason
        )

    async def claim_runs(
        self,
        owner: str,
        *,
        workflows: Sequence[tuple[str, int]],
        limit: int,
        run_ids: Sequence[str] | None = None,
    ) -> Claims:
        """Claim."""
        return await self._journal.claim_runs(owner, workflows=workflows, limit=limit, run_ids=run_ids)

    async def upcoming(self, *, horizon_seconds: float, limit: int) -> Sequence[tuple[str, datetime]]:
        """Look ahead."""
        return await self._journal.upcoming(horizon_seconds=horizon_seconds, limit=limit)

    async def next_task_at(self, activities: Sequence[str]) -> datetime | None:
        """Look ahead."""
        return await self._journal.next_task_at(activities)

    async def now(self) -> datetime:
        """Return the database's time."""
        return await self._journal.now()

    async def run(self, run_id: str) -> RunRow | None:
        """Read a row."""
        return await self._journal.run(run_id)

    async def run_by_key(self, namespace: str, workflow: str, key: str) -> RunRow | None:
        """Read a row."""
        return await self._journal.run_by_key(namespace, workflow, key)

    async def active_children(self, parents: Sequence[str]) -> Sequence[tuple[str, str | None, str | None]]:
        """Read who and where the children are."""
        return await self._journal.active_children(parents)

    async def list_runs(self, where: RunFilter, *, limit: int, before: tuple[datetime, str] | None) -> Sequence[RunRow]:
        """List rows."""
        return await self._journal.list_runs(where, limit=limit, before=before)

    async def delete_schedule(self, schedule_id: str) -> bool:
        """Delete."""
        return await self._journal.delete_schedule(schedule_id)

    async def prune_results(self, *, age_seconds: float, limit: int) -> int:
        """Forget."""
        return await self._journal.prune_results(age_seconds=age_seconds, limit=limit)

    async def prune(self, *, limit: int) -> Sequence[str]:
        """Prune."""
        return await self._journal.prune(limit=limit)

    async def prune_generations(self, *, limit: int) -> int:
        """Prune."""
        return await self._journal.prune_generations(limit=limit)

    async def carry(self, owner: str, *, workflows: Sequence[tuple[str, int]]) -> None:
        """Record what an owner carries."""
        await self._journal.carry(owner, workflows=workflows)

    async def retry_blocked(
        self, *, workflows: Sequence[tuple[str, int]], crashes_max: int, limit: int
    ) -> Sequence[str]:
        """Let blocked runs be due."""
        return await self._journal.retry_blocked(workflows=workflows, crashes_max=crashes_max, limit=limit)

    async def carriers(self) -> Sequence[Carrier]:
        """Return who carries what."""
        return await self._journal.carriers()

    async def open_counts(self) -> Sequence[OpenRuns]:
        """Count open runs."""
        return await self._journal.open_counts()

    async def census(self, *, limit: int) -> Census:
        """Count what there is."""
        return await self._journal.census(limit=limit)

    async def patch_marks(self) -> Sequence[PatchMarks]:
        """Count what patches they take."""
        return await self._journal.patch_marks()

    async def open_runs(
        self, *, workflow: str | None, limit: int, before: tuple[datetime, str] | None
    ) -> Sequence[OpenRun]:
        """List open runs."""
        return await self._journal.open_runs(workflow=workflow, limit=limit, before=before)

    async def notify(self, notices: Sequence[str]) -> None:
        """Notify."""
        await self._journal.notify(notices)

    def listen(self) -> AsyncIterator[Sequence[str]]:
        """Listen."""
        return self._journal.listen()


class SealedHosted:
    """A journal in a host's transaction, whose payloads pass the codec."""

    def __init__(self, journal: SealedJournal, hosted: Hosted) -> None:
        self._journal = journal
        self._hosted = hosted

    async def write(self, write: Write) -> Verdict:
        """Seal and write."""
        return await self._hosted.write(self._journal.seal_write(write))

    def when_over(self, tell: Callable[[bool], None]) -> Callable[[], None]:
        """Tell."""
        return self._hosted.when_over(tell)

    async def run(self, run_id: str) -> RunRow | None:
        """Read a row."""
        return await self._hosted.run(run_id)

    async def run_by_key(self, namespace: str, workflow: str, key: str) -> RunRow | None:
        """Read a row."""
        return await self._hosted.run_by_key(namespace, workflow, key)

    async def history(self, run_id: str, *, generation: int | None = None) -> Sequence[Event]:
        """Read and open."""
        return self._journal.open_events(run_id, await self._hosted.history(run_id, generation=generation))


HEARTBEAT, RESULT = "heartbeat", "activity_result"
SCHEDULE = "schedule"  # its payload context carries the schedule's id in place of a run's

_ENDINGS = {
    MessageKind.CHILD_COMPLETED: EventType.COMPLETED.value,
    MessageKind.CHILD_FAILED: EventType.FAILED.value,
    MessageKind.CHILD_CANCELLED: EventType.CANCELLED.value,
}


def _belongs(message: Message) -> tuple[str, str, str | None]:
    """Return what a message's payload is bound to: how a child ended is the child's own, as its last event holds it."""
    if message.kind in _ENDINGS:
        return message.name or "", _ENDINGS[message.kind], None
    return message.run_id, message.kind.value, message.name
