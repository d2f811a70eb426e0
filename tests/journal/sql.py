"""The harness over a real database: rows are read with plain SQL, and time passes by making everything older."""

import json
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from continuum.journal.port import Journal
from continuum.journal.sql import SqlJournal, migrate
from continuum.model.events import Event, EventType
from continuum.model.messages import Message, MessageKind
from continuum.model.runs import RunRow
from continuum.model.states import RunState
from continuum.model.tasks import Attempt, TaskKey, TaskOptions
from tests.journal.backends import INSTANCE, EventRow, Harness, InboxRow, TaskRow

TABLES = (
    "runs",
    "events",
    "inbox",
    "tasks",
    "owners",
    "snapshots",
    "activity_results",
    "schedules",
    "workflow_versions",
)
# Everything that is stamped or compared by the database. Events keep the time of their turn: nothing compares it.
TIMES = {
    "runs": ("wake_at", "created_at", "ended_at", "retention_until"),
    "inbox": ("at", "read_at"),
    "tasks": ("available_at", "heartbeat_at"),
    "owners": ("booted_at", "expires_at"),
    "schedules": ("next_at", "wake_at", "last_at", "buffered_at", "created_at", "changed_at"),
    "activity_results": ("at",),
    "workflow_versions": ("since",),
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class SqlHarness:
    """SQLite or PostgreSQL, empty and migrated."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.is_postgres = engine.dialect.name == "postgresql"
        self.journal: Journal = SqlJournal(engine)

    async def another(self) -> Journal:
        journal = SqlJournal(self.engine)
        await journal.open(INSTANCE)
        return journal

    async def age(self, seconds: float) -> None:
        amount = "make_interval(secs => :amount)" if self.is_postgres else ":amount"
        value = seconds if self.is_postgres else round(seconds * 1_000_000)
        async with self.engine.begin() as connection:
            for table, columns in TIMES.items():
                changes = ", ".join(f"{column} = {column} - {amount}" for column in columns)
                await connection.execute(text(f"UPDATE continuum_{table} SET {changes}"), {"amount": value})

    async def run_row(self, run_id: str) -> RunRow:
        (row,) = await self._rows("SELECT * FROM continuum_runs", run_id, key="id")
        return RunRow(
            run_id=str(row.id),
            workflow=row.workflow,
            version=row.version,
            namespace=row.namespace,
            state=RunState(row.state),
            generation=row.generation,
            last_seq=row.last_seq,
            lease_owner=row.lease_owner,
            lease_token=row.lease_token,
            wake_at=_time(row.wake_at),
            created_at=_time(row.created_at) or EPOCH,
            ended_at=_time(row.ended_at),
            attributes=json.loads(row.attributes) if isinstance(row.attributes, str) else row.attributes,
            idempotency_key=row.idempotency_key,
            fingerprint=row.fingerprint,
            crashes=row.crashes,
            reason=row.reason,
            retention_seconds=row.retention_seconds,
            retention_until=_time(row.retention_until),
            trace_context=row.trace_context,
        )

    async def events(self, run_id: str) -> list[EventRow]:
        rows = await self._rows("SELECT * FROM continuum_events", run_id, order="generation, seq")
        return [EventRow(row.generation, row.token, _event(row)) for row in rows]

    async def inbox(self, run_id: str | None = None) -> list[InboxRow]:
        return [
            InboxRow(
                message_id=str(row.id),
                run_id=str(row.run_id),
                kind=MessageKind(row.kind),
                name=row.name,
                payload=row.payload,
                generation=row.generation,
                command_id=row.command_id,
                delivery_id=row.delivery_id,
                is_read=row.read_at is not None,
            )
            for row in await self._rows("SELECT * FROM continuum_inbox", run_id, order="n")
        ]

    async def tasks(self, run_id: str | None = None) -> list[TaskRow]:
        return [
            TaskRow(
                key=TaskKey(str(row.run_id), row.generation, row.command_id),
                activity=row.activity,
                queue=row.queue,
                priority=row.priority,
                attempt=row.attempt,
                lease_owner=row.lease_owner,
                available_at=_time(row.available_at) or EPOCH,
                details=row.details,
            )
            for row in await self._rows("SELECT * FROM continuum_tasks", run_id, order="run_id, generation, command_id")
        ]

    async def owners(self) -> dict[str, datetime]:
        rows = await self._rows("SELECT * FROM continuum_owners")
        return {row.owner: _time(row.expires_at) or EPOCH for row in rows}

    async def plant(self, message: Message) -> None:
        columns: dict[str, Any] = {
            "id": message.message_id,
            "run_id": message.run_id,
            "kind": message.kind.value,
            "name": message.name,
            "delivery_id": message.delivery_id,
            "payload": message.payload,
            "format": message.format,
            "at": self._now(),
        }
        await self._insert("inbox", columns)

    async def plant_task(self, attempt: Attempt) -> None:
        columns: dict[str, Any] = {
            "run_id": attempt.key.run_id,
            "generation": attempt.key.generation,
            "command_id": attempt.key.command_id,
            "event_seq": 2,
            "activity": "planted",
            "queue": "default",
            "priority": 0,
            "options": TaskOptions().encode(),
            "attempt": attempt.attempt,
            "max_attempts": 3,
            "available_at": self._now(),
            "lease_owner": attempt.owner,
        }
        await self._insert("tasks", columns)

    def _now(self) -> Any:
        now = datetime.now(UTC)
        return now if self.is_postgres else (now - EPOCH) // MICROSECOND

    async def _insert(self, table: str, columns: dict[str, Any]) -> None:
        insert = f"INSERT INTO continuum_{table} ({', '.join(columns)}) VALUES (:{', :'.join(columns)})"
        async with self.engine.begin() as connection:
            await connection.execute(text(insert), columns)

    async def dump(self) -> object:
        tables = {}
        for table in TABLES:
            rows = await self._rows(f"SELECT * FROM continuum_{table}")
            tables[table] = sorted((tuple(row) for row in rows), key=str)
        return tables

    async def wipe(self) -> None:
        async with self.engine.begin() as connection:
            for table in TABLES:
                await connection.execute(text(f"DELETE FROM continuum_{table}"))

    async def _rows(
        self, select: str, run_id: str | None = None, *, key: str = "run_id", order: str | None = None
    ) -> Iterable[Row[Any]]:
        where = "" if run_id is None else f" WHERE {key} = :run_id"
        by = "" if order is None else f" ORDER BY {order}"
        async with self.engine.connect() as connection:
            result = await connection.execute(text(select + where + by), {"run_id": run_id} if run_id else {})
            return result.all()


def _time(stored: Any) -> datetime | None:
    return EPOCH + stored * MICROSECOND if isinstance(stored, int) else stored


def _event(row: Row[Any]) -> Event:
    return Event(
        seq=row.seq,
        type=EventType(row.type),
        at=_time(row.at) or EPOCH,
        command_id=row.command_id,
        message_id=None if row.message_id is None else str(row.message_id),
        name=row.name,
        payload=row.payload,
        key=row.key,
        format=row.format,
    )


# --- databases: migrated once ------------------------------------------------------------------------------------------


async def migrate_url(url: str) -> None:
    """Create the tables."""
    engine = create_async_engine(url)
    await migrate(engine)
    await engine.dispose()


@asynccontextmanager
async def open_sql(url: str, **options: Any) -> AsyncIterator[Harness]:
    """Give a journal on a migrated database."""
    engine = create_async_engine(url, **options)
    harness = SqlHarness(engine)
    await harness.journal.open(INSTANCE)
    try:
        yield harness
    finally:
        await harness.journal.close()
        await engine.dispose()


@asynccontextmanager
async def open_sqlite(template: Path, path: Path) -> AsyncIterator[Harness]:
    """Give a journal on a copy of a migrated file."""
    shutil.copy(template, path)
    async with open_sql(f"sqlite+aiosqlite:///{path}") as harness:
        yield harness


@asynccontextmanager
async def open_postgres(url: str, **options: Any) -> AsyncIterator[Harness]:
    """Give a journal on a migrated database that earlier tests have used: copying one takes 200 ms, emptying it 5."""
    async with open_sql(url, **options) as harness:
        await harness.wipe()
        yield harness
