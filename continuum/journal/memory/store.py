"""The tables, and the few ways in which rows come and go. Rows are frozen; a change puts a new row in the old place.

All tables are insertion-ordered dicts, and whatever belongs to a run stands under its id, so that a commit never looks
at the rows of other runs. Indices are kept by the methods here and by nobody else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from continuum.clock import Clock
from continuum.journal.memory.notices import Listener
from continuum.model.events import Event
from continuum.model.messages import Message, MessageKind
from continuum.model.owners import Owner
from continuum.model.results import ActivityResult, ResultKey
from continuum.model.runs import RunRow
from continuum.model.schedules import ScheduleRow
from continuum.model.tasks import Attempt, TaskKey, TaskOptions

StartKey = tuple[str, str, str]  # namespace, workflow, idempotency key
Delivery = tuple[str, str | None, str]  # run id, name, delivery id


class StoredEvent(Struct, frozen=True, gc=False):
    """An event with the token of its writer, which judges ambiguous commits."""

    token: int
    event: Event


class StoredMessage(Struct, frozen=True, gc=False):
    """An inbox row; `number` is the order of reading."""

    number: int
    message: Message
    read_at: datetime | None = None


class StoredTask(Struct, frozen=True, gc=False):
    """A task row; `attempt` counts from 1 and is consumed by a retry or a crash, never by a claim."""

    key: TaskKey
    seq: int
    activity: str
    options: TaskOptions
    available_at: datetime
    owner: str | None
    attempt: int = 1
    details: bytes | None = None

    def belongs_to(self, attempt: Attempt) -> bool:
        """Whether this try may still write: the owner under which it began and its number, both."""
        return self.owner == attempt.owner and self.attempt == attempt.attempt


class StoredOwner(Struct, frozen=True, gc=False):
    """An owner row; while it exists its leases are valid, however late it is."""

    owner: Owner
    expires_at: datetime


class StoredResult(Struct, frozen=True, gc=False):
    """A success under an idempotency key; it outlives its run."""

    result: ActivityResult
    at: datetime


class StoredSnapshot(Struct, frozen=True, gc=False):
    """A compacted prefix of a history."""

    seq: int
    blob: bytes


@dataclass(slots=True)
class MemoryStore:
    """One database: share it between journals to have several nodes. `clock` is the database's."""

    clock: Clock
    instance: str | None = None
    runs: dict[str, RunRow] = field(default_factory=dict)
    events: dict[tuple[str, int], list[StoredEvent]] = field(default_factory=dict)
    inbox: dict[str, dict[str, StoredMessage]] = field(default_factory=dict)
    tasks: dict[str, dict[TaskKey, StoredTask]] = field(default_factory=dict)
    owners: dict[str, StoredOwner] = field(default_factory=dict)
    snapshots: dict[tuple[str, int], StoredSnapshot] = field(default_factory=dict)
    activity_results: dict[ResultKey, StoredResult] = field(default_factory=dict)
    # Indices: what SQL has as unique and partial ones.
    active: dict[str, None] = field(default_factory=dict)
    start_keys: dict[StartKey, str] = field(default_factory=dict)
    message_runs: dict[str, str] = field(default_factory=dict)
    deliveries: dict[Delivery, str] = field(default_factory=dict)
    message_count: int = 0
    schedules: dict[str, ScheduleRow] = field(default_factory=dict)
    workflow_versions: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    listeners: dict[Listener, None] = field(default_factory=dict)

    def now(self) -> datetime:
        """Return the database's time."""
        return self.clock.now()

    def due(self, seconds: float) -> datetime:
        """Return the database's time in so many seconds."""
        return self.clock.now() + timedelta(seconds=seconds)

    # --- runs and events ----------------------------------------------------------------------------------------------

    def put_run(self, row: RunRow) -> None:
        """Insert a run or replace its row."""
        self.runs[row.run_id] = row
        if row.state.has_ended:
            self.active.pop(row.run_id, None)
        else:
            self.active[row.run_id] = None
        if row.idempotency_key is not None:
            self.start_keys[row.namespace, row.workflow, row.idempotency_key] = row.run_id

    def active_runs(self) -> Iterator[RunRow]:
        """Go through the runs that have not ended, oldest first; the tables may change meanwhile."""
        for run_id in tuple(self.active):
            yield self.runs[run_id]

    def append(self, run_id: str, generation: int, token: int, events: tuple[Event, ...]) -> None:
        """Append to a history."""
        self.events.setdefault((run_id, generation), []).extend(StoredEvent(token, event) for event in events)

    def event_at(self, run_id: str, generation: int, seq: int) -> StoredEvent | None:
        """Return the record at a position; histories have no gaps."""
        history = self.events.get((run_id, generation), [])
        return history[seq - 1] if 0 < seq <= len(history) else None

    def delete_run(self, row: RunRow) -> None:
        """Delete a run with all its rows."""
        for generation in range(1, row.generation + 1):
            self.events.pop((row.run_id, generation), None)
            self.snapshots.pop((row.run_id, generation), None)
        for message_id in tuple(self.inbox.get(row.run_id, ())):
            self.delete_message(row.run_id, message_id)
        self.tasks.pop(row.run_id, None)
        if row.idempotency_key is not None:
            del self.start_keys[row.namespace, row.workflow, row.idempotency_key]
        del self.runs[row.run_id]

    # --- inbox --------------------------------------------------------------------------------------------------------

    def add_message(self, message: Message) -> None:
        """Insert an inbox row, stamped with the database's time."""
        self.message_count += 1
        row = StoredMessage(self.message_count, replace(message, at=self.now()))
        self.inbox.setdefault(message.run_id, {})[message.message_id] = row
        self.message_runs[message.message_id] = message.run_id
        if message.delivery_id is not None:
            self.deliveries[message.run_id, message.name, message.delivery_id] = message.message_id

    def delete_message(self, run_id: str, message_id: str) -> None:
        """Delete an inbox row and all memory of its delivery id; harmless if it is not there."""
        rows = self.inbox.get(run_id, {})
        row = rows.pop(message_id, None)
        if row is None:
            return
        if not rows:
            del self.inbox[run_id]
        del self.message_runs[message_id]
        if row.message.delivery_id is not None:
            del self.deliveries[run_id, row.message.name, row.message.delivery_id]

    def entomb_message(self, run_id: str, message_id: str) -> None:
        """Keep a read message as a tombstone: no payload, but its delivery id is still known."""
        row = self.inbox.get(run_id, {}).get(message_id)
        if row is not None and row.read_at is None:
            emptied = replace(row.message, payload=None)
            self.inbox[run_id][message_id] = replace(row, message=emptied, read_at=self.now())

    def unread(self, run_id: str) -> list[StoredMessage]:
        """Return the unread messages of a run in reading order."""
        return [row for row in self.inbox.get(run_id, {}).values() if row.read_at is None]

    def has_unread_cancel(self, run_id: str) -> bool:
        """Whether a cancel is recorded that nobody has honoured yet."""
        return any(row.message.kind is MessageKind.CANCEL for row in self.unread(run_id))

    def has_unread_undoing(self, run_id: str) -> bool:
        """Whether a cancel that compensates is recorded."""
        return any(row.message.kind is MessageKind.COMPENSATE for row in self.unread(run_id))

    # --- results ------------------------------------------------------------------------------------------------------

    def remember(self, result: ActivityResult) -> None:
        """Remember a success; the first one under its key stands."""
        self.activity_results.setdefault(result.key, StoredResult(result, self.now()))

    # --- tasks --------------------------------------------------------------------------------------------------------

    def put_task(self, task: StoredTask) -> None:
        """Insert a task or replace its row."""
        self.tasks.setdefault(task.key.run_id, {})[task.key] = task

    def task(self, key: TaskKey) -> StoredTask | None:
        """Return a task's row."""
        return self.tasks.get(key.run_id, {}).get(key)

    def delete_task(self, key: TaskKey) -> None:
        """Delete a task by key, whoever holds it; harmless if it is not there."""
        rows = self.tasks.get(key.run_id, {})
        if rows.pop(key, None) is not None and not rows:
            del self.tasks[key.run_id]

    def all_tasks(self) -> Iterator[StoredTask]:
        """Go through all tasks; the tables may change meanwhile."""
        for rows in tuple(self.tasks.values()):
            yield from tuple(rows.values())
