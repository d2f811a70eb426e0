# long: narrow protocols, one after the other; who implements one sees the others
"""What a journal must be able to do, in narrow protocols: each component names the one that it needs.

Every method is one atomic step. `now` in the comments is always the database's clock. The rules of who may write what
and when are those of `docs/protocol.md`; the conformance suite holds every implementation to them.

Errors: an implementation translates what its driver raises into the four classes below, by SQLSTATE or error code and
never by text, because the group committer decides by class: contended → again, bad data → split, gone → judge.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from continuum.errors import ContinuumError, JournalUnavailable
from continuum.model.census import Census
from continuum.model.events import Event
from continuum.model.messages import Message
from continuum.model.owners import Owner
from continuum.model.results import ActivityResult, ResultKey
from continuum.model.runs import Attributes, Ending, RunRow, Standing
from continuum.model.schedules import Definition, Progress, ScheduleRow, ScheduleState
from continuum.model.states import RunState
from continuum.model.tasks import Attempt, Beat, ClaimedTask
from continuum.model.versions import Carrier, OpenRun, OpenRuns, PatchMarks
from continuum.model.writes import Start, Verdict, Write


class Contended(ContinuumError):
    """A lock was not to be had in time, or a deadlock or serialization failure: nothing happened, try again."""


class BadData(ContinuumError):
    """The database refuses a value in this batch: nothing happened, split it to find the culprit."""


class Ambiguous(JournalUnavailable):
    """The connection ended before the answer: each write of the batch may or may not have taken effect."""


# --- what reads and claims return -------------------------------------------------------------------------------------


class Claim(Struct, frozen=True, gc=False):
    """A run that this owner has just leased, and how far its history reaches."""

    run_id: str
    token: int
    generation: int
    last_seq: int


class Claims(Struct, frozen=True, gc=False):
    """What one pass claimed, and the database's time of it."""

    runs: tuple[Claim, ...]
    now: datetime


class LoadedRun(Struct, frozen=True, gc=False):
    """All that is needed to resume a run: its row, its history, its unread messages in reading order."""

    row: RunRow
    history: tuple[Event, ...]
    messages: tuple[Message, ...]
    snapshot_seq: int = 0
    unreadable: str | None = None  # why its payloads could not be opened; they are left as they are stored


class Swept(Struct, frozen=True, gc=False):
    """What one sweep freed: run ids, and attempts that were consumed or given up for good."""

    runs: tuple[str, ...] = ()
    tasks: tuple[Attempt, ...] = ()
    blocked: tuple[str, ...] = ()
    exhausted: tuple[Attempt, ...] = ()


class Evidence(Struct, frozen=True, gc=False):
    """Whether there is anything for the pollers to do, whoever can do it; what it denies, no pass would find."""

    runs: bool  # unleased runs with evidence
    tasks: bool  # free tasks that are due
    orphans: bool  # owners whose time has passed, or leases of owners without a row
    schedules: bool  # schedules with fire times that have come, or whose put-off run may start


class Held(Struct, frozen=True, gc=False):
    """What the journal says is leased to one owner."""

    runs: Mapping[str, int]  # run id → token
    tasks: tuple[Attempt, ...]


class RunFilter(Struct, frozen=True, gc=False):
    """Which runs to list; None means any."""

    workflow: str | None = None
    state: RunState | None = None
    namespace: str | None = None
    attributes: Attributes | None = None


class DueSchedules(Struct, frozen=True, gc=False):
    """Schedules that somebody is to look at, the longest due first; the database's time, and when more come due."""

    rows: tuple[ScheduleRow, ...]
    now: datetime
    upcoming: datetime | None


class Firing(Struct, frozen=True, gc=False):
    """A schedule moved on, and the unleased runs that come with it, fenced by the revision that was seen."""

    schedule_id: str
    revision: int
    progress: Progress
    starts: tuple[Start, ...] = ()


# --- the protocols ----------------------------------------------------------------------------------------------------


class WriteJournal(Protocol):
    """The group committer's side: batches in, one verdict each out."""

    async def write(self, lane: int, batch: Sequence[Write]) -> Sequence[Verdict]:
        """Write a batch in one transaction, in lane 0 (runs) or 1 (what can collide with somebody's transaction).

        No run occurs twice in a batch. Who is refused is refused alone.

        Raises:
            Contended, BadData: nothing of the batch took effect.
            Ambiguous: unknown; ask `judge` for each write.
        """
        ...

    async def judge(self, write: Write) -> Verdict | None:
        """Say after an ambiguous answer what became of a write; None: it did not arrive, send it again.

        A Start landed if the row exists with its owner and token 1; a Commit, if the event at base_seq + 1 carries its
        token, or the generation that it opens is there under its lease; a Post, if its message is in the inbox or in the
        history of any generation. Others are simply sent again with the same ids.
        """
        ...


class Hosted(Protocol):
    """The journal inside a host's open transaction: nothing of it exists before the host commits, nor after a rollback.

    What concerns the host's connection or its transaction is raised as its own driver reports it: only the host can
    decide whether to begin again.
    """

    async def write(self, write: Write) -> Verdict:
        """Write a start (unleased), starts, a message, or the end of a task; refused, nothing of it is there.

        Raises:
            BadData: the database refuses a value; the host's transaction may go on without it.
        """
        ...

    def when_over(self, tell: Callable[[bool], None]) -> Callable[[], None]:
        """Call `tell` once, soon after what has just been written was committed (True), or was taken back (False).

        Returns what calls it now, if that has come about already. True also stands for a COMMIT whose answer was lost; that nothing is told at all is possible, as for any hint.
        """
        ...

    async def run(self, run_id: str) -> RunRow | None:
        """Return a run's row as the transaction sees it."""
        ...

    async def run_by_key(self, namespace: str, workflow: str, key: str) -> RunRow | None:
        """Return the run that this start key made, as the transaction sees it."""
        ...

    async def history(self, run_id: str, *, generation: int | None = None) -> Sequence[Event]:
        """Return the events of a generation (default: the present one), as the transaction sees them."""
        ...


class HostedJournal(Protocol):
    """Taking part in transactions of the host's own."""

    async def hosted(self, session: object) -> Hosted:
        """Return this journal in the transaction of an AsyncSession or AsyncConnection, which is begun if need be.

        Raises:
            SessionInvalid: it cannot be used; the message says what can.
        """
        ...


class OwnerJournal(Protocol):
    """Owner rows: the heartbeat, and the judgement of who is dead."""

    async def register(self, owner: Owner, *, ttl_seconds: float) -> datetime:
        """Insert the owner row, committed before any lease in its name; return now."""
        ...

    async def renew(self, owner: str, *, ttl_seconds: float) -> datetime | None:
        """Extend the row; return now, or None if it is gone: everything leased to it is lost."""
        ...

    async def retire(self, owner: str) -> None:
        """Delete the row; what is still leased to it will be swept."""
        ...

    async def declare_dead(self) -> Sequence[str]:
        """Delete every row whose `expires_at` has passed; return their owners."""
        ...

    async def owners(self) -> Sequence[Owner]:
        """Return the living owners of this instance."""
        ...


class RecoveryJournal(Protocol):
    """Level-triggered repair: safe to run anywhere, any number of times."""

    async def sweep(self, *, crashes_max: int, backoff_seconds: float, task_backoff_seconds: float) -> Swept:
        """Free what owners without a row hold: runs (token + 1, crashes + 1 if running), then tasks (attempt + 1).

        A run that reaches `crashes_max` becomes blocked for `backoff_seconds`. A task at its last attempt becomes a
        message with a failure of type `attempts_exhausted`. Tasks of runs that are over, and late messages without
        delivery id of such runs, are deleted.
        """
        ...

    async def held(self, owner: str) -> Held:
        """Return the active runs and the tasks leased to `owner`."""
        ...

    async def release_run(
        self,
        run_id: str,
        *,
        owner: str,
        token: int,
        state: RunState | None = None,
        backoff_seconds: float | None = None,
        reason: str | None = None,
    ) -> bool:
        """Give a lease back, fenced by owner and token; with `state`, also set it and `wake_at` (None: NULL)."""
        ...


class PulseJournal(Protocol):
    """One cheap question in place of many."""

    async def evidence(self) -> Evidence:
        """Say whether there is anything to claim, to sweep or to fire, in one query over partial indexes."""
        ...


class RunJournal(Protocol):
    """Claiming and loading runs."""

    async def claim_runs(
        self,
        owner: str,
        *,
        workflows: Sequence[tuple[str, int]],
        limit: int,
        run_ids: Sequence[str] | None = None,
    ) -> Claims:
        """Lease up to `limit` unleased runs that have evidence (PROTOCOL I7), only of these workflows and versions.

        A run with an unread cancel is claimed whatever its workflow; a cancel that compensates needs the code. A run that
        was cancelling stays so. With `run_ids`, only those.

        Raises:
            Ambiguous: runs may have been claimed; the audit finds them.
        """
        ...

    async def load_runs(self, run_ids: Sequence[str]) -> Sequence[LoadedRun]:
        """Read rows, histories (from snapshots where there are any) and unread messages of these runs."""
        ...

    async def unread(self, owner: str, *, limit: int) -> Sequence[Message]:
        """Return unread messages of runs leased to `owner`, oldest first (the backstop scan)."""
        ...

    async def upcoming(self, *, horizon_seconds: float, limit: int) -> Sequence[tuple[str, datetime]]:
        """Return (run id, wake_at) of unleased runs that become due within the horizon, soonest first."""
        ...


class TaskJournal(Protocol):
    """Claiming and tending activity tasks; finishing and retrying are writes."""

    async def claim_tasks(
        self, owner: str, *, activities: Sequence[str], slots: Mapping[str, int], default_slots: int
    ) -> Sequence[ClaimedTask]:
        """Lease due tasks of these activities, highest priority first, at most `slots[queue]` of a named queue.

        Queues that are not named share `default_slots`, and all together take at most that many.
        """
        ...

    async def heartbeat_tasks(self, beats: Sequence[Beat]) -> Sequence[Attempt]:
        """Store the details of running attempts; return those that are still theirs (the others are to be cancelled)."""
        ...

    async def results(self, keys: Sequence[ResultKey]) -> Sequence[ActivityResult]:
        """Return what is remembered under these keys."""
        ...

    async def next_task_at(self, activities: Sequence[str]) -> datetime | None:
        """Return when the next free task of these activities becomes available, if any waits."""
        ...


class ReadJournal(Protocol):
    """What callers ask."""

    async def now(self) -> datetime:
        """Return the database's time."""
        ...

    async def run(self, run_id: str) -> RunRow | None:
        """Return a run's row."""
        ...

    async def run_by_key(self, namespace: str, workflow: str, key: str) -> RunRow | None:
        """Return the run that this start key made."""
        ...

    async def history(self, run_id: str, *, generation: int | None = None) -> Sequence[Event]:
        """Return the events of a generation (default: the present one), in order."""
        ...

    async def events_after(self, run_id: str, *, generation: int, seq: int, limit: int) -> Sequence[tuple[int, Event]]:
        """Return at most `limit` events behind a place in a history, in order through its generations, each with its own."""
        ...

    async def endings(self, run_ids: Sequence[str]) -> Sequence[Ending]:
        """Return how those of the runs that have ended, or are blocked, stand; one query for any number."""
        ...

    async def standings(self, run_ids: Sequence[str]) -> Sequence[Standing]:
        """Return how those of the runs stand that exist; one query for any number."""
        ...

    async def active_children(self, parents: Sequence[str]) -> Sequence[tuple[str, str | None, str | None]]:
        """Return (run id, lease owner, its advertise URL) of the active children of runs."""
        ...

    async def list_runs(self, where: RunFilter, *, limit: int, before: tuple[datetime, str] | None) -> Sequence[RunRow]:
        """Return runs newest first by (created_at, id), strictly older than `before`."""
        ...


class KeepingJournal(Protocol):
    """Long-term care: snapshots and retention."""

    async def save_snapshot(self, run_id: str, *, generation: int, seq: int, blob: bytes) -> bool:
        """Store a compacted prefix of a history, replacing an older one; False if a newer one is there."""
        ...

    async def prune_results(self, *, age_seconds: float, limit: int) -> int:
        """Forget up to `limit` results of activities that are older than that; return how many."""
        ...

    async def prune(self, *, limit: int) -> Sequence[str]:
        """Delete up to `limit` ended runs whose retention has passed, with all their rows; return their ids.

        Children of active parents stay: a later generation may ask for them.
        """
        ...

    async def prune_generations(self, *, limit: int) -> int:
        """Delete up to `limit` generations that runs left behind for longer than their retention; return how many."""
        ...


class ScheduleJournal(Protocol):
    """Schedules: each change is fenced by the revision that it was decided on, and adds one to it."""

    async def define_schedule(self, definition: Definition, progress: Progress, *, revision: int | None) -> bool:
        """Insert a schedule (revision None) or change one; False: it is there already, or is not as it was seen."""
        ...

    async def schedule(self, schedule_id: str) -> ScheduleRow | None:
        """Return a schedule."""
        ...

    async def list_schedules(
        self, *, state: ScheduleState | None, limit: int, after: str | None
    ) -> Sequence[ScheduleRow]:
        """Return schedules in the order of their ids, strictly after `after`."""
        ...

    async def delete_schedule(self, schedule_id: str) -> bool:
        """Delete a schedule; its runs stay. False: there is none."""
        ...

    async def due_schedules(self, *, workflows: Sequence[str], grace_seconds: float, limit: int) -> DueSchedules:
        """Return active schedules whose `wake_at` has come, or whose put-off run may start: their last run has ended.

        Those of other workflows are left to others until they have been due for `grace_seconds`.
        """
        ...

    async def fire(self, firings: Sequence[Firing]) -> Sequence[bool]:
        """Move schedules on and insert their runs, all in one transaction; False: it was not as it was seen.

        Who is refused is refused alone, with its runs. A run whose id exists is left as it is.

        Raises:
            Contended, BadData: nothing took effect. Ambiguous: unknown; what is due shows.
        """
        ...


class CodeJournal(Protocol):
    """Which code open runs need, and which nodes carry it: for people and for CI, never in anybody's way."""

    async def carry(self, owner: str, *, workflows: Sequence[tuple[str, int]]) -> None:
        """Record what an owner carries, in place of what it did; forget what owners without a row carried."""
        ...

    async def retry_blocked(
        self, *, workflows: Sequence[tuple[str, int]], crashes_max: int, limit: int
    ) -> Sequence[str]:
        """Let up to `limit` blocked runs of these workflows and versions be due now; return their ids.

        Not those that have crashed `crashes_max` times in a row: a new process is no reason why they should not again.
        """
        ...

    async def carriers(self) -> Sequence[Carrier]:
        """Return who carries which version, of the owners that live."""
        ...

    async def open_counts(self) -> Sequence[OpenRuns]:
        """Return how many runs of each version are open, by state."""
        ...

    async def patch_marks(self) -> Sequence[PatchMarks]:
        """Return how many open runs have journaled, in their present generation, that they take a patch."""
        ...

    async def open_runs(
        self, *, workflow: str | None, limit: int, before: tuple[datetime, str] | None
    ) -> Sequence[OpenRun]:
        """Return runs that have not ended, newest first by (created_at, id), strictly older than `before`."""
        ...


class CensusJournal(Protocol):
    """How much there is: for people's dashboards, never in anybody's way."""

    async def census(self, *, limit: int) -> Census:
        """Count open runs by state and free tasks by queue; looks at `limit` rows of each kind at most."""
        ...


class Notices(Protocol):
    """Cross-process hints; a journal without them answers `listen` with nothing and is polled instead."""

    async def notify(self, notices: Sequence[str]) -> None:
        """Tell the other processes of this instance; hints, coalesced, may be lost."""
        ...

    def listen(self) -> AsyncIterator[Sequence[str]]:
        """Yield notices as they come; the first item, always empty, says that listening has begun.

        Raises:
            JournalUnavailable: the listening connection broke; call again.
        """
        ...


class Journal(
    WriteJournal,
    HostedJournal,
    OwnerJournal,
    RecoveryJournal,
    PulseJournal,
    RunJournal,
    TaskJournal,
    ReadJournal,
    KeepingJournal,
    ScheduleJournal,
    CodeJournal,
    CensusJournal,
    Notices,
    Protocol,
):
    """All of it, for one instance."""

    has_notices: bool  # whether there are notices at all
    lanes: int  # how many lanes `write` may be called with at the same time

    @property
    def deafness(self) -> str | None:
        """Why this process can hear no notices, as far as `open` has found out; None: it listens."""
        ...

    async def open(self, instance: str) -> None:
        """Connect, check that the schema is ready and that these tables belong to `instance` (recording it if new).

        Raises:
            SchemaNotReady, SchemaTaken, JournalUnavailable.
        """
        ...

    async def look(self) -> str | None:
        """Connect to read in place of `open`, claiming and writing nothing; return whose tables these are, if anybody's.

        Raises:
            SchemaNotReady, JournalUnavailable.
        """
        ...

    async def close(self) -> None:
        """Close the connections; nothing is in flight any more."""
        ...

    def heart(self) -> OwnerJournal:
        """Return the owner statements on a connection of their own, made on first use: for another thread and loop."""
        ...

    async def close_heart(self) -> None:
        """Close the connection of `heart()`, awaited on the loop that used it."""
        ...
