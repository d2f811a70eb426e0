"""What workflow code may ask for besides activities: time, chance, side effects, signals, facts about itself.

All of it finds its run through the running event loop: there is no global, and no object to hand around.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import uuid as uuid_module
from asyncio import events as asyncio_events
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, tzinfo
from random import Random
from typing import Any, Literal, TypeVar, overload

from typing_extensions import TypeForm

from continuum import codec
from continuum.errors import (
    ContinuumError,
    DefinitionError,
    DurableValueError,
    InputInvalid,
    NotAllowedHere,
    NotInWorkflow,
    Problem,
    RunNotActive,
    RunNotFound,
    SideEffectFailed,
    SignalInvalid,
    SignalTimedOut,
    SignalUnknown,
)
from continuum.ids import canonical
from continuum.model.attributes import checked
from continuum.model.failure import Failure
from continuum.model.messages import MessageKind
from continuum.model.names import SHORT_NAME, is_short_name
from continuum.model.policy import Duration, seconds
from continuum.replay.beside import BesideLoop, beside, refuse_beside
from continuum.replay.loop import WorkflowLoop
from continuum.replay.machine import Machine
from continuum.replay.turns import LogLine, RunInfo

T = TypeVar("T")


def current_machine() -> Machine | None:
    """Return the machine whose workflow code is running, or None outside of one."""
    loop = asyncio_events._get_running_loop()
    return loop.owner if type(loop) is WorkflowLoop else None  # type: ignore[return-value]  # only machines own loops


def machine_for(what: str) -> Machine:
    """Return the machine of the workflow that asks.

    Raises:
        NotInWorkflow: outside of a workflow.
    """
    machine = current_machine()
    if machine is None:
        refuse_beside(f"continuum.{what}")
        raise _outside(what)
    return machine


def _reader_for(what: str) -> Machine:
    """Return the machine of the workflow that asks for what stays as it is; a side effect may ask for it too."""
    loop = asyncio_events._get_running_loop()
    if type(loop) is BesideLoop:
        loop = loop.run
    if type(loop) is not WorkflowLoop:
        raise _outside(what)
    return loop.owner  # type: ignore[return-value]  # as above


def _outside(what: str) -> NotInWorkflow:
    return NotInWorkflow(f"continuum.{what} belongs into a workflow: outside of one there is no run to ask")


def in_workflow() -> bool:
    """Tell whether the caller is workflow code."""
    return current_machine() is not None


def now() -> datetime:
    """Return the time of the turn: aware, UTC, the same on every replay. Costs no write.

    Raises:
        NotInWorkflow: outside of a workflow.
    """
    return _reader_for("now()").now


def today(tz: tzinfo = UTC) -> date:
    """Return the date of the turn in a time zone.

    Raises:
        NotInWorkflow: outside of a workflow.
    """
    return _reader_for("today()").now.astimezone(tz).date()


def random() -> Random:
    """Return the run's one `random.Random`, seeded by run id and generation. Costs no write.

    Raises:
        NotInWorkflow: outside of a workflow.
    """
    return machine_for("random()").random


def uuid4() -> uuid_module.UUID:
    """Return a UUID (version 4) drawn from the run's own source: the same on every replay. Costs no write.

    Raises:
        NotInWorkflow: outside of a workflow.
    """
    return uuid_module.UUID(int=machine_for("uuid4()").random.getrandbits(128), version=4)


def info() -> RunInfo:
    """Return facts about the run that replay equal: ids, names, generation, parent, when it was started.

    Raises:
        NotInWorkflow: outside of a workflow.
    """
    return _reader_for("info()").info


def log(level: int | str, message: str, **fields: Any) -> None:
    """Log to `continuum.workflow` once, after the turn has been committed; silent on replay.

    Args:
        level: a `logging` level, as number or name.
        message: the text, ready to print.
        fields: go to the record's `extra["fields"]`.

    Raises:
        NotInWorkflow: outside of a workflow.
        ValueError: no such level.
    """
    number = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else level
    if number is None:
        raise ValueError(f"no logging level is named {level!r}")
    _reader_for("log()").log(LogLine(number, message, fields))


def patched(name: str) -> bool:
    """Tell whether this run takes the change of its code that `name` stands for.

    Decided once per run and name: a run whose history was there before the change stays without it, all others take it,
    and journal that. Code may be removed once no open run needs it: `continuum versions` says when.

    Raises:
        NotInWorkflow: outside of a workflow.
        NotAllowedHere: that is no name.
    """
    machine = machine_for("patched()")
    if not is_short_name(name):
        raise NotAllowedHere(
            f"patched() takes the name of a change, {SHORT_NAME}, not {name!r:.300}", run_id=machine.info.run_id
        )
    return machine.patched(name)


async def signal_run(
    run_id: str | uuid_module.UUID,
    name: str,
    payload: object,
    *,
    instance: str | None = None,
    delivery_id: str | None = None,
) -> Literal["delivered", "duplicate"]:
    """Send another run a signal, as a command of this one.

    Raises:
        RunNotFound, RunNotActive: there is nobody to take it.
        SignalInvalid: the payload cannot be journaled.
        InputInvalid: the name is none that a signal can have.
        NotAllowedHere: to another instance, or with a delivery id.
    """
    machine, run_id = _to_another(run_id, "signal", instance)
    if delivery_id is not None:
        raise NotAllowedHere("a workflow sends a signal once, whatever happens: leave delivery_id= out", run_id=run_id)
    if not is_short_name(name):
        problem = Problem("/name", "must be a short string of one line")
        raise InputInvalid(f"a signal's name is {SHORT_NAME}, not {name!r:.300}", problems=[problem], run_id=run_id)
    try:
        encoded = codec.shape_of(type(payload) if payload is not None else object).encode(payload)
    except (DefinitionError, DurableValueError) as error:
        problem = Problem(getattr(error, "path", ""), error.message)
        raise SignalInvalid(
            f"the payload of signal {name!r} cannot be journaled: {error.message}", problems=[problem], run_id=run_id
        ) from error
    answer = await machine.errand(MessageKind.SIGNAL, run_id, name=name, payload=encoded)
    return _verdict(answer, run_id)  # type: ignore[return-value]  # what signals are answered with


async def cancel_run(
    run_id: str | uuid_module.UUID, *, compensate: bool = False, instance: str | None = None
) -> Literal["cancelled", "requested"]:
    """Cancel another run, as a command of this one.

    Raises:
        RunNotFound, RunNotActive: there is nothing to cancel.
        NotAllowedHere: it is this run, or one of another instance.
    """
    machine, run_id = _to_another(run_id, "cancel", instance)
    if run_id == machine.info.run_id:
        raise NotAllowedHere("a workflow does not cancel itself: raise an exception, or return", run_id=run_id)
    kind = MessageKind.COMPENSATE if compensate else MessageKind.CANCEL
    return _verdict(await machine.errand(kind, run_id), run_id)  # type: ignore[return-value]  # as above


def _to_another(run_id: str | uuid_module.UUID, verb: str, instance: str | None) -> tuple[Machine, str]:
    machine = machine_for(f"{verb}()")
    if instance not in (None, machine.info.instance):
        raise NotAllowedHere(
            f"a workflow of instance {machine.info.instance!r} cannot {verb} runs of {instance!r}: another database "
            "cannot be written in its commit; use an activity",
            run_id=machine.info.run_id,
        )
    try:
        return machine, canonical(run_id)
    except (ValueError, AttributeError, TypeError) as error:
        problem = Problem("/run_id", "must be a UUID")
        raise InputInvalid(f"{run_id!r} is not a run id: run ids are UUIDs", problems=[problem]) from error


def _verdict(answer: bytes | Failure, run_id: str) -> str:
    if isinstance(answer, Failure):
        kind = {one.__qualname__: one for one in _REFUSALS}.get(answer.type.rpartition(".")[2], ContinuumError)
        raise kind(answer.message, run_id=run_id)
    return json.loads(answer)  # type: ignore[no-any-return]  # a word


_REFUSALS = (RunNotFound, RunNotActive, SignalInvalid, SignalUnknown)


def set_own_attributes(changes: Mapping[str, Any]) -> None:
    """Change the run's own search attributes, in the turn's commit.

    Raises:
        NotInWorkflow: outside of a workflow.
        DurableValueError: a value cannot be an attribute, or all together would be too large; the path points at it.
    """
    machine = current_machine()
    if machine is None:
        refuse_beside("continuum.set_attributes()")
        raise NotInWorkflow(
            "set_attributes(name=value) changes the attributes of the workflow that calls it; anywhere else say of which "
            "run: `await continuum.set_attributes(run_id, {...})`"
        )
    machine.set_attributes(checked(changes))


async def side_effect(fn: Callable[[], T]) -> T:
    """Call `fn` once in the life of the run and journal its value; on replay the journaled value is returned.

    `fn` runs synchronously within the turn, so it must be quick and must not wait; what needs the network is an
    activity. It can ask nothing of its run, such as `uuid4()`: that would be missing on replay. The value crosses the journal: its type is read from `fn`'s return annotation, else it must be plain JSON.

    Raises:
        NotInWorkflow: outside of a workflow.
        DurableValueError: the value cannot be journaled; the path points at the culprit.
        SideEffectFailed: `fn` raised; that is journaled too.
        NotAllowedHere: `fn` asked its run for something, or is an `async def`.
    """
    machine = machine_for("side_effect()")
    if inspect.iscoroutinefunction(fn):
        raise NotAllowedHere(f"side_effect() takes a `def`, for it cannot wait: make {fn.__qualname__} an activity")
    shape = codec.returned_by(fn)
    journaled = await machine.side_effect(lambda: shape.encode(beside(fn)))
    if isinstance(journaled, Failure):
        raise _failed(journaled, machine.info.run_id)
    return machine.decode(shape, journaled, "the journaled value of a side effect")  # type: ignore[no-any-return]


def _failed(failure: Failure, run_id: str) -> ContinuumError:
    """Return the same error live and on replay: made from what was journaled."""
    if failure.type in _UNSTORABLE:
        return DurableValueError(failure.message, path=failure.details or "", run_id=run_id)
    return SideEffectFailed(
        f"a side effect failed: {failure.type}: {failure.message}",
        type=failure.type,
        causes=failure.causes,
        remote_traceback=failure.traceback,
        run_id=run_id,
    )


_UNSTORABLE = f"{DurableValueError.__module__}.{DurableValueError.__qualname__}"


@overload
async def wait_signal(name: str, /, *, timeout: Duration | None = ...) -> object: ...
@overload
async def wait_signal(name: str, type: TypeForm[T], /, *, timeout: Duration | None = ...) -> T: ...
async def wait_signal(name: str, type: Any = object, /, *, timeout: Duration | None = None) -> Any:
    """Take the next signal of this name, oldest first; wait for it if there is none.

    Args:
        name: the signal's name.
        type: what the payload is read as; any annotation that pydantic knows.
        timeout: seconds or timedelta, durable; None waits for ever.

    Raises:
        SignalTimedOut: nothing came in time (a `TimeoutError`).
        SignalInvalid: the payload does not fit `type`; the signal is consumed.
        NotAllowedHere: the workflow declares its signals, and this is none of them.
        NotInWorkflow: outside of a workflow.
    """
    machine = machine_for("wait_signal()")
    machine.expect_signal(name)
    shape = codec.shape_of(type)
    limit = None if timeout is None else seconds(timeout, name="timeout")
    if limit is None or machine.has_signal(name):  # a signal that is there needs no timer in the journal
        payload = await machine.signal(name)
    else:
        try:
            async with asyncio.timeout(limit):
                payload = await machine.signal(name)
        except TimeoutError:
            message = f"no signal {name!r} came within {limit:g} s"
            raise SignalTimedOut(message, run_id=machine.info.run_id) from None
    return codec.decode_signal(shape, name, payload, run_id=machine.info.run_id)
