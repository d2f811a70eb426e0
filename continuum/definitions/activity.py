"""`@activity`: a function that touches the world, performed at least once and journaled once."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, Union, overload

from sqlalchemy.ext.asyncio import AsyncSession

from continuum.definitions.calls import Call
from continuum.definitions.catalog import catalog
from continuum.definitions.failing import finally_failed
from continuum.definitions.signatures import Signature, durable_name, refuse_wrong_kind
from continuum.definitions.task_options import UNSET, Given, IsolationLevel, Unset, task_options
from continuum.definitions.transactional import only_in_workflows, refuse_sessions, session_class_of
from continuum.errors import DefinitionError, DurableValueError
from continuum.model.events import EventType
from continuum.model.failure import Failure
from continuum.model.names import NAME_MAX, is_short_name
from continuum.model.policy import Duration, Retry
from continuum.model.tasks import MINUTE, TaskOptions
from continuum.replay.beside import refuse_beside
from continuum.replay.context import current_machine
from continuum.replay.machine import Machine
from continuum.replay.matching import Command
from continuum.replay.saga import Debt

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=AsyncSession)
R_co = TypeVar("R_co", covariant=True)
IdempotencyKey = str | Callable[..., str | None]
Compensation = Union["Activity[..., Any]", Call[Any]]


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
        transactional: bool,
        scope: FrameType | None,
    ) -> None:
        refuse_wrong_kind(fn, "activity")
        self.session_class: type[AsyncSession] | None = None  # of a transactional activity: what it is given
        if transactional:
            self.session_class = session_class_of(fn, scope)
        else:
            refuse_sessions(fn, scope)
        self.fn = fn
        self.origin = durable_name(fn)
        self.name = name or self.origin
        self.is_async = inspect.iscoroutinefunction(fn)
        self.task_options = options
        self.idempotency_key = idempotency_key
        self.compensation = _compensation(compensation)
        self.signature = Signature(fn, "activity", injected=1 if transactional else 0, scope=scope)
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
            NotInWorkflow: it is transactional, and called outside of a workflow.
        """
        machine = current_machine()
        if machine is None:
            refuse_beside(f"activity {self.name}")
            if self.session_class is not None:
                raise only_in_workflows(self.name, self.fn)
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
        isolation_level: IsolationLevel | Unset | None = UNSET,
        serialization_retries: int | Unset = UNSET,
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
        other.task_options = task_options(
            self.task_options,
            {
                "retry": retry,
                "timeout": timeout,
                "heartbeat_timeout": heartbeat_timeout,
                "queue": queue,
                "priority": priority,
                **_of_transactions(isolation_level, serialization_retries, is_one=self.session_class is not None),
            },
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


def _of_transactions(
    isolation_level: IsolationLevel | Unset | None, serialization_retries: int | Unset, *, is_one: bool
) -> Given:
    """Return the options that transactional activities have.

    Raises:
        DefinitionError: this is none.
    """
    if is_one:
        return {"isolation_level": isolation_level, "serialization_retries": serialization_retries}
    if isolation_level is not UNSET or serialization_retries is not UNSET:
        raise DefinitionError("isolation_level= and serialization_retries= are for @activity(transactional=True)")
    return {}


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


class TransactionalDecorator(Protocol):
    """What `@activity(transactional=True)` returns: the session in front is injected, callers do not pass it."""

    def __call__(self, fn: Callable[Concatenate[S, P], Coroutine[Any, Any, R]], /) -> Activity[P, R]:
        """Make it an activity whose callers do not see the session."""
        ...


class CompensatedTransactionalDecorator(Protocol[R]):
    """What `@activity(transactional=True, compensate=...)` returns."""

    def __call__(self, fn: Callable[Concatenate[S, P], Coroutine[Any, Any, R]], /) -> Activity[P, R]:
        """Make it an activity whose callers do not see the session."""
        ...


@overload
def activity(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Activity[P, R]: ...
@overload
def activity(fn: Callable[P, R], /) -> Activity[P, R]: ...
@overload
def activity(
    *,
    transactional: Literal[True],
    isolation_level: IsolationLevel | None = ...,
    serialization_retries: int = ...,
    name: str | None = ...,
    retry: Retry = ...,
    timeout: Duration | None = ...,
    heartbeat_timeout: Duration | None = ...,
    queue: str = ...,
    priority: int = ...,
    idempotency_key: Callable[..., str | None] | None = ...,
    compensate: Call[object] | None = ...,
) -> TransactionalDecorator: ...
@overload
def activity(
    *,
    transactional: Literal[True],
    isolation_level: IsolationLevel | None = ...,
    serialization_retries: int = ...,
    name: str | None = ...,
    retry: Retry = ...,
    timeout: Duration | None = ...,
    heartbeat_timeout: Duration | None = ...,
    queue: str = ...,
    priority: int = ...,
    idempotency_key: Callable[..., str | None] | None = ...,
    compensate: Callable[[R], Coroutine[Any, Any, object]],
) -> CompensatedTransactionalDecorator[R]: ...
@overload
def activity(
    *,
    transactional: Literal[False] = ...,
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
    transactional: Literal[False] = ...,
    name: str | None = ...,
    retry: Retry = ...,
    timeout: Duration | None = ...,
    heartbeat_timeout: Duration | None = ...,
    queue: str = ...,
    priority: int = ...,
    idempotency_key: Callable[..., str | None] | None = ...,
    compensate: Callable[[R], Coroutine[Any, Any, object]],
) -> CompensatedDecorator[R]: ...
def activity(  # long: its options, and what each of them means
    fn: Callable[..., Any] | None = None,
    /,
    *,
    transactional: bool = False,
    isolation_level: IsolationLevel | Unset | None = UNSET,
    serialization_retries: int | Unset = UNSET,
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
        transactional: give it an `AsyncSession` on the instance's database, as its first parameter: what is written with
            it commits in one transaction with the activity's end, exactly once. Workflows do not pass it.
        isolation_level: of that transaction; by default what the engine has. (SQLite's are serializable.)
        serialization_retries: how often an attempt begins anew, with nothing consumed, because its transaction collided
            with another one (SQLSTATE 40001 or 40P01, or SQLite is busy); 5 unless told.
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
    options = task_options(
        TaskOptions(),
        {
            "retry": retry,
            "timeout": timeout,
            "heartbeat_timeout": heartbeat_timeout,
            "queue": queue,
            "priority": priority,
            **_of_transactions(isolation_level, serialization_retries, is_one=transactional),
        },
    )

    def decorate(fn: Callable[..., Any]) -> Activity[..., Any]:
        made: Activity[..., Any] = Activity(
            fn,
            name=name,
            options=options,
            idempotency_key=idempotency_key,
            compensation=compensate,  # type: ignore[arg-type]  # `_compensation` looks at it
            transactional=transactional,
            scope=scope,
        )
        catalog().add_activity(made)
        return made

    return decorate if fn is None else decorate(fn)
