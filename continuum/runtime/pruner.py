"""Deletes ended runs, and what continued runs left behind, once their retention has passed; in batches.

Results under idempotency keys do not belong to a run: they have an age of their own, and without one stay for ever.
"""

from __future__ import annotations

from continuum.journal.port import KeepingJournal
from continuum.runtime.component import Loop
from continuum.runtime.node import Node


class Pruner(Loop):
    """One pass deletes a batch; full batches are followed at once by the next."""

    def __init__(
        self,
        name: str,
        *,
        node: Node,
        journal: KeepingJournal,
        interval: float | None,
        batch: int,
        results: float | None,
    ) -> None:
        super().__init__(
            name, interval=interval, clock=node.clock, draw=node.draw, emit=node.emit, starts_at_once=False
        )
        self._journal = journal
        self._batch = batch
        self._results = results

    async def once(self) -> bool:
        """Delete up to a batch of runs, and as many generations that open runs have left behind."""
        pruned = await self._journal.prune(limit=self._batch)
        generations = await self._journal.prune_generations(limit=self._batch)
        if pruned or generations:
            self.emit("runs.pruned", {"runs": len(pruned), "generations": generations})
        forgotten = 0
        if self._results is not None:
            forgotten = await self._journal.prune_results(age_seconds=self._results, limit=self._batch)
        return self._batch in (len(pruned), generations, forgotten)
