"""What the machine is given and what it gives back."""

from __future__ import annotations

from collections.abc import Collection, Coroutine
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct

from continuum.model.events import Event
from continuum.model.failure import Failure
from continuum.model.messages import MessageKind
from continuum.model.runs import Attributes
from continuum.model.tasks import TaskOptions


class Body(Protocol):
    """A workflow's code, as the machine sees it: bytes in, bytes out."""

    @property
    def signals(self) -> Collection[str] | None:
        """The names of the signals that it takes; None: any."""
        ...

    def open(self, arguments: bytes) -> Coroutine[Any, Any, Any]:
        """Decode the journaled arguments and call the function (which does not run yet)."""
        ...

    def seal(self, result: Any) -> bytes:
        """Validate and encode what the function returned."""
        ...

    def fails_on(self, error: BaseException) -> bool:
        """Tell whether this exception fails the run; otherwise it is a bug that blocks it until the code is mended."""
        ...


class RunInfo(Struct, frozen=True, gc=False):
    """What a workflow may know about itself: only what replays equal."""

    run_id: str
    workflow: str
    version: int
    generation: int
    namespace: str
    instance: str
    started_at: datetime
    parent: str | None = None
    depth: int = 0  # how many ancestors it has
    trace_context: str | None = None  # of its start: W3C's `traceparent`, and `tracestate` behind a space


class ScheduledActivity(Struct, frozen=True, gc=False):
    """An activity that the turn asked for and still wants."""

    command_id: int
    seq: int
    activity: str
    arguments: bytes
    options: TaskOptions
    key: str | None = None
    undoes: str | None = None  # the activity that it compensates


class Undone(Struct, frozen=True, gc=False):
    """A compensation that was answered: what it was for, and why it failed if it did."""

    command_id: int
    compensation: str
    activity: str
    failure: Failure | None


class ScheduledChild(Struct, frozen=True, gc=False):
    """A run that the turn asked for."""

    command_id: int
    run_id: str
    workflow: str
    version: int
    arguments: bytes
    retention_seconds: float | None = None


class Errand(Struct, frozen=True, gc=False):
    """A message that the turn wants brought to another run; what came of it is the answer to the command."""

    command_id: int
    kind: MessageKind
    run_id: str
    name: str | None = None
    payload: bytes | None = None


class LogLine(Struct, frozen=True):
    """What `continuum.log` was asked to say; said once the turn has been committed."""

    level: int
    message: str
    fields: dict[str, Any]


class Completed(Struct, frozen=True, gc=False):
    """The workflow returned."""

    payload: bytes


class Failed(Struct, frozen=True, gc=False):
    """The workflow raised."""

    failure: Failure


class Cancelled(Struct, frozen=True, gc=False):
    """It was cancelled, and what it owed has been undone."""


class Continued(Struct, frozen=True, gc=False):
    """The workflow goes on with a fresh history, as this version with these arguments."""

    version: int
    arguments: bytes


class ContinueAsNew(BaseException):
    """Leaves the workflow's function; not an `Exception`, so that `except Exception` does not catch it."""

    def __init__(self, outcome: Continued) -> None:
        super().__init__("the run continues as new")
        self.outcome = outcome


class Stuck(Struct, frozen=True, gc=False):
    """The code must be mended before the run can go on; nothing of the turn may be written."""

    reason: str


Outcome = Completed | Failed | Cancelled | Continued | Stuck


class Turn(Struct, frozen=True, gc=False):
    """One drive of the workflow: what it journaled, in order, and what it asked for.

    `resolved` names the activities whose tasks go: answered, or no longer wanted. `deadline` is the earliest open timer.
    `has_errands` says that some are not answered yet, `is_cancelling` that compensations are under way. `carried` are the
    first events of the next generation, after a `Continued`. `attributes` are changes to the run's (None removes).
    `fired` are the deadlines of the timers that it fired, in their order; `undone` the compensations that were answered.
    """

    events: tuple[Event, ...]
    scheduled: tuple[ScheduledActivity, ...]
    resolved: tuple[int, ...]
    deadline: datetime | None
    outcome: Outcome | None
    logs: tuple[LogLine, ...] = ()
    children: tuple[ScheduledChild, ...] = ()
    errands: tuple[Errand, ...] = ()
    has_errands: bool = False
    is_cancelling: bool = False
    carried: tuple[Event, ...] = ()
    attributes: Attributes | None = None
    fired: tuple[datetime, ...] = ()
    undone: tuple[Undone, ...] = ()
