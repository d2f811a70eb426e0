"""The journal in the team's own database.

Floors: `journal` (and its parts: owning, recovering, claiming, reading, scheduling, versioning, counting, noticing, writing, hosting) > `desk`, `lines` >
`statements` > `dialects` > `tables`. A part turns a method of the port into named statements and rows into values; it
decides nothing that a statement could decide.

Connections, all of them our own (see `lines`). PostgreSQL: two lanes for the committer, one for everything else, one
that listens, one for the heartbeat's thread. SQLite: one writer, one reader, one for the heartbeat's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from weakref import WeakKeyDictionary

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from continuum.errors import ConfigurationError, JournalUnavailable
from continuum.journal.port import Hosted, OwnerJournal
from continuum.journal.sql import judging, writing_postgres, writing_sqlite
from continuum.journal.sql.claiming import Claiming, Tending
from continuum.journal.sql.counting import Counting
from continuum.journal.sql.desk import Desk
from continuum.journal.sql.following import Following
from continuum.journal.sql.hosting import SqlHosted, connection_of, session_of
from continuum.journal.sql.lines import Line
from continuum.journal.sql.noticing import POOLED, Notices, channel_of
from continuum.journal.sql.opening import check_revision, check_server, claim_tables, dialect_of, instance_of
from continuum.journal.sql.owning import Owning
from continuum.journal.sql.reading import Keeping, Reading
from continuum.journal.sql.recovering import Recovering
from continuum.journal.sql.rows import Reader
from continuum.journal.sql.scheduling import Scheduling
from continuum.journal.sql.statements.book import Book
from continuum.journal.sql.versioning import Versioning
from continuum.journal.sql.writing import Writer
from continuum.journal.sql.writing_postgres import PostgresWriter
from continuum.journal.sql.writing_sqlite import SqliteWriter
from continuum.model.writes import Verdict, Write

LANES = 2
ANSWER_SECONDS = 30.0  # longer than any statement of ours takes; a connection that is silent for so long is given up
# Below PostgreSQL's deadlock_timeout (1 s), so that it is never a host's transaction that is ended for a deadlock.
LOCK_SECONDS_POSTGRES = 0.25
# Below a third of the shortest lease anybody should have (3 s): a renewal that waits for a writer must still be in time.
LOCK_SECONDS_SQLITE = 0.9
PATIENCE_SECONDS_SQLITE = 10.0  # then the verbs' callers, and an instance that starts, hear of the lock


class SqlJournal(Owning, Recovering, Claiming, Tending, Reading, Keeping, Scheduling, Versioning, Counting):
    """A journal on PostgreSQL (asyncpg) or SQLite (aiosqlite), for one instance on one node.

    Args:
        engine: the host's; it is neither altered nor disposed, and none of its pool's connections is used.
        schema: where the tables are, on PostgreSQL; default: wherever the connection's search_path finds them.
        listen_engine: for LISTEN, when `engine` leads through a pooler, which does not pass notices on.
        lock_timeout_seconds: how long a statement waits for somebody else's lock before it raises Contended.
        answer_timeout_seconds: how long a statement may take before its connection is given up.
        checks_revision: whether `open` looks at the version table; False trusts the host that the tables are right.

    Raises:
        ConfigurationError: the engine cannot be used.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        schema: str | None = None,
        listen_engine: AsyncEngine | None = None,
        lock_timeout_seconds: float | None = None,
        answer_timeout_seconds: float = ANSWER_SECONDS,
        checks_revision: bool = True,
    ) -> None:
        dialect = dialect_of(engine, schema=schema)
        is_postgres = dialect.name == "postgresql"
        if listen_engine is not None and dialect_of(listen_engine, schema=schema) is not dialect:
            raise ConfigurationError(
                f"listen_engine={listen_engine.url!r} has another driver than the engine, {engine.url!r}: make both with one"
            )
        self._engine = engine
        self._listen_engine = listen_engine or engine
        self._book = Book(dialect, schema)
        self._lock_timeout = lock_timeout_seconds or (LOCK_SECONDS_POSTGRES if is_postgres else LOCK_SECONDS_SQLITE)
        self._answer_timeout = answer_timeout_seconds
        self._checks_revision = checks_revision
        self.has_notices = is_postgres
        self.deafness = None if is_postgres else "SQLite has no notices"
        self._label = "continuum"
        self.lanes = LANES if is_postgres else 1
        lanes = [self._line(engine) for _ in range(self.lanes)]
        reading = self._line(engine)
        desk = (
            Desk(self._book, Reader(dialect), reading, reading)
            if is_postgres
            else Desk(self._book, Reader(dialect), reading, lanes[0], PATIENCE_SECONDS_SQLITE)
        )
        super().__init__(desk)
        self.write_within = writing_postgres.write_within if is_postgres else writing_sqlite.write_within
        self._lines = [*lanes, reading]
        self._writer: Writer = PostgresWriter(lanes) if is_postgres else SqliteWriter(lanes[0])
        self._notices = Notices(self._desk)
        self._heart: Line | None = None
        self._followings: WeakKeyDictionary[Connection, Following] = WeakKeyDictionary()  # of hosts' connections
        self._turns: WeakKeyDictionary[AsyncSession | AsyncConnection, asyncio.Lock] = WeakKeyDictionary()

    def _line(self, engine: AsyncEngine) -> Line:
        return Line(
            engine,
            self._book,
            lock_timeout_seconds=self._lock_timeout,
            answer_timeout_seconds=self._answer_timeout,
            label=self._label,
        )

    # --- life ---------------------------------------------------------------------------------------------------------

    async def open(self, instance: str) -> None:
        """Connect, check server and schema, claim the tables for `instance`.

        Raises:
            ConfigurationError, SchemaNotReady, SchemaTaken, JournalUnavailable.
        """
        self._label = f"continuum:{instance}"  # as pg_stat_activity shows it
        for line in self._lines:
            line.label = self._label
        schema = await self._check()
        await claim_tables(self._desk, instance)
        await self._try_ears()
        self._notices.channel = channel_of(self._book.schema or schema)

    async def look(self) -> str | None:
        """Connect and check, but write nothing; return whose tables these are. See `continuum.journal.port`."""
        await self._check()
        return await instance_of(self._desk)

    async def _check(self) -> str | None:
        schema = await check_server(self._desk)
        if self._checks_revision:
            await check_revision(self._desk, self._engine)
        return schema

    async def _try_ears(self) -> None:
        """Find out whether notices can be heard.

        Raises:
            ConfigurationError: there is an engine to listen with, and it leads through a pooler as well.
        """
        if self._listen_engine is self._engine:
            if self._desk.reading.is_pooled:
                self.deafness = f"{POOLED}; give it listen_engine=, an engine that connects to PostgreSQL directly"
            return
        line = self._line(self._listen_engine)
        try:
            await line.driver()
            is_pooled = line.is_pooled
        except JournalUnavailable:  # now; the listener tries again for ever
            return
        finally:
            await line.close()
        if is_pooled:
            raise ConfigurationError(f"listen_engine cannot listen: {POOLED}. Give it the server's own address")

    async def close(self) -> None:
        """Close the connections and end every `listen`; nothing is in flight any more."""
        self._notices.close()
        for line in self._lines:
            await line.close()

    def heart(self) -> OwnerJournal:
        """Return the owner statements on a connection of their own, for another thread and loop."""
        if self._heart is None:
            self._heart = self._line(self._engine)
        return Owning(Desk(self._book, self._desk.reader, self._heart, self._heart))

    async def close_heart(self) -> None:
        """Close the connection of `heart()`, on the loop that used it."""
        heart, self._heart = self._heart, None
        if heart is not None:
            await heart.close()

    # --- writes -------------------------------------------------------------------------------------------------------

    async def write(self, lane: int, batch: Sequence[Write]) -> Sequence[Verdict]:
        """Write a batch in one transaction; see `continuum.journal.port`."""
        return await self._writer.write(lane, batch)

    async def judge(self, write: Write) -> Verdict | None:
        """Say after an ambiguous answer what became of a write; None: it did not arrive, send it again."""
        return await judging.judge(self._desk, write)

    async def hosted(self, session: object) -> Hosted:
        """Return the journal's statements in a host's open transaction; see `continuum.journal.port`."""
        host = session_of(session)
        turn = self._turns.setdefault(host, asyncio.Lock())
        async with turn:
            connection = await connection_of(host, self._engine)
        return SqlHosted(connection, self._book, self._desk.reader, self.write_within, self._followings, turn)

    # --- notices ------------------------------------------------------------------------------------------------------

    async def notify(self, notices: Sequence[str]) -> None:
        """Tell the other processes of this instance; does nothing where there are no notices."""
        if self.has_notices and notices:
            await self._notices.notify(notices)

    async def listen(self) -> AsyncGenerator[Sequence[str], None]:
        """Yield notices as they come, an empty one first; ends at once where there are none."""
        if self.has_notices:
            async with aclosing(self._notices.listen(self._line(self._listen_engine))) as heard:
                async for notices in heard:
                    yield notices
