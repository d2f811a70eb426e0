"""`@workflow`: an `async def` that survives its process."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import FrameType
from typing import Any, Generic, NoReturn, ParamSpec, Protocol, TypeVar, overload

from continuum.codec import Shape, shape_of
from continuum.definitions.calls import Call
from continuum.definitions.catalog import catalog
from continuum.definitions.handles import RunHandle, verbs_of
from continuum.definitions.purity.checking import Purity, check
from continuum.definitions.signatures import Signature, durable_name, refuse_wrong_kind
from continuum.errors import ContinuumError, DefinitionError, InputInvalid, NotAllowedHere
from continuum.ids import canonical
from continuum.model.names import NAME_MAX, is_short_name
from continuum.model.policy import Duration, seconds
from continuum.replay.context import in_workflow

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

# Bugs of the workflow's own code: they block the run until code that works arrives, instead of failing it for good.
BUGS = (AttributeError, NameError, TypeError, ImportError, NotImplementedError)


class Workflow(Generic[P, R_co]):
    """A workflow definition; `fn` is the undecorated function, for unit tests."""

    def __init__(
        self,
        fn: Callable[P, Coroutine[Any, Any, R_co]],
        *,
        name: str | None,
        version: int,
        retention: Duration | None,
        aliases: Sequence[str],
        fails_on: tuple[type[BaseException], ...] | None,
        signals: Mapping[str, Any] | None,
        purity: Purity | None,
        allow: Sequence[str],
        snapshot_threshold: int | None,
        scope: FrameType | None,
    ) -> None:
        refuse_wrong_kind(fn, "workflow")
        if not inspect.iscoroutinefunction(fn):
            raise DefinitionError(f"workflow {fn.__qualname__} must be an `async def`; blocking work is for activities")
        if type(version) is not int or version < 1:
            raise DefinitionError(f"workflow {fn.__qualname__}: version must be an integer from 1, not {version!r}")
        if snapshot_threshold is not None and (type(snapshot_threshold) is not int or snapshot_threshold < 1):
            raise DefinitionError(
                f"workflow {fn.__qualname__}: snapshot_threshold must be an integer of at least 1, or None for the "
                f"instance's, not {snapshot_threshold!r}"
            )
        self.fn = fn
        self.origin = durable_name(fn)
        self.name = name or self.origin
        self.version = version
        if isinstance(aliases, str):
            raise DefinitionError(f"workflow {fn.__qualname__}: aliases takes a tuple of names: ({aliases!r},)")
        self.aliases = tuple(aliases)
        self.snapshot_threshold = snapshot_threshold
        self.retention_seconds = None if retention is None else seconds(retention, name="retention")
        self.signals = _contract(signals, f"workflow {fn.__qualname__}")
        self.signature = Signature(fn, "workflow", scope=scope)
        self._fails_on = _exceptions(fails_on, f"workflow {fn.__qualname__}")
        check(fn, f"workflow {self.origin}", purity=purity, allow=allow)
        self.__doc__ = fn.__doc__
        self.__name__ = fn.__name__
        self.__qualname__ = fn.__qualname__
        self.__module__ = fn.__module__

    def __repr__(self) -> str:
        return f"<workflow {self.name} v{self.version}>"

    def __call__(self, *_args: P.args, **_kwargs: P.kwargs) -> Coroutine[object, None, R_co]:
        """Raise: a workflow is started, not called."""
        self._refuse_call()

    def _refuse_call(self) -> NoReturn:
        if in_workflow():
            raise NotAllowedHere(
                f"{self.name} is a workflow: `await continuum.start_child({self.__name__}, …)` runs it as a child of this "
                "one, which its handle awaits"
            )
        raise NotAllowedHere(
            f"{self.name} is a workflow: `await continuum.start({self.__name__}, …)` runs it durably, "
            f"`await {self.__name__}.fn(…)` calls the bare function in a unit test"
        )

    def bound(self, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]:
        """Capture a call, keyword-only parameters included: `start(flow.bound(order, express=True))`."""
        return Call(self, args, kwargs)

    def handle(self, run_id: str, /, *, instance: str | None = None) -> RunHandle[R_co]:
        """Return a typed handle on a run that exists already; nothing is asked until it is used.

        Raises:
            ValueError: `run_id` is not a UUID.
        """
        return RunHandle(canonical(run_id), self, verbs_of(instance), existing=True)

    # --- as the machine sees it (replay.turns.Body) -------------------------------------------------------------------

    def open(self, arguments: bytes) -> Coroutine[Any, Any, Any]:
        """Decode journaled arguments and call the function."""
        coroutine: Coroutine[Any, Any, Any] = self.signature.parameters.call(self.fn, arguments)
        return coroutine

    def seal(self, result: Any) -> bytes:
        """Validate and encode the result."""
        return self.signature.result.encode(result)

    def fails_on(self, error: BaseException) -> bool:
        """Tell whether an exception fails the run (or is a bug that blocks it).

        What a TaskGroup raises is judged by what its tasks raised: a bug among them is a bug.
        """
        if self._fails_on is not None and isinstance(error, self._fails_on):
            return True
        if isinstance(error, BaseExceptionGroup):
            return all(map(self.fails_on, error.exceptions))
        if self._fails_on is not None:
            return False
        if isinstance(error, InputInvalid) and isinstance(error.__cause__, TypeError):
            return False  # a call whose arguments are too many, too few or misnamed: to Python a TypeError
        if isinstance(error, ContinuumError):  # ActivityFailed and its kin, DurableValueError, SignalInvalid …
            return not isinstance(error, DefinitionError | NotAllowedHere)
        return isinstance(error, Exception) and not isinstance(error, BUGS)


def _exceptions(kinds: Any, where: str) -> tuple[type[BaseException], ...] | None:
    """Return the exceptions that fail a run; None: all but bugs."""
    given = kinds if kinds is None or isinstance(kinds, tuple) else (kinds,)
    for kind in given or ():
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise DefinitionError(
                f"{where}: fails_on takes a tuple of exception classes, (OrderRefused,), not {kinds!r}"
            )
    return given


def _contract(signals: Any, where: str) -> Mapping[str, Shape] | None:
    """Return the signals that a workflow takes; None: any."""
    if signals is None:
        return None
    if not isinstance(signals, Mapping):
        raise DefinitionError(f"{where}: signals maps names to payload types, {{'approved': bool}}, not {signals!r}")
    for name in signals:
        if not is_short_name(name):
            raise DefinitionError(
                f"{where}: {name!r} cannot name a signal: write 1 to {NAME_MAX} characters, none of them a control character"
            )
    return {name: shape_of(kind) for name, kind in signals.items()}


class WorkflowDecorator(Protocol):
    """What `@workflow(...)` with options returns."""

    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]:
        """Decorate."""
        ...


@overload
def workflow(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *,
    name: str | None = ...,
    version: int = ...,
    retention: Duration | None = ...,
    aliases: Sequence[str] = ...,
    fails_on: tuple[type[BaseException], ...] | None = ...,
    signals: Mapping[str, Any] | None = ...,
    purity: Purity | None = ...,
    allow: Sequence[str] = ...,
    snapshot_threshold: int | None = ...,
) -> WorkflowDecorator: ...
def workflow(
    fn: Callable[..., Coroutine[Any, Any, Any]] | None = None,
    /,
    *,
    name: str | None = None,
    version: int = 1,
    retention: Duration | None = None,
    aliases: Sequence[str] = (),
    fails_on: tuple[type[BaseException], ...] | None = None,
    signals: Mapping[str, Any] | None = None,
    purity: Purity | None = None,
    allow: Sequence[str] = (),
    snapshot_threshold: int | None = None,
) -> Any:
    """Make an `async def` a workflow.

    Args:
        name: durable name, by which open runs find their code; default `module.qualname`.
        version: runs stay on the version that they were started with, new starts take the highest.
        retention: how long an ended run is kept, seconds or timedelta; None keeps it for ever.
        aliases: names that it had before, so that open runs find it after a move.
        fails_on: exceptions that fail the run; all others block it until the code is mended. By default every exception
            fails it but the programming errors AttributeError, NameError, TypeError, ImportError, NotImplementedError.
        signals: payload types of its signals, by name; then it takes no others, and a misfit is refused at the door. By
            default it takes any, and each is checked where it is waited for.
        purity: what comes of code that would not replay: "error", "warn" or "off"; by default what the environment
            variable `CONTINUUM_PURITY` says, else "error". Doubtful code is a warning at most.
        allow: names that it may use all the same, such as `("logging", "shop.rates.cached")`.
        snapshot_threshold: events between two snapshots of a run; None: the instance's `snapshotter.threshold`.

    Raises:
        DefinitionError: the function cannot be a workflow; the message says what to do.
        PurityError: it does what would not replay; the message says where and what to do instead.
        DuplicateDefinition: another function claims the name and version.
    """
    scope = sys._getframe(1)

    def decorate(fn: Callable[..., Coroutine[Any, Any, Any]]) -> Workflow[..., Any]:
        made: Workflow[..., Any] = Workflow(
            fn,
            name=name,
            version=version,
            retention=retention,
            aliases=aliases,
            fails_on=fails_on,
            signals=signals,
            purity=purity,
            allow=allow,
            snapshot_threshold=snapshot_threshold,
            scope=scope,
        )
        catalog().add_workflow(made)
        return made

    return decorate if fn is None else decorate(fn)
