"""The census of an instance, kept for a while: however many scrapers ask, the database is asked once.

Whoever has time awaits `taken()`. A metrics reader that calls from a thread of its own and cannot wait takes `latest`, and
says by `ask()` that it wants a newer one next time.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from continuum.clock import Clock
from continuum.errors import ContinuumError
from continuum.journal.port import CensusJournal
from continuum.model.census import Census

FRESH_SECONDS = 10.0  # shorter than the intervals at which anybody scrapes
COUNT_MAX = 50_000  # rows of each kind that are looked at: at most 2,200 pages of PostgreSQL, tens of milliseconds


class CensusTaker:
    """Counts what there is, at most once in `FRESH_SECONDS`."""

    def __init__(self, *, journal: CensusJournal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._taken_at: float | None = None
        self._taking: asyncio.Lock | None = None
        self._asked: asyncio.Task[Census | None] | None = None
        self.latest: Census | None = None

    async def taken(self) -> Census | None:
        """Return the census, a new one if the last is old; None while the database is away."""
        if self._taking is None:
            self._taking = asyncio.Lock()
        async with self._taking:
            now = self._clock.monotonic()
            if self._taken_at is None or now - self._taken_at >= FRESH_SECONDS:
                self._taken_at = now  # a database that is away is not asked by every scrape either
                self.latest = None  # should nobody wait for the answer: old numbers would say that all is well
                with suppress(ContinuumError):
                    self.latest = await self._journal.census(limit=COUNT_MAX)
        return self.latest

    def ask(self) -> None:
        """See to it that there is a new census soon; called on the instance's loop."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.get_running_loop().create_task(self.taken(), name="continuum.census")

    async def stop(self) -> None:
        """End what is under way: the journal is about to close."""
        if self._asked is not None:
            self._asked.cancel()
            await asyncio.gather(self._asked, return_exceptions=True)
