"""Transactions of the host's own, in which transactional activities write.

Each attempt takes one connection of the host's pool, for as long as it lasts; how many may at once is counted by whoever
begins attempts, and is less than the pool holds, so that the host's requests find one. What the activity writes, the end
of its task, the message with its result and what is remembered under its key are one transaction; `runs` and `events` are
not touched (docs/protocol.md says why). Nothing is set on a connection that would outlast the transaction.

SQLite has one writer, so one attempt at a time holds the whole database: its transaction begins IMMEDIATE, because one
that has read cannot become a writer once somebody else has written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.pool import AssertionPool, Pool, PoolProxiedConnection, QueuePool, StaticPool

from continuum.errors import ConfigurationError, NotAllowedHere
from continuum.journal.port import Ambiguous, HostedJournal
from continuum.journal.sql.dialects import Dialect
from continuum.journal.sql.dialects.sqlite import SQLITE, forget_at_close, roll_back_at_close
from continuum.journal.sql.lending import Loan, lend
from continuum.journal.sql.opening import dialect_of, words_of
from continuum.model.writes import Finish, Verdict

ANSWER_SECONDS = 30.0  # a COMMIT or ROLLBACK that is not answered for so long is as good as lost
UNBOUNDED_CONCURRENCY = 5  # where the pool has no bound: half of SQLAlchemy's usual one, generously
FAILED_TRANSACTION = "25P02"  # what PostgreSQL says to every statement after one that failed
ROLLED_BACK = (
    "the transaction is rolled back, by an error that the activity caught and went on from: let it through, or keep what "
    "may fail in session.begin_nested()"
)
CAUSES_MAX = 20  # how far a collision is looked for behind what the activity raised


class HostTransaction:
    """One attempt's transaction: `session` is the activity's, until `finish`."""

    def __init__(
        self,
        session: AsyncSession,
        loan: Loan,
        connection: AsyncConnection,
        driver: Any,
        journal: HostedJournal,
        dialect: Dialect,
    ) -> None:
        self.session = session
        self._loan = loan
        self._connection = connection
        self._driver = driver
        self._root = connection.get_transaction()
        self._journal = journal
        self._dialect = dialect

    async def flush(self) -> None:
        """Send what the session still holds.

        Raises:
            NotAllowedHere: the activity ended its transaction, or tried to, or went on after an error that ended it.
        """
        if self._loan.spoiled is not None:
            raise self._loan.spoiled
        if self._root is None or not self._root.is_active or self._has_ended_unseen():
            raise NotAllowedHere(ROLLED_BACK)
        await self.session.flush()

    def _has_ended_unseen(self) -> bool:
        """Tell whether SQLite has ended it behind SQLAlchemy's back: by ON CONFLICT ROLLBACK, by a trigger, by plain SQL."""
        return self._dialect is SQLITE and not self._driver.in_transaction

    async def finish(self, write: Finish) -> Verdict:
        """End the task and post the message in this transaction; anything but Posted: it is no longer ours to end."""
        try:
            hosted = await self._journal.hosted(self._connection)
            return await hosted.write(write)
        except DBAPIError as error:
            if getattr(error.driver_exception, "sqlstate", None) == FAILED_TRANSACTION:
                raise NotAllowedHere(ROLLED_BACK) from error
            raise

    async def commit(self) -> None:
        """Commit, once.

        Raises:
            Ambiguous: nobody knows whether it took effect; it must not be sent again. Anything else: it did not.
        """
        self._loan.is_returned = True
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.session.commit()  # through the session, whose events hosts may listen to
        except Exception as error:
            has_failed = self._connection.get_transaction() is not None  # else it was answered: a hook failed after it
            fault = self._dialect.fault(error, pure=False)
            await _throw_away(self._connection)  # SQLAlchemy takes it for ended, which nobody knows
            if not self._loan.is_committing or (has_failed and not (fault is None or isinstance(fault, Ambiguous))):
                raise
            raise Ambiguous(f"nobody knows whether COMMIT took effect: {error}") from error


class HostTransactions:
    """Makes them, on the host's engine.

    Args:
        engine: the host's; it is not altered.
        journal: whose tasks end in them.
        concurrency: how many at once; None: half of the pool, one on SQLite.

    Raises:
        ConfigurationError: `concurrency` would take all that the pool has.
    """

    def __init__(self, engine: AsyncEngine, journal: HostedJournal, *, concurrency: int | None) -> None:
        pool = engine.sync_engine.pool
        capacity = capacity_of(pool)
        self._engine = engine
        self._journal = journal
        self._dialect = words_of(engine) or dialect_of(engine)  # which says what would do
        self.locks_journal = self._dialect is SQLITE  # which has one writer
        self.trouble: str | None = None
        if capacity == 1:
            self.trouble = (
                f"Its transactions need a connection besides those of the host's requests, and the pool of {engine.url!r} "
                "has one in all: make the engine with a larger pool_size, or max_overflow"
            )
        elif concurrency is not None and capacity is not None and concurrency >= capacity:
            raise ConfigurationError(
                f"activity_supervisor.transactional_concurrency={concurrency} could take all {capacity} connections of "
                f"the pool of {engine.url!r} (pool_size + max_overflow), and the host's requests would wait for "
                f"activities: choose at most {capacity - 1}, or a larger pool"
            )
        self.concurrency = concurrency or self._usual_concurrency(pool)

    def _usual_concurrency(self, pool: Pool) -> int:
        if self._dialect is SQLITE:
            return 1
        size = pool.size() if isinstance(pool, QueuePool) else 0
        return max(1, size // 2) if size else UNBOUNDED_CONCURRENCY

    @asynccontextmanager
    async def begin(
        self, session_class: type[AsyncSession], isolation_level: str | None, activity: str
    ) -> AsyncIterator[HostTransaction]:
        """Begin a transaction on a connection of the host's; left uncommitted, nothing of it stays."""
        connection = await self._engine.connect()
        driver = None
        try:
            raw = await connection.get_raw_connection()
            driver = raw.driver_connection
            await self._open(connection, raw, isolation_level)
            session, loan = lend(session_class, connection, activity)
            try:
                await session.connection()  # joins its transaction, whether the activity uses it or not
                yield HostTransaction(session, loan, connection, driver, self._journal, self._dialect)
            finally:
                loan.is_returned = True
                try:
                    await _finally(_let_go(session))
                finally:
                    if loan.spoiled is not None:  # SQLAlchemy takes a COMMIT for sent that we have stopped at its door
                        await _finally(_throw_away(connection))
        finally:
            if self._dialect is SQLITE and driver is not None:
                forget_at_close(driver)
            await _finally(_give_back(connection))

    async def _open(self, connection: AsyncConnection, raw: PoolProxiedConnection, isolation_level: str | None) -> None:
        driver: Any = raw.driver_connection
        if self._dialect is SQLITE:  # whose transactions are serializable, whatever was asked for
            roll_back_at_close(driver)
            await connection.begin()  # and whatever the host's engine does at that
            if driver.in_transaction:  # begun by the host's own listeners, perhaps not for writing
                await connection.exec_driver_sql("ROLLBACK")
            await connection.exec_driver_sql(SQLITE.begin)
            return
        if isolation_level is None and connection.dialect.detect_autocommit_setting(raw.dbapi_connection):  # type: ignore[arg-type]
            isolation_level = "READ COMMITTED"  # an engine that commits each statement has none to inherit
        if isolation_level is not None:
            await connection.execution_options(isolation_level=isolation_level)  # the pool sets it back
        await connection.begin()

    def is_collision(self, error: BaseException) -> bool:
        """Tell whether a transaction failed only because of another one: a new one may well succeed."""
        seen = 0
        cause: BaseException | None = error
        while cause is not None and seen < CAUSES_MAX:
            if isinstance(cause, DBAPIError) and self._dialect.collides(cause):
                return True
            cause, seen = cause.__cause__ or cause.__context__, seen + 1
        return False


def capacity_of(pool: Pool) -> int | None:
    """Return how many connections a pool can give at once; None: as many as are asked for."""
    if isinstance(pool, StaticPool | AssertionPool):
        return 1
    if not isinstance(pool, QueuePool) or pool.size() == 0:
        return None
    overflow: int = vars(pool)["_max_overflow"]  # which SQLAlchemy tells nobody
    return None if overflow < 0 else pool.size() + overflow


async def _let_go(session: AsyncSession) -> None:
    """Close a session for good, which rolls back; objects that it held are the activity's."""
    with suppress(Exception):  # a broken connection: there is nothing to roll back any more
        async with asyncio.timeout(ANSWER_SECONDS):
            await session.close()


async def _give_back(connection: AsyncConnection) -> None:
    """Undo what was not committed and give the connection back; one that fails in this is thrown away."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await connection.close()
    except Exception:  # noqa: BLE001  whatever it is, it is not what came of the attempt
        await _throw_away(connection)


async def _throw_away(connection: AsyncConnection) -> None:
    """Let the pool forget a connection: the database rolls back what was open on it."""
    with suppress(Exception):
        await connection.invalidate()


async def _finally(leaving: Any) -> None:
    """Do it to the end, whoever cancels meanwhile: the connection is the host's."""
    task = asyncio.ensure_future(leaving)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
