"""Everything that is written through the group committer, and the verdicts that come back.

Each write is one value that names its own fence. Refused is not an error: it says that somebody else has the right
to write, and the writer acts on that. See `docs/protocol.md` for preconditions and effects.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from continuum.model.events import Event
from continuum.model.messages import Message, MessageKind
from continuum.model.results import ActivityResult
from continuum.model.runs import Attributes, NewChild, NewRun
from continuum.model.states import RunState
from continuum.model.tasks import Attempt, NewTask


class Start(Struct, frozen=True, kw_only=True, gc=False):
    """Insert a run: leased to `owner` with its first turn's events, or unleased (`owner` None) for whoever claims it.

    An unleased run is `pending`, holds its `started` event alone and is due at once, or at `wake_at`. A leased one carries token 1 and the state that its first turn left: running, suspended, or the end.
    """

    run: NewRun
    state: RunState
    owner: str | None
    events: tuple[Event, ...]
    tasks: tuple[NewTask, ...] = ()
    children: tuple[NewChild, ...] = ()
    wake_at: datetime | None = None
    chosen: bool = False  # whether the caller chose the run id: then it can collide with somebody's open transaction

    @property
    def run_id(self) -> str:
        """The run that is written."""
        return self.run.run_id

    @property
    def generation(self) -> int:
        """The generation that is written."""
        return 1

    @property
    def is_keyed(self) -> bool:
        """Whether it can collide with another start, and so travels in the second lane."""
        return self.chosen or self.run.idempotency_key is not None


class StartMany(Struct, frozen=True, gc=False):
    """Insert many unleased runs, all or none; it travels alone in its batch."""

    starts: tuple[Start, ...]


class ReadMessage(Struct, frozen=True, gc=False):
    """A message that a commit consumes: deleted, or kept as a tombstone when it had a delivery id."""

    message_id: str
    tombstone: bool


class NextGeneration(Struct, frozen=True, gc=False):
    """What a continuing commit opens: the version of its code, and the first events of its history."""

    version: int
    events: tuple[Event, ...]


class Commit(Struct, frozen=True, kw_only=True, gc=False):
    """Everything that one turn changes, behind the five-part fence: owner, token, generation, base_seq, writable state.

    `state` None leaves state and wake_at as they are on disk (the cheap, HOT update of a busy run); otherwise both are
    written. A terminal `state` makes it final: lease cleared, all tasks of the run deleted, the inbox cleared.
    `releases` gives the lease back (evict, drain); `reason` goes with state blocked.

    `posts` go to the inboxes of other runs, where these are active: how a child ended. `cascade` says what the active
    children of a cancelled run are sent. `continues` opens the next generation: all tasks of the run go, its state is
    running, and the lease stays; unread messages, children, attributes and keys are the run's, so they stay as well.
    """

    run_id: str
    generation: int
    owner: str
    token: int
    base_seq: int
    events: tuple[Event, ...] = ()
    tasks: tuple[NewTask, ...] = ()
    resolved: tuple[int, ...] = ()  # command ids whose tasks go, whoever holds them
    read: tuple[ReadMessage, ...] = ()
    attributes: Attributes | None = None  # what changes in the run's; None removes a name
    results: tuple[ActivityResult, ...] = ()  # successes under an idempotency key, for other runs
    children: tuple[NewChild, ...] = ()
    posts: tuple[Message, ...] = ()
    cascade: MessageKind | None = None
    continues: NextGeneration | None = None
    state: RunState | None = None
    wake_at: datetime | None = None
    releases: bool = False
    reason: str | None = None
    backoff_seconds: float | None = None  # instead of wake_at: due this long from now on the database's clock

    @property
    def is_final(self) -> bool:
        """Whether it ends the run."""
        return self.state is not None and self.state.has_ended

    @property
    def gives_up_lease(self) -> bool:
        """Whether the writer holds the run no longer once this has landed."""
        return self.releases or self.is_final


class Post(Struct, frozen=True, gc=False):
    """Insert a message into the inbox of an active run."""

    message: Message


class Finish(Struct, frozen=True, gc=False):
    """End a task and post its result to its run, fenced by task owner and attempt and an active run."""

    attempt: Attempt
    message: Message
    result: ActivityResult | None = None  # a success under an idempotency key, for other runs
    in_doubt: bool = False  # whether a host's COMMIT that was not answered may still hold the task


class RetryTask(Struct, frozen=True, gc=False):
    """Consume an attempt and free the task, due again after `delay_seconds`."""

    attempt: Attempt
    delay_seconds: float
    in_doubt: bool = False  # as of Finish


class FreeTask(Struct, frozen=True, gc=False):
    """Free a task whose attempt never began; no attempt is consumed."""

    attempt: Attempt


class SetAttributes(Struct, frozen=True, gc=False):
    """Merge search attributes into a run's, whatever its state and whoever holds it; None removes a name.

    Refused if all of them together would take more than `ATTRIBUTES_MAX` bytes.
    """

    run_id: str
    changes: Attributes


Write = Start | StartMany | Commit | Post | Finish | RetryTask | FreeTask | SetAttributes


# --- verdicts ---------------------------------------------------------------------------------------------------------


class Landed(Struct, frozen=True, gc=False):
    """The write took effect."""


class Refused(Struct, frozen=True, gc=False):
    """The fence held, or the row exists: nothing of this write took effect."""


class Posted(Struct, frozen=True, gc=False):
    """The message is in the inbox (or already was, with this id); `lease_owner` is who should be nudged, if anyone."""

    lease_owner: str | None = None
    advertise_url: str | None = None


class Duplicate(Struct, frozen=True, gc=False):
    """A message with this delivery id was accepted before, or (of a host's Finish) a result with this key."""


class Over(Struct, frozen=True, gc=False):
    """The run has ended."""


class Unknown(Struct, frozen=True, gc=False):
    """There is no such run."""


class Unwritable(Struct, frozen=True):
    """The database will not take this value, alone and again (a data error); `error` says why."""

    error: Exception


Verdict = Landed | Refused | Posted | Duplicate | Over | Unknown | Unwritable

LANDED = Landed()
REFUSED = Refused()
