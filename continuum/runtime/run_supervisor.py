"""Owns the executions of this process: makes them, evicts idle ones, gives them up, drains them.

The cache is bounded. When it is full the execution that has been idle longest is evicted: its lease goes back, its
memory too, and whatever wakes it is found by the dispatcher and resumed from history. An execution leaves memory only
when its lease is given back or known to be lost; in doubt (a refused commit) the row is read first.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol, TypeVar

from continuum.definitions.workflow import Workflow
from continuum.journal.group import GroupCommitter
from continuum.journal.port import Claim, LoadedRun, ReadJournal, RecoveryJournal
from continuum.model.messages import Message, MessageKind
from continuum.model.runs import Ending, NewRun
from continuum.model.states import RunState
from continuum.model.writes import Commit, Start
from continuum.replay.machine import Machine
from continuum.replay.turns import Errand, RunInfo, Turn
from continuum.replay.watch import LoopGuard
from continuum.runtime import tracing
from continuum.runtime.activity_supervisor import ActivitySupervisor
from continuum.runtime.component import Component, Nudge
from continuum.runtime.decisions import beginning, facts_of
from continuum.runtime.delivery import Delivery
from continuum.runtime.errands import PASSING, Carry, carried, nobody_carries
from continuum.runtime.execution import Execution
from continuum.runtime.flight import Phase
from continuum.runtime.home import Letter, Settled
from continuum.runtime.ledger import BLOCKED_BACKOFF_SECONDS
from continuum.runtime.node import Node
from continuum.runtime.passes import Passes
from continuum.runtime.pubsub import PubSub
from continuum.runtime.registry import Registry
from continuum.runtime.telling import enqueued, facts_of_lease, landed, logged, resumed, suspended, tell
from continuum.runtime.wakes import Wakes
from continuum.telemetry import heard

T = TypeVar("T")


class SupervisorJournal(ReadJournal, RecoveryJournal, Protocol):
    """What the supervisor reads and releases."""


class RunSupervisor(Component):
    """Makes, keeps and ends executions; the `Home` that they call."""

    def __init__(
        self,
        name: str,
        *,
        node: Node,
        journal: SupervisorJournal,
        committer: GroupCommitter,
        registry: Registry[Execution],
        pubsub: PubSub,
        wakes: Wakes,
        delivery: Delivery,
        attempts: ActivitySupervisor,
        find_workflow: Callable[[str, int], Workflow[..., object] | None],
        cache: int,
        history_max: int,
        payload_max: int,
        depth_max: int,
        guard: LoopGuard | None,
    ) -> None:
        super().__init__(name)
        self._node = node
        self._journal = journal
        self._registry = registry
        self._pubsub = pubsub
        self._wakes = wakes
        self._delivery = delivery
        self._attempts = attempts
        self._find_workflow = find_workflow
        self._cache = cache
        self.history_max = history_max
        self._payload_max = payload_max
        self._depth_max = depth_max
        self._guard = guard
        self._idle: dict[str, Execution] = {}  # least recently idle first
        self._deadlines: Callable[[Execution, datetime], object] | None = None
        self._starved = False  # somebody asked for room and got none
        self._chores: set[asyncio.Task[None]] = set()
        self._carry: Carry = nobody_carries
        self._emptier = Nudge(node.clock)
        self._passes = Passes(node)
        # What executions ask of others goes straight there.
        self.soon = self._passes.soon
        self.database_now = self._passes.database_now
        self.submit = committer.submit
        self.reserve = attempts.reserve
        self.unreserve = attempts.unreserve
        self.begin = attempts.begin
        self.withdraw = attempts.withdraw
        self.enqueued = partial(enqueued, node.emit)
        self.say = partial(logged, node.emit)
        self.is_open = False
        self.hears_messages = False  # whether a signal router brings what is posted to runs that live here

    def watch_deadlines_with(self, watch: Callable[[Execution, datetime], object]) -> None:
        """Let a timer wheel know of deadlines; without one, runs with a deadline are evicted and found when due."""
        self._deadlines = watch

    def carry_with(self, carry: Carry) -> None:
        """Send messages to other runs by this; it returns a word, or raises what the workflow is to hear."""
        self._carry = carry

    # --- making executions --------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many more executions may live here; idle ones make way."""
        if not self.is_open or self._node.is_draining or self._node.owner is None:
            return 0
        free = self._cache - len(self._registry) + len(self._idle)
        self._starved = self._starved or free <= 0
        return free

    @property
    def crowd(self) -> int:
        """How many executions live here, if that is why there is no room; else 0."""
        return len(self._registry) if self.is_open and not self._node.is_draining and self.room <= 0 else 0

    async def start(self) -> None:
        """Open for runs."""
        self._passes.surroundings = contextvars.copy_context()
        self.is_open = True

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is going on in any execution."""
        return len(self._idle) == len(self._registry) and not self._chores

    def has(self, run_id: str) -> bool:
        """Tell whether a run lives here."""
        return run_id in self._registry

    def serves(self, workflow: Workflow[..., object]) -> bool:
        """Tell whether this instance was told to run a workflow; others may."""
        return self._find_workflow(workflow.name, workflow.version) is not None

    def start_run(
        self,
        run: NewRun,
        workflow: Workflow[..., object],
        arguments: bytes,
        *,
        chosen: bool,
        settled: Settled,
    ) -> None:
        """Run a new workflow's first turn here and insert the run leased; there must be `room`."""
        owner = self._node.owner
        assert owner is not None, "ask for room first"
        self._make_way(1)
        now = self._node.database_now()
        info = beginning(run, self._node.instance, now)
        machine = Machine(workflow, info, payload_max=self._payload_max, depth_max=self._depth_max, guard=self._guard)
        execution = Execution(info, machine, self, owner=owner, token=1)
        self._admit(execution)
        self.soon(lambda: execution.begin(run, arguments, chosen=chosen, settled=settled))

    def resume(self, claim: Claim, loaded: LoadedRun, *, owner: str) -> None:
        """Bring a run that was just claimed to life, if it is still ours: the run may even have ended since."""
        older = self._registry.get(claim.run_id)
        if older is not None and older.token > claim.token:  # the answer to this claim was slow, the lease has moved on
            return
        if older is not None:  # its lease was lost without our knowing; this claim is newer by its token
            if older.phase is Phase.RESIDENT:  # else it is on its way out, and told by that
                self.tell("lease.lost", older)
            older.discard()
        row = loaded.row
        if (row.lease_owner, row.lease_token) != (owner, claim.token):  # lost between the claim and the load
            self._node.emit("lease.lost", **facts_of_lease(facts_of(row, self._node.instance), owner, claim.token))
            return
        workflow = self._find_workflow(row.workflow, row.version)
        is_cancelled = any(message.kind is MessageKind.CANCEL for message in loaded.messages)
        if workflow is None and not is_cancelled:
            self._chore(self._leave_to_others(claim, facts_of(row, self._node.instance), owner))
            return
        self._make_way(1)
        info = facts_of(row, self._node.instance)
        machine = self.machine_of(info)
        execution = Execution(info, machine, self, owner=owner, token=claim.token)
        self._admit(execution)
        self.tell("lease.acquired", execution)
        if "run.resumed" in heard:
            resumed(self._node.emit, execution, source="journal", events=len(loaded.history))
        self.soon(lambda: execution.resume(loaded))

    def _admit(self, execution: Execution) -> None:
        self._registry.add(execution.facts.run_id, execution)
        if tracing.tracer is not None:
            tracing.tracer.awake(execution.facts, owner=execution.owner, token=execution.token)

    async def _leave_to_others(self, claim: Claim, facts: RunInfo, owner: str) -> None:
        lease = facts_of_lease(facts, owner, claim.token)
        self._node.emit("lease.acquired", **lease)
        reason = f"no code for workflow {facts.workflow!r} v{facts.version} here"
        self._node.emit("run.unservable", **lease, reason=reason)
        await self._patiently(
            lambda: self._journal.release_run(
                claim.run_id,
                owner=owner,
                token=claim.token,
                state=RunState.SUSPENDED,
                backoff_seconds=BLOCKED_BACKOFF_SECONDS,
            )
        )
        self._node.emit("lease.released", **lease, reason="unservable")

    # --- what executions call (execution.Home) ------------------------------------------------------------------------

    def machine_of(self, facts: RunInfo) -> Machine | None:
        """Return a machine for a run, if its code is here."""
        workflow = self._find_workflow(facts.workflow, facts.version)
        if workflow is None:
            return None
        return Machine(workflow, facts, payload_max=self._payload_max, depth_max=self._depth_max, guard=self._guard)

    def runs_waiting(self) -> None:
        """Nudge whoever claims runs."""
        self._wakes.runs_waiting()

    def run_errand(self, execution: Execution, errand: Errand) -> None:
        """Send a message to another run."""
        self._chore(self._run_errand(execution, errand))

    async def _run_errand(self, execution: Execution, errand: Errand) -> None:
        facts = execution.facts
        execution.answered(await self._patiently(lambda: carried(errand, facts, self._carry)))

    def posted(self, messages: Sequence[Message]) -> None:
        """Hand messages that stand in inboxes to who lives here, and tell others of the rest."""
        for message in messages:
            self._delivery.stands(message)

    def cascaded(self, execution: Execution) -> None:
        """Nudge whoever holds the children of a cancelled run."""
        self._chore(self._nudge_children(execution.facts.run_id))

    async def _nudge_children(self, run_id: str) -> None:
        for child, owner, url in await self._patiently(lambda: self._journal.active_children([run_id])):
            self._wakes.message_posted(child, owner=owner, here=self._node.owner, url=url, cancels=True)

    def tasks_waiting(self) -> None:
        """Nudge whoever claims tasks."""
        self._wakes.tasks_waiting()

    def wake_at(self, execution: Execution, deadline: datetime) -> None:
        """Poke the execution at its deadline."""
        if self._deadlines is not None:
            self._deadlines(execution, deadline)

    def is_idle(self, execution: Execution) -> None:
        """Take note that it may be evicted."""
        self._idle[execution.facts.run_id] = execution
        if tracing.tracer is not None:
            tracing.tracer.at_rest(execution.facts)
        if "run.suspended" in heard or "signal.awaited" in heard:
            suspended(self._node.emit, execution)
        self._has_room()
        if self._node.is_draining or not self._is_woken_here(execution):
            execution.evict()
        elif len(self._registry) > self._cache:
            self._make_way(0)

    def _is_woken_here(self, execution: Execution) -> bool:
        """Tell whether it may rest in memory: what is off does not wake it, but a claim finds what nobody holds."""
        has_deadline = execution.machine is not None and execution.machine.deadline is not None
        return self.hears_messages and (self._deadlines is not None or not has_deadline)

    def _has_room(self) -> None:
        self._emptier.set()
        if self._starved:
            self._starved = False
            self._wakes.claim_runs()

    def is_busy(self, execution: Execution) -> None:
        """Take note that it may not be evicted."""
        rested = self._idle.pop(execution.facts.run_id, None)
        if tracing.tracer is not None:
            tracing.tracer.awake(execution.facts, owner=execution.owner, token=execution.token)
        if rested is not None and "run.resumed" in heard:
            resumed(self._node.emit, execution, source="memory", events=0)

    def left(self, execution: Execution, ending: Ending | None) -> None:
        """Forget it, and tell whoever waits for its end."""
        run_id = execution.facts.run_id
        self._registry.remove(run_id, execution)
        if tracing.tracer is not None:
            tracing.tracer.gone(execution.facts, ending)
        if self._idle.get(run_id) is execution:
            del self._idle[run_id]
        self._has_room()
        if ending is not None:
            self._pubsub.publish(ending)

    def doubt(self, execution: Execution) -> None:
        """Find out why a commit was refused, then give the execution up."""
        self._chore(self._resolve_doubt(execution))

    def send_on(self, letter: Letter) -> None:
        """Deliver a letter the durable way."""
        self._delivery.send_on(letter)

    def tell(
        self, name: str, execution: Execution, measurements: Mapping[str, float] | None = None, /, **metadata: object
    ) -> None:
        """Emit telemetry about the run."""
        tell(self._node.emit, execution, name, measurements, **metadata)

    def landed(self, execution: Execution, write: Commit | Start, turn: Turn | None, letters: Sequence[Letter]) -> None:
        """Emit what a landed commit changed."""
        node = self._node
        landed(node.emit, execution, write, turn, letters, is_draining=node.is_draining, since=node.seconds_since)

    # --- giving up and going away -------------------------------------------------------------------------------------

    async def _resolve_doubt(self, execution: Execution) -> None:
        execution.discard(await self._patiently(lambda: self._what_became_of(execution)))

    async def _what_became_of(self, execution: Execution) -> Ending | None:
        run_id = execution.facts.run_id
        row = await self._journal.run(run_id)
        if row is not None and row.lease_owner == execution.owner and row.lease_token == execution.token:
            # Ours, and yet refused: an older ambiguity, or a bug. The journal is right; start over from it.
            await self._journal.release_run(
                run_id, owner=execution.owner, token=execution.token, state=RunState.RUNNING
            )
            self.tell("lease.released", execution, reason="refused")
            self._wakes.runs_waiting()
        elif row is not None and row.state.has_ended:
            return next(iter(await self._journal.endings([run_id])), None)
        elif execution.phase is not Phase.GONE:  # else it was told when the owner was lost
            self.tell("lease.lost", execution)
        return None

    async def _patiently(self, step: Callable[[], Coroutine[object, None, T]]) -> T:
        """Repeat a step until the database has answered it: an execution in doubt can neither go on nor be forgotten."""
        delay_seconds = 0.05
        while True:
            try:
                return await step()
            except PASSING:
                await self._node.clock.sleep(delay_seconds)
                delay_seconds = min(delay_seconds * 2, 1.0)

    def lost(self, owner: str) -> None:
        """Give up everything that was leased to an owner whose row is gone."""
        for execution in self._registry:
            if execution.owner == owner:
                self.tell("lease.lost", execution)
                execution.discard()

    def _make_way(self, more: int) -> None:
        while self._idle and len(self._registry) + more > self._cache:
            run_id = next(iter(self._idle))
            execution = self._idle.pop(run_id)
            if execution.evict():
                more -= 1

    async def drain(self, deadline_seconds: float) -> bool:
        """Evict every execution as it becomes idle; False if some were still busy at the deadline."""
        for execution in self._registry:
            execution.evict()
        try:
            async with self._node.clock.timeout(deadline_seconds):
                while len(self._registry):
                    await self._emptier.wait(None)
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Give up what is left in memory; its leases are swept once the owner row is gone."""
        self.is_open = False
        for chore in tuple(self._chores):
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        for execution in self._registry:
            execution.discard()

    def _chore(self, coroutine: Coroutine[object, None, None]) -> None:
        task = self._node.loop.create_task(coroutine, context=self._passes.surroundings.copy())
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
