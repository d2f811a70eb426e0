"""Compacts long histories: the same events in one row, so that a cold load reads one row instead of thousands."""

from __future__ import annotations

from typing import Protocol

from continuum.journal.port import KeepingJournal, ReadJournal
from continuum.model.packing import pack_history
from continuum.runtime.component import Loop
from continuum.runtime.execution import Execution
from continuum.runtime.node import Node
from continuum.runtime.registry import Registry


class SnapshotJournal(ReadJournal, KeepingJournal, Protocol):
    """What the snapshotter reads and writes."""


class Snapshotter(Loop):
    """One pass compacts the runs living here whose history grew by `threshold` events since the last time."""

    def __init__(
        self,
        name: str,
        *,
        node: Node,
        journal: SnapshotJournal,
        registry: Registry[Execution],
        interval: float | None,
        threshold: int,
        batch: int = 10,
    ) -> None:
        super().__init__(
            name, interval=interval, clock=node.clock, draw=node.draw, emit=node.emit, starts_at_once=False
        )
        self._journal = journal
        self._registry = registry
        self._threshold = threshold
        self._batch = batch

    async def once(self) -> bool:
        """Compact a batch of long histories."""
        due = [execution for execution in self._registry if execution.grown >= self._threshold]
        for execution in due[: self._batch]:
            facts = execution.facts
            history = await self._journal.history(facts.run_id, generation=facts.generation)
            if not history:
                continue
            seq = history[-1].seq
            blob = pack_history(history)
            if await self._journal.save_snapshot(facts.run_id, generation=facts.generation, seq=seq, blob=blob):
                self.emit("snapshot.saved", {"events": seq, "bytes": len(blob)}, run_id=facts.run_id)
            execution.compacted(seq)
        return len(due) > self._batch
