"""The deadlines of this node, in a heap; `wake_at` in the database stands behind every one of them.

Executions that live here are poked at their deadline. For runs that nobody holds, those that become due within the
horizon are fetched ahead, and the dispatcher is nudged at the right moment: a hint, the claim decides. All deadlines are
the database's time.
"""

from __future__ import annotations

import heapq
from datetime import datetime, timedelta

from continuum.clock import Cancellable
from continuum.journal.port import RunJournal
from continuum.runtime.component import Loop
from continuum.runtime.execution import Execution
from continuum.runtime.node import Node
from continuum.runtime.registry import Registry
from continuum.runtime.wakes import Wakes

PREFETCH_MAX = 1_000


class TimerWheel(Loop):
    """Pokes executions at their deadlines; its pass looks ahead for runs that nobody holds."""

    def __init__(
        self,
        name: str,
        *,
        node: Node,
        journal: RunJournal,
        registry: Registry[Execution],
        wakes: Wakes,
        horizon: float,
        interval: float | None,
    ) -> None:
        super().__init__(name, interval=interval, clock=node.clock, draw=node.draw, emit=node.emit)
        self._node = node
        self._journal = journal
        self._registry = registry
        self._wakes = wakes
        self._horizon = horizon
        self._heap: list[tuple[datetime, str]] = []
        self._known: dict[str, datetime] = {}  # run id → its earliest entry in the heap
        self._timer: Cancellable | None = None
        self._timer_at: datetime | None = None

    def watch(self, execution: Execution, deadline: datetime) -> None:
        """Poke the execution at its deadline."""
        self._plan(execution.facts.run_id, deadline)

    async def once(self) -> bool:
        """Fetch ahead what becomes due within the horizon."""
        if self._node.owner is None or self._node.is_draining:
            return False
        for run_id, due in await self._journal.upcoming(horizon_seconds=self._horizon, limit=PREFETCH_MAX):
            self._plan(run_id, due)
        return False

    async def stop(self) -> None:
        """Forget all deadlines."""
        await super().stop()
        if self._timer is not None:
            self._timer.cancel()
        self._heap.clear()
        self._known.clear()
        self._timer = self._timer_at = None

    def _plan(self, run_id: str, deadline: datetime) -> None:
        known = self._known.get(run_id)
        if known is not None and known <= deadline:
            return  # the earlier one is looked at anyway, and tells of the later
        self._known[run_id] = deadline
        heapq.heappush(self._heap, (deadline, run_id))
        self._set_timer()

    def _set_timer(self) -> None:
        if not self._heap:
            return
        first = self._heap[0][0]
        if self._timer is not None:
            if self._timer_at is not None and self._timer_at <= first:
                return
            self._timer.cancel()
        self._timer_at = first
        delay = min(max(self._node.seconds_until(first), 0.0), 86_400.0)
        self._timer = self._node.clock.call_later(delay, self._fire)

    def _fire(self) -> None:
        self._timer = self._timer_at = None
        now = self._node.database_now() + timedelta(microseconds=1)
        orphans = 0
        while self._heap and self._heap[0][0] <= now:
            deadline, run_id = heapq.heappop(self._heap)
            if self._known.get(run_id) == deadline:
                del self._known[run_id]
            execution = self._registry.get(run_id)
            if execution is not None:
                execution.poke()
            else:
                orphans += 1
        if orphans:
            self._wakes.claim_runs()
        self._set_timer()
