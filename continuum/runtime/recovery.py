"""Frees what dead owners held, and what this process holds without knowing it. A level, not an edge.

Each pass buries owners whose time has passed, sweeps whatever is leased to an owner without a row (runs before tasks),
and audits this process's own leases: a run or task that is leased to us and unknown to us in two consecutive passes (the
answer to a claim was lost, say) is given back. Safe to run anywhere, any number of times.
"""

from __future__ import annotations

from collections.abc import Callable

from continuum.journal.port import OwnerJournal, RecoveryJournal, Swept
from continuum.model.states import RunState
from continuum.model.tasks import Attempt
from continuum.runtime.activity_supervisor import ActivitySupervisor
from continuum.runtime.component import Loop
from continuum.runtime.delivery import Delivery
from continuum.runtime.node import Node
from continuum.runtime.pulse import Pulse
from continuum.runtime.telling import facts_of_attempt
from continuum.runtime.wakes import Wakes

CRASHES_MAX = 5  # resumes in a row that took their process down, before a run is blocked
CRASH_BACKOFF_SECONDS = 60.0  # how long such a run is left alone
TASK_BACKOFF_SECONDS = 1.0  # before a task whose worker died is tried again


class Recovery(Loop):
    """Sweeps and audits."""

    def __init__(
        self,
        name: str,
        *,
        node: Node,
        owners: OwnerJournal,
        journal: RecoveryJournal,
        delivery: Delivery,
        wakes: Wakes,
        attempts: ActivitySupervisor,
        pulse: Pulse,
        knows_run: Callable[[str, str], bool],
        interval: float | None,
        audit_every: int = 10,
    ) -> None:
        super().__init__(name, interval=interval, clock=node.clock, draw=node.draw, emit=node.emit)
        self._node = node
        self._owners = owners
        self._journal = journal
        self._delivery = delivery
        self._wakes = wakes
        self._attempts = attempts
        self._pulse = pulse
        self._knows_run = knows_run
        self._audit_every = audit_every
        self._passes = 0
        self._audits = 0  # asked for, besides those of every so many passes
        self._suspect_runs: dict[str, int] = {}
        self._suspect_tasks: dict[Attempt, None] = {}

    async def once(self) -> bool:
        """Bury and sweep if there is anything to; every so many passes do it unasked, and audit."""
        self._passes += 1
        is_thorough = self._passes % self._audit_every == 0
        if self.was_asked or is_thorough or (await self._pulse.evidence()).orphans:
            if self._node.may_declare_dead():
                for owner in await self._owners.declare_dead():
                    self.emit("owner.dead", owner=owner)
            await self.sweep()
        if is_thorough or self._audits > 0:
            self._audits = max(self._audits - 1, 0)
            await self.audit()
        return False

    def audit_soon(self) -> None:
        """Audit in the next two passes: the answer to a claim was lost."""
        self._audits = 2

    async def sweep(self) -> None:
        """Free what owners without a row hold."""
        swept = await self._journal.sweep(
            crashes_max=CRASHES_MAX, backoff_seconds=CRASH_BACKOFF_SECONDS, task_backoff_seconds=TASK_BACKOFF_SECONDS
        )
        if swept.runs or swept.tasks or swept.exhausted or swept.blocked:
            self.emit(
                "recovery.swept",
                {
                    "runs": len(swept.runs),
                    "tasks": len(swept.tasks),
                    "exhausted": len(swept.exhausted),
                    "blocked": len(swept.blocked),
                },
            )
            self._tell(swept)
        if swept.runs or swept.exhausted:
            self._wakes.runs_waiting()
        if swept.tasks:
            self._wakes.tasks_waiting(TASK_BACKOFF_SECONDS)

    def _tell(self, swept: Swept) -> None:
        for run_id in swept.runs:
            self.emit("run.requeued", run_id=run_id)
        for run_id in swept.blocked:
            self.emit("run.blocked", run_id=run_id, reason="processes kept dying while they held it")
        for attempt in swept.tasks:
            self.emit("activity.requeued", **facts_of_attempt(attempt))
        for attempt in swept.exhausted:
            self.emit("activity.failed", **facts_of_attempt(attempt), error="attempts_exhausted")

    async def audit(self) -> None:
        """Give back what is leased to this process and unknown to it, seen so twice."""
        owner = self._node.owner
        if owner is None:
            return
        held = await self._journal.held(owner)
        runs = {run_id: token for run_id, token in held.runs.items() if not self._knows_run(run_id, owner)}
        for run_id, token in runs.items():
            if self._suspect_runs.get(run_id) == token:
                await self._journal.release_run(run_id, owner=owner, token=token, state=RunState.RUNNING)
                self.emit("lease.released", run_id=run_id, owner=owner, token=token, reason="unknown")
                self._wakes.runs_waiting()
        tasks = {attempt: None for attempt in held.tasks if not self._attempts.knows(attempt)}
        for attempt in tasks:
            if attempt in self._suspect_tasks:
                self._delivery.never_begun(attempt)
        self._suspect_runs, self._suspect_tasks = runs, tasks
