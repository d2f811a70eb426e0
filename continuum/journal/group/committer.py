"""The face of the group committer: takes writes, chooses their lane."""

from __future__ import annotations

import asyncio
from random import Random

from continuum.clock import Clock
from continuum.errors import JournalUnavailable
from continuum.journal.group.batch import Entry, Settled, may_wait, run_of
from continuum.journal.group.lane import Lane
from continuum.journal.port import WriteJournal
from continuum.model.writes import Verdict, Write
from continuum.telemetry import Emitter

LANES = 2  # a journal with one writer (SQLite) has one
BATCH_MAX = 250  # writes: the server works on these while the next are made; with 500, each waits for the other
# Callers who write, wait and write again are to travel in two groups of a size: one is with the database while the other
# goes on. Where all of them come at once, one half goes first. So few are better off together; and all of them where the
# database is in this process, since it takes its time from them, and from its one writer a transaction for each batch.
TOGETHER_MAX = 8
QUEUE_MAX = 10_000  # writes waiting; past it `put` waits for room


class GroupCommitter:
    """Takes writes one by one, hands them to the journal in batches, and tells each what became of it.

    Args:
        journal: where batches go.
        clock: paces the pauses.
        draw: jitters them.
        emit: tells of what became of batches (`commit.*`).
        lanes: how many batches the journal takes at once; with one, everything travels in lane 0, as much as there is.
        batch_max: writes in one batch at most.
        queue_max: writes in the queue of a lane from which on `put` waits.
    """

    def __init__(
        self,
        *,
        journal: WriteJournal,
        clock: Clock,
        draw: Random,
        emit: Emitter,
        lanes: int = LANES,
        batch_max: int = BATCH_MAX,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        self._lanes = [
            Lane(
                number,
                journal=journal,
                clock=clock,
                draw=draw,
                emit=emit,
                batch_max=batch_max,
                together_max=batch_max if lanes == 1 else TOGETHER_MAX,
                queue_max=queue_max,
            )
            for number in range(lanes)
        ]
        self._is_closed = False

    def submit(self, write: Write, settled: Settled) -> None:
        """Queue a write; `settled` is called once with its verdict, in a later iteration of the loop.

        Raises:
            JournalUnavailable: the committer is closed; the write was not taken.
        """
        if self._is_closed:
            raise JournalUnavailable("the journal is closed: this instance has stopped", run_id=run_of(write))
        self._lane_of(write).append(Entry(write, settled))

    async def put(self, write: Write, told: Settled | None = None) -> Verdict:
        """Queue a write when there is room, and wait for its verdict; who stops waiting does not take it back.

        `told` hears the verdict first, also when the caller has gone.
        """
        await self._lane_of(write).room()
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

        def settled(outcome: Verdict) -> None:
            try:
                if told is not None:
                    told(outcome)
            finally:
                if not verdict.done():
                    verdict.set_result(outcome)

        self.submit(write, settled)
        return await verdict

    @property
    def has_room(self) -> bool:
        """Whether `room` would not wait."""
        return self._lanes[0].has_room and self._lanes[-1].has_room

    async def room(self) -> None:
        """Wait until the queues are shorter than their bound: before a `submit` that starts something new."""
        for lane in self._lanes:
            await lane.room()

    async def close(self) -> None:
        """Take nothing more, write what is queued, stop. It lasts as long as the database is away: bound it."""
        self._is_closed = True
        try:
            for lane in self._lanes:
                lane.close()
            for lane in self._lanes:
                await lane.stopped()
        except asyncio.CancelledError:
            for lane in self._lanes:
                await lane.abandon()
            raise

    @property
    def last_answer(self) -> float:
        """When the lane that waits longest last had an answer, or began to wait: the clock's monotonic seconds."""
        busy = [lane for lane in self._lanes if lane.in_flight]
        return min(lane.last_answer for lane in busy) if busy else max(lane.last_answer for lane in self._lanes)

    @property
    def in_flight(self) -> int:
        """How many writes have been taken and not settled."""
        return sum(lane.in_flight for lane in self._lanes)

    def _lane_of(self, write: Write) -> Lane:
        return self._lanes[-1 if may_wait(write) else 0]
