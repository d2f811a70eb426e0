"""`@activity`: a function that touches the world, performed at least once and journaled once."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine
from enum import Enum
from types import FrameType
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, Union, overload

from msgspec.structs import replace

from continuum.definitions.calls import Call
from continuum.definitions.catalog import catalog
from continuum.definitions.signatures import Signature, durable_name, refuse_wrong_kind
from continuum.errors import (
    ActivityFailed,
    ActivityTimedOut,
    ConfigurationError,
    DefinitionError,
    DurableValueError,
)
from continuum.model.events import EventType
from continuum.model.failure import Failure
from continuum.model.names import NAME_MAX, is_short_name
from continuum.model.policy import Duration, Retry, seconds
from continuum.model.tasks import MINUTE, TaskOptions
from continuum.replay.context import current_machine
from continuum.replay.machine import Machine
from continuum.replay.matching import Command
from continuum.replay.saga import Debt

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
IdempotencyKey = str | Callable[..., str | None]
Compensation = Union["Activity[..., Any]", Call[Any]]


class Unset(Enum):
    """Marks an option that was left out, where None means none."""

    UNSET = "unset"


UNSET = Unset.UNSET
PRIORITY_MAX = 32_767  # the column is a smallint


class Activity(Generic[P, R_co]):
    """An activity definition; `fn` is the undecorated function, for unit tests."""

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None,
        options: TaskOptions,
        idempotency_key: IdempotencyKey | None,
        compensation: Compensation | None,
        scope: FrameType | None,
    ) -> None:
        refuse_wrong_kind(fn, "activity")
        self.fn = fn
        self.origin = durable_name(fn)
        self.name = name or self.origin
        self.is_async = inspect.iscoroutinefunction(fn)
        self.task_options = options
        self.idempotency_key = idempotency_key
        self.compensation = _compensation(compensation)
        self.signature = Signature(fn, "activity", scope=scope)
        self.__doc__ = fn.__doc__
        self.__name__ = fn.__name__
        self.__qualname__ = fn.__qualname__
        self.__module__ = fn.__module__

    def __repr__(self) -> str:
        return f"<activity {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R_co]:
        """Return a coroutine that performs the activity.

        In a workflow the arguments are bound, validated and encoded at once, and the command takes its place in the
        order of commands; it is issued when the coroutine is first driven. Outside of one, `fn` runs once, without
        journal or retry, in the caller's own task.

        Raises:
            InputInvalid, DurableValueError: the arguments do not fit or cannot be journaled.
            ActivityFailed: (when awaited) it finally failed.
        """
        machine = current_machine()
        if machine is None:
            return self._outside(args, kwargs)
        parameters = self.signature.parameters
        command = Command(
            EventType.ACTIVITY_SCHEDULED,
            machine.next_command_id(),
            name=self.name,
            payload=parameters.encode(args, kwargs),
            key=self._key(args, kwargs),
            recode=parameters.recode,
            decode=parameters.decode,
        )
        return self._inside(machine, command, self._debt() if self.compensation is not None else None)

    def bound(self, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]:
        """Capture a call."""
        return Call(self, args, kwargs)

    def options(
        self,
        *,
        retry: Retry | Unset = UNSET,
        timeout: Duration | Unset | None = UNSET,
        heartbeat_timeout: Duration | Unset | None = UNSET,
        queue: str | Unset = UNSET,
        priority: int | Unset = UNSET,
        idempotency_key: IdempotencyKey | Unset | None = UNSET,
        compensate: Callable[[R_co], Coroutine[Any, Any, object]] | Call[object] | Unset | None = UNSET,
    ) -> Activity[P, R_co]:
        """Return the same activity with other options; what is left out is inherited, None means none.

        Raises:
            ConfigurationError: a value is out of range.
            DefinitionError: `compensate` is nothing that can undo it.
        """
        other: Activity[P, R_co] = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.task_options = _task_options(
            self.task_options,
            retry=retry,
            timeout=timeout,
            heartbeat_timeout=heartbeat_timeout,
            queue=queue,
            priority=priority,
        )
        if idempotency_key is not UNSET:
            other.idempotency_key = idempotency_key
        if compensate is not UNSET:
            other.compensation = _compensation(compensate)
        return other

    async def _inside(self, machine: Machine, command: Command, debt: Debt | None) -> R_co:
        answer = await machine.activity(command, self.task_options, debt)
        if isinstance(answer, Failure):
            raise finally_failed(answer, self.name, machine.info.run_id)
        result: R_co = machine.decode(self.signature.result, answer, f"the journaled result of {self.name}")
        return result

    def _debt(self) -> Debt:
        """Return what this call will owe: at once if what undoes it is bound, else once its result is known."""
        undo = self.compensation
        if isinstance(undo, Call):
            parameters = undo.definition.signature.parameters
            return Debt(
                self.name,
                undo.definition.name,
                undo.definition.task_options,
                arguments=parameters.encode(undo.args, undo.kwargs),
                recode=parameters.recode,
            )
        assert isinstance(undo, Activity)
        parameter = next(iter(undo.signature.fields))
        return Debt(
            self.name, undo.name, undo.task_options, parameter=parameter, recode=undo.signature.parameters.recode
        )

    async def _outside(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R_co:
        result = self.fn(*args, **kwargs)
        value: R_co = await result if inspect.isawaitable(result) else result
        return value

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        key = self.idempotency_key(*args, **kwargs) if callable(self.idempotency_key) else self.idempotency_key
        if key is not None and type(key) is not str:
            raise DefinitionError(
                f"activity {self.name}: idempotency_key must be a str or None, not {key!r}; say str(…)"
            )
        if key is not None and not is_short_name(key):
            raise DurableValueError(
                f"activity {self.name}: an idempotency_key has 1 to {NAME_MAX} characters, none of them a control "
                f"character, not {key[:NAME_MAX]!r}; make a hash of what is longer",
                path="/idempotency_key",
            )
        return key


def _compensation(undo: Any) -> Compensation | None:
    """Return what undoes an activity.

    Raises:
        DefinitionError: it is no activity, or none that takes a result alone.
    """
    definition = undo.definition if isinstance(undo, Call) else undo
    if undo is not None and not isinstance(definition, Activity):
        raise DefinitionError(
            f"compensate= takes an activity of the result, or `activity.bound(...)`, not {undo!r}: undoing is retried "
            "and journaled like any other activity"
        )
    if isinstance(undo, Activity):
        names = list(undo.signature.fields.items())
        if not names or any(not has_default for _, (_, has_default) in names[1:]):
            raise DefinitionError(
                f"compensate={undo.name} is called with the result alone, so it must take one argument; capture others "
                f"at the call: .options(compensate={undo.__name__}.bound(...))"
            )
    return undo  # type: ignore[no-any-return]  # looked at above


def finally_failed(failure: Failure, activity: str, run_id: str) -> ActivityFailed:
    """Return the error of an activity that has no attempts left."""
    kind = ActivityTimedOut if failure.timed_out else ActivityFailed
    return kind(
        f"activity {activity} failed after {failure.attempts} attempt(s): {failure.type}: {failure.message}",
        activity=activity,
        type=failure.type,
        details=failure.details,
        attempts=failure.attempts,
        causes=failure.causes,
        remote_traceback=failure.traceback,
        run_id=run_id,
    )


def _task_options(
    base: TaskOptions,
    *,
    retry: Retry | Unset,
    timeout: Duration | Unset | None,
    heartbeat_timeout: Duration | Unset | None,
    queue: str | Unset,
    priority: int | Unset,
) -> TaskOptions:
    given: dict[str, Any] = {}
    if retry is not UNSET:
        if not isinstance(retry, Retry):
            raise ConfigurationError(f"retry must be a continuum.Retry, not {retry!r}")
        given["retry"] = retry
    for name, value in (("timeout", timeout), ("heartbeat_timeout", heartbeat_timeout)):
        if value is not UNSET:
            given[f"{name}_seconds"] = None if value is None else _positive(value, name)
    if queue is not UNSET:
        if type(queue) is not str or not queue:
            raise ConfigurationError(f"queue must be a name, not {queue!r}")
        given["queue"] = queue
    if priority is not UNSET:
        if type(priority) is not int or not -PRIORITY_MAX <= priority <= PRIORITY_MAX:
            raise ConfigurationError(f"priority must be an integer, at most ±{PRIORITY_MAX}, not {priority!r}")
        given["priority"] = priority
    return replace(base, **given)


def _positive(value: Any, name: str) -> float:
    limit = seconds(value, name=name)
    if limit == 0:
        raise ConfigurationError(f"{name}=0 would never let an attempt finish; None means no limit")
    return limit


class CompensatedDecorator(Protocol[R]):
    """What `@activity(compensate=...)` returns: the result is what the compensation takes."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Activity[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Activity[P, R]: ...


class ActivityDecorator(Protocol):
    """What `@activity(...)` with options returns."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Activity[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Activity[P, R]: ...


@overload
def activity(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Activity[P, R]: ...
@overload
def activity(fn: Callable[P, R], /) -> Activity[P, R]: ...
@overload
def activity(
    *,
    name: str | None = ...,
    retry: Retry = ...,
    timeout: Duration | None = ...,
    heartbeat_timeout: Duration | None = ...,
    queue: str = ...,
    priority: int = ...,
    idempotency_key: Callable[..., str | None] | None = ...,
    compensate: Call[object] | None = ...,
) -> ActivityDecorator: ...
@overload
def activity(
    *,
    name: str | None = ...,
    retry: Retry = ...,
    timeout: Duration | None = ...,
    heartbeat_timeout: Duration | None = ...,
    queue: str = ...,
    priority: int = ...,
    idempotency_key: Callable[..., str | None] | None = ...,
    compensate: Callable[[R], Coroutine[Any, Any, object]],
) -> CompensatedDecorator[R]: ...
def activity(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry = Retry(),
    timeout: Duration | None = 5 * MINUTE,
    heartbeat_timeout: Duration | None = None,
    queue: str = "default",
    priority: int = 0,
    idempotency_key: Callable[..., str | None] | None = None,
    compensate: Callable[..., Coroutine[Any, Any, object]] | Call[object] | None = None,
) -> Any:
    """Make a function an activity: `async def` runs on the host's loop, `def` in our own thread pool.

    Args:
        name: durable name, by which waiting tasks find their code; default `module.qualname`.
        retry: how a failed attempt is retried; by default 3 attempts, 1 s, × 2, at most 60 s.
        timeout: for one attempt, seconds or timedelta; None: never.
        heartbeat_timeout: longest silence between two `activity_context().heartbeat()`; None: not watched.
        queue: which limits and workers apply.
        priority: higher first, -32767 to 32767.
        idempotency_key: computed from the arguments, 1 to 200 characters. A call whose key has succeeded before, in any
            run of the namespace, is answered by that result and not performed again; with other arguments it fails with
            an IdempotencyConflict. It is no lock: calls at the same time may both be performed. By default nothing is
            remembered, and `activity_context().idempotency_key` is unique per call, the same for all of its attempts.
        compensate: the activity that undoes it. It is called with the result, and owed once there is one; bound to
            arguments (`refund.bound(order_id)`) it is owed from scheduling on, so that a call that timed out is undone
            as well. `continuum.compensate_all()` and its kin say when.

    Raises:
        DefinitionError: the function cannot be an activity; the message says what to do.
        DuplicateDefinition: another function claims the name.
        ConfigurationError: an option is out of range.
    """
    scope = sys._getframe(1)
    if idempotency_key is not None and not callable(idempotency_key):
        raise DefinitionError("idempotency_key= takes a function of the arguments; `.options()` takes a fixed key")
    options = _task_options(
        TaskOptions(),
        retry=retry,
        timeout=timeout,
        heartbeat_timeout=heartbeat_timeout,
        queue=queue,
        priority=priority,
    )

    def decorate(fn: Callable[..., Any]) -> Activity[..., Any]:
        made: Activity[..., Any] = Activity(
            fn,
            name=name,
            options=options,
            idempotency_key=idempotency_key,
            compensation=compensate,  # type: ignore[arg-type]  # `_compensation` looks at it
            scope=scope,
        )
        catalog().add_activity(made)
        return made

    return decorate if fn is None else decorate(fn)
