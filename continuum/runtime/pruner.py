"""Deletes ended runs whose retention has passed, in batches, with all that belongs to them."""

from __future__ import annotations

from continuum.journal.port import KeepingJournal
from continuum.runtime.component import Loop
from continuum.runtime.node import Node


class Pruner(Loop):
    """One pass deletes a batch; full batches are followed at once by the next."""

    def __init__(self, name: str, *, node: Node, journal: KeepingJournal, interval: float | None, batch: int) -> None:
        super().__init__(
            name, interval=interval, clock=node.clock, draw=node.draw, emit=node.emit, starts_at_once=False
        )
        self._journal = journal
        self._batch = batch

    async def once(self) -> bool:
        """Delete up to a batch of runs."""
        pruned = await self._journal.prune(limit=self._batch)
        if pruned:
            self.emit("runs.pruned", {"runs": len(pruned)})
        return len(pruned) == self._batch
