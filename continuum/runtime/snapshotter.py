"""Compacts long histories: the same events in one row, so that a cold load reads one row instead of thousands.

How long is long, the workflow says, else the instance. Growth is counted as it happens; a history is read only when its
snapshot is due, from the journal that its events were written to, and the snapshot goes there too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from continuum.definitions.workflow import Workflow
from continuum.errors import DurableValueError
from continuum.journal.port import KeepingJournal, ReadJournal
from continuum.model.packing import pack_history
from continuum.replay.turns import RunInfo
from continuum.runtime.component import Loop
from continuum.runtime.execution import Execution
from continuum.runtime.node import Node
from continuum.runtime.registry import Registry
from continuum.runtime.telling import facts_of_run


class SnapshotJournal(ReadJournal, KeepingJournal, Protocol):
    """What the snapshotter reads and writes."""


class Snapshotter(Loop):
    """One pass compacts the runs living here whose history grew by so many events since the last time.

    Args:
        threshold: how many, where the workflow does not say it.
    """

    def __init__(
        self,
        name: str,
        *,
        node: Node,
        journal: SnapshotJournal,
        registry: Registry[Execution],
        interval: float | None,
        threshold: int,
        find_workflow: Callable[[str, int], Workflow[..., object] | None],
        batch: int = 10,
    ) -> None:
        super().__init__(
            name, interval=interval, clock=node.clock, draw=node.draw, emit=node.emit, starts_at_once=False
        )
        self._journal = journal
        self._registry = registry
        self._threshold = threshold
        self._find_workflow = find_workflow
        self._batch = batch

    async def once(self) -> bool:
        """Compact a batch of long histories."""
        due = [execution for execution in self._registry if self._is_due(execution)]
        for execution in due[: self._batch]:
            try:
                await self._compact(execution)
            except DurableValueError as error:  # its payloads cannot be opened: no reason to leave the others long
                self.emit("snapshot.skipped", **facts_of_run(execution), reason="unreadable", error=repr(error))
                execution.compacted(None)
        return len(due) > self._batch

    def _is_due(self, execution: Execution) -> bool:
        return execution.grown > 0 and execution.grown >= self._threshold_of(execution.facts)

    def _threshold_of(self, facts: RunInfo) -> int:
        """Return the most specific threshold that there is."""
        workflow = self._find_workflow(facts.workflow, facts.version)
        own = workflow.snapshot_threshold if workflow is not None else None
        return self._threshold if own is None else own

    async def _compact(self, execution: Execution) -> None:
        facts = execution.facts
        history = await self._journal.history(facts.run_id, generation=facts.generation)
        if not history:
            return
        seq = history[-1].seq
        blob = pack_history(history)
        if await self._journal.save_snapshot(facts.run_id, generation=facts.generation, seq=seq, blob=blob):
            self.emit("snapshot.taken", {"events": seq, "bytes": len(blob)}, **facts_of_run(execution))
        else:
            self.emit("snapshot.skipped", **facts_of_run(execution), reason="superseded")
        execution.compacted(seq)
