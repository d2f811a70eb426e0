"""Everyone who waits for a run's end: hears of it by pubsub if it ends here, and by one batched poll if not.

However many wait, the poll is one query per pass. It starts quickly and slows down while nothing ends, so that a short
run elsewhere is seen soon and ten thousand long ones cost little.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from continuum.clock import Clock
from continuum.errors import InstanceNotStarted
from continuum.journal.port import ReadJournal
from continuum.model.runs import Ending
from continuum.model.states import RunState
from continuum.runtime.component import Loop
from continuum.runtime.node import Node
from continuum.runtime.pubsub import Listener, PubSub

FIRST_SECONDS = 0.05
SLOWER = 1.5
EVERYONE_EVERY = 20  # passes: runs that live here are asked about too, in case memory is wrong
QUERY_MAX = 10_000  # run ids in one query


class Awaiting(Loop):
    """Waits for endings; the poll behind it runs only while somebody waits."""

    def __init__(
        self,
        name: str,
        *,
        node: Node,
        journal: ReadJournal,
        pubsub: PubSub,
        lives_here: Callable[[str], bool],
        interval: float | None,
        local_interval: float | None,
    ) -> None:
        super().__init__(name, interval=None, clock=node.clock, draw=node.draw, emit=node.emit, starts_at_once=False)
        self._node = node
        self._journal = journal
        self._pubsub = pubsub
        self._lives_here = lives_here
        self._slowest = interval
        self._local_interval = local_interval
        self._delay = FIRST_SECONDS
        self._passes = 0
        self._waiting: dict[str, list[Listener]] = {}
        self._arrivals: dict[asyncio.Future[Ending | None], None] = {}

    @property
    def waiters(self) -> int:
        """How many callers wait."""
        return sum(len(listeners) for listeners in self._waiting.values())

    async def ending(
        self, run_id: str, *, wait_blocked: bool, clock: Clock, timeout_seconds: float | None
    ) -> Ending | None:
        """Wait until a run has ended (or is blocked, unless `wait_blocked`); None after the timeout."""
        arrived: asyncio.Future[Ending | None] = asyncio.get_running_loop().create_future()

        def hear(ending: Ending) -> None:
            if not arrived.done() and not (wait_blocked and ending.state is RunState.BLOCKED):
                arrived.set_result(ending)

        def give_up() -> None:
            if not arrived.done():
                arrived.set_result(None)

        self._pubsub.subscribe(run_id, hear)
        self._waiting.setdefault(run_id, []).append(hear)
        self._arrivals[arrived] = None
        timer = clock.call_later(timeout_seconds, give_up) if timeout_seconds is not None else None
        self._hurry(run_id)
        try:
            return await arrived
        finally:
            if timer is not None:
                timer.cancel()
            del self._arrivals[arrived]
            self._pubsub.unsubscribe(run_id, hear)
            self._waiting[run_id].remove(hear)
            if not self._waiting[run_id]:
                del self._waiting[run_id]

    async def stop(self) -> None:
        """Stop asking; whoever still waits is told that nobody will."""
        await super().stop()
        for arrived in self._arrivals:
            if not arrived.done():
                arrived.set_exception(
                    InstanceNotStarted(
                        f"instance {self._node.instance!r} was stopped while this waited; the run goes on: ask another "
                        "node, or ask again when it is back"
                    )
                )

    async def once(self) -> bool:
        """Ask for the endings of what is waited for; publish them; plan the next question."""
        self._passes += 1
        asked = [run_id for run_id in self._waiting if not self._lives_here(run_id)]
        elsewhere = bool(asked)
        if not elsewhere or self._passes % EVERYONE_EVERY == 0:
            asked = list(self._waiting)
        for start in range(0, len(asked), QUERY_MAX):
            for ending in await self._journal.endings(asked[start : start + QUERY_MAX]):
                self._delay = FIRST_SECONDS
                for hear in tuple(self._waiting.get(ending.run_id, ())):
                    hear(ending)
        if self._waiting and self._slowest is not None:
            self._delay = min(self._delay * SLOWER, self._slowest)
            self.nudge(self._delay if elsewhere else self._local_interval or self._slowest)
        return False

    def _hurry(self, run_id: str) -> None:
        if self._slowest is None:
            if not self._lives_here(run_id):
                self.nudge()
            return
        if self._lives_here(run_id):
            self.nudge(self._local_interval or self._slowest)
        else:
            self._delay = FIRST_SECONDS
            self.nudge()
