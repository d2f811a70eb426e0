"""What the two ways of writing a batch have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from continuum.journal.sql.lines import Talk
from continuum.journal.sql.rows import attempt_columns, runs_of, task_key
from continuum.journal.sql.sheets import attribute_cells
from continuum.journal.sql.statements import runs, tasks
from continuum.model.attributes import ATTRIBUTES_MAX
from continuum.model.tasks import TaskKey
from continuum.model.writes import (
    LANDED,
    Commit,
    Duplicate,
    FreeTask,
    Over,
    Posted,
    RetryTask,
    SetAttributes,
    Unknown,
    Verdict,
    Write,
)

Verdicts = list[Verdict]
NO_LIMIT = (1 << 31) - 1
WriteWithin = Callable[[Talk, Sequence[Write]], Awaitable[Verdicts]]  # a batch, in a transaction that is open


class Writer(Protocol):
    """Writes batches as `continuum.journal.port.WriteJournal` says."""

    async def write(self, lane: int, batch: Sequence[Write]) -> Sequence[Verdict]:
        """Write a batch in one transaction."""
        ...


async def retry(talk: Talk, retries: Sequence[tuple[int, RetryTask]], verdicts: Verdicts) -> None:
    """Consume attempts and free their tasks."""
    wanted = [(*attempt_columns(write.attempt), write.delay_seconds) for _, write in retries]
    rows = await talk.fetch(tasks.RETRY, w=wanted, ids=runs_of(wanted))
    _mark(retries, {task_key(row) for row in rows}, verdicts)


async def free(talk: Talk, frees: Sequence[tuple[int, FreeTask]], verdicts: Verdicts) -> None:
    """Free tasks whose attempts never began."""
    wanted = [attempt_columns(write.attempt) for _, write in frees]
    rows = await talk.fetch(tasks.FREE, w=wanted, ids=runs_of(wanted))
    _mark(frees, {task_key(row) for row in rows}, verdicts)


def _mark(
    writes: Sequence[tuple[int, RetryTask]] | Sequence[tuple[int, FreeTask]], landed: set[TaskKey], verdicts: Verdicts
) -> None:
    for place, write in writes:
        if write.attempt.key in landed:
            landed.discard(write.attempt.key)  # a second write of the same attempt finds nothing
            verdicts[place] = LANDED


async def set_attributes(talk: Talk, settings: Sequence[tuple[int, SetAttributes]], verdicts: Verdicts) -> None:
    """Merge attributes into those of runs."""
    cells = attribute_cells((write.run_id, write.changes) for _, write in settings)
    rows = await talk.fetch(runs.SET_ATTRIBUTES, w=cells, size_max=ATTRIBUTES_MAX)
    merged = {row.run_id for row in rows}
    refused = [str(run_id) for run_id, _ in cells if run_id not in merged]
    known = {row.run_id for row in await talk.fetch(runs.BY_ID, ids=refused)} if refused else set()
    for place, write in settings:
        if write.run_id in merged:
            verdicts[place] = LANDED
        elif write.run_id not in known:
            verdicts[place] = Unknown()


async def set_own_attributes(talk: Talk, commits: Sequence[Commit]) -> None:
    """Change the attributes of runs whose commits took effect; the code that did so has kept to the limit."""
    if cells := attribute_cells((write.run_id, write.attributes) for write in commits):
        await talk.fetch(runs.SET_ATTRIBUTES, w=cells, size_max=NO_LIMIT)


def posting(verdict: str, lease_owner: str | None, advertise_url: str | None) -> Verdict:
    """Return the verdict on a message from the word that a statement says."""
    match verdict:
        case "posted":
            return Posted(lease_owner, advertise_url)
        case "duplicate":
            return Duplicate()
        case "over":
            return Over()
        case _:
            return Unknown()
