"""One lane of the group committer: a queue and the one task that empties it, batch after batch."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Iterable
from random import Random

from msgspec.structs import replace

from continuum.clock import Clock
from continuum.errors import JournalUnavailable
from continuum.journal.group.batch import Batch, Entry, by_key, run_of
from continuum.journal.port import Ambiguous, BadData, Contended, WriteJournal
from continuum.model.writes import (
    LANDED,
    Commit,
    Finish,
    FreeTask,
    Post,
    Refused,
    RetryTask,
    Start,
    StartMany,
    Unwritable,
    Verdict,
    Write,
)
from continuum.telemetry import Emitter, heard
from continuum.telemetry.saying import say

logger = logging.getLogger(__name__)

PAUSE_FIRST_SECONDS = 0.05  # doubled from one failure to the next
PAUSE_MAX_SECONDS = 1.0
# What waits is sent before the answers to the last batch are told, so that the database works while the runs do: if
# it is at least one in so many of that batch. A few are better off with the company that the answers will bring.
NEXT_FIRST_SHARE = 2

_REFUSALS = (Refused, Unwritable)  # not `Refused | Unwritable`, which is made anew for every write


class Lane:
    """A queue and the one task that empties it, batch after batch."""

    def __init__(
        self,
        number: int,
        *,
        journal: WriteJournal,
        clock: Clock,
        draw: Random,
        emit: Emitter,
        batch_max: int,
        together_max: int,
        queue_max: int,
    ) -> None:
        self._number = number
        self._journal = journal
        self._clock = clock
        self._draw = draw
        self._emit = emit
        self._batch_max = batch_max
        self._together_max = together_max
        self._queue_max = queue_max
        self._queue: deque[Entry] = deque()
        self._again: deque[Batch] = deque()  # batches that have met a failure
        self._excluded: set[str] = set()  # runs with a commit or start under way; never iterated
        self._waiting: deque[asyncio.Future[None]] = deque()  # callers of `put`, for room
        self._last_size = 0  # of a batch that was taken from the queue
        self._offered = 0  # places in the queue that were promised to them
        self._something: asyncio.Future[None] | None = None  # the task's, while it has nothing to do
        self._task: asyncio.Task[None] | None = None
        # It tells of everybody's writes, so in the context of whoever enters the instance, not of whoever writes first.
        self._surroundings = contextvars.copy_context()
        self._is_closed = False
        self.in_flight = 0
        self.last_answer = clock.monotonic()

    # --- the queue ----------------------------------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        """Queue an entry and wake the task, which will find all that this iteration of the loop has queued."""
        if not self.in_flight:
            self.last_answer = self._clock.monotonic()  # an idle database owed no answer until now
        if heard:
            entry.queued_at = self._clock.monotonic()
        self._queue.append(entry)
        self.in_flight += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name=f"continuum.commit.{self._number}", context=self._surroundings
            )
        elif self._something is not None:
            self._wake()

    def _wake(self) -> None:
        something, self._something = self._something, None
        if something is not None and not something.done():
            something.set_result(None)

    @property
    def has_room(self) -> bool:
        """Whether the queue is shorter than its bound, and nobody waits for that."""
        return self._is_closed or (not self._waiting and self._is_short())

    async def room(self) -> None:
        """Wait until the queue is shorter than its bound, in the order of asking."""
        if self.has_room:
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it had been offered just now: it is the next one's
                self._offered -= 1
                self._offer_room()
            raise
        self._offered -= 1
        asyncio.get_running_loop().call_soon(self._offer_room)  # should the place not be used after all

    def _is_short(self) -> bool:
        return len(self._queue) + self._offered < self._queue_max

    def _offer_room(self) -> None:
        while self._waiting and (self._is_closed or self._is_short()):
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                self._offered += 1

    def _gather(self) -> list[Entry]:
        """Take what may travel together, in the order of coming; a run's second commit waits for its first."""
        taken: list[Entry] = []
        kept: list[Entry] = []
        half = (len(self._queue) + self._last_size + 1) // 2
        most = min(max(half, self._together_max), self._batch_max)
        while self._queue and len(taken) < most:
            entry = self._queue.popleft()
            if entry.excludes is None:
                is_apart = isinstance(entry.write, StartMany)  # all or none: a transaction of its own
                (kept if is_apart and taken else taken).append(entry)
                if is_apart:
                    break
            elif entry.excludes in self._excluded:
                kept.append(entry)
            else:
                self._excluded.add(entry.excludes)
                taken.append(entry)
        self._queue.extendleft(reversed(kept))
        self._last_size = len(taken)
        self._offer_room()
        if self._number:
            taken.sort(key=by_key)
        return taken

    # --- the task -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the task once everything is settled, and let nobody wait for room any more."""
        self._is_closed = True
        self._offer_room()
        self._wake()

    async def stopped(self) -> None:
        """Wait for the task to end."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def abandon(self) -> None:
        """End the task now; what it leaves may or may not have been written, and whoever waits is told so."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        unknown = JournalUnavailable("the instance stopped before the database had answered")
        left = [entry for batch in self._again for entry in batch.entries]
        self._settle_all([*left, *self._queue], Unwritable(unknown))
        self._queue.clear()
        self._again.clear()

    async def _run(self) -> None:
        while True:
            batch = self._next()
            if batch is not None:
                self._again.appendleft(batch)  # so that it is found there if the task ends meanwhile
                follow_ups = await self._send(batch)
                self._again.popleft()
                self._again.extendleft(reversed(follow_ups))
            elif self._is_closed and not self.in_flight:
                return
            else:
                await self._idle()

    def _next(self) -> Batch | None:
        """Choose what to send: what failed and is due again, else what has gathered."""
        now = self._clock.monotonic() if self._again else 0.0
        for place, batch in enumerate(self._again):
            if batch.not_before <= now:
                del self._again[place]
                return batch
        entries = self._gather()
        return Batch(entries) if entries else None

    async def _idle(self) -> None:
        """Wait for a submit, for `close`, or until something is due again."""
        self._something = asyncio.get_running_loop().create_future()
        due = min((batch.not_before for batch in self._again), default=None)
        alarm = None if due is None else self._clock.call_later(due - self._clock.monotonic(), self._wake)
        try:
            await self._something
        finally:
            self._something = None
            if alarm is not None:
                alarm.cancel()

    async def _send(self, batch: Batch) -> list[Batch]:
        """Send a batch once; settle what is decided, return what is to be sent next, in order."""
        began = self._clock.monotonic()
        writes = [entry.write for entry in batch.entries]
        try:
            verdicts = await self._journal.write(self._number, writes)
            if len(verdicts) != len(writes):
                raise RuntimeError(f"the journal gave {len(verdicts)} verdicts on {len(writes)} writes")
        except Contended:
            return self._after_contention(batch)
        except BadData as error:
            return self._after_bad_data(batch, error)
        except Ambiguous as error:
            self._emit("commit.ambiguous", {"writes": len(writes)}, lane=self._number, error=str(error))
            return await self._after_ambiguity(batch)
        except JournalUnavailable as error:
            numbers = {"writes": len(writes), "failures": batch.failures + 1}
            self._emit("commit.failed", numbers, lane=self._number, error=str(error))
            await self._pause(batch.failures + 1)  # here, not beside: nobody else in the lane would fare better
            return [replace(batch, failures=batch.failures + 1)]
        except Exception as error:  # noqa: BLE001  a bug in a journal must not end the lane that everyone waits behind
            return self._after_bug(batch, error)
        self.last_answer = self._clock.monotonic()
        if "commit.flushed" in heard:
            self._tell_of_flush(batch, began)
        if batch.is_frozen:
            verdicts = [await self._reconsidered(*one) for one in zip(batch.entries, verdicts, strict=True)]
        elif len(self._queue) * NEXT_FIRST_SHARE >= len(writes):
            asyncio.get_running_loop().call_soon(self._settle_each, batch.entries, verdicts)
            return []
        self._settle_each(batch.entries, verdicts)
        await asyncio.sleep(0)  # a journal that never waits must not keep the loop from everybody else
        return []

    def _settle_each(self, entries: Iterable[Entry], verdicts: Iterable[Verdict]) -> None:
        for entry, verdict in zip(entries, verdicts, strict=True):
            self._settle(entry, verdict)
        self._wake()  # what was excluded may go now

    def _tell_of_flush(self, batch: Batch, began: float) -> None:
        numbers = {"writes": len(batch.entries), "duration_seconds": self.last_answer - began}
        waits = [began - entry.queued_at for entry in batch.entries if entry.queued_at is not None]
        if waits and not batch.failures:
            numbers["wait_seconds"] = max(waits)
        self._emit("commit.flushed", numbers, lane=self._number)

    def _tell_of_refusal(self, write: Write, verdict: Refused | Unwritable) -> None:
        facts = {"lane": self._number, "run_id": run_of(write), "write": type(write).__name__}
        if isinstance(verdict, Refused):
            self._emit("commit.refused", **facts, reason="fenced")
        else:
            self._emit("commit.refused", **facts, reason="unwritable", error=str(verdict.error))

    def _settle_all(self, entries: Iterable[Entry], verdict: Verdict) -> None:
        for entry in entries:
            self._settle(entry, verdict)

    def _settle(self, entry: Entry, verdict: Verdict) -> None:
        settled, entry.settled = entry.settled, None
        if settled is None:
            return
        self.in_flight -= 1
        if entry.excludes is not None:
            self._excluded.discard(entry.excludes)
        if "commit.refused" in heard and isinstance(verdict, _REFUSALS):
            self._tell_of_refusal(entry.write, verdict)
        try:
            settled(verdict)
        except Exception as error:  # noqa: BLE001  # whoever is told must not decide what becomes of the others
            say(
                logger,
                logging.ERROR,
                "a callback failed on %s of run %s",
                type(verdict).__name__,
                run_of(entry.write),
                exc_info=error,
                extra=self._whose(entry.write),
            )

    def _whose(self, write: Write) -> dict[str, object]:
        """Return what a log line says of a write."""
        return {"instance": self._emit.instance, "run_id": run_of(write)}

    # --- what can go wrong --------------------------------------------------------------------------------------------

    def _after_contention(self, batch: Batch) -> list[Batch]:
        self.last_answer = self._clock.monotonic()
        self._emit("commit.contended", {"writes": len(batch.entries)}, lane=self._number)
        again = replace(batch, failures=batch.failures + 1)
        if again.failures > 1 and len(again.entries) > 1:
            return self._split(again)
        # Beside the others, so that who waits for a lock for minutes does not hold up the lane for minutes.
        return [replace(again, not_before=self.last_answer + self._pause_seconds(again.failures))]

    def _after_bad_data(self, batch: Batch, error: BadData) -> list[Batch]:
        self.last_answer = self._clock.monotonic()
        if len(batch.entries) > 1:
            return self._split(batch)
        self._settle_all(batch.entries, Unwritable(error))
        return []

    def _after_bug(self, batch: Batch, error: Exception) -> list[Batch]:
        """Find the culprit as for bad data; but nobody has promised that nothing happened, so the rest is frozen."""
        if len(batch.entries) > 1:
            return self._split(replace(batch, is_frozen=True))
        whose = self._whose(batch.entries[0].write)
        say(
            logger,
            logging.ERROR,
            "the journal failed as no journal may; one write is given up",
            exc_info=error,
            extra=whose,
        )
        self._settle_all(batch.entries, Unwritable(error))
        return []

    def _split(self, batch: Batch) -> list[Batch]:
        self._emit("commit.split", {"writes": len(batch.entries)}, lane=self._number)
        return batch.halves()

    async def _after_ambiguity(self, batch: Batch) -> list[Batch]:
        """Settle what the journal knows of; what did not arrive goes again, identically."""
        await self._pause(batch.failures + 1)
        again = []
        for entry in batch.entries:
            # A freed task may be ours again by now, under the same name: freed once more, it would be begun twice. If it
            # was not freed, the audit finds it.
            verdict = LANDED if isinstance(entry.write, FreeTask) else await self._judged(entry)
            if verdict is None:
                again.append(entry)
            else:
                self._settle(entry, verdict)
        return [Batch(again, batch.failures + 1, is_frozen=True)] if again else []

    async def _reconsidered(self, entry: Entry, verdict: Verdict) -> Verdict:
        """Look twice at a refusal of what was sent before: it may be the first sending that stands in its way."""
        if not isinstance(verdict, Refused):
            return verdict
        if isinstance(entry.write, Finish | RetryTask):
            return LANDED  # the row is gone or has moved on, which was the purpose; who did it cannot be told
        return await self._judged(entry) or verdict

    async def _judged(self, entry: Entry) -> Verdict | None:
        """Ask what became of a write until the database answers; None: it is to be sent again."""
        if not isinstance(entry.write, Commit | Start | StartMany | Post):
            return None
        failures = 0
        while True:
            try:
                verdict = await self._journal.judge(entry.write)
            except (JournalUnavailable, Contended):
                failures += 1
                await self._pause(failures)
            except Exception as error:  # noqa: BLE001  # as in _send
                said, whose = "the journal failed to judge a write of run %s", self._whose(entry.write)
                say(logger, logging.ERROR, said, run_of(entry.write), exc_info=error, extra=whose)
                return Unwritable(error)
            else:
                self.last_answer = self._clock.monotonic()
                return verdict

    async def _pause(self, failures: int) -> None:
        await self._clock.sleep(self._pause_seconds(failures))

    def _pause_seconds(self, failures: int) -> float:
        longest = min(PAUSE_FIRST_SECONDS * 2.0 ** min(failures - 1, 16), PAUSE_MAX_SECONDS)
        return longest * self._draw.uniform(0.5, 1.0)  # so that those who collided do not collide again
