"""The verbs as functions: each finds its instance and asks it.

`instance=None` means the default instance, and in an activity the one that performs it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any, Literal, TypeVar, TypeVarTuple, Unpack, overload
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from continuum.client.reading import HistoryEvent, Page
from continuum.composition.building import instances
from continuum.composition.children import Children, instances_of
from continuum.composition.instance import Instance
from continuum.composition.instances import DEFAULT
from continuum.composition.readiness import Readiness
from continuum.composition.sigterm import drains_on_sigterm
from continuum.definitions.calls import Call
from continuum.definitions.handles import HostSession, RunHandle
from continuum.definitions.workflow import Workflow
from continuum.errors import InputInvalid, InstanceNotRegistered, NotAllowedHere
from continuum.journal.sql import migrate as migrate_engine
from continuum.model.attributes import AttributeValue
from continuum.model.policy import Duration
from continuum.model.runs import Run
from continuum.model.states import RunState
from continuum.replay.context import cancel_run, in_workflow, set_own_attributes, signal_run
from continuum.runtime.activity_context import current
from continuum.runtime.component import Component
from continuum.runtime.tracing import TraceContext

R = TypeVar("R")
A = TypeVar("A")
Ts = TypeVarTuple("Ts")


def instance(name: str, /) -> Instance:
    """Return the instance of this name, with the verbs as methods.

    Raises:
        InstanceNotRegistered: there is none.
    """
    return instances.get(name)


def resolve(name: str | None) -> Instance:
    """Return the instance that a verb means."""
    if name is None:
        running = current.get(None)
        name = running.instance if running is not None else DEFAULT
    try:
        found = instances.get(name)
        if found.wiring is not None or not in_workflow():
            return found
    except InstanceNotRegistered:
        if not in_workflow():
            raise
    # In a workflow no instance would do, so it does not matter that this one is not there or does not run.
    raise NotAllowedHere("a workflow cannot ask an instance: nothing of it would be journaled; use an activity")


@overload
async def start(
    flow: Callable[[Unpack[Ts]], Coroutine[Any, Any, R]],
    /,
    *args: *Ts,
    instance: str | None = ...,
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
    flow: Call[R],
    /,
    *,
    instance: str | None = ...,
    run_id: str | UUID | None = ...,
    idempotency_key: str | None = ...,
    namespace: str = ...,
    attributes: Mapping[str, Any] | None = ...,
    start_at: datetime | None = ...,
    trace_context: TraceContext | None = ...,
    session: HostSession | None = ...,
) -> RunHandle[R]: ...
async def start(  # type: ignore[misc]  # mypy does not see that Any takes a TypeVarTuple's arguments
    flow: Any,
    /,
    *args: Any,
    instance: str | None = None,
    run_id: str | UUID | None = None,
    idempotency_key: str | None = None,
    namespace: str = "default",
    attributes: Mapping[str, Any] | None = None,
    start_at: datetime | None = None,
    trace_context: TraceContext | None = None,
    session: HostSession | None = None,
) -> RunHandle[Any]:
    """Start a run of a workflow; returns once that is durable.

    Args:
        flow: a workflow followed by its positional arguments, or `flow.bound(...)` for keyword-only ones.
        run_id: a UUID of your own; by default a new UUIDv7.
        idempotency_key: the same key and input give the same run for as long as it is kept, per namespace and workflow.
        namespace: groups runs; 1 to 200 characters.
        attributes: names and values to find the run by: str, int, float, bool, aware datetime, or a list of those.
        start_at: an aware datetime before which the run does not begin.
        session: an AsyncSession or AsyncConnection of the instance's engine, in whose transaction the run is started: it
            exists when that commits, and never if it rolls back. Until then the handle is `pending_commit`.
        trace_context: a W3C `traceparent`, or headers with one, that the run's traces link to; by default that of the
            caller's span (see `continuum.otel`).

    Raises:
        InputInvalid: the arguments do not fit; `problems` points at each.
        IdempotencyConflict: the key was used with another input.
        RunExists: the run id is taken.
        SessionInvalid: `session` cannot carry this.
        InstanceDraining, InstanceNotRegistered, InstanceNotStarted, WrongEventLoop, JournalUnavailable.
    """
    return await resolve(instance).start(
        flow,
        *args,
        run_id=run_id,
        idempotency_key=idempotency_key,
        namespace=namespace,
        attributes=attributes,
        start_at=start_at,
        trace_context=trace_context,
        session=session,
    )


@overload
async def start_many(
    flow: Callable[[A], Coroutine[Any, Any, R]],
    inputs: Iterable[A],
    /,
    *,
    instance: str | None = ...,
    namespace: str = ...,
    attributes: Mapping[str, Any] | None = ...,
    start_at: datetime | None = ...,
    trace_context: TraceContext | None = ...,
    session: HostSession | None = ...,
) -> list[RunHandle[R]]: ...
@overload
async def start_many(
    calls: Iterable[Call[R]],
    /,
    *,
    instance: str | None = ...,
    namespace: str = ...,
    attributes: Mapping[str, Any] | None = ...,
    start_at: datetime | None = ...,
    trace_context: TraceContext | None = ...,
    session: HostSession | None = ...,
) -> list[RunHandle[R]]: ...
async def start_many(
    flow: Any,
    inputs: Iterable[Any] | None = None,
    /,
    *,
    instance: str | None = None,
    namespace: str = "default",
    attributes: Mapping[str, Any] | None = None,
    start_at: datetime | None = None,
    trace_context: TraceContext | None = None,
    session: HostSession | None = None,
) -> list[RunHandle[Any]]:
    """Start many runs in one commit, all or none: one workflow with an input each, or calls made by `.bound()`.

    They are inserted for whoever has room, so a node that starts ten thousand does not have to run them all.

    Raises:
        As `start`; nothing was started then.
    """
    return await resolve(instance).start_many(  # type: ignore[misc]  # more unions than mypy tries
        flow,
        inputs,  # type: ignore[arg-type]  # the overloads have seen to it
        namespace=namespace,
        attributes=attributes,
        start_at=start_at,
        trace_context=trace_context,
        session=session,
    )


async def signal(
    run_id: str | UUID,
    name: str,
    payload: object = None,
    /,
    *,
    instance: str | None = None,
    delivery_id: str | None = None,
    session: HostSession | None = None,
) -> Literal["delivered", "duplicate"]:
    """Send a run a signal; returns once that is durable.

    Args:
        delivery_id: a second delivery with this id is answered "duplicate", for as long as the run is kept.
        session: as for `start`; "delivered" then says that it is recorded if that transaction commits. A run that ends
            before never reads it.

    Raises:
        RunNotFound: there is no such run.
        RunNotActive: it has ended.
        SignalInvalid: the payload does not fit what the workflow declares.
        SignalUnknown: the workflow declares its signals, and this is none of them.
        SessionInvalid: `session` cannot carry this.
    """
    if in_workflow() and session is None:  # a command of the run: no instance is asked
        return await signal_run(run_id, name, payload, instance=instance, delivery_id=delivery_id)
    return await resolve(instance).signal(run_id, name, payload, delivery_id=delivery_id, session=session)


async def cancel(
    run_id: str | UUID,
    /,
    *,
    compensate: bool = False,
    instance: str | None = None,
    session: HostSession | None = None,
) -> Literal["cancelled", "requested"]:
    """Cancel a run: a database transition, no workflow code runs, waiting activities are withdrawn, children cancelled.

    "requested" says that it is recorded and that the node that holds the run has not honoured it yet.

    Args:
        compensate: first undo what the run owes, newest first (state `cancelling`); that needs the workflow's code.
        session: as for `start`; the answer is "requested", and the run is cancelled after that transaction's commit.

    Raises:
        RunNotFound, RunNotActive.
        SessionInvalid: `session` cannot carry this.
    """
    if in_workflow() and session is None:
        return await cancel_run(run_id, compensate=compensate, instance=instance)
    return await resolve(instance).cancel(run_id, compensate=compensate, session=session)


@overload
async def await_run(
    run_id: str | UUID, /, *, timeout: Duration | None = ..., wait_blocked: bool = ..., instance: str | None = ...
) -> object: ...
@overload
async def await_run(
    run_id: str | UUID,
    workflow: Workflow[..., R],
    /,
    *,
    timeout: Duration | None = ...,
    wait_blocked: bool = ...,
    instance: str | None = ...,
) -> R: ...
async def await_run(
    run_id: str | UUID,
    workflow: Workflow[..., Any] | None = None,
    /,
    *,
    timeout: Duration | None = None,
    wait_blocked: bool = False,
    instance: str | None = None,
) -> Any:
    """Wait for a run's end and return its result; typed if the workflow is given.

    Args:
        timeout: seconds or timedelta; None waits for ever.
        wait_blocked: wait on while the run is blocked, instead of raising RunBlocked.

    Raises:
        RunFailed, RunCancelled, RunBlocked, ResultTimedOut, RunNotFound.
    """
    target = resolve(instance)
    return await target.result_of(str(run_id), workflow, timeout=timeout, wait_blocked=wait_blocked)


async def get_run(run_id: str | UUID, /, *, instance: str | None = None) -> Run:
    """Read a run.

    Raises:
        RunNotFound: there is none of this id.
    """
    return await resolve(instance).get_run(run_id)


async def list_runs(
    *,
    workflow: str | Workflow[..., Any] | None = None,
    state: RunState | str | None = None,
    namespace: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    limit: int = 100,
    cursor: str | None = None,
    instance: str | None = None,
) -> Page[Run]:
    """List runs, newest first, by pages of at most 1,000; pass `next_cursor` on to read the next one.

    Raises:
        InputInvalid: a filter, the limit or the cursor is not acceptable.
    """
    return await resolve(instance).list_runs(
        workflow=workflow, state=state, namespace=namespace, attributes=attributes, limit=limit, cursor=cursor
    )


@overload
def set_attributes(
    run_id: str | UUID, attributes: Mapping[str, AttributeValue], /, *, instance: str | None = ...
) -> Coroutine[Any, Any, None]: ...
@overload
def set_attributes(**attributes: AttributeValue) -> None: ...
def set_attributes(run_id: Any = None, attributes: Any = None, /, **named: Any) -> Coroutine[Any, Any, None] | None:
    """Merge search attributes into a run's: from anywhere, or in a workflow into its own.

    `await set_attributes(run_id, {...})` changes those of any run, in any state, and returns once that is durable. It is
    one statement: of two callers who change different names at once, neither loses. In a workflow
    `set_attributes(name=value)` changes its own with the turn's commit: no await, and no event in the history, so that
    it may be added to code at any time. None removes a name.

    Raises:
        RunNotFound: there is no such run.
        NotInWorkflow: no run is named, outside of a workflow.
        DurableValueError: a value cannot be an attribute, or all together would be too large; the path points at it.
    """
    if run_id is None:
        set_own_attributes(named)
        return None
    instance = named.pop("instance", None)
    if named:
        raise InputInvalid(f"set_attributes(run_id, {{...}}) takes instance=, and no {next(iter(named))!r}")
    return resolve(instance).set_attributes(run_id, attributes)


async def history(
    run_id: str | UUID, /, *, generation: int | None = None, instance: str | None = None
) -> list[HistoryEvent]:
    """Read a run's history, decoded: what `continuum.testing.replay` and `dump_history` take as it is.

    Args:
        generation: which of the run's histories, from 1; None: the present one.

    Raises:
        RunNotFound: there is none of this id.
    """
    return await resolve(instance).history(run_id, generation=generation)


async def drain(*, instance: str | None = None, timeout: Duration | None = None) -> bool:
    """Take no more work and hand over what there is, within `timeout` (seconds or timedelta; `drain_timeout`).

    Returns True if everything was finished or given back in time.
    """
    return await resolve(instance).drained(timeout)


def readiness(*, instance: str | None = None) -> Readiness:
    """Say whether an instance takes work; touches no database."""
    return resolve(instance).readiness()


async def migrate(engine: AsyncEngine, *, schema: str | None = None) -> None:
    """Create or upgrade the tables of a database; safe from several processes at once."""
    await migrate_engine(engine, schema=schema)


@asynccontextmanager
async def lifespan(*components: Component | Children, on_sigterm: bool = True) -> AsyncIterator[None]:
    """Enter components in order and leave them in reverse: `async with continuum.lifespan(*orders, *billing)`.

    Args:
        on_sigterm: begin to drain when SIGTERM comes, before the server that hosts this has closed its connections;
            chained in the main thread, put back at the end. False leaves the signal to the host, who calls `drain`.
    """
    async with AsyncExitStack() as stack:
        if on_sigterm:
            await stack.enter_async_context(drains_on_sigterm(instances_of(components)))
        for component in components:
            await stack.enter_async_context(component)
        yield
