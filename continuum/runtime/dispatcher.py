"""Claims runs that nobody holds and that have something to do, and brings them to life."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from continuum.errors import ContinuumError
from continuum.journal.port import CodeJournal, RunJournal
from continuum.runtime.carrying import Carrying, Code
from continuum.runtime.component import Loop
from continuum.runtime.node import Node
from continuum.runtime.pulse import Pulse
from continuum.runtime.run_supervisor import RunSupervisor
from continuum.runtime.wakes import Wakes


class DispatcherJournal(RunJournal, CodeJournal, Protocol):
    """What the dispatcher claims from, and tells what it claims for."""


class Dispatcher(Loop):
    """One pass claims a batch; full batches are followed at once by the next.

    What it claims for is what this node carries, and it says so first (`carrying`). A node that drains, has no owner row or
    no room claims nothing. A claim whose answer was lost is found by the audit.
    """

    def __init__(
        self,
        name: str,
        *,
        node: Node,
        journal: DispatcherJournal,
        supervisor: RunSupervisor,
        wakes: Wakes,
        pulse: Pulse,
        code: Callable[[], Code],
        interval: float | None,
        batch: int,
    ) -> None:
        super().__init__(name, interval=interval, clock=node.clock, draw=node.draw, emit=node.emit)
        self._node = node
        self._journal = journal
        self._supervisor = supervisor
        self._wakes = wakes
        self._pulse = pulse
        self._carrying = Carrying(node=node, journal=journal, code=code)
        self._code = code
        self._batch = batch

    async def once(self) -> bool:
        """Claim up to a batch of runs and resume them."""
        has_new_code = self._supervisor.is_open and await self._carrying.tell()
        owner, limit = self._node.owner, min(self._batch, self._supervisor.room)
        if owner is None:
            return False
        if limit <= 0:
            if crowd := self._supervisor.crowd:
                self.emit("dispatcher.saturated", {"runs": crowd}, owner=owner)
            return False
        if not has_new_code and not self.was_asked and not (await self._pulse.evidence()).runs:
            return False
        return await self._claim(owner, limit, None) == limit

    async def claim(self, run_ids: Sequence[str]) -> None:
        """Claim just these runs, whatever room there is: to end them, or because somebody waits."""
        if self._node.owner is not None:
            await self._claim(self._node.owner, len(run_ids), run_ids)

    async def _claim(self, owner: str, limit: int, run_ids: Sequence[str] | None) -> int:
        began = self._node.clock.monotonic()
        try:
            claims = await self._journal.claim_runs(owner, workflows=self._code()[1], limit=limit, run_ids=run_ids)
            self._node.stamp(claims.now)
            found = await self._journal.load_runs([claim.run_id for claim in claims.runs]) if claims.runs else ()
        except ContinuumError:
            self._wakes.audit()
            raise
        took = {"runs": len(claims.runs), "duration_seconds": self._node.clock.monotonic() - began}
        self.emit("dispatcher.polled", took, owner=owner)
        if not claims.runs:
            return 0
        self._wakes.roads["poll"] += len(claims.runs)
        self.emit("dispatcher.claimed", {"runs": len(claims.runs)}, owner=owner)
        loaded = {run.row.run_id: run for run in found}
        for claim in claims.runs:
            if claim.run_id in loaded:
                self._supervisor.resume(claim, loaded[claim.run_id], owner=owner)
        return len(claims.runs)
