"""PostgreSQL through psycopg's async driver, for hosts that have it already.

The words are those of `postgres`, with numbered parameters, which a raw cursor of psycopg takes as they are. Whoever
can choose takes asyncpg: it spends less time on a batch.

A statement that is cancelled takes its connection with it. psycopg would ask the server to stop it, and wait for as long
as that says nothing; a line gives such a connection up anyway. The connection is hung up, not closed: psycopg waits for
it to become readable, and the number of a closed one may belong to somebody else in the next moment.

psycopg speaks text, and makes of it what the session's settings say: times of the server's zone, characters of the
database's encoding. So a connection of ours says which, and times are UTC whoever's connection they come from.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from continuum.journal.sql.dialects import Manner, Rows
from continuum.journal.sql.dialects.pooled import Prepared, lasting_settings, local_settings
from continuum.journal.sql.dialects.postgres import GREETING, SETTINGS, Postgres

T = TypeVar("T")
LISTEN_SECONDS = 60.0  # then the server is asked whether it is still there
ANSWER_SECONDS = 60.0  # which it has this long to say
READABLE = {"client_encoding": "UTF8", "DateStyle": "ISO", "TimeZone": "UTC"}  # what psycopg reads text by


class Speaking:
    """How one speaks through psycopg: statements are kept prepared on a connection of ours, and never behind a pooler."""

    prelude: str | None = None
    _prepares = True

    async def fetch(
        self,
        connection: AsyncConnection,  # noqa: ARG002  which would do it too, and take longer
        driver: Any,
        prepared: Prepared,
        values: Mapping[str, object],
    ) -> Rows:
        """Execute a statement; return its rows."""
        sql, names = prepared
        cursor = _cursor(driver)
        bound = _bound(names, values)
        await _or_drop(driver, cursor.execute(sql, bound, prepare=self._prepares))
        rows: Rows = await cursor.fetchall() if cursor.description else ()
        return rows

    async def many(
        self,
        connection: AsyncConnection,  # noqa: ARG002  as in `fetch`
        driver: Any,
        prepared: Prepared,
        rows: Sequence[Mapping[str, object]],
    ) -> None:
        """Execute a statement once per row of parameters."""
        sql, names = prepared
        for row in rows:
            bound = _bound(names, row)
            await _or_drop(driver, _cursor(driver).execute(sql, bound, prepare=self._prepares))

    async def say(self, connection: AsyncConnection, driver: Any, command: str) -> None:  # noqa: ARG002  as in `fetch`
        """Execute a bare command."""
        await _or_drop(driver, _cursor(driver).execute(command, prepare=False))


class Pooled(Speaking):
    """Leaves nothing in a session; see `continuum.journal.sql.dialects.pooled`."""

    _prepares = False

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.prelude = local_settings(settings)


class Psycopg(Speaking, Postgres):
    """PostgreSQL's words, as psycopg takes them."""

    prelude = None

    async def greet(
        self,
        connection: AsyncConnection,  # noqa: ARG002  as in `fetch`
        driver: Any,
        *,
        label: str,
        lock_timeout_seconds: float,
    ) -> Manner:
        """Make a new connection ours; return how to speak on it."""
        types = import_module("psycopg.types.string")
        driver.adapters.register_loader("jsonb", types.TextLoader)  # as asyncpg gives it
        driver.adapters.register_dumper(bytes, types.BytesBinaryDumper)
        settings = SETTINGS | READABLE | {"lock_timeout": f"{int(lock_timeout_seconds * 1000)}ms"}
        lasting = lasting_settings(settings, label)
        cursor = _cursor(driver)
        bound = [self.process(driver), list(lasting), list(lasting.values())]
        await _or_drop(driver, cursor.execute(GREETING, bound, prepare=False))
        rows = await cursor.fetchall()
        return Pooled(settings) if rows[0].is_pooled else self

    def moment(self, stored: Any) -> datetime:
        """Turn a stored time into a datetime in UTC: arithmetic in another zone would count its changes of the clock."""
        moment: datetime = stored.astimezone(UTC)
        return moment

    def is_open(self, driver: Any) -> bool:
        """Whether the connection stands: psycopg hears of its end only when it reads, first what the server said last."""
        try:
            for _ in range(2):
                driver.pgconn.consume_input()
        except _error():
            return False
        return not driver.closed

    def abort(self, driver: Any) -> None:
        """Let go of a connection at once."""
        driver.pgconn.finish()

    def process(self, driver: Any) -> int:
        """Return the server's process."""
        pid: int = driver.info.backend_pid
        return pid

    @asynccontextmanager
    async def listening(
        self, driver: Any, channel: str, hear: Callable[[int, str], None], deafen: Callable[[], None]
    ) -> AsyncIterator[None]:
        """Listen: psycopg has no callbacks, so a task waits."""
        await driver.execute(f'LISTEN "{channel}"', prepare=False)
        waiting = asyncio.get_running_loop().create_task(_attend(driver, hear, deafen), name="continuum.listen.psycopg")
        try:
            yield
        finally:
            _hang_up(driver)  # which ends the wait
            await asyncio.gather(waiting, return_exceptions=True)  # that it broke was told by `deafen`

    async def probe(self, driver: Any, seconds: float) -> None:
        """Leave it to the task that waits, which asks from time to time."""

    def is_bad(self, error: BaseException) -> bool:
        """Whether the driver could not write a value."""
        return isinstance(error, import_module("psycopg").DataError | UnicodeError)


async def _attend(driver: Any, hear: Callable[[int, str], None], deafen: Callable[[], None]) -> None:
    try:
        while True:
            async for notice in driver.notifies(timeout=LISTEN_SECONDS):
                hear(notice.pid, notice.payload)
            async with asyncio.timeout(ANSWER_SECONDS):
                await _or_drop(driver, driver.execute("SELECT 1", prepare=False))
    finally:
        deafen()


async def _or_drop(driver: Any, asked: Coroutine[Any, Any, T]) -> T:
    """Await an answer; whoever is cancelled meanwhile gives the connection up at once."""
    answer = asyncio.ensure_future(asked)
    try:
        return await asyncio.shield(answer)
    except asyncio.CancelledError:
        if not answer.done():
            _hang_up(driver)
            await asyncio.gather(answer, return_exceptions=True)
        raise


def _hang_up(driver: Any) -> None:
    """End a connection as the server would, whatever it says: who waits for its answer is told so at once."""
    with suppress(OSError, _error()):  # it has ended already
        end = socket.fromfd(driver.pgconn.socket, socket.AF_UNSPEC, socket.SOCK_STREAM)
        with end:
            end.shutdown(socket.SHUT_RDWR)


def _bound(names: Sequence[str], values: Mapping[str, object]) -> list[object]:
    """Return parameters in their order; a tuple would be taken for a row."""
    return [list(value) if isinstance(value, tuple) else value for value in map(values.__getitem__, names)]


def _cursor(driver: Any) -> Any:
    cursor, rows = _parts()
    return cursor(driver, row_factory=rows)


@cache
def _error() -> type[Exception]:
    error: type[Exception] = import_module("psycopg").Error
    return error


@cache
def _parts() -> tuple[Any, Any]:
    """Return the class of cursors, and what makes rows with attributes."""
    return import_module("psycopg").AsyncRawCursor, import_module("psycopg.rows").namedtuple_row


PSYCOPG = Psycopg()
