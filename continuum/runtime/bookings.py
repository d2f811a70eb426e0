"""The transactional attempts that run in this process, and what comes of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Protocol

from continuum.definitions.activity import Activity
from continuum.errors import ContinuumError
from continuum.journal.port import TaskJournal
from continuum.model.failure import Failure
from continuum.model.messages import Message
from continuum.model.tasks import Attempt, Beat, ClaimedTask
from continuum.model.writes import Posted
from continuum.runtime.attempt import RunningAttempt, Workplace
from continuum.runtime.delivery import Delivery
from continuum.runtime.node import Node
from continuum.runtime.recalling import key_of, recalled, recorded
from continuum.runtime.transactional import Desk, TransactionalAttempt, Transactions

FORGOTTEN = Failure("continuum.Forestalled", "what was booked under the key is gone again", retry_after=0.0)
GIVE_BACK_SECONDS = 5.0  # a rollback takes milliseconds; a function that will not be cancelled keeps nobody


class Keeper(Protocol):
    """Who keeps all attempts of this process."""

    def forget(self, attempt: RunningAttempt) -> None:
        """Take note that it runs no more."""
        ...

    def settled(self, attempt: Attempt) -> None:
        """Take note that its last write is settled."""
        ...

    def seconds(self, attempt: RunningAttempt) -> float | None:
        """Return how long it has lasted, if anybody wants to know."""
        ...

    def chore(self, coroutine: Coroutine[object, None, None]) -> None:
        """Do something that a drain waits for."""
        ...


class Bookings:
    """Makes transactional attempts, and hears what they report."""

    def __init__(
        self,
        *,
        node: Node,
        journal: TaskJournal,
        delivery: Delivery,
        transactions: Transactions,
        keeper: Keeper,
    ) -> None:
        self.concurrency = transactions.concurrency
        self._journal = journal
        self._clock = node.clock
        self._delivery = delivery
        self._keeper = keeper
        self._desk = Desk(transactions, self, node.new_id, node.draw.random, node.emit)
        self._open: set[RunningAttempt] = set()  # until their connections are the host's again

    def attempt(self, task: ClaimedTask, activity: Activity[..., Any], place: Workplace) -> RunningAttempt:
        """Return an attempt, not begun."""
        attempt = TransactionalAttempt(task, activity, place, self._desk)
        self._open.add(attempt)
        return attempt

    def vacated(self, attempt: RunningAttempt) -> None:
        """Hear that an attempt's connection is the host's again."""
        self._open.discard(attempt)

    async def close(self) -> None:
        """Wait until cancelled transactions are rolled back: whoever stops us may dispose of their pool next."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GIVE_BACK_SECONDS):
                for attempt in tuple(self._open):
                    await attempt.finished()

    # --- what attempts report -----------------------------------------------------------------------------------------

    def booked(self, attempt: TransactionalAttempt, message: Message, verdict: Posted) -> None:
        """Hear that a transaction has committed, with the task's end and the message."""
        self._keeper.forget(attempt)
        self._keeper.settled(attempt.task.attempt)
        self._delivery.booked(attempt.task, message, verdict, seconds=self._keeper.seconds(attempt))
        if attempt.trace is not None:
            attempt.trace.ended(None)

    def superseded(self, attempt: TransactionalAttempt) -> None:
        """Hear that a transaction was rolled back, because its task is over or another attempt's."""
        self._keeper.forget(attempt)
        self._keeper.settled(attempt.task.attempt)
        self._delivery.superseded(attempt.task.attempt)
        if attempt.trace is not None:
            attempt.trace.withdrawn()

    def forestalled(self, attempt: TransactionalAttempt) -> None:
        """Hear that a transaction was rolled back, because another one has booked under its idempotency key."""
        self._keeper.forget(attempt)
        self._keeper.chore(self._recall(attempt))

    async def _recall(self, attempt: TransactionalAttempt) -> None:
        """Answer with what was booked under the key; if that is gone again, the next attempt books."""
        task = attempt.task
        with contextlib.suppress(ContinuumError):  # the instance stops: the sweep finds the task
            known = await recorded(self._journal, self._clock, [task])
            answer = recalled(task, attempt.activity, known.get(key_of(task))) or FORGOTTEN
            if isinstance(answer, Failure):
                self._delivery.failed(task, answer, self._keeper, seconds=self._keeper.seconds(attempt))
            else:
                self._delivery.recalled(task, answer, self._keeper)
        if attempt.trace is not None:
            attempt.trace.withdrawn()

    def doubted(self, attempt: TransactionalAttempt, message: Message, failure: Failure) -> None:
        """Hear that nobody knows whether a transaction has committed."""
        self._keeper.forget(attempt)
        self.judge(attempt, message, failure)

    def judge(self, attempt: RunningAttempt, message: Message, failure: Failure) -> None:
        """Find out what became of a transaction that would have brought a message; if nothing, the attempt has failed."""
        self._keeper.chore(self._judge(attempt, message, failure))

    async def _judge(self, attempt: RunningAttempt, message: Message, failure: Failure) -> None:
        seconds, is_booked = self._keeper.seconds(attempt), False
        try:
            with contextlib.suppress(ContinuumError):  # the instance stops: the sweep finds the task, if it is there
                is_booked = await self._delivery.doubted(attempt.task, message, failure, seconds=seconds)
                self._keeper.settled(attempt.task.attempt)
        finally:
            if attempt.trace is not None:
                attempt.trace.ended(None if is_booked else failure)

    async def is_theirs(self, attempt: Attempt) -> bool:
        """Tell whether a task is still this attempt's; if nobody can say, it may be."""
        try:
            return bool(await self._journal.heartbeat_tasks([Beat(attempt, None, is_quiet=True)]))
        except ContinuumError:
            return True
