"""The verbs together, behind the guards that all of them share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from continuum.client.inputs import call_of, run_id_of
from continuum.client.preflight import Preflight, PreflightJournal, Watch, preflight
from continuum.client.reading import History, Page, Reader
from continuum.client.scheduling import ScheduleOptions, Scheduler, SchedulerJournal, expect_fire_time
from continuum.client.starting import Started, Starter, StartOptions, Until
from continuum.client.talking import Talker, TalkJournal
from continuum.client.versions import WorkflowVersion, versions
from continuum.client.wire import Wire
from continuum.definitions.catalog import Catalog
from continuum.definitions.handles import HostSession
from continuum.definitions.workflow import Workflow
from continuum.errors import InputInvalid, NotAllowedHere, WrongEventLoop
from continuum.journal.group import GroupCommitter
from continuum.journal.port import CensusJournal
from continuum.model.policy import Duration
from continuum.model.runs import Run
from continuum.model.states import RunState
from continuum.replay.context import cancel_run, in_workflow, signal_run
from continuum.runtime.activity_context import waits_for_itself
from continuum.runtime.awaiting import Awaiting
from continuum.runtime.census import CensusTaker
from continuum.runtime.delivery import Delivery
from continuum.runtime.dispatcher import Dispatcher
from continuum.runtime.execution import Execution
from continuum.runtime.heartbeater import Membership
from continuum.runtime.node import Node
from continuum.runtime.registry import Registry
from continuum.runtime.run_supervisor import RunSupervisor
from continuum.runtime.tracing import TraceContext
from continuum.runtime.wakes import Wakes


class ClientJournal(TalkJournal, SchedulerJournal, PreflightJournal, CensusJournal, Protocol):
    """What the verbs ask and write."""


class Client:
    """The verbs of one running instance; `continuum.Instance` offers them with types."""

    def __init__(
        self,
        *,
        node: Node,
        journal: ClientJournal,
        committer: GroupCommitter,
        registry: Registry[Execution],
        supervisor: RunSupervisor,
        delivery: Delivery,
        awaiting: Awaiting,
        dispatcher: Dispatcher,
        sweep: Callable[[], Awaitable[None]],
        membership: Membership,
        wakes: Wakes,
        catalog: Catalog,
        payload_max: int,
    ) -> None:
        self._node = node
        self._catalog = catalog
        self._journal = journal
        self._starter = Starter(
            node=node,
            journal=journal,
            committer=committer,
            supervisor=supervisor,
            awaiting=awaiting,
            wakes=wakes,
            payload_max=payload_max,
        )
        self._scheduler = Scheduler(
            node=node,
            journal=journal,
            starter=self._starter,
            wakes=wakes,
            catalog=catalog,
            payload_max=payload_max,
        )
        self._talker = Talker(
            node=node,
            journal=journal,
            registry=registry,
            committer=committer,
            delivery=delivery,
            awaiting=awaiting,
            dispatcher=dispatcher,
            sweep=sweep,
            membership=membership,
            catalog=catalog,
            payload_max=payload_max,
        )
        supervisor.carry_with(self._talker.carry)
        self._reader = Reader(node=node, journal=journal, registry=registry, awaiting=awaiting)
        self.census = CensusTaker(journal=journal, clock=node.clock)
        self._wire = Wire(client=self, node=node, journal=journal, registry=registry, reader=self._reader)

    @property
    def wire(self) -> Wire:
        """The verbs for callers who send names and JSON."""
        self._guard("what comes over the wire", "an activity")
        return self._wire

    def start(
        self,
        flow: Any,
        args: tuple[Any, ...],
        *,
        run_id: str | UUID | None,
        idempotency_key: str | None,
        namespace: str,
        attributes: Mapping[str, Any] | None,
        start_at: datetime | None,
        trace_context: TraceContext | None = None,
        session: HostSession | None = None,
        until: Until | None = None,
    ) -> tuple[Workflow[..., Any], Coroutine[Any, Any, Started]]:
        """Check a start; return the workflow that it means, and what starts it."""
        self._guard("start", "start_child, or an activity that starts it")
        self._guard_write("start", session)
        workflow, arguments = call_of(flow, args, self._catalog)
        options = StartOptions.checked(
            run_id=run_id,
            idempotency_key=idempotency_key,
            namespace=namespace,
            attributes=attributes,
            start_at=start_at,
            trace_context=trace_context,
        )
        return workflow, self._starter.start(workflow, arguments, options, session, until=until)

    async def start_many(
        self,
        flow: Any,
        inputs: Iterable[Any] | None,
        *,
        namespace: str,
        attributes: Mapping[str, Any] | None,
        start_at: datetime | None,
        trace_context: TraceContext | None = None,
        session: HostSession | None = None,
    ) -> list[tuple[Workflow[..., Any], Started]]:
        """Start many runs in one commit."""
        self._guard("start_many", "activities")
        self._guard_write("start_many", session)
        if inputs is not None:
            calls = [call_of(flow, (argument,), self._catalog) for argument in inputs]
        elif isinstance(flow, Iterable):
            calls = [call_of(call, (), self._catalog) for call in flow]
        else:
            raise InputInvalid("start_many(flow, inputs) takes one input per run, start_many(calls) what .bound() made")
        options = StartOptions.checked(
            run_id=None,
            idempotency_key=None,
            namespace=namespace,
            attributes=attributes,
            start_at=start_at,
            trace_context=trace_context,
        )
        started = await self._starter.start_many(calls, options, session)
        return [(workflow, one) for (workflow, _), one in zip(calls, started, strict=True)]

    async def signal(
        self,
        run_id: str | UUID,
        name: str,
        payload: object,
        *,
        delivery_id: str | None,
        session: HostSession | None = None,
    ) -> Literal["delivered", "duplicate"]:
        """Signal a run; in a workflow that is a command of its own."""
        if in_workflow() and session is None:
            return await signal_run(run_id, name, payload, instance=self._node.instance, delivery_id=delivery_id)
        self._guard("signal" if session is None else "signal(session=)", "an activity that signals")
        self._guard_write("signal", session)
        return await self._talker.signal(run_id_of(run_id), name, payload, delivery_id=delivery_id, session=session)

    async def cancel(
        self, run_id: str | UUID, *, compensate: bool, session: HostSession | None = None
    ) -> Literal["cancelled", "requested"]:
        """Cancel a run; in a workflow that is a command of its own."""
        if in_workflow() and session is None:
            return await cancel_run(run_id, compensate=compensate, instance=self._node.instance)
        self._guard("cancel" if session is None else "cancel(session=)", "an activity that cancels")
        self._guard_write("cancel", session)
        return await self._talker.cancel(run_id_of(run_id), compensate=compensate, session=session)

    async def set_attributes(self, run_id: str | UUID, attributes: Mapping[str, Any]) -> None:
        """Change a run's attributes."""
        self._guard("set_attributes(run_id, ...)", "set_attributes(name=value) for the run's own")
        self._guard_write("set_attributes", None)
        await self._talker.set_attributes(run_id_of(run_id), attributes)

    def result(
        self,
        run_id: str | UUID,
        workflow: Workflow[..., Any] | None,
        *,
        timeout: Duration | None,
        wait_blocked: bool,
    ) -> Coroutine[Any, Any, Any]:
        """Check, and return what waits for a run's end."""
        self._guard("await_run", "an activity that waits")
        return self._reader.result(run_id_of(run_id), workflow, timeout=timeout, wait_blocked=wait_blocked)

    async def get_run(self, run_id: str | UUID) -> Run:
        """Read a run."""
        self._guard("get_run", "an activity that reads")
        return await self._reader.get_run(run_id_of(run_id))

    async def list_runs(
        self,
        *,
        workflow: str | Workflow[..., Any] | None,
        state: RunState | str | None,
        namespace: str | None,
        attributes: Mapping[str, Any] | None,
        limit: int,
        cursor: str | None,
    ) -> Page[Run]:
        """List runs."""
        self._guard("list_runs", "an activity that reads")
        return await self._reader.list_runs(
            workflow=workflow, state=state, namespace=namespace, attributes=attributes, limit=limit, cursor=cursor
        )

    async def history(self, run_id: str | UUID, generation: int | None = None) -> History:
        """Read a history."""
        self._guard("history", "an activity that reads")
        return await self._reader.history(run_id_of(run_id), generation=generation)

    async def versions(self) -> tuple[WorkflowVersion, ...]:
        """Return which versions are needed and carried."""
        self._guard("versions", "an activity that reads")
        return await versions(self._journal)

    async def preflight(
        self, *, workflow: str | Workflow[..., Any] | None, sample: int | None, watch: Watch | None
    ) -> Preflight:
        """Replay the open runs against the code at hand."""
        self._guard("preflight", "an activity that reads")
        name = workflow.name if isinstance(workflow, Workflow) else workflow
        return await preflight(
            self._journal, self._catalog.find, self._node.instance, workflow=name, sample=sample, watch=watch
        )

    async def schedule(self, flow: Any, args: tuple[Any, ...], options: ScheduleOptions) -> str:
        """Declare a schedule; return its id."""
        scheduler = self.scheduler("schedule")
        workflow, arguments = call_of(flow, args, self._catalog)
        expect_fire_time(flow, args, arguments)
        return await scheduler.define(workflow, arguments, options)

    def scheduler(self, verb: str) -> Scheduler:
        """Return the verbs about schedules."""
        self._guard(verb, "an activity")
        return self._scheduler

    def _guard(self, verb: str, instead: str) -> None:
        if asyncio.get_running_loop() is self._node.loop:  # code of a workflow runs on a loop of its own
            return
        if in_workflow():
            raise NotAllowedHere(f"{verb} would not be journaled in a workflow; use {instead}")
        raise WrongEventLoop(
            f"instance {self._node.instance!r} runs on another event loop: await {verb} there, "
            "or enter the instance in this one"
        )

    def _guard_write(self, verb: str, session: HostSession | None) -> None:
        if session is None and waits_for_itself(self._node.instance):
            raise NotAllowedHere(
                f"{verb} without session= would wait for the transaction of the activity that awaits it, because SQLite "
                f"has one writer: pass {verb}(..., session=session), which makes it a part of that transaction, or leave "
                "it to the workflow or another activity"
            )
