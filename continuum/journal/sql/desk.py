"""Where the parts of the journal sit: the line that reads, the line that writes, and the words for both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from continuum.journal.port import Contended
from continuum.journal.sql.dialects import Rows
from continuum.journal.sql.lines import Line, Talk
from continuum.journal.sql.rows import Reader
from continuum.journal.sql.statements.book import Book, Statement

T = TypeVar("T")

PAUSE_SECONDS = 0.02  # a writer's turn on SQLite takes less


@dataclass(frozen=True, slots=True)
class Desk:
    """Two lines, which on PostgreSQL are one: there claims and sweeps need not wait for the committer.

    On SQLite any other writer, a host's open transaction too, is in the way of every change. So what is contended is
    tried again for `patience_seconds`; not in one long wait for the lock, because a statement knows the time at which it
    was sent, and leases are made of that.
    """

    book: Book
    reader: Reader
    reading: Line
    writing: Line
    patience_seconds: float = 0.0

    async def ask(self, statement: Statement, **values: object) -> Rows:
        """Execute a statement that changes nothing."""
        async with self.reading.talk(pure=True) as talk:
            return await talk.fetch(statement, **values)

    async def change(self, statement: Statement, **values: object) -> Rows:
        """Execute a statement that writes, by itself."""

        async def once() -> Rows:
            async with self.writing.talk() as talk:
                return await talk.fetch(statement, **values)

        return await self._patiently(once)

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[Talk]:
        """Execute several statements that take effect together."""
        async with AsyncExitStack() as stack:  # what is contended is its beginning
            yield await self._patiently(lambda: stack.enter_async_context(self.writing.transaction()))

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        clock = asyncio.get_running_loop().time
        until = clock() + self.patience_seconds
        while True:
            try:
                return await attempt()
            except Contended:
                if clock() >= until:
                    raise
            await asyncio.sleep(PAUSE_SECONDS)


class Part:
    """One subject of the journal, over a desk that all share."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
