"""The journal's statements inside somebody else's open transaction: what `session=` and transactional activities write.

The connection is the host's, and so is everything about it: its transaction, its isolation level, its locks and how
long it waits for them. Nothing is set on it that would outlast a statement. Statements travel through SQLAlchemy's own
`execute`, never through the driver, because SQLAlchemy begins the driver's transaction late, and counts on seeing
every statement.

Each write has a savepoint: a value that the database does not take is our error, and the host's transaction goes on.
(But the end of a task: its transaction is nothing without it.)
What concerns the connection or its transaction (lost, deadlock, serialization failure) is raised as the host's own
error, by which the host decides whether to begin again.

Verbs with one session take turns, because hosts gather them: savepoints of two that are made at once would end in the wrong
order. What the host itself does with its session meanwhile is its own affair, as SQLAlchemy says.

On SQLite a savepoint outside of a transaction would be committed at its release, and Python's driver begins none before
the first INSERT, UPDATE or DELETE. So a transaction is begun first where there is none yet, for writing at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from weakref import WeakKeyDictionary

from msgspec.structs import replace
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session

from continuum.errors import SchemaNotReady, SessionInvalid
from continuum.journal.port import BadData
from continuum.journal.sql.dialects import Rows
from continuum.journal.sql.following import Following, Tell
from continuum.journal.sql.lines import Talk
from continuum.journal.sql.rows import Reader
from continuum.journal.sql.statements import results, runs
from continuum.journal.sql.statements.book import Book, Statement
from continuum.journal.sql.writing import WriteWithin
from continuum.model.events import Event
from continuum.model.runs import RunRow
from continuum.model.writes import LANDED, REFUSED, Duplicate, Finish, StartMany, Verdict, Write

WANTED = "pass the AsyncSession or AsyncConnection whose transaction this is to be part of"


class HostTalk(Talk):
    """What may be said in a host's transaction."""

    def __init__(self, connection: AsyncConnection, book: Book) -> None:
        super().__init__(connection, None, book.dialect, book)

    async def fetch(self, statement: Statement, **values: object) -> Rows:
        """Execute a statement; return its rows, if it has any."""
        rendered = self._book[statement]
        bound = {
            name: list(value) if isinstance(value, tuple) else value  # which a driver may take for a row
            for name, value in self._values(rendered, values).items()
        }
        result = await self._connection.execute(rendered.clause, bound)
        return result.all() if result.returns_rows else ()

    async def many(self, statement: Statement, rows: Sequence[Mapping[str, object]]) -> None:
        """Execute a statement once per row of parameters, in one go."""
        rendered = self._book[statement]
        await self._connection.execute(rendered.clause, [self._values(rendered, row) for row in rows])


class SqlHosted:
    """Writes, and the reads that go with them, in a host's transaction; see `continuum.journal.port.Hosted`."""

    def __init__(
        self,
        connection: AsyncConnection,
        book: Book,
        reader: Reader,
        write_within: WriteWithin,
        followings: WeakKeyDictionary[Connection, Following],
        turn: asyncio.Lock,
    ) -> None:
        self._connection = connection
        self._turn = turn
        self._followings = followings
        self._talk = HostTalk(connection, book)
        self._dialect = book.dialect
        self._reader = reader
        self._write_within = write_within

    async def write(self, write: Write) -> Verdict:
        """Write; refused, nothing of it is in the transaction."""
        async with self._turn:
            return await self._write(write)

    async def _write(self, write: Write) -> Verdict:
        try:
            if isinstance(write, Finish):  # the last write of its transaction, which does not go on without it
                return await self._finish(write)
            async with self._connection.begin_nested() as savepoint:
                batch = write.starts if isinstance(write, StartMany) else [write]
                verdicts = await self._write_within(self._talk, batch)
                if not isinstance(write, StartMany):
                    return verdicts[0]
                if REFUSED in verdicts:
                    await savepoint.rollback()
                    return REFUSED
                return LANDED
        except (DBAPIError, UnicodeError) as error:
            fault = self._dialect.fault(error, pure=False)
            if isinstance(fault, BadData | SchemaNotReady):
                raise fault from error
            raise

    async def _finish(self, write: Finish) -> Verdict:
        result = write.result
        if result is not None:
            key = result.key
            first = await self._talk.fetch(
                results.REMEMBER_FIRST,
                namespace=key.namespace,
                activity=key.activity,
                key=key.key,
                run_id=result.run_id,
                arguments=result.arguments,
                payload=result.payload,
            )
            if not first:
                return Duplicate()
        return (await self._write_within(self._talk, [replace(write, result=None)]))[0]

    def when_over(self, tell: Tell) -> Callable[[], None]:
        """Tell this what becomes of what has just been written; return what looks for it now."""
        connection = self._connection.sync_connection
        assert connection is not None
        following = self._followings.get(connection)
        if following is None:
            following = self._followings[connection] = Following(connection)
        following.tell(tell)
        return following.look

    async def run(self, run_id: str) -> RunRow | None:
        """Return a run's row as the transaction sees it."""
        rows = await self._ask(runs.BY_ID, ids=[run_id])
        return self._reader.run(rows[0]) if rows else None

    async def run_by_key(self, namespace: str, workflow: str, key: str) -> RunRow | None:
        """Return the run that this start key made, as the transaction sees it."""
        rows = await self._ask(runs.BY_KEY, namespace=namespace, workflow=workflow, key=key)
        return self._reader.run(rows[0]) if rows else None

    async def history(self, run_id: str, *, generation: int | None = None) -> Sequence[Event]:
        """Return the events of a generation as the transaction sees them."""
        rows = await self._ask(runs.HISTORY, run_id=run_id, generation=generation)
        return [self._reader.event(row) for row in rows]

    async def _ask(self, statement: Statement, **values: object) -> Rows:
        async with self._turn:
            return await self._talk.fetch(statement, **values)


def session_of(session: object) -> AsyncSession | AsyncConnection:
    """Return what a host has passed as `session=`.

    Raises:
        SessionInvalid: it is neither a session nor a connection.
    """
    if isinstance(session, async_scoped_session):
        session = session()
    if isinstance(session, AsyncSession | AsyncConnection):
        return session
    raise SessionInvalid(f"session={session!r} cannot be used: {WANTED} (a sync Session or an engine is neither)")


async def connection_of(session: AsyncSession | AsyncConnection, engine: AsyncEngine) -> AsyncConnection:
    """Return the connection of a host's session, with its transaction begun.

    Raises:
        SessionInvalid: it is not on this engine, or not in a state to write in a transaction.
    """
    if isinstance(session, AsyncSession):
        try:
            connection = await session.connection()
        except InvalidRequestError as error:
            raise SessionInvalid(f"session= has no connection to write on ({error}); {WANTED}") from error
    else:
        connection = session
        if connection.sync_connection is None or connection.closed:
            raise SessionInvalid(f"session= is a connection that is not open; {WANTED}, within its `async with`")
    await _check(connection, engine)
    return connection


async def _check(connection: AsyncConnection, engine: AsyncEngine) -> None:
    if connection.engine.pool is not engine.pool:
        raise SessionInvalid(
            f"session= is bound to {connection.engine.url!r} by another engine than this instance's: {WANTED}, made from the engine "
            "that children() or application() was given (two engines may see different schemas of one database)"
        )
    if not connection.in_transaction():
        await connection.begin()
    raw = await connection.get_raw_connection()
    if connection.dialect.name == "sqlite":
        driver = raw.driver_connection
        assert driver is not None
        if driver.in_transaction:
            return
        if driver.isolation_level is not None:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
            return
    elif not connection.dialect.detect_autocommit_setting(raw.dbapi_connection):  # type: ignore[arg-type]
        return
    raise SessionInvalid(
        f"session= commits every statement by itself (AUTOCOMMIT): {WANTED}, one that has a transaction"
    )
