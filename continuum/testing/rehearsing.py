"""Transactional activities in tests: the host's own database, while the journal stays in memory.

What an activity writes commits on the test's engine, and its task ends in the journal right after. That is no single
transaction, and need not be one: nothing dies between the two in a test that is still there to look.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from continuum.composition.options import Settings
from continuum.composition.transacting import MakeTransactions, no_transactions
from continuum.journal.port import Journal
from continuum.journal.sql import HostTransaction, HostTransactions
from continuum.model.tasks import Beat
from continuum.model.writes import REFUSED, Duplicate, Finish, Posted, Verdict
from continuum.runtime.transactional import Transaction, Transactions


def rehearsals_on(engine: AsyncEngine | None) -> MakeTransactions:
    """Return how to make transactions on a test's engine; without one there are none."""
    if engine is None:
        return no_transactions

    def make(journal: Journal, _settings: Settings) -> Transactions:
        return Rehearsals(engine, journal)

    return make


class Rehearsal:
    """One attempt's transaction, and what the journal is to be told when it has committed."""

    def __init__(self, transaction: HostTransaction, journal: Journal) -> None:
        self.session = transaction.session
        self._transaction = transaction
        self._journal = journal
        self._finish: Finish | None = None

    async def flush(self) -> None:
        """Send what the session still holds."""
        await self._transaction.flush()

    async def finish(self, write: Finish) -> Verdict:
        """Look whether the task may be ended; `commit` ends it."""
        if not await self._journal.heartbeat_tasks([Beat(write.attempt, None, is_quiet=True)]):
            return REFUSED
        if write.result is not None and await self._journal.results([write.result.key]):
            return Duplicate()
        self._finish = write
        row = await self._journal.run(write.message.run_id)
        return Posted(None if row is None else row.lease_owner)

    async def commit(self) -> None:
        """Commit, and end the task."""
        await self._transaction.commit()
        assert self._finish is not None
        await self._journal.write(0, [self._finish])


class Rehearsals:
    """Makes them."""

    trouble = None
    locks_journal = False  # which is in memory

    def __init__(self, engine: AsyncEngine, journal: Journal) -> None:
        self._real = HostTransactions(engine, journal, concurrency=None)
        self._journal = journal
        self.concurrency = self._real.concurrency
        self.is_collision = self._real.is_collision

    @asynccontextmanager
    async def begin(
        self, session_class: type[AsyncSession], isolation_level: str | None, activity: str
    ) -> AsyncIterator[Transaction]:
        """Begin a transaction on a connection of the test's engine."""
        async with self._real.begin(session_class, isolation_level, activity) as transaction:
            yield Rehearsal(transaction, self._journal)
