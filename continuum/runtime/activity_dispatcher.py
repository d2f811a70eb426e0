"""Claims tasks that nobody holds, as many as there are free slots, and begins their attempts."""

from __future__ import annotations

from continuum.errors import ContinuumError
from continuum.journal.port import TaskJournal
from continuum.runtime.activity_supervisor import ActivitySupervisor
from continuum.runtime.component import Loop
from continuum.runtime.node import Node
from continuum.runtime.pulse import Pulse


class ActivityDispatcher(Loop):
    """One pass claims up to the free slots of each queue; it runs early when a slot or a task becomes free."""

    def __init__(
        self,
        name: str,
        *,
        node: Node,
        journal: TaskJournal,
        supervisor: ActivitySupervisor,
        pulse: Pulse,
        interval: float | None,
        batch: int,
    ) -> None:
        super().__init__(name, interval=interval, clock=node.clock, draw=node.draw, emit=node.emit)
        self._node = node
        self._journal = journal
        self._supervisor = supervisor
        self._pulse = pulse
        self._batch = batch

    async def once(self) -> bool:
        """Claim and begin; then plan the next pass for when the next task of ours becomes due."""
        owner, (free, slots) = self._node.owner, self._supervisor.free_slots()
        activities = self._supervisor.claimable
        limit = min(free, self._batch)
        if owner is None or not activities:
            return False
        if limit <= 0:
            if self._supervisor.is_full:
                self.emit("activity_dispatcher.saturated", {"running": self._supervisor.running}, owner=owner)
            return False
        if not self.was_asked and not (await self._pulse.evidence()).tasks:
            return False
        began = self._node.clock.monotonic()
        try:
            claimed = await self._journal.claim_tasks(owner, activities=activities, slots=slots, default_slots=limit)
        except ContinuumError:
            self._supervisor.claim_lost()
            raise
        took = {"tasks": len(claimed), "duration_seconds": self._node.clock.monotonic() - began}
        self.emit("activity_dispatcher.polled", took, owner=owner)
        begun = [task for task in claimed if self._supervisor.reserve(task.activity, task.options.queue)]
        self._supervisor.begin(begun)
        for task in claimed:
            if task not in begun:  # a slot was taken while the claim was on its way
                self._supervisor.release(task)
        if claimed:
            self.emit("activity_dispatcher.claimed", {"tasks": len(claimed)}, owner=owner)
            return len(claimed) == limit
        next_at = await self._journal.next_task_at(activities)
        if next_at is not None:
            seconds = self._node.seconds_until(next_at)
            if seconds > 0 or all(slots.values()):  # else it waits for a slot of a full queue, and that nudges
                self.nudge(max(seconds, 0.001))
        return False
