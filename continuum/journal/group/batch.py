"""Values of the group committer: what travels, in which company, in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from continuum.model.writes import (
    Commit,
    Finish,
    FreeTask,
    Post,
    RetryTask,
    SetAttributes,
    Start,
    StartMany,
    Verdict,
    Write,
)

TURNS = (Commit, Start)  # what a run has one of on its way
Settled = Callable[[Verdict], object]


class Entry:
    """A write, and who is told. `excludes` is the run that no other entry may write meanwhile."""

    __slots__ = ("excludes", "queued_at", "settled", "write")

    def __init__(self, write: Write, settled: Settled) -> None:
        self.write = write
        self.settled: Settled | None = settled
        self.queued_at: float | None = None  # by the clock, if anybody listens
        self.excludes = write.run_id if isinstance(write, TURNS) else None


class Batch(Struct, frozen=True, gc=False):
    """Entries that travel together; `failures` were met on the way, and what is frozen may have arrived before."""

    entries: Sequence[Entry]
    failures: int = 0
    is_frozen: bool = False
    not_before: float = 0.0  # monotonic

    def halves(self) -> list[Batch]:
        """Split in two; each half knows what the whole has met."""
        middle = len(self.entries) // 2
        return [replace(self, entries=part) for part in (self.entries[:middle], self.entries[middle:])]


def run_of(write: Write) -> str:
    """Return the run that a write is about."""
    match write:
        case Commit() | Start() | SetAttributes():
            return write.run_id
        case StartMany(starts):
            return starts[0].run_id
        case Post(message):
            return message.run_id
        case Finish() | RetryTask() | FreeTask():
            return write.attempt.key.run_id


def may_wait(write: Write) -> bool:
    """Whether somebody's open transaction can hold the same unique key, or the row."""
    match write:
        case Commit():
            return False
        case Start():
            return write.is_keyed
        case StartMany(starts):
            return any(start.is_keyed for start in starts)
        case Post(message):
            return message.delivery_id is not None
        case Finish() | RetryTask():
            return write.in_doubt
        case _:
            return False


def by_key(entry: Entry) -> tuple[str, str, str]:
    """Sort lane 1: two committers insert unique keys in the same order."""
    match entry.write:
        case Start(run=run):
            return run.namespace, run.workflow, run.idempotency_key or run.run_id
        case Post(message):
            return message.run_id, message.name or "", message.delivery_id or ""
        case _:
            return run_of(entry.write), "", ""
