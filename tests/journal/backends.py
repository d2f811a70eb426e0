"""What differs between the journals, behind one harness: making one, moving time, looking at the rows underneath.

Time: the memory journal's clock is moved; a real database's cannot be, so everything that it has stored is made older
instead. Either way "so many seconds later" is true for every comparison with `now`, and nothing ever sleeps.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from continuum.clock import VirtualClock
from continuum.journal.memory import MemoryJournal, MemoryStore
from continuum.journal.memory.store import StoredTask
from continuum.journal.port import Journal
from continuum.model.events import Event
from continuum.model.messages import Message, MessageKind
from continuum.model.runs import RunRow
from continuum.model.tasks import Attempt, TaskKey, TaskOptions

INSTANCE = "continuum"


@dataclass(frozen=True, slots=True)
class EventRow:
    """A row of continuum_events."""

    generation: int
    token: int
    event: Event


@dataclass(frozen=True, slots=True)
class InboxRow:
    """A row of continuum_inbox."""

    message_id: str
    run_id: str
    kind: MessageKind
    name: str | None
    payload: bytes | None
    generation: int | None
    command_id: int | None
    delivery_id: str | None
    is_read: bool


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A row of continuum_tasks."""

    key: TaskKey
    activity: str
    queue: str
    priority: int
    attempt: int
    lease_owner: str | None
    available_at: datetime
    details: bytes | None


class Harness(Protocol):
    """One database under test."""

    journal: Journal

    async def another(self) -> Journal:
        """Open a second journal on the same database: another node."""
        ...

    async def age(self, seconds: float) -> None:
        """Let so much time pass for everything that is stored."""
        ...

    async def run_row(self, run_id: str) -> RunRow:
        """Read a run's row, which must exist."""
        ...

    async def events(self, run_id: str) -> list[EventRow]:
        """Read all histories of a run."""
        ...

    async def inbox(self, run_id: str | None = None) -> list[InboxRow]:
        """Read inbox rows in reading order, tombstones too."""
        ...

    async def tasks(self, run_id: str | None = None) -> list[TaskRow]:
        """Read task rows by key."""
        ...

    async def owners(self) -> dict[str, datetime]:
        """Read who has an owner row, and until when."""
        ...

    async def plant(self, message: Message) -> None:
        """Insert an inbox row past the journal: what surfaces late from somebody's open transaction."""
        ...

    async def plant_task(self, attempt: Attempt) -> None:
        """Insert a task past the journal, leased as the attempt says: what a lost race would leave behind."""
        ...

    async def dump(self) -> object:
        """Read everything, to compare: what was refused has changed nothing."""
        ...

    async def wipe(self) -> None:
        """Delete all rows."""
        ...


OpenHarness = Callable[[], AbstractAsyncContextManager[Harness]]


# --- memory -----------------------------------------------------------------------------------------------------------


class MemoryHarness:
    """The executable specification on a virtual clock."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.store = MemoryStore(self.clock)
        self.journal: Journal = MemoryJournal(self.store)

    async def another(self) -> Journal:
        journal = MemoryJournal(self.store)
        await journal.open(INSTANCE)
        return journal

    async def age(self, seconds: float) -> None:
        self.clock.move_to(self.clock.monotonic() + seconds)

    async def run_row(self, run_id: str) -> RunRow:
        return self.store.runs[run_id]

    async def events(self, run_id: str) -> list[EventRow]:
        return [
            EventRow(generation, stored.token, stored.event)
            for (of, generation), history in sorted(self.store.events.items())
            for stored in history
            if of == run_id
        ]

    async def inbox(self, run_id: str | None = None) -> list[InboxRow]:
        rows = [row for inbox in self.store.inbox.values() for row in inbox.values()]
        return [
            InboxRow(
                message_id=row.message.message_id,
                run_id=row.message.run_id,
                kind=row.message.kind,
                name=row.message.name,
                payload=row.message.payload,
                generation=row.message.generation,
                command_id=row.message.command_id,
                delivery_id=row.message.delivery_id,
                is_read=row.read_at is not None,
            )
            for row in sorted(rows, key=lambda row: row.number)
            if run_id in {None, row.message.run_id}
        ]

    async def tasks(self, run_id: str | None = None) -> list[TaskRow]:
        rows = [
            TaskRow(
                key=task.key,
                activity=task.activity,
                queue=task.options.queue,
                priority=task.options.priority,
                attempt=task.attempt,
                lease_owner=task.owner,
                available_at=task.available_at,
                details=task.details,
            )
            for task in self.store.all_tasks()
            if run_id in {None, task.key.run_id}
        ]
        return sorted(rows, key=_by_key)

    async def owners(self) -> dict[str, datetime]:
        return {owner: stored.expires_at for owner, stored in self.store.owners.items()}

    async def plant(self, message: Message) -> None:
        self.store.add_message(message)

    async def plant_task(self, attempt: Attempt) -> None:
        options, now = TaskOptions(), self.store.now()
        self.store.put_task(StoredTask(attempt.key, 2, "planted", options, now, attempt.owner, attempt.attempt))

    async def dump(self) -> object:
        store = self.store
        histories = {key: tuple(history) for key, history in store.events.items() if history}
        inboxes = {run_id: dict(rows) for run_id, rows in store.inbox.items()}
        tasks = {run_id: dict(rows) for run_id, rows in store.tasks.items()}
        return dict(store.runs), histories, inboxes, tasks, dict(store.owners), dict(store.activity_results)

    async def wipe(self) -> None:
        self.store = MemoryStore(self.clock)
        self.journal = MemoryJournal(self.store)
        await self.journal.open(INSTANCE)


def _by_key(row: TaskRow) -> tuple[str, int, int]:
    return row.key.run_id, row.key.generation, row.key.command_id


@asynccontextmanager
async def open_memory() -> AsyncIterator[Harness]:
    """Give a memory journal that nobody else uses."""
    harness = MemoryHarness()
    await harness.journal.open(INSTANCE)
    yield harness
    await harness.journal.close()
