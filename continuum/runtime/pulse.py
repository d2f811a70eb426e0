"""One cheap question for all pollers: an idle instance asks its database less than once a second.

Four loops poll every second. Before a pass that nobody asked for, each looks at the pulse: whether there is anything at
all to claim, to sweep or to fire. The answer is shared while it is fresh. It only ever saves passes that would find nothing; a
nudged pass does not ask, and now and then each loop passes all the same.
"""

from __future__ import annotations

import asyncio

from continuum.clock import Clock
from continuum.journal.port import Evidence, PulseJournal


class Pulse:
    """The last answer, asked again when it is older than `fresh_seconds`."""

    def __init__(self, *, journal: PulseJournal, clock: Clock, fresh_seconds: float) -> None:
        self._journal = journal
        self._clock = clock
        self._fresh_seconds = fresh_seconds
        self._asked_at: float | None = None
        self._asking: asyncio.Lock | None = None
        self._evidence = Evidence(runs=True, tasks=True, orphans=True, schedules=True)

    async def evidence(self) -> Evidence:
        """Return whether there is anything to do, at most `fresh_seconds` ago."""
        if self._asking is None:
            self._asking = asyncio.Lock()
        async with self._asking:
            now = self._clock.monotonic()
            if self._asked_at is None or now - self._asked_at >= self._fresh_seconds:
                self._evidence = await self._journal.evidence()
                self._asked_at = now
        return self._evidence
