"""Every error that Continuum raises, in one tree.

Three kinds of reader meet them. Who *writes workflows* meets `DefinitionError`, `DurableValueError`, `ActivityFailed`
and their kin. Who *hosts* meets `ConfigurationError`, `InstanceNotRegistered`, `SchemaNotReady`. Who *calls the verbs*
meets `RunNotFound`, `RunFailed`, `ResultTimedOut`. All carry `run_id` where there is one, say what to do next, and
survive `pickle`. Refusals that belong to normal life (a fence that held, a duplicate delivery) are values, not errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any


class ContinuumError(Exception):
    """The root of the tree; `run_id` names the run concerned, if there is one."""

    def __init__(self, message: str, *, run_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.run_id = run_id

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, dict(self.__dict__))


def _type_name(error: type[BaseException] | str) -> str:
    return error if isinstance(error, str) else f"{error.__module__}.{error.__qualname__}"


def _restore(cls: type[ContinuumError], args: tuple[Any, ...], state: dict[str, Any]) -> ContinuumError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


# --- for who writes workflows -----------------------------------------------------------------------------------------


class DefinitionError(ContinuumError):
    """A decorated function cannot be a workflow or an activity; raised at the decorator."""


class DuplicateDefinition(DefinitionError):
    """Another definition already claims this name (and version)."""


class PurityError(DefinitionError):
    """A workflow's code does what would not replay; `findings` has a line for each thing, with file, line and way out.

    Raised at the decorator.
    """

    def __init__(self, message: str, *, findings: Sequence[str] = (), run_id: str | None = None) -> None:
        super().__init__(message, run_id=run_id)
        self.findings = tuple(findings)


class PurityWarning(UserWarning):
    """A workflow's code does what may not replay, or what a replay repeats; a warning, shown at the line concerned."""


class NotInWorkflow(ContinuumError):
    """Something that only a workflow can do was asked for outside of one."""


class NotAllowedHere(ContinuumError):
    """Something was asked for where it must not be: an effect in a workflow's turn, the end of an activity's transaction."""


class NondeterminismError(ContinuumError):
    """Workflow code reached for the real world (sockets, threads, subprocesses); the run is blocked until it does not."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a value: where (a JSON pointer) and what."""

    pointer: str
    message: str


class DurableValueError(ContinuumError, ValueError):
    """A value cannot cross the journal; `path` points at the culprit (JSON pointer)."""

    def __init__(self, message: str, *, path: str = "", run_id: str | None = None) -> None:
        super().__init__(message, run_id=run_id)
        self.path = path


class PayloadTooLarge(DurableValueError):
    """A payload exceeds `payload_max`."""


class InputInvalid(DurableValueError):
    """Arguments do not fit a definition's parameters; `problems` lists each with its pointer."""

    def __init__(self, message: str, *, problems: Sequence[Problem] = (), run_id: str | None = None) -> None:
        super().__init__(message, path=problems[0].pointer if problems else "", run_id=run_id)
        self.problems = tuple(problems)


class SignalInvalid(InputInvalid):
    """A signal's payload does not fit the type that the workflow waits for, or declared."""


class SignalUnknown(SignalInvalid):
    """The workflow declares the signals that it takes, and this is none of them."""


class ActivityFailed(ContinuumError):
    """An activity finally failed; its error crossed the journal as data.

    `type` is `module.qualname` of the last exception, `details` what an `ActivityError` carried, `attempts` how often
    it was tried, `remote_traceback` the text of the traceback where it happened.
    """

    def __init__(
        self,
        message: str,
        *,
        activity: str = "",
        type: str = "",
        details: Any = None,
        attempts: int = 0,
        causes: Sequence[str] = (),
        remote_traceback: str | None = None,
        run_id: str | None = None,
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.activity = activity
        self.type = type
        self.details = details
        self.attempts = attempts
        self.causes = tuple(causes)
        self.remote_traceback = remote_traceback

    def caused_by(self, error: type[BaseException] | str) -> bool:
        """Tell whether the last attempt raised `error` or a subclass of it (a class, or its `module.qualname`)."""
        return _type_name(error) in self.causes


class ActivityTimedOut(ActivityFailed):
    """The last attempt of an activity outlived its timeout (not a `TimeoutError`: that is the workflow's own)."""


class ActivityError(ContinuumError):
    """Raise it in an activity to say more than a bare exception can.

    Args:
        details: any JSON-able value, at most `details_max` bytes; arrives as `ActivityFailed.details`.
        retryable: `False` gives up at once, whatever the policy says.
        retry_after: seconds or timedelta until the next attempt, instead of the policy's back-off.
    """

    def __init__(
        self,
        message: str,
        *,
        details: Any = None,
        retryable: bool = True,
        retry_after: float | timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.details = details
        self.retryable = retryable
        self.retry_after = retry_after


class SideEffectFailed(ContinuumError):
    """The function of a `side_effect` raised; its error crossed the journal as data, live as on replay.

    `type` is `module.qualname` of what it raised, `remote_traceback` the text of its traceback.
    """

    def __init__(
        self,
        message: str,
        *,
        type: str = "",
        causes: Sequence[str] = (),
        remote_traceback: str | None = None,
        run_id: str | None = None,
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.type = type
        self.causes = tuple(causes)
        self.remote_traceback = remote_traceback

    def caused_by(self, error: type[BaseException] | str) -> bool:
        """Tell whether the function raised `error` or a subclass of it (a class, or its `module.qualname`)."""
        return _type_name(error) in self.causes


class ChildFailed(ContinuumError):
    """A child failed; `child` is its run id, `type`, `message` and `details` describe its error."""

    def __init__(
        self,
        message: str,
        *,
        child: str = "",
        type: str = "",
        details: Any = None,
        causes: Sequence[str] = (),
        remote_traceback: str | None = None,
        run_id: str | None = None,
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.child = child
        self.type = type
        self.details = details
        self.causes = tuple(causes)
        self.remote_traceback = remote_traceback

    def caused_by(self, error: type[BaseException] | str) -> bool:
        """Tell whether the child failed with `error` or a subclass of it (a class, or its `module.qualname`)."""
        return _type_name(error) in self.causes


class ChildCancelled(ContinuumError):
    """A child was cancelled; `child` is its run id."""

    def __init__(self, message: str, *, child: str = "", run_id: str | None = None) -> None:
        super().__init__(message, run_id=run_id)
        self.child = child


class SignalTimedOut(ContinuumError, TimeoutError):
    """`wait_signal` reached its timeout."""


# --- for who hosts ----------------------------------------------------------------------------------------------------


class ConfigurationError(ContinuumError):
    """An option is unknown, duplicate or ill-typed, or the parts given cannot work together."""


class SchemaNotReady(ConfigurationError):
    """The database has not been migrated to the revision that this version needs."""


class SchemaTaken(ConfigurationError):
    """These tables belong to another instance name."""


class SessionInvalid(ContinuumError):
    """What was given as `session=` cannot carry this: not a session, not of this database, not in a transaction."""


class InstanceNotRegistered(ContinuumError):
    """No instance has this name; `children(name=...)` registers one."""


class InstanceNotStarted(ContinuumError):
    """The instance is registered but not running; enter its components first."""


class InstanceDraining(ContinuumError):
    """The instance is shutting down and takes no new work; ask another node."""


class WrongEventLoop(ContinuumError):
    """A verb was awaited on another event loop than its instance's."""


class JournalUnavailable(ContinuumError):
    """The database could not be reached, or did not answer in time; nothing is known to be lost."""


# --- for who calls the verbs ------------------------------------------------------------------------------------------


class WorkflowNotFound(ContinuumError):
    """No workflow of this name (and version) is known here."""


class RunNotFound(ContinuumError):
    """No run has this id in this instance."""


class RunNotCommitted(ContinuumError):
    """The run was started with `session=`, and exists once that transaction commits."""


class ScheduleNotFound(ContinuumError):
    """There is no schedule of this id in the instance."""


class RunNotActive(ContinuumError):
    """The run has ended; it can be neither signalled nor cancelled."""


class RunExists(ContinuumError):
    """A run with this id exists already, and no matching idempotency key says that it is the same start."""


class IdempotencyConflict(ContinuumError):
    """This idempotency key was used before with another input."""


class RunFailed(ContinuumError):
    """The awaited run failed; `type`, `message`, `details` describe its error, `remote_traceback` where it happened."""

    def __init__(
        self,
        message: str,
        *,
        run_id: str | None = None,
        type: str = "",
        details: Any = None,
        causes: Sequence[str] = (),
        remote_traceback: str | None = None,
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.type = type
        self.details = details
        self.causes = tuple(causes)
        self.remote_traceback = remote_traceback

    def caused_by(self, error: type[BaseException] | str) -> bool:
        """Tell whether the run failed with `error` or a subclass of it (a class, or its `module.qualname`)."""
        return _type_name(error) in self.causes


class RunCancelled(ContinuumError):
    """The awaited run was cancelled."""


class RunBlocked(ContinuumError):
    """The awaited run is blocked until code that fits it arrives; `reason` says why."""

    def __init__(self, message: str, *, run_id: str | None = None, reason: str = "") -> None:
        super().__init__(message, run_id=run_id)
        self.reason = reason


class RequestFailed(ContinuumError):
    """A server could not be reached (`status` 0), or answered something that is not Continuum's, by REST."""

    def __init__(self, message: str, *, status: int = 0, run_id: str | None = None) -> None:
        super().__init__(message, run_id=run_id)
        self.status = status


class ResultTimedOut(ContinuumError, TimeoutError):
    """The run did not end within the timeout; it goes on."""
