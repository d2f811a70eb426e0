"""Deletes ended runs, and what continued runs left behind, once their retention has passed; in batches."""

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
        """Delete up to a batch of runs, and as many generations that open runs have left behind."""
        pruned = await self._journal.prune(limit=self._batch)
        generations = await self._journal.prune_generations(limit=self._batch)
        if pruned or generations:
            self.emit("runs.pruned", {"runs": len(pruned), "generations": generations})
        return self._batch in (len(pruned), generations)
