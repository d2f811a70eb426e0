"""Where the parts of the journal sit: the line that reads, the line that writes, and the words for both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from continuum.journal.sql.dialects import Rows
from continuum.journal.sql.lines import Line, Talk
from continuum.journal.sql.rows import Reader
from continuum.journal.sql.statements.book import Book, Statement


@dataclass(frozen=True, slots=True)
class Desk:
    """Two lines, which on PostgreSQL are one: there claims and sweeps need not wait for the committer."""

    book: Book
    reader: Reader
    reading: Line
    writing: Line

    async def ask(self, statement: Statement, **values: object) -> Rows:
        """Execute a statement that changes nothing."""
        async with self.reading.talk(pure=True) as talk:
            return await talk.fetch(statement, **values)

    async def change(self, statement: Statement, **values: object) -> Rows:
        """Execute a statement that writes, by itself."""
        async with self.writing.talk() as talk:
            return await talk.fetch(statement, **values)

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[Talk]:
        """Execute several statements that take effect together."""
        async with self.writing.transaction() as talk:
            yield talk


class Part:
    """One subject of the journal, over a desk that all share."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
