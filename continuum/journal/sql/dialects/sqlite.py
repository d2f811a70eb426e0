"""SQLite through aiosqlite.

Times are integers, microseconds since 1970: SQLite has no type for them, text compares wrongly across formats, and
`julianday` knows milliseconds only, in which two events of one turn would tie. So `now` is a parameter that is read
from this machine's clock at the moment of each statement (SQLite's own clock is the same one: the database lives in
this process). A statement that waits for the write lock has a `now` that is at most `busy_timeout` old, which errs on
the safe side everywhere: leases are renewed for a little less, nobody is declared dead early. Inside BEGIN IMMEDIATE
it is read with the lock held.

Tables made of parameters are JSON, which carries no blobs: rows with payloads go through executemany instead.
"""

# ruff: noqa: S608  words of templates; every value is bound

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import TextClause
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from continuum.clock import EPOCH, SystemClock
from continuum.errors import ConfigurationError, ContinuumError, JournalUnavailable
from continuum.journal.port import Ambiguous, BadData, Contended
from continuum.journal.sql.dialects import Columns, Manner, Rows, folded

SWITCH_SECONDS = 0.02  # between two tries to switch a file to WAL that somebody writes to
INTERRUPT_SECONDS = 0.05  # of a statement that nobody waits for: then it is interrupted
_MICROSECOND = timedelta(microseconds=1)
_CLOCK = SystemClock()

_CONTENDED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DATA = frozenset({sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE})


def microseconds(moment: datetime) -> int:
    """Return a time as it is stored."""
    return (moment - EPOCH) // _MICROSECOND


class Sqlite:
    """The words of SQLite."""

    name = "sqlite"
    now = ":now"
    forget_plans = None
    prelude = None
    begin = "BEGIN IMMEDIATE"  # a deferred one could not become a writer once somebody else has written

    def later(self, seconds: str) -> str:
        """Return SQL for a time so many seconds from now."""
        return f":now + CAST(ROUND(({seconds}) * 1000000) AS INTEGER)"

    def among(self, values: str) -> str:
        """Return SQL for "is one of the values of a list"."""
        return f"IN (SELECT value FROM json_each(:{values.split(maxsplit=1)[0]}))"

    def within(self, query: str) -> str:
        """Return SQL for "is one of what a query gives"."""
        return f"IN ({query})"

    def rows(self, alias: str, columns: Columns) -> str:
        """Return SQL for a table made of rows."""
        cells = ", ".join(f"json_extract(value, '$[{n}]') AS {column}" for n, (column, _) in enumerate(columns))
        return folded(f"(SELECT {cells} FROM json_each(:{alias})) AS {alias}")

    def merged(self, attributes: str, changes: str) -> str:
        """Return SQL for attributes after changes."""
        return f"NULLIF(json_patch(COALESCE({attributes}, '{{}}'), {changes}), '{{}}')"

    def lock(self, alias: str) -> str:  # noqa: ARG002  the whole database is locked
        """Return the clause that locks rows and passes over locked ones."""
        return ""

    def table(self, name: str, schema: str | None) -> str:  # noqa: ARG002  refused earlier: there are no schemas
        """Return a table's name."""
        return name

    def values(self, given: Mapping[str, object], rows: Mapping[str, Columns]) -> dict[str, object]:
        """Turn parameters into what the driver takes."""
        bound = {name: _cell(value) for name, value in given.items() if name not in rows}
        for name in rows:
            table: Any = given[name]
            bound[name] = _json([[_cell(value) for value in row] for row in table])
        bound["now"] = microseconds(_CLOCK.now())
        return bound

    def moment(self, stored: Any) -> datetime:
        """Turn a stored time into a datetime."""
        return EPOCH + int(stored) * _MICROSECOND

    def prepared(self, clause: TextClause) -> TextClause:
        """Return a statement as `fetch` takes it."""
        return clause

    async def fetch(
        self,
        connection: AsyncConnection,
        driver: Any,  # noqa: ARG002  its thread takes longer than SQLAlchemy does
        prepared: TextClause,
        values: Mapping[str, object],
    ) -> Rows:
        """Execute a statement; return its rows."""
        result = await connection.execute(prepared, values)
        return result.all() if result.returns_rows else ()

    async def many(
        self,
        connection: AsyncConnection,
        driver: Any,  # noqa: ARG002  as in `fetch`
        prepared: TextClause,
        rows: Sequence[Mapping[str, object]],
    ) -> None:
        """Execute a statement once per row of parameters."""
        await connection.execute(prepared, rows)

    async def say(self, connection: AsyncConnection, driver: Any, command: str) -> None:  # noqa: ARG002  as in `fetch`
        """Execute a bare command."""
        await connection.exec_driver_sql(command)

    async def greet(
        self,
        connection: AsyncConnection,
        driver: Any,
        *,
        label: str,  # noqa: ARG002  nobody lists connections to a file
        lock_timeout_seconds: float,
    ) -> Manner:
        """Make a new connection ours; return how to speak on it."""
        mode = await self._write_ahead(connection)
        if mode != "wal":
            raise ConfigurationError(
                f"SQLite stays in journal_mode={mode}: the database must be a file on a local disk"
            )
        roll_back_at_close(driver)
        for pragma in ("synchronous=FULL", f"busy_timeout={int(lock_timeout_seconds * 1000)}"):
            await connection.exec_driver_sql(f"PRAGMA {pragma}")
        return self

    async def _write_ahead(self, connection: AsyncConnection) -> str:
        """Switch to WAL; return the mode. Another process may just be making the first tables in this file.

        It refuses to wait for a writer, whatever `busy_timeout` says; who connects bounds how long this may take.
        """
        while True:
            try:
                mode: str = (await connection.exec_driver_sql("PRAGMA journal_mode=WAL")).scalar_one()
            except DBAPIError as error:
                if not isinstance(self.fault(error, pure=True), Contended):
                    raise
                await asyncio.sleep(SWITCH_SECONDS)
            else:
                return mode

    def process(self, driver: Any) -> int:  # noqa: ARG002  a file has no server
        """Return 0."""
        return 0

    def listening(
        self,
        driver: Any,  # noqa: ARG002
        channel: str,  # noqa: ARG002
        hear: Callable[[int, str], None],  # noqa: ARG002
        deafen: Callable[[], None],  # noqa: ARG002
    ) -> AbstractAsyncContextManager[None]:
        """Refuse: nobody asks, for `has_notices` is false here."""
        raise ConfigurationError("SQLite has no notices")

    async def probe(self, driver: Any, seconds: float) -> None:
        """Do nothing: nobody listens."""

    def is_open(self, driver: Any) -> bool:  # noqa: ARG002  a file does not hang up
        """Whether the driver believes in its connection."""
        return True

    def abort(self, driver: Any) -> None:
        """Do nothing: the pool closes it, after what its thread is still doing."""

    def collides(self, error: DBAPIError) -> bool:
        """Tell whether a host's transaction failed because of another one alone."""
        code = getattr(error.driver_exception, "sqlite_errorcode", None)
        return code is not None and code & 0xFF in _CONTENDED

    def fault(self, error: BaseException, *, pure: bool) -> ContinuumError | None:
        """Translate what the driver raised."""
        lost = JournalUnavailable if pure else Ambiguous
        if isinstance(error, TimeoutError):
            return lost("SQLite did not answer in time")
        if isinstance(error, OverflowError | UnicodeError):
            return BadData(f"SQLite does not take a value: {error}")
        if not isinstance(error, DBAPIError | sqlite3.Error):
            return None
        driver = error.driver_exception if isinstance(error, DBAPIError) else error
        code = getattr(driver, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF  # the rest is the extended code
        if primary in _CONTENDED:
            return Contended("SQLite is locked by another writer")
        if primary in _DATA:
            return BadData(f"SQLite does not take a value: {driver}")
        return lost(f"SQLite failed (code {code}): {driver}")


def end_transaction(dbapi_connection: Any, _record: object) -> None:
    """Let a connection of ours, just made, begin no transactions by itself, as it would with `autocommit=False`.

    That is how SQLAlchemy recommends to have them on Python 3.12; ours are said in SQL.

    Raises:
        ConfigurationError: it is one with `autocommit=True`, and so are the host's: they would never commit.
    """

    async def end(driver: Any) -> None:
        await driver._execute(_begin_by_word, driver._conn)  # noqa: SLF001  aiosqlite has no other way

    if sys.version_info >= (3, 12):  # before there was one way only
        dbapi_connection.run_async(end)


def _begin_by_word(connection: Any) -> None:
    if connection.autocommit is True:
        raise ConfigurationError(
            'connect_args={"autocommit": True} makes commit() and rollback() do nothing, so that a transactional activity '
            "would never end: leave it out, or say False"
        )
    if connection.in_transaction:
        connection.autocommit = True  # which ends the transaction
        connection.autocommit = -1  # sqlite3.LEGACY_TRANSACTION_CONTROL, as on Python 3.11


def roll_back_at_close(driver: Any) -> None:
    """Let a connection that is closed end what it was doing, and so give up the write lock.

    SQLite itself keeps a closed connection, its transaction and its lock until the last of its statements is collected. A
    cancelled one is held by frames and errors in cycles, so until the garbage collector passes, perhaps minutes later, nobody
    else could write.
    """

    async def close() -> None:
        forget_at_close(driver)  # and leave no cycle
        rolling_back = asyncio.ensure_future(driver.rollback())
        if not (await asyncio.wait([rolling_back], timeout=INTERRUPT_SECONDS))[0]:
            with suppress(ValueError):  # it is closed by now
                await driver.interrupt()
        with suppress(sqlite3.Error, ValueError):
            await rolling_back
        await driver.close()

    driver.close = close


def forget_at_close(driver: Any) -> None:
    """Take that back, from a connection that goes on as a host's."""
    vars(driver).pop("close", None)


def _json(value: object) -> str:
    # Not escaped: a lone surrogate must not get past the driver, who will refuse it, into a text that cannot be read.
    return json.dumps(value, ensure_ascii=False)


def _cell(value: object) -> object:
    match value:
        case int() | None:
            return value
        case str():
            if "\0" in value:
                raise BadData("SQLite does not take a NUL in a text: its JSON functions cut it off there")
            return value
        case datetime():
            return microseconds(value)
        case list() | tuple():
            return _json(value)
        case _:
            return value


SQLITE = Sqlite()
