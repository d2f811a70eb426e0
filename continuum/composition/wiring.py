# long: every part of an instance, once, and what it is connected to
"""Builds the parts of one running instance around its journal. Cheap objects; nothing runs until it is started.

What is off is built all the same and never started: a supervisor that was not opened has no room and no slots, a loop
that does not run hears its nudges and does nothing. So no code asks whether a part is there.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from continuum.client.client import Client
from continuum.clock import Clock
from continuum.composition.options import Settings
from continuum.composition.peering import Peering
from continuum.composition.transacting import MakeTransactions, no_transactions
from continuum.definitions.activity import Activity
from continuum.definitions.catalog import Catalog
from continuum.errors import WorkflowNotFound
from continuum.ids import IdSource
from continuum.journal.group import GroupCommitter
from continuum.journal.port import Journal
from continuum.replay.guard import guard_of
from continuum.runtime.activity_dispatcher import ActivityDispatcher
from continuum.runtime.activity_finder import ActivityFinder
from continuum.runtime.activity_supervisor import ActivitySupervisor
from continuum.runtime.awaiting import Awaiting
from continuum.runtime.component import Component, Loop
from continuum.runtime.delivery import Delivery
from continuum.runtime.dispatcher import Dispatcher
from continuum.runtime.execution import Execution
from continuum.runtime.heartbeater import LeaseHeartbeater, Membership, ThreadedHeartbeater
from continuum.runtime.node import Node
from continuum.runtime.pruner import Pruner
from continuum.runtime.pubsub import NoPubSub, PubSub
from continuum.runtime.pulse import Pulse
from continuum.runtime.recovery import Recovery
from continuum.runtime.registry import Registry
from continuum.runtime.run_supervisor import RunSupervisor
from continuum.runtime.schedule_runner import ScheduleRunner
from continuum.runtime.signal_router import SignalRouter
from continuum.runtime.snapshotter import Snapshotter
from continuum.runtime.timer_wheel import TimerWheel
from continuum.runtime.wakes import Wakes
from continuum.telemetry import Emitter


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a process's surroundings are: real ones, or those of a test."""

    clock: Clock
    draw: Random
    new_id: IdSource
    catalog: Catalog
    is_threaded: bool  # whether heartbeats have a thread of their own
    has_pollers: bool = True  # False: loops run only when nudged
    fakes: Mapping[str, Activity[..., Any]] | None = None
    transactions: MakeTransactions = no_transactions  # of the host's database, where it has one


CATCH_UP_SECONDS = 30.0  # the scan behind LISTEN
CATCH_UP_ALONE_SECONDS = 1.0  # the scan where no notice arrives: then it is how messages from other processes are seen
AWAIT_SECONDS = 0.5  # slowest poll for endings of runs that live elsewhere
AWAIT_LOCAL_SECONDS = 5.0  # and for those that live here, in case memory is wrong
AUDIT_PASSES = 30  # of recovery, between two audits of our own leases
FOR_EVER_SECONDS = 1_000 * 365 * 86_400.0  # how far a wheel looks ahead when nothing polls; dates must stay possible
FRESH_INTERVALS = 1.35  # four loops share one answer, so that an idle instance asks less than once a second


class Wiring:
    """All parts of one instance, connected."""

    def __init__(self, settings: Settings, journal: Journal, world: World) -> None:
        self.settings = settings
        self.journal = journal
        self.world = world
        values = settings.values
        flows, activities = values["workflows"], values["activities"]
        self._chosen_workflows: tuple[tuple[str, int], ...] | None = flows and tuple(
            sorted((name, flow.version) for flow in flows for name in (flow.name, *flow.aliases))
        )
        self._chosen_activities: tuple[str, ...] | None = activities and tuple(sorted(a.name for a in activities))
        node_name = values["node"] or socket.gethostname()
        self.emit = Emitter(instance=settings.name, node=node_name)
        self.node = Node(
            instance=settings.name,
            name=node_name,
            clock=world.clock,
            draw=world.draw,
            new_id=world.new_id,
            emit=self.emit,
            lease_ttl=values["lease_ttl"],
            advertise_url=values["advertise_url"],
        )
        self.wakes = Wakes()
        self.pulse = Pulse(journal=journal, clock=world.clock, fresh_seconds=self._fresh_seconds)
        self.registry: Registry[Execution] = Registry()
        self.pubsub = PubSub() if settings.on("pubsub") else NoPubSub()
        self.committer = GroupCommitter(
            journal=journal, clock=world.clock, draw=world.draw, emit=self.emit, lanes=journal.lanes
        )
        self.delivery = Delivery(
            node=self.node, journal=journal, registry=self.registry, committer=self.committer, wakes=self.wakes
        )
        self.awaiting = Awaiting(
            self._name("awaiting"),
            node=self.node,
            journal=journal,
            pubsub=self.pubsub,
            wakes=self.wakes,
            lives_here=lambda run_id: settings.on("pubsub") and run_id in self.registry,
            interval=self._every(AWAIT_SECONDS),
            local_interval=self._every(AWAIT_LOCAL_SECONDS),
        )
        self.peering = Peering(
            settings,
            node=self.node,
            journal=journal,
            registry=self.registry,
            pubsub=self.pubsub,
            wakes=self.wakes,
            awaiting=self.awaiting,
        )
        self.attempts = self._activity_supervisor()
        self.runs = self._run_supervisor()
        self.membership = Membership(node=self.node, owners=journal, lost=self.runs.lost)
        self.dispatcher = self._dispatcher()
        self.recovery = self._recovery()
        self.components = self._components()
        self.client = self._client()

    def _components(self) -> Mapping[str, Component]:
        return {
            "pubsub": Component(self._name("pubsub")),
            "registry": Component(self._name("registry")),
            "run_supervisor": self.runs,
            "activity_supervisor": self.attempts,
            "heartbeater": self._heartbeater(),
            "dispatcher": self.dispatcher,
            "activity_dispatcher": self._activity_dispatcher(),
            "recovery": self.recovery,
            "snapshotter": self._snapshotter(),
            "timer_wheel": self._timer_wheel(),
            "signal_router": self._signal_router(),
            "peers": self.peering.component,
            "schedule_runner": self._schedule_runner(),
            "pruner": self._pruner(),
        }

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is under way: no turn, no attempt, no commit, no pass of a loop."""
        loops = [part for part in (*self.components.values(), self.awaiting) if isinstance(part, Loop)]
        return (
            self.runs.is_quiet
            and not self.attempts.running
            and not self.committer.in_flight
            and all(loop.is_resting for loop in loops)
        )

    def _name(self, part: str) -> str:
        return f"{self.settings.name}.{part}"

    @property
    def _fresh_seconds(self) -> float:
        """How old an answer to the pollers' question may be: a little more than the shortest of their intervals."""
        pollers = ("dispatcher", "activity_dispatcher", "recovery", "schedule_runner")
        shortest: float = min(self.settings.part(part)["interval"] for part in pollers)
        return shortest * FRESH_INTERVALS

    def _every(self, seconds: float) -> float | None:
        return seconds if self.world.has_pollers else None

    @property
    def workflows(self) -> tuple[tuple[str, int], ...]:
        """What this instance serves, as (name, version)."""
        return self.world.catalog.workflows if self._chosen_workflows is None else self._chosen_workflows

    def _find_workflow(self, name: str, version: int) -> Any:
        if self._chosen_workflows is not None and (name, version) not in self._chosen_workflows:
            return None
        try:
            return self.world.catalog.workflow(name, version)
        except WorkflowNotFound:
            return None

    @property
    def _activities(self) -> tuple[str, ...]:
        return self.world.catalog.activities if self._chosen_activities is None else self._chosen_activities

    def _find_activity(self, name: str) -> Any:
        is_served = self._chosen_activities is None or name in self._chosen_activities
        return self.world.catalog.activity(name) if is_served else None

    def _activity_supervisor(self) -> ActivitySupervisor:
        options, values = self.settings.part("activity_supervisor"), self.settings.values
        return ActivitySupervisor(
            self._name("activity_supervisor"),
            node=self.node,
            journal=self.journal,
            activities=ActivityFinder(self._find_activity, lambda: self._activities, self.world.fakes),
            delivery=self.delivery,
            wakes=self.wakes,
            transactions=self.world.transactions(self.journal, self.settings),
            interval=self._every(values["lease_ttl"] / 3),
            max_concurrency=options["max_concurrency"],
            threads=options["threads"],
            queues=options["queues"],
            state=values["state"],
            payload_max=values["payload_max"],
            details_max=values["details_max"],
        )

    def _run_supervisor(self) -> RunSupervisor:
        return RunSupervisor(
            self._name("run_supervisor"),
            node=self.node,
            journal=self.journal,
            committer=self.committer,
            registry=self.registry,
            pubsub=self.pubsub,
            wakes=self.wakes,
            delivery=self.delivery,
            attempts=self.attempts,
            find_workflow=self._find_workflow,
            cache=self.settings.part("run_supervisor")["cache"],
            history_max=self.settings.values["history_max"],
            payload_max=self.settings.values["payload_max"],
            depth_max=self.settings.values["max_child_depth"],
            guard=guard_of(self.settings.values["guard"]),
        )

    def _heartbeater(self) -> Component:
        interval = self.settings.part("heartbeater")["interval"] or self.node.lease_ttl / 3
        if self.world.is_threaded:
            return ThreadedHeartbeater(
                self._name("heartbeater"),
                node=self.node,
                journal=self.journal,
                membership=self.membership,
                interval=interval,
                unanswered_since=lambda: self.committer.last_answer if self.committer.in_flight else None,
            )
        return LeaseHeartbeater(
            self._name("heartbeater"),
            node=self.node,
            owners=self.journal,
            membership=self.membership,
            interval=self._every(interval),
        )

    def _dispatcher(self) -> Dispatcher:
        options = self.settings.part("dispatcher")
        dispatcher = Dispatcher(
            self._name("dispatcher"),
            node=self.node,
            journal=self.journal,
            supervisor=self.runs,
            wakes=self.wakes,
            pulse=self.pulse,
            code=lambda: (self.world.catalog.revision, self.workflows),
            interval=self._every(options["interval"]),
            batch=options["batch"],
        )
        if self.settings.on("dispatcher"):
            self.wakes.claim_runs = dispatcher.nudge
        return dispatcher

    def _activity_dispatcher(self) -> ActivityDispatcher:
        options = self.settings.part("activity_dispatcher")
        dispatcher = ActivityDispatcher(
            self._name("activity_dispatcher"),
            node=self.node,
            journal=self.journal,
            supervisor=self.attempts,
            pulse=self.pulse,
            interval=self._every(options["interval"]),
            batch=options["batch"],
        )
        if self.settings.on("activity_dispatcher"):
            self.wakes.claim_tasks = dispatcher.nudge
        return dispatcher

    def _recovery(self) -> Recovery:
        recovery = Recovery(
            self._name("recovery"),
            node=self.node,
            owners=self.journal,
            journal=self.journal,
            delivery=self.delivery,
            wakes=self.wakes,
            attempts=self.attempts,
            pulse=self.pulse,
            knows_run=self._knows_run,
            interval=self._every(self.settings.part("recovery")["interval"]),
            audit_every=AUDIT_PASSES,
        )
        self.wakes.audit = recovery.audit_soon
        return recovery

    def _knows_run(self, run_id: str, owner: str) -> bool:
        execution = self.registry.get(run_id)
        return execution is not None and execution.owner == owner

    def _snapshotter(self) -> Snapshotter:
        return Snapshotter(
            self._name("snapshotter"),
            node=self.node,
            journal=self.journal,
            registry=self.registry,
            find_workflow=self._find_workflow,
            interval=self._every(self.settings.part("snapshotter")["interval"]),
            threshold=self.settings.part("snapshotter")["threshold"],
        )

    def _timer_wheel(self) -> TimerWheel:
        horizon = self.settings.part("timer_wheel")["horizon"]
        wheel = TimerWheel(
            self._name("timer_wheel"),
            node=self.node,
            journal=self.journal,
            registry=self.registry,
            wakes=self.wakes,
            horizon=horizon if self.world.has_pollers else FOR_EVER_SECONDS,
            interval=self._every(horizon / 2),
        )
        if self.settings.on("timer_wheel"):
            self.runs.watch_deadlines_with(wheel.watch)
            self.wakes.watch_deadline = wheel.nudge
        return wheel

    def _signal_router(self) -> SignalRouter:
        router = SignalRouter(
            self._name("signal_router"),
            node=self.node,
            journal=self.journal,
            notices=self.journal,
            has_notices=self.journal.has_notices and self.world.has_pollers,
            deafness=self.journal.deafness,
            registry=self.registry,
            wakes=self.wakes,
            interval=self._every(self._catch_up_seconds),
        )
        if self.settings.on("signal_router"):
            self.runs.hears_messages = True
            self.wakes.read_inbox = router.read_inbox
            self.wakes.tell_others = router.tell_others
        return router

    @property
    def _catch_up_seconds(self) -> float:
        chosen: float | None = self.settings.part("signal_router")["catch_up"]
        return chosen or (CATCH_UP_SECONDS if self.journal.deafness is None else CATCH_UP_ALONE_SECONDS)

    def _schedule_runner(self) -> ScheduleRunner:
        options = self.settings.part("schedule_runner")
        runner = ScheduleRunner(
            self._name("schedule_runner"),
            node=self.node,
            journal=self.journal,
            pulse=self.pulse,
            pubsub=self.pubsub,
            wakes=self.wakes,
            workflows=lambda: tuple({name for name, _ in self.world.catalog.workflows}),
            find_workflow=self.world.catalog.workflow,
            cancel=self._cancel,
            interval=self._every(options["interval"]),
            batch=options["batch"],
            attempts=options["attempts"],
            backoff=options["backoff"],
        )
        self.wakes.fire_schedules = runner.nudge if self.settings.on("schedule_runner") else self.wakes.fire_schedules
        return runner

    async def _cancel(self, run_id: str) -> None:  # the client is made last
        await self.client.cancel(run_id, compensate=False)

    def _pruner(self) -> Pruner:
        options = self.settings.part("pruner")
        return Pruner(
            self._name("pruner"),
            node=self.node,
            journal=self.journal,
            **{**options, "interval": self._every(options["interval"])},
        )

    def _client(self) -> Client:
        return Client(
            node=self.node,
            journal=self.journal,
            committer=self.committer,
            registry=self.registry,
            supervisor=self.runs,
            delivery=self.delivery,
            awaiting=self.awaiting,
            dispatcher=self.dispatcher,
            sweep=self.recovery.sweep,
            membership=self.membership,
            wakes=self.wakes,
            catalog=self.world.catalog,
            payload_max=self.settings.values["payload_max"],
        )
