"""Brings inbox rows to the executions that live here, and carries notices between processes.

Three roads lead to one scan: a nudge in this process, a notice by LISTEN, and the clock (`catch_up`), which alone is
enough. The scan has no cursor: it reads what is unread, because rows surface in another order than they were made. The
listener is re-attached for ever, with back-off, and every (re)attachment is followed by a scan. A process that cannot
listen (its database is behind a pooler) says so once, scans more often, and still tells the others, who may be able to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from continuum.errors import JournalUnavailable
from continuum.journal.port import Notices, RunJournal
from continuum.runtime.component import Loop
from continuum.runtime.execution import Execution
from continuum.runtime.node import Node
from continuum.runtime.registry import Registry
from continuum.runtime.wakes import RUNS, TASKS, Wakes
from continuum.telemetry.saying import say

logger = logging.getLogger(__name__)

SCAN_MAX = 1_000
AGAIN_SECONDS = 0.05  # before a scan that follows a full one: the time of a commit or two
REATTACH_SECONDS, REATTACH_MAX_SECONDS = 0.2, 5.0


class SignalRouter(Loop):
    """Scans the inbox of what is leased to this process; listens and notifies where the database can."""

    def __init__(
        self,
        name: str,
        *,
        node: Node,
        journal: RunJournal,
        notices: Notices,
        has_notices: bool,
        deafness: str | None,
        registry: Registry[Execution],
        wakes: Wakes,
        interval: float | None,
    ) -> None:
        super().__init__(name, interval=interval, clock=node.clock, draw=node.draw, emit=node.emit)
        self._node = node
        self._journal = journal
        self._notices = notices
        self._has_notices = has_notices
        self._deafness = deafness
        self._registry = registry
        self._wakes = wakes
        self._road = "poll"
        self._outbox: dict[str, None] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._sending = asyncio.Event()
        self.is_listening = False

    def read_inbox(self, road: str = "local") -> None:
        """Scan soon."""
        self._road = road
        self.nudge()

    def tell_others(self, notice: str) -> None:
        """Notify the other processes, together with what else is waiting to be said."""
        if self._has_notices and self._tasks:
            self._outbox[notice] = None
            self._sending.set()

    async def once(self) -> bool:
        """Read unread messages of runs leased to this process, and hand them over."""
        owner, road, self._road = self._node.owner, self._road, "poll"
        if owner is None:
            return False
        messages = await self._journal.unread(owner, limit=SCAN_MAX)
        is_some_taken = False
        for message in messages:
            execution = self._registry.get(message.run_id)
            if execution is not None:
                self._wakes.roads[road] += 1
                execution.receive(message)
                is_some_taken = True
        if is_some_taken and len(messages) == SCAN_MAX:  # more may stand behind these, which commits take away
            self.nudge(AGAIN_SECONDS)
        return False

    async def start(self) -> None:
        """Begin scanning, listening and notifying."""
        if self._task is None and self._has_notices:
            self._sending = asyncio.Event()
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._send(), name=f"{self.name}.notify")]
            if self._deafness is None:
                self._tasks.append(loop.create_task(self._listen(), name=f"{self.name}.listen"))
            else:
                self.emit("listener.absent", reason=self._deafness)
                whose = {"instance": self.emit.instance}
                say(
                    logger, logging.WARNING, "%s polls instead of listening: %s", self.name, self._deafness, extra=whose
                )
        await super().start()

    async def stop(self) -> None:
        """End all three."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.is_listening = False
        await super().stop()

    async def _listen(self) -> None:
        delay_seconds = REATTACH_SECONDS
        while True:
            try:
                async for notices in self._notices.listen():
                    if not self.is_listening:
                        self.is_listening = True
                        self.emit("listener.attached")
                    delay_seconds = REATTACH_SECONDS
                    self._heard(notices)
            except JournalUnavailable as error:
                self.emit("listener.lost", error=str(error))
            except Exception as error:  # noqa: BLE001  # whatever breaks the listener, polling goes on and so does this loop
                self._report(error)
            self.is_listening = False
            await self.clock.sleep(delay_seconds * self._draw.uniform(0.5, 1.0))
            delay_seconds = min(delay_seconds * 2, REATTACH_MAX_SECONDS)

    def _heard(self, notices: Sequence[str]) -> None:
        if not notices:  # attached: what was said before is found by looking
            self.read_inbox("listen")
            self._wakes.claim_runs()
            self._wakes.claim_tasks(0.0)
            return
        for notice in notices:
            if notice == RUNS:
                self._wakes.claim_runs()
            elif notice == TASKS:
                self._wakes.claim_tasks(0.0)
            elif notice in self._registry:
                self.read_inbox("listen")

    async def _send(self) -> None:
        while True:
            await self._sending.wait()
            self._sending.clear()
            outbox, self._outbox = self._outbox, {}
            try:
                await self._notices.notify(list(outbox))
            except Exception as error:  # noqa: BLE001  # hints may be lost, for any reason: the server's queue may be full
                self.emit("notices.lost", {"notices": len(outbox)}, error=str(error))
                await self.clock.sleep(REATTACH_SECONDS)
