"""Children: runs that a run starts, and whose endings come back to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, Literal, TypeVar, TypeVarTuple, Unpack, overload

from continuum.definitions.calls import Call
from continuum.definitions.catalog import catalog
from continuum.definitions.workflow import Workflow
from continuum.errors import ChildCancelled, ChildFailed, InputInvalid, NotAllowedHere, Problem
from continuum.model.events import EventType
from continuum.model.failure import Failure
from continuum.model.names import SHORT_NAME, is_short_name
from continuum.model.policy import Duration, seconds
from continuum.replay.context import cancel_run, machine_for, signal_run
from continuum.replay.family import Child, key_of
from continuum.replay.machine import Machine
from continuum.replay.matching import Command

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Ts = TypeVarTuple("Ts")


class ChildHandle(Generic[R_co]):
    """A child, as its parent holds it: `await child` any number of times gives its result."""

    __slots__ = ("_child", "_machine", "_workflow")

    def __init__(self, machine: Machine, child: Child, workflow: Workflow[..., R_co]) -> None:
        self._machine = machine
        self._child = child
        self._workflow = workflow

    def __repr__(self) -> str:
        return f"ChildHandle({self.run_id!r})"

    @property
    def run_id(self) -> str:
        """The child's run id."""
        return self._child.run_id

    def __await__(self) -> Generator[Any, Any, R_co]:
        """Wait for the child's end and return its result; see `result`."""
        return self.result().__await__()

    async def result(self, *, timeout: Duration | None = None) -> R_co:
        """Wait for the child's end and return its result. A wait that is cancelled leaves the child going on.

        Args:
            timeout: seconds or timedelta, durable; None waits for ever.

        Raises:
            ChildFailed, ChildCancelled: it ended otherwise.
            TimeoutError: not in time.
        """
        async with asyncio.timeout(None if timeout is None else seconds(timeout, name="timeout")):
            ending = await self._machine.child_ending(self._child)
        name, run_id = self._workflow.name, self._machine.info.run_id
        match ending.type:
            case EventType.CHILD_COMPLETED:
                what = f"the journaled result of child {name}"
                result: R_co = self._machine.decode(self._workflow.signature.result, ending.payload or b"null", what)
                return result
            case EventType.CHILD_FAILED:
                raise _failed(Failure.decode(ending.payload or b"{}"), name, self.run_id, run_id)
            case _:
                raise ChildCancelled(f"child {name} ({self.run_id}) was cancelled", child=self.run_id, run_id=run_id)

    async def signal(self, name: str, payload: object = None, /) -> Literal["delivered", "duplicate"]:
        """Send the child a signal; see `continuum.signal`."""
        return await signal_run(self.run_id, name, payload)

    async def cancel(self, *, compensate: bool = False) -> Literal["cancelled", "requested"]:
        """Cancel the child; see `continuum.cancel`."""
        return await cancel_run(self.run_id, compensate=compensate)


def _failed(failure: Failure, name: str, child: str, run_id: str) -> ChildFailed:
    return ChildFailed(
        f"child {name} ({child}) failed: {failure.type}: {failure.message}",
        child=child,
        type=failure.type,
        details=failure.details,
        causes=failure.causes,
        remote_traceback=failure.traceback,
        run_id=run_id,
    )


@overload
async def start_child(
    flow: Callable[[Unpack[Ts]], Coroutine[Any, Any, R]], /, *args: *Ts, id: str | None = ...
) -> ChildHandle[R]: ...
@overload
async def start_child(flow: Call[R], /, *, id: str | None = ...) -> ChildHandle[R]: ...
async def start_child(flow: Any, /, *args: Any, id: str | None = None) -> ChildHandle[Any]:  # type: ignore[misc]
    """Start a child of this run, in the turn's own commit; never waits.

    The child inherits namespace, attributes and trace, and runs in the newest version of its workflow. Cancelling this
    run cancels it; otherwise it goes on, also when this run has ended.

    Args:
        flow: a workflow followed by its positional arguments, or `flow.bound(...)` for keyword-only ones.
        id: a key within this run, for all of its generations: the same key and input give the same child. By default
            each call is a child of its own.

    Raises:
        InputInvalid: the arguments do not fit; `problems` points at each.
        IdempotencyConflict: the key was used with another input.
        NotAllowedHere: it is no workflow, or this run has `max_child_depth` ancestors already.
        NotInWorkflow: outside of a workflow.
    """
    machine = machine_for("start_child()")
    kwargs: Any = {}
    if isinstance(flow, Call):
        flow, args, kwargs = flow.definition, flow.args, flow.kwargs
    if not isinstance(flow, Workflow):
        raise NotAllowedHere(f"{flow!r} is no workflow: decorate an `async def` with @workflow and start that")
    if id is not None and not is_short_name(id):
        message = f"a child's id must be {SHORT_NAME}, not {id!r:.300}"
        raise InputInvalid(message, problems=[Problem("/id", "must be a short string of one line")])
    newest: Workflow[..., Any] = catalog().workflow(flow.name)
    parameters = newest.signature.parameters
    arguments = parameters.encode(args, kwargs)
    child = machine.child(
        lambda command_id, key: Command(
            EventType.CHILD_STARTED,
            command_id,
            name=newest.name,
            payload=arguments,
            key=key,
            recode=parameters.recode,
            decode=parameters.decode,
        ),
        key=None if id is None else key_of(id),
        version=newest.version,
        retention_seconds=newest.retention_seconds,
    )
    return ChildHandle(machine, child, newest)
