"""Owns the attempts that run in this process: their slots, their heartbeats, their end.

Slots are counted by real attempts: one is reserved before a task is leased here, and free again when the function has
returned (a `def` that outlives its timeout keeps it). A queue with a limit of its own counts within the global one, and
so do the threads of `def` activities and the connections of transactional ones: none is begun to wait for them while its timeout runs. Once per interval one statement carries the heartbeats of all attempts; those missing from its answer belong to nobody any
more and are cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from continuum.definitions.activity import Activity
from continuum.journal.port import TaskJournal
from continuum.model.failure import Failure
from continuum.model.results import ActivityResult
from continuum.model.tasks import Attempt, ClaimedTask, TaskKey
from continuum.runtime.activity_finder import ActivityFinder
from continuum.runtime.attempt import TIMED_OUT, RunningAttempt, Workplace
from continuum.runtime.bookings import Bookings
from continuum.runtime.component import Loop
from continuum.runtime.delivery import Delivery
from continuum.runtime.node import Node
from continuum.runtime.recalling import key_of, recalled, recorded
from continuum.runtime.telling import facts_of_task, lasted
from continuum.runtime.threads import DaemonThreads
from continuum.runtime.transactional import Transactions
from continuum.runtime.wakes import Wakes
from continuum.telemetry import heard

HAND_OVER_SECONDS = 2.0  # past a drain's deadline, for the last heartbeats' details: a statement takes milliseconds


class ActivitySupervisor(Loop):
    """Runs attempts within limits; its pass sends the heartbeats."""

    def __init__(
        self,
        name: str,
        *,
        node: Node,
        journal: TaskJournal,
        activities: ActivityFinder,
        delivery: Delivery,
        wakes: Wakes,
        transactions: Transactions,
        interval: float | None,
        max_concurrency: int,
        threads: int,
        queues: Mapping[str, int],
        state: Any,
        payload_max: int,
        details_max: int,
    ) -> None:
        super().__init__(
            name, interval=interval, clock=node.clock, draw=node.draw, emit=node.emit, starts_at_once=False
        )
        self.activities = activities
        self._node = node
        self._journal = journal
        self._delivery = delivery
        self._wakes = wakes
        self._max_concurrency = max_concurrency
        self._threads_max = threads
        self._queues = dict(queues)
        self._state = state
        self._payload_max = payload_max
        self._details_max = details_max
        self._taken: Counter[str] = Counter()  # slots by queue, reserved or in use
        self._taken_in_all = 0
        self._taken_threads = 0
        self._taken_transactions = 0
        self._attempts: dict[TaskKey, RunningAttempt] = {}
        self._known: dict[Attempt, None] = {}  # begun, or ended with their last write still on its way
        self._asking: dict[TaskKey, ClaimedTask] = {}  # accepted; it is being asked what is known under their keys
        self._starved = False  # somebody asked for a slot and got none
        self._chores: set[asyncio.Task[None]] = set()
        self._place = self._workplace()
        self._bookings = Bookings(node=node, journal=journal, delivery=delivery, transactions=transactions, keeper=self)
        self.is_open = False

    # --- slots --------------------------------------------------------------------------------------------------------

    def reserve(self, activity: str, queue: str) -> bool:
        """Take a slot, if there is one and the code is here."""
        found = self.activities.get(activity)
        if not self.is_open or self._node.is_draining or found is None:
            return False
        limit = self._queues.get(queue, self._max_concurrency)
        has_means = (found.is_async and found.session_class is None) or self._has_means(found)
        if self._taken_in_all >= self._max_concurrency or self._taken[queue] >= limit or not has_means:
            self._starved = True
            return False
        self._take(queue, found, 1)
        return True

    def unreserve(self, activity: str, queue: str) -> None:
        """Give a slot back that no attempt came to use."""
        self._take(queue, self.activities.get(activity), -1)

    def _take(self, queue: str, activity: Activity[..., Any] | None, slots: int) -> None:
        self._taken[queue] += slots
        self._taken_in_all += slots
        if activity is None:
            pass
        elif not activity.is_async:
            self._taken_threads += slots
        elif activity.session_class is not None:
            self._taken_transactions += slots
        if slots < 0 and self._starved:
            self._starved = False
            self._wakes.claim_tasks(0.0)

    def _has_means(self, activity: Activity[..., Any]) -> bool:
        """Tell whether there is what it needs beside a slot: a thread for a `def`, a connection of the host's pool."""
        if not activity.is_async:
            return self._taken_threads < self._threads_max
        return activity.session_class is None or self._taken_transactions < self._bookings.concurrency

    def free_slots(self) -> tuple[int, Mapping[str, int]]:
        """Return the free slots in all, and those of each queue that has a limit."""
        if not self.is_open or self._node.is_draining:
            return 0, {}
        free = self._max_concurrency - self._taken_in_all
        slots = {queue: max(limit - self._taken[queue], 0) for queue, limit in self._queues.items()}
        self._starved = self._starved or free <= 0 or not all(slots.values())
        return max(free, 0), slots

    @property
    def is_full(self) -> bool:
        """Whether every slot is taken."""
        return self.is_open and not self._node.is_draining and self._taken_in_all >= self._max_concurrency

    @property
    def claimable(self) -> tuple[str, ...]:
        """Every activity that could be begun now: without a free thread, no `def`; without a connection, none with one."""
        names = self.activities.names
        is_rich = self._taken_threads < self._threads_max
        if is_rich and self._taken_transactions < self._bookings.concurrency:
            return names
        self._starved = True
        return tuple(
            name for name in names if (found := self.activities.get(name)) is not None and self._has_means(found)
        )

    def claim_lost(self) -> None:
        """Hear that the answer to a claim was lost: its tasks may be leased to us unknown to us."""
        self._wakes.audit()

    # --- attempts -----------------------------------------------------------------------------------------------------

    def begin(self, tasks: Sequence[ClaimedTask]) -> None:
        """Begin attempts whose slots were reserved; those with an idempotency key once nothing is known under it."""
        keyed = []
        for task in tasks:
            activity = self._accepted(task)
            if activity is not None and task.idempotency_key is None:
                self._begin(task, activity)
            elif activity is not None:
                self._asking[task.attempt.key] = task
                keyed.append(task)
        if keyed:
            self.chore(self._recall(keyed))

    def _accepted(self, task: ClaimedTask) -> Activity[..., Any] | None:
        """Return the code of a task that is to be begun here and now; else its slot is given back."""
        activity = self.activities.get(task.activity)
        if activity is None or not self.is_open:
            self._take(task.options.queue, activity, -1)
            self._delivery.never_begun(task.attempt)
            return None
        if task.attempt in self._known:  # freed by a write that came late, and claimed by us again: it has begun
            self._take(task.options.queue, activity, -1)
            return None
        self.withdraw([task.attempt.key])  # what is older runs under a lease that was lost: its result would be refused
        self._known[task.attempt] = None
        return activity

    def _begin(self, task: ClaimedTask, activity: Activity[..., Any]) -> None:
        if activity.session_class is None:
            attempt = RunningAttempt(task, activity, self._place)
        else:
            attempt = self._bookings.attempt(task, activity, self._place)
        self._attempts[task.attempt.key] = attempt
        if heard:
            self._begins(attempt)
        attempt.begin()

    def _begins(self, attempt: RunningAttempt) -> None:
        """Tell that an attempt begins, and look at the clock for whoever will want to know how long it took."""
        task = attempt.task
        attempt.began_at = self._node.clock.monotonic()
        if "activity.started" in heard:
            waited = {}
            if task.available_at is not None:
                waited = {"waited_seconds": self._node.seconds_since(task.available_at)}
            self._node.emit.hand("activity.started", waited, facts_of_task(task))

    def seconds(self, attempt: RunningAttempt) -> float | None:
        """Return how long it has lasted, if anybody wants to know."""
        return None if attempt.began_at is None else self._node.clock.monotonic() - attempt.began_at

    async def _recall(self, tasks: Sequence[ClaimedTask]) -> None:
        """Answer tasks by what is known under their keys, and begin the others."""
        known = await recorded(self._journal, self._node.clock, tasks)
        for task in tasks:
            activity = self.activities.get(task.activity)
            if activity is None or self._asking.get(task.attempt.key) is not task:  # withdrawn meanwhile
                continue
            del self._asking[task.attempt.key]
            answer = recalled(task, activity, known.get(key_of(task)))
            if answer is None:
                self._begin(task, activity)
                continue
            self._take(task.options.queue, activity, -1)
            if isinstance(answer, ActivityResult):
                self._delivery.recalled(task, answer, self)
            else:
                self._delivery.failed(task, answer, self)

    def release(self, task: ClaimedTask) -> None:
        """Free a claimed task that found no slot."""
        self._delivery.never_begun(task.attempt)

    def withdraw(self, keys: Sequence[TaskKey]) -> None:
        """Cancel running attempts that nobody waits for any more."""
        for key in keys:
            attempt = self._attempts.get(key)
            if attempt is not None:
                attempt.cancel()
            asking = self._asking.pop(key, None)
            if asking is not None:  # it has not begun, and will not
                self._take(asking.options.queue, self.activities.get(asking.activity), -1)
                self._known.pop(asking.attempt, None)

    def knows(self, attempt: Attempt) -> bool:
        """Tell whether this try is running here, or its last write is still on its way."""
        return attempt in self._known

    @property
    def running(self) -> int:
        """How many attempts have not ended yet, or not said so."""
        return len(self._attempts) + len(self._chores)

    # --- what attempts report -----------------------------------------------------------------------------------------

    def returned(self, attempt: RunningAttempt, payload: bytes) -> None:
        """Hear that it returned a value."""
        self.forget(attempt)
        self._delivery.completed(attempt.task, payload, self, seconds=self.seconds(attempt) if heard else None)
        if attempt.trace is not None:
            attempt.trace.ended(None)

    def raised(self, attempt: RunningAttempt, failure: Failure) -> None:
        """Hear that it raised, or outlived a limit."""
        self.forget(attempt)
        if failure.timed_out and "activity.timed_out" in heard:
            limit = "timeout" if failure.type == TIMED_OUT else "heartbeat_timeout"
            facts = facts_of_task(attempt.task)
            self._node.emit("activity.timed_out", lasted(self.seconds(attempt)), **facts, limit=limit)
        self._fail(attempt, failure)

    def stopped(self, attempt: RunningAttempt) -> None:
        """Hear that it was cancelled by us: nothing is to be reported."""
        self.forget(attempt)
        self._known.pop(attempt.task.attempt, None)
        if attempt.trace is not None:
            attempt.trace.withdrawn()
        self._node.emit("activity.cancelled", lasted(self.seconds(attempt)), **facts_of_task(attempt.task))

    def vacated(self, attempt: RunningAttempt) -> None:
        """Hear that the function is no longer running: its slot is free."""
        self._take(attempt.task.options.queue, attempt.activity, -1)
        if attempt.activity.session_class is not None:
            self._bookings.vacated(attempt)

    def settled(self, attempt: Attempt) -> None:
        """Forget an attempt whose last write is settled."""
        self._known.pop(attempt, None)

    def _fail(self, attempt: RunningAttempt, failure: Failure) -> None:
        if attempt.details is None:
            self._delivery.failed(attempt.task, failure, self, seconds=self.seconds(attempt))
            if attempt.trace is not None:
                attempt.trace.ended(failure)
            return
        self.chore(self._remember_and_fail(attempt, failure))

    def chore(self, coroutine: Coroutine[object, None, None]) -> None:
        """Do something that a drain waits for."""
        chore = asyncio.get_running_loop().create_task(coroutine)
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    async def _remember_and_fail(self, attempt: RunningAttempt, failure: Failure) -> None:
        """Store the last heartbeat's details before the task is another attempt's, which shall find them."""
        try:
            with contextlib.suppress(Exception):  # a host's codec may raise anything; the details are only a hint
                await self._journal.heartbeat_tasks([attempt.sign])
            self._delivery.failed(attempt.task, failure, self, seconds=self.seconds(attempt))
        finally:
            if attempt.trace is not None:
                attempt.trace.ended(failure)

    def forget(self, attempt: RunningAttempt) -> None:
        """Take note that an attempt runs no more."""
        key = attempt.task.attempt.key
        if self._attempts.get(key) is attempt:
            del self._attempts[key]

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open for attempts; they see the context variables of whoever enters the instance, and nobody else's."""
        self._place = self._workplace()
        self.is_open = True
        await super().start()

    async def stop(self) -> None:
        """Cancel what still runs; tasks stay leased until their owner is swept, or were retried by the drain."""
        self.is_open = False
        await super().stop()
        for attempt in tuple(self._attempts.values()):
            (attempt.cancel if attempt.in_doubt is None else attempt.abandon)()
        await self._bookings.close()
        for chore in tuple(self._chores):
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        self._asking.clear()
        self._place.threads.shutdown(wait=False, cancel_futures=True)

    async def drain(self, deadline_seconds: float) -> None:
        """Await running attempts until the deadline; then each loses this attempt and is retried elsewhere."""
        try:
            async with self._node.clock.timeout(deadline_seconds):
                await self._chores_done()  # some of which begin attempts
                for attempt in tuple(self._attempts.values()):
                    await attempt.finished()
                await self._chores_done()
        except TimeoutError:
            for attempt in tuple(self._attempts.values()):
                failure = Failure("continuum.Drained", "the process is shutting down", retryable=True, retry_after=0.0)
                doubt = attempt.in_doubt
                attempt.abandon()
                self.forget(attempt)
                if doubt is None:
                    self._fail(attempt, failure)
                else:
                    self._bookings.judge(attempt, doubt, failure)
            with contextlib.suppress(TimeoutError):
                async with self._node.clock.timeout(HAND_OVER_SECONDS):  # or a stop would cut off what is handed over
                    await self._chores_done()

    async def _chores_done(self) -> None:
        """Wait for what is being done, without an opinion on it: what goes wrong in one of them is reported by the loop."""
        if self._chores:
            await asyncio.wait(self._chores)

    async def once(self) -> bool:
        """Send the heartbeats of all attempts in one statement; cancel those that are nobody's any more."""
        beats = [attempt.sign for attempt in self._attempts.values() if attempt.in_doubt is None]
        if not beats:
            return False
        alive = set(await self._journal.heartbeat_tasks(beats))
        for beat in beats:
            attempt = self._attempts.get(beat.attempt.key)
            if attempt is None or attempt.task.attempt != beat.attempt:
                continue
            if beat.attempt not in alive:
                attempt.cancel()
            elif attempt.has_beaten and not beat.is_quiet and "activity.heartbeat" in heard:
                told = {"details_bytes": len(beat.details or b"")}
                self._node.emit("activity.heartbeat", told, **facts_of_task(attempt.task))
        return False

    def _workplace(self) -> Workplace:
        return Workplace(
            self._node.instance,
            self._node.loop,
            self._node.clock,
            DaemonThreads(self._threads_max, name=f"{self.name}-thread"),
            self,
            self._state,
            contextvars.copy_context(),
            self._payload_max,
            self._details_max,
        )
