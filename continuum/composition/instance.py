# long: every verb with its types, twice where they are overloaded; what a verb does stands elsewhere
"""A named runtime bound to one database, with the verbs as methods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any, Literal, TypeVar, TypeVarTuple, Unpack, overload
from uuid import UUID

from continuum.client.client import Client
from continuum.client.reading import HistoryEvent, Page
from continuum.client.starting import Started
from continuum.client.wire import Wire
from continuum.composition.change import ChangeVerbs
from continuum.composition.instances import Instances
from continuum.composition.late import LateStart
from continuum.composition.options import Settings
from continuum.composition.peering import require_keys
from continuum.composition.readiness import Readiness, not_started, why_not_running
from continuum.composition.scheduling import SchedulingVerbs
from continuum.composition.wiring import Wiring, World
from continuum.definitions.calls import Call
from continuum.definitions.handles import HostSession, RunHandle
from continuum.definitions.workflow import Workflow
from continuum.errors import ConfigurationError, ContinuumError, InstanceNotStarted
from continuum.journal.port import Journal
from continuum.model.attributes import AttributeValue
from continuum.model.policy import Duration, seconds
from continuum.model.runs import Run
from continuum.model.states import RunState
from continuum.runtime.component import Component
from continuum.runtime.peer_door import Answer, Road
from continuum.runtime.tracing import TraceContext

R = TypeVar("R")
A = TypeVar("A")
Ts = TypeVarTuple("Ts")

Flow = Callable[[Unpack[Ts]], Coroutine[Any, Any, R]]


class Instance(SchedulingVerbs, ChangeVerbs):
    """One instance. Its verbs raise InstanceNotStarted until its components have been entered."""

    def __init__(
        self,
        settings: Settings,
        *,
        make_journal: Callable[[], Journal],
        prepare: Callable[[], Coroutine[Any, Any, None]],
        world: Callable[[], World],
        instances: Instances[Instance],
    ) -> None:
        self.name = settings.name
        self.settings = settings
        self.wiring: Wiring | None = None
        self._make_journal = make_journal
        self._prepare = prepare
        self._world = world
        self._instances = instances
        self.late = (
            None
            if settings.values["required"]
            else LateStart(self.name, node=settings.values["node"], open_now=self.open, close_now=self.close)
        )
        self._is_opening = False
        self._drained: Literal["no", "yes", "partly"] = "no"
        self._draining: asyncio.Lock | None = None
        self._drain_began: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<Instance {self.name}: {self.readiness().state}>"

    def forget(self) -> None:
        """Take the name back."""
        self._instances.remove(self.name, self)

    # --- life, driven by the parts ------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether its journal is open."""
        return self.wiring is not None

    @property
    def is_entered(self) -> bool:
        """Whether it is running, or is being started: its name is taken."""
        return self.is_running or self._is_opening or (self.late is not None and self.late.is_waited_for)

    @property
    def components(self) -> Mapping[str, Component] | None:
        """The components, while the journal is open."""
        return None if self.wiring is None else self.wiring.components

    async def open(self) -> None:
        """Open the journal and become an owner if runs or activities will live here.

        Raises:
            ConfigurationError: it was replaced, or is being opened already, or an option cannot be.
            JournalUnavailable, SchemaNotReady, SchemaTaken.
        """
        if self.wiring is not None:
            return
        if self._is_opening:
            raise ConfigurationError(f"instance {self.name!r} is being started by another task: enter it once")
        self._is_opening = True
        try:
            await self._open()
        finally:
            self._is_opening = False

    async def _open(self) -> None:
        successor = self._instances.known(self.name)
        if successor is not None and successor is not self:
            raise ConfigurationError(
                f"these children of {self.name!r} were replaced by later ones of the same name: enter those"
            )
        require_keys(self.settings)
        await self._prepare()
        journal = self._make_journal()
        try:
            await journal.open(self.name)
            wiring = Wiring(self.settings, journal, self._world())
            if self.settings.on("run_supervisor") or self.settings.on("activity_supervisor"):
                await wiring.membership.ensure()
        except BaseException:
            await journal.close()
            raise
        await wiring.awaiting.start()
        self._drained, self._draining, self._drain_began = "no", asyncio.Lock(), asyncio.Event()
        self.wiring = wiring
        wiring.emit("instance.started")

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[Journal]:
        """Give its journal to read from, without running: nothing is claimed, nothing written.

        Raises:
            SchemaNotReady, JournalUnavailable.
        """
        journal = self._make_journal()
        try:
            await journal.look()
            yield journal
        finally:
            await journal.close()

    def begin_drain(self, timeout: float | None = None) -> None:
        """Take no more work from now on: not ready, no starts, no claims; who waits for it is released."""
        if self.wiring is not None and self._drain_began is not None:
            if not self.wiring.node.is_draining:
                self.wiring.emit("instance.drain_started", {"timeout_seconds": self._drain_limit(timeout)})
            self.wiring.node.is_draining = True
            self._drain_began.set()
            self.wiring.awaiting.release()

    async def until_drain(self) -> None:
        """Wait until a drain begins; at once if the instance is not running."""
        if self._drain_began is not None:
            await self._drain_began.wait()

    async def drain(self, timeout: float | None = None) -> bool:
        """Take no more work, finish or hand over what there is; True if nothing had to be left behind."""
        wiring, lock = self.wiring, self._draining
        if wiring is None or lock is None:
            return True
        self.begin_drain(timeout)
        async with lock:
            if self._drained == "no":
                clock, limit = wiring.node.clock, self._drain_limit(timeout)
                began = clock.monotonic()
                runs = await wiring.runs.drain(limit)
                await wiring.attempts.drain(max(began + limit - clock.monotonic(), 0.0))
                self._drained = "yes" if runs else "partly"
                wiring.emit("instance.drained", {"duration_seconds": clock.monotonic() - began}, complete=runs)
        return self._drained == "yes"

    def _drain_limit(self, timeout: float | None) -> float:
        return self.settings.values["drain_timeout"] if timeout is None else timeout

    async def close(self) -> None:
        """Give up what is left, write what is queued, retire the owner row, close the journal."""
        if (wiring := self.wiring) is None:
            return
        async with AsyncExitStack() as steps:  # each is taken whatever becomes of those before: a stop may be cancelled
            steps.callback(wiring.emit, "instance.stopped")
            steps.push_async_callback(wiring.journal.close)
            steps.push_async_callback(self._leave, wiring)
            for part in (wiring.runs, wiring.attempts, wiring.awaiting, wiring.client.census):  # the last one first
                steps.push_async_callback(part.stop)
            steps.callback(setattr, self, "wiring", None)
            await self.drain()

    async def _leave(self, wiring: Wiring) -> None:
        """Write what is queued, and be no owner any more."""
        try:
            async with wiring.node.clock.timeout(self._drain_limit(None)):
                await wiring.committer.close()
                await wiring.membership.retire()
        except (TimeoutError, ContinuumError) as error:  # the database is away: the sweep will find our leases
            wiring.emit("instance.left_leases", error=repr(error))

    def readiness(self) -> Readiness:
        """Say whether it takes work."""
        wiring = self.wiring
        if wiring is None:
            return not_started(self.name, self.late)
        if self._drained == "partly":
            return Readiness("degraded", self.name, ("the drain left executions behind: their leases will be swept",))
        if self._drained == "yes":
            return Readiness("drained", self.name)
        if wiring.node.is_draining:
            return Readiness("draining", self.name)
        failing = tuple(part.name for part in wiring.components.values() if part.is_degraded)
        return Readiness("degraded" if failing else "ready", self.name, failing)

    def receive(self, road: Road, headers: Mapping[str, str], body: bytes) -> Answer:
        """Obey the call of a peer, if it is one; `headers` ignores case.

        Raises:
            InstanceNotStarted: it is not running.
        """
        assert self._client is not None
        assert self.wiring is not None
        return self.wiring.peering.door.receive(road, headers, body)

    @property
    def _client(self) -> Client:
        if self.wiring is None:
            raise InstanceNotStarted(why_not_running(self.name, self.late))
        return self.wiring.client

    @property
    def wire(self) -> Wire:
        """The verbs for callers who send names and JSON: what the HTTP door uses."""
        return self._client.wire

    # --- the verbs ----------------------------------------------------------------------------------------------------

    @overload
    async def start(
        self,
        flow: Flow[*Ts, R],
        /,
        *args: *Ts,
        run_id: str | UUID | None = ...,
        idempotency_key: str | None = ...,
        namespace: str = ...,
        attributes: Mapping[str, Any] | None = ...,
        start_at: datetime | None = ...,
        trace_context: TraceContext | None = ...,
        session: HostSession | None = ...,
    ) -> RunHandle[R]: ...
    @overload
    async def start(
        self,
        flow: Call[R],
        /,
        *,
        run_id: str | UUID | None = ...,
        idempotency_key: str | None = ...,
        namespace: str = ...,
        attributes: Mapping[str, Any] | None = ...,
        start_at: datetime | None = ...,
        trace_context: TraceContext | None = ...,
        session: HostSession | None = ...,
    ) -> RunHandle[R]: ...
    async def start(  # type: ignore[misc]  # mypy does not see that Any takes a TypeVarTuple's arguments
        self,
        flow: Any,
        /,
        *args: Any,  # typed by the overloads
        run_id: str | UUID | None = None,
        idempotency_key: str | None = None,
        namespace: str = "default",
        attributes: Mapping[str, Any] | None = None,
        start_at: datetime | None = None,
        trace_context: TraceContext | None = None,
        session: HostSession | None = None,
    ) -> RunHandle[Any]:
        """Start a run; see `continuum.start`."""
        workflow, starting = self._client.start(
            flow,
            args,
            run_id=run_id,
            idempotency_key=idempotency_key,
            namespace=namespace,
            attributes=attributes,
            start_at=start_at,
            trace_context=trace_context,
            session=session,
        )
        return self._handle(workflow, await starting)

    @overload
    async def start_many(
        self,
        flow: Callable[[A], Coroutine[Any, Any, R]],
        inputs: Iterable[A],
        /,
        *,
        namespace: str = ...,
        attributes: Mapping[str, Any] | None = ...,
        start_at: datetime | None = ...,
        trace_context: TraceContext | None = ...,
        session: HostSession | None = ...,
    ) -> list[RunHandle[R]]: ...
    @overload
    async def start_many(
        self,
        calls: Iterable[Call[R]],
        /,
        *,
        namespace: str = ...,
        attributes: Mapping[str, Any] | None = ...,
        start_at: datetime | None = ...,
        trace_context: TraceContext | None = ...,
        session: HostSession | None = ...,
    ) -> list[RunHandle[R]]: ...
    async def start_many(
        self,
        flow: Any,
        inputs: Iterable[Any] | None = None,
        /,
        *,
        namespace: str = "default",
        attributes: Mapping[str, Any] | None = None,
        start_at: datetime | None = None,
        trace_context: TraceContext | None = None,
        session: HostSession | None = None,
    ) -> list[RunHandle[Any]]:
        """Start many runs in one commit, all or none; see `continuum.start_many`."""
        started = await self._client.start_many(
            flow,
            inputs,
            namespace=namespace,
            attributes=attributes,
            start_at=start_at,
            trace_context=trace_context,
            session=session,
        )
        return [self._handle(workflow, one) for workflow, one in started]

    async def signal(
        self,
        run_id: str | UUID,
        name: str,
        payload: object = None,
        /,
        *,
        delivery_id: str | None = None,
        session: HostSession | None = None,
    ) -> Literal["delivered", "duplicate"]:
        """Signal a run; see `continuum.signal`."""
        return await self._client.signal(run_id, name, payload, delivery_id=delivery_id, session=session)

    async def cancel(
        self, run_id: str | UUID, /, *, compensate: bool = False, session: HostSession | None = None
    ) -> Literal["cancelled", "requested"]:
        """Cancel a run; see `continuum.cancel`."""
        return await self._client.cancel(run_id, compensate=compensate, session=session)

    @overload
    async def await_run(
        self, run_id: str | UUID, /, *, timeout: Duration | None = ..., wait_blocked: bool = ...
    ) -> object: ...
    @overload
    async def await_run(
        self,
        run_id: str | UUID,
        workflow: Workflow[..., R],
        /,
        *,
        timeout: Duration | None = ...,
        wait_blocked: bool = ...,
    ) -> R: ...
    async def await_run(
        self,
        run_id: str | UUID,
        workflow: Workflow[..., Any] | None = None,
        /,
        *,
        timeout: Duration | None = None,
        wait_blocked: bool = False,
    ) -> Any:
        """Wait for a run's end; see `continuum.await_run`."""
        return await self._client.result(run_id, workflow, timeout=timeout, wait_blocked=wait_blocked)

    def result_of(
        self, run_id: str, workflow: Any, *, timeout: Duration | None, wait_blocked: bool
    ) -> Coroutine[Any, Any, Any]:  # see definitions.handles.Verbs
        """Wait for a run's end, for a handle."""
        return self._client.result(run_id, workflow, timeout=timeout, wait_blocked=wait_blocked)

    async def get_run(self, run_id: str | UUID, /) -> Run:
        """Read a run; see `continuum.get_run`."""
        return await self._client.get_run(run_id)

    async def list_runs(
        self,
        *,
        workflow: str | Workflow[..., Any] | None = None,
        state: RunState | str | None = None,
        namespace: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Run]:
        """List runs, newest first; see `continuum.list_runs`."""
        return await self._client.list_runs(
            workflow=workflow, state=state, namespace=namespace, attributes=attributes, limit=limit, cursor=cursor
        )

    async def set_attributes(self, run_id: str | UUID, attributes: Mapping[str, AttributeValue], /) -> None:
        """Merge search attributes into a run's; see `continuum.set_attributes`."""
        await self._client.set_attributes(run_id, attributes)

    async def history(self, run_id: str | UUID, /, *, generation: int | None = None) -> list[HistoryEvent]:
        """Read a run's history; see `continuum.history`."""
        return await self._client.history(run_id, generation)

    async def drained(self, timeout: Duration | None = None) -> bool:
        """Drain; see `continuum.drain`."""
        return await self.drain(None if timeout is None else seconds(timeout, name="timeout"))

    def _handle(self, workflow: Workflow[..., Any], started: Started) -> RunHandle[Any]:
        return RunHandle(started.run_id, workflow, self._itself, existing=started.existing, fate=started.fate)

    def _itself(self) -> Instance:
        return self
