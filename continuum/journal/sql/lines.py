"""Connections of our own, each held for as long as it works.

A host's pool serves the host. The journal takes its few connections from pools that are made like the host's
(`pool.recreate()`: the same creator, connect_args, TLS, token and connect events) and altered by nobody else; one pool
per line, so that it does not matter how many connections the host's may hold, nor on which thread and loop a line is
used. The host's engine is neither altered nor disposed.

A line runs one statement, or one transaction, at a time; who comes meanwhile waits. When its connection breaks, or an
answer stays out, or the waiting caller is cancelled in mid-statement, the connection is thrown away and the next use
makes a new one: after any of these nobody knows what the server will do with it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from continuum.errors import ConfigurationError, JournalUnavailable
from continuum.journal.port import BadData, Contended
from continuum.journal.sql.dialects import Dialect, Manner, Rows
from continuum.journal.sql.dialects.sqlite import SQLITE, end_transaction
from continuum.journal.sql.statements.book import Book, Rendered, Statement

PLAN_USES = 100  # see `dialects.postgres`
FIRST_PAUSE_SECONDS = 0.01  # between two looks whether somebody else's first connection is there
CONNECT_SECONDS = 10.0  # a server that lets us wait longer is as good as not there; the caller comes again


def private_engine(host: AsyncEngine) -> AsyncEngine:
    """Make an engine like the host's with a pool of its own; `hide_parameters`, because payloads are nobody's business."""
    engine = host.sync_engine
    pool = engine.pool.recreate()
    if engine.dialect.name == SQLITE.name:
        event.listen(pool, "connect", end_transaction)
    return AsyncEngine(Engine(pool, engine.dialect, engine.url, hide_parameters=True))


_first_lock = threading.Lock()
_settled: WeakSet[Any] = WeakSet()  # dialects that have seen a connection
_settling: WeakSet[Any] = WeakSet()  # those whose first is being made


@asynccontextmanager
async def alone_at_first(engine: AsyncEngine) -> AsyncIterator[None]:
    """Let nobody else connect by an engine's dialect while it is used for the first time, on any loop and thread.

    By its first connection SQLAlchemy learns what server this is, and keeps it in the dialect; whoever comes meanwhile is
    made to wait by SQLAlchemy within one pool only, and ours are several.
    """
    dialect = engine.dialect
    while not _may_connect(dialect):  # noqa: ASYNC110  # an event belongs to one loop
        await asyncio.sleep(FIRST_PAUSE_SECONDS)
    try:
        yield
        with _first_lock:
            _settled.add(dialect)
    finally:
        with _first_lock:
            _settling.discard(dialect)


def _may_connect(dialect: object) -> bool:
    with _first_lock:
        if dialect in _settled:
            return True
        if dialect in _settling:
            return False
        _settling.add(dialect)
        return True


class Talk:
    """What may be said on a line while one has it."""

    def __init__(self, connection: AsyncConnection, driver: Any, manner: Manner, book: Book) -> None:
        self._connection = connection
        self._driver = driver
        self._manner = manner
        self._book = book
        self.is_undone = False

    def undo(self) -> None:
        """Let the transaction end without effect."""
        self.is_undone = True

    async def fetch(self, statement: Statement, **values: object) -> Rows:
        """Execute a statement; return its rows, if it has any."""
        rendered = self._book[statement]
        bound = self._values(rendered, values)
        return await self._manner.fetch(self._connection, self._driver, rendered.prepared, bound)

    async def many(self, statement: Statement, rows: Sequence[Mapping[str, object]]) -> None:
        """Execute a statement once per row of parameters, in one go."""
        rendered = self._book[statement]
        bound = [self._values(rendered, row) for row in rows]
        await self._manner.many(self._connection, self._driver, rendered.prepared, bound)

    async def say(self, sql: str) -> None:
        """Execute a bare command."""
        await self._manner.say(self._connection, self._driver, sql)

    def _values(self, rendered: Rendered, values: Mapping[str, object]) -> dict[str, object]:
        return self._book.dialect.values(values, rendered.rows)


@asynccontextmanager
async def _whole(talk: Talk, begin: str) -> AsyncIterator[None]:
    """Make a transaction of what is said."""
    await talk.say(begin)
    try:
        yield
        await talk.say("ROLLBACK" if talk.is_undone else "COMMIT")
    # Whatever it is, nothing of the transaction may remain. (A cancelled one ends with its line.)
    except Exception:
        with suppress(Exception):  # a broken connection rolls back by ending; it is the first error that counts
            await talk.say("ROLLBACK")
        raise


class Line:
    """One held connection, in autocommit: a single statement needs no BEGIN and no COMMIT."""

    def __init__(
        self,
        host: AsyncEngine,
        book: Book,
        *,
        lock_timeout_seconds: float,
        answer_timeout_seconds: float,
        label: str = "continuum",
    ) -> None:
        self._engine = private_engine(host)
        self._book = book
        self._lock_timeout = lock_timeout_seconds
        self._answer_timeout = answer_timeout_seconds
        self.label = label
        self._lock = asyncio.Lock()
        self._connection: AsyncConnection | None = None
        self._driver: Any = None
        self._manner: Manner = book.dialect  # until a connection says otherwise
        self._uses = 0
        self._failures = 0  # how many tries to connect have failed
        self._trouble = ""  # the last one

    @property
    def _dialect(self) -> Dialect:
        return self._book.dialect

    @asynccontextmanager
    async def talk(self, *, pure: bool = False) -> AsyncIterator[Talk]:
        """Have the line for a while; each statement is a transaction of its own.

        `pure` says that all of them only read, so that a lost answer is merely an outage.

        Raises:
            Contended, BadData: the statement did nothing.
            JournalUnavailable: not connected, or (pure) no answer; Ambiguous: no answer.
        """
        failures = self._failures
        async with self._lock:
            connection = await self._connected(failures)
            try:
                async with asyncio.timeout(self._answer_timeout):
                    talk = Talk(connection, self._driver, self._manner, self._book)
                    if self._manner.prelude is not None:
                        async with _whole(talk, self._manner.prelude):
                            yield talk
                    else:
                        await self._refresh(talk)
                        yield talk
            except BaseException as error:
                fault = error if isinstance(error, BadData) else self._dialect.fault(error, pure=pure)
                if not isinstance(fault, Contended | BadData):
                    await self._discard()
                if fault is None or fault is error:
                    raise
                raise fault from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Talk]:
        """Have the line for several statements that take effect together, or not at all. Raises as `talk` does."""
        async with self.talk() as talk:
            if self.is_pooled:  # `talk` has begun it
                yield talk
            else:
                async with _whole(talk, self._dialect.begin):
                    yield talk

    async def _refresh(self, talk: Talk) -> None:
        self._uses += 1
        if self._uses % PLAN_USES == 0 and self._dialect.forget_plans is not None:
            await talk.say(self._dialect.forget_plans)

    @property
    def is_pooled(self) -> bool:
        """Whether its (latest) connection leads through a pooler."""
        return self._manner.prelude is not None

    async def driver(self) -> Any:
        """Return the driver's own connection, connecting if need be."""
        failures = self._failures
        async with self._lock:
            await self._connected(failures)
            return self._driver

    async def close(self) -> None:
        """Close the connection, on the loop that used it."""
        async with self._lock:
            if self._connection is not None and not self._dialect.is_open(self._driver):
                await self._discard()  # there is nothing left to end in good order
            elif self._connection is not None:
                connection, self._connection, self._driver = self._connection, None, None
                with suppress(DBAPIError, OSError):  # it is of no use any more either way
                    await connection.close()
            await self._engine.dispose()

    async def _connected(self, failures: int) -> AsyncConnection:
        """Return the connection; `failures` is how many tries had failed when the caller came.

        Who waited while another one tried in vain is told so: a queue at a server that says nothing would move once in
        ten seconds.
        """
        if self._connection is not None and not self._dialect.is_open(self._driver):
            await self._discard()
        if self._connection is None:
            if failures != self._failures:
                raise JournalUnavailable(self._trouble)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    self._connection = await self._connect()
            except ConfigurationError:
                raise
            # Creators belong to hosts and to drivers: whatever they raise means that there is no connection.
            except Exception as error:
                said = str(error) or "no answer in time"
                self._failures += 1
                self._trouble = f"cannot connect to {self._engine.url!r}: {said}"
                raise JournalUnavailable(self._trouble) from error
        return self._connection

    async def _connect(self) -> AsyncConnection:
        async with alone_at_first(self._engine):
            connection = await self._opened()
        try:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            self._driver = (await connection.get_raw_connection()).driver_connection
            self._manner = await self._dialect.greet(
                connection, self._driver, label=self.label, lock_timeout_seconds=self._lock_timeout
            )
        except BaseException:
            await connection.invalidate()
            await connection.close()
            raise
        return connection

    async def _opened(self) -> AsyncConnection:
        """Open a connection; a file's to the end, whoever is cancelled: aiosqlite would lose what its thread has opened."""
        if self._dialect is not SQLITE:
            return await self._engine.connect()
        connection = self._engine.connect()
        opening = asyncio.ensure_future(connection.start())
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            await asyncio.wait([opening], timeout=CONNECT_SECONDS)
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                await connection.close()
            raise

    async def _discard(self) -> None:
        if self._connection is None:
            return
        connection, driver, self._connection, self._driver = self._connection, self._driver, None, None
        # Nothing that goes wrong here matters: the connection is given up, and the reason for it is being raised.
        with suppress(Exception):
            self._dialect.abort(driver)
            await connection.invalidate()
            await connection.close()
