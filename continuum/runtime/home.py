"""What an execution is given: letters by others, facts about its run, and the process that it lives in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from msgspec import Struct

from continuum.model.messages import Message
from continuum.model.results import ActivityResult
from continuum.model.runs import Ending, NewRun
from continuum.model.tasks import Attempt, ClaimedTask, TaskKey
from continuum.model.writes import Commit, Start, Verdict, Write
from continuum.replay.machine import Machine
from continuum.replay.turns import Errand, LogLine, RunInfo, Turn

Settled = Callable[[Verdict], object]


class Letter(Struct, frozen=True):
    """Something handed to an execution: a message, where it came from, and who waits for it to be journaled.

    `attempt` is set for results of activities performed here, which are not in the inbox; `is_stored` tells whether the
    message is an inbox row, to be deleted by the commit that reads it.
    """

    message: Message
    is_stored: bool
    attempt: Attempt | None = None
    settled: Settled | None = None
    result: ActivityResult | None = None  # a success under an idempotency key, for other runs


E_contra = TypeVar("E_contra", contravariant=True)  # an execution


class Home(Protocol[E_contra]):
    """What an execution needs from the process that it lives in."""

    history_max: int

    def submit(self, write: Write, settled: Settled) -> None:
        """Hand a write to the group committer."""
        ...

    def soon(self, callback: Callable[[], object]) -> None:
        """Call back in the next pass of the host's loop."""
        ...

    def database_now(self) -> datetime:
        """Return the database's time."""
        ...

    def reserve(self, activity: str, queue: str) -> bool:
        """Take a slot for an attempt here, if there is one and the activity is known."""
        ...

    def unreserve(self, activity: str, queue: str) -> None:
        """Give a slot back that no attempt came to use."""
        ...

    def begin(self, tasks: Sequence[ClaimedTask]) -> None:
        """Begin attempts whose slots were reserved."""
        ...

    def withdraw(self, keys: Sequence[TaskKey]) -> None:
        """Cancel running attempts that nobody waits for any more."""
        ...

    def machine_of(self, facts: RunInfo) -> Machine | None:
        """Return a machine for a run, or None if there is no code for it here."""
        ...

    def runs_waiting(self) -> None:
        """Nudge whoever claims runs: some were written that nobody holds."""
        ...

    def run_errand(self, execution: E_contra, errand: Errand) -> None:
        """Send a message to another run, then call `execution.answered()` with what came of it."""
        ...

    def posted(self, messages: Sequence[Message]) -> None:
        """Nudge whoever can read messages that a commit has put into inboxes."""
        ...

    def cascaded(self, execution: E_contra) -> None:
        """Nudge whoever holds the children of a cancelled run: their inboxes say so."""
        ...

    def tasks_waiting(self) -> None:
        """Nudge whoever claims tasks: some were written that are free."""
        ...

    def wake_at(self, execution: E_contra, deadline: datetime) -> None:
        """Call `execution.poke()` at that time."""
        ...

    def is_idle(self, execution: E_contra) -> None:
        """Take note that nothing is going on in it: it may be evicted."""
        ...

    def is_busy(self, execution: E_contra) -> None:
        """Take note that something is going on in it."""
        ...

    def left(self, execution: E_contra, ending: Ending | None) -> None:
        """Forget it: it has ended (with how), was given up or evicted."""
        ...

    def doubt(self, execution: E_contra) -> None:
        """Find out why its commit was refused, then call `discard`."""
        ...

    def send_on(self, letter: Letter) -> None:
        """Deliver a letter the durable way: this execution will not journal it."""
        ...

    def say(self, facts: RunInfo, lines: Sequence[LogLine]) -> None:
        """Log what the workflow said."""
        ...

    def tell(
        self, name: str, execution: E_contra, measurements: Mapping[str, float] | None = None, /, **metadata: object
    ) -> None:
        """Emit telemetry about the run."""
        ...

    def enqueued(self, run: NewRun) -> None:
        """Emit that a run was inserted for whoever claims it."""
        ...

    def landed(self, execution: E_contra, write: Commit | Start, turn: Turn | None, letters: Sequence[Letter]) -> None:
        """Emit what a landed commit changed; asked for if anybody listens at all."""
        ...
