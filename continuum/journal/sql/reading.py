"""What callers ask; and the long-term care of what they could ask for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row

from continuum.journal.port import RunFilter
from continuum.journal.sql.desk import Part
from continuum.journal.sql.rows import encoded_attributes, runs_of
from continuum.journal.sql.statements import families, listing, opening, results, runs, sweeps
from continuum.model.events import Event
from continuum.model.packing import SNAPSHOT_FORMAT
from continuum.model.runs import Ending, RunRow, Standing
from continuum.model.states import RunState

# Before this comes everything: so the first page is read as the others are, by the index.
END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC), "ffffffff-ffff-ffff-ffff-ffffffffffff"
WALK = 5_000  # rows: some 800 pages; what none of them has, less than one run in fifty has
TROUBLED = (RunState.BLOCKED, RunState.FAILED, RunState.CANCELLED)
LISTS = dict(zip(listing.SOURCES, listing.LISTS, strict=True))
WALKS = dict(zip(listing.SOURCES, listing.WALKS, strict=True))


class Reading(Part):
    """Reads, each one query."""

    async def now(self) -> datetime:
        """Return the database's time."""
        (row,) = await self._desk.ask(opening.NOW)
        return self._desk.reader.moment(row.now)

    async def run(self, run_id: str) -> RunRow | None:
        """Return a run's row."""
        rows = await self._desk.ask(runs.BY_ID, ids=[run_id])
        return self._desk.reader.run(rows[0]) if rows else None

    async def run_by_key(self, namespace: str, workflow: str, key: str) -> RunRow | None:
        """Return the run that this start key made."""
        rows = await self._desk.ask(runs.BY_KEY, namespace=namespace, workflow=workflow, key=key)
        return self._desk.reader.run(rows[0]) if rows else None

    async def history(self, run_id: str, *, generation: int | None = None) -> Sequence[Event]:
        """Return the events of a generation (default: the present one), in order."""
        rows = await self._desk.ask(runs.HISTORY, run_id=run_id, generation=generation)
        return [self._desk.reader.event(row) for row in rows]

    async def events_after(self, run_id: str, *, generation: int, seq: int, limit: int) -> Sequence[tuple[int, Event]]:
        """Return at most `limit` events behind a place in a history, each with its generation."""
        rows = await self._desk.ask(runs.EVENTS_AFTER, run_id=run_id, generation=generation, seq=seq, limit=limit)
        return [(row.generation, self._desk.reader.event(row)) for row in rows]

    async def endings(self, run_ids: Sequence[str]) -> Sequence[Ending]:
        """Return how those of the runs that have ended, or are blocked, stand."""
        rows = {row.run_id: row for row in await self._desk.ask(runs.ENDINGS, ids=list(run_ids))}
        return [_ending(rows[run_id]) for run_id in run_ids if run_id in rows]

    async def standings(self, run_ids: Sequence[str]) -> Sequence[Standing]:
        """Return how those of the runs stand that exist."""
        rows = {row.run_id: row for row in await self._desk.ask(runs.STANDINGS, ids=list(run_ids))}
        return [_standing(rows[run_id]) for run_id in run_ids if run_id in rows]

    async def active_children(self, parents: Sequence[str]) -> Sequence[tuple[str, str | None, str | None]]:
        """Return (run id, lease owner, its advertise URL) of the active children of runs."""
        rows = await self._desk.ask(families.ACTIVE_CHILDREN, ids=list(parents))
        return [(row.run_id, row.lease_owner, row.advertise_url) for row in rows]

    async def list_runs(self, where: RunFilter, *, limit: int, before: tuple[datetime, str] | None) -> Sequence[RunRow]:
        """Return runs newest first by (created_at, id), strictly older than `before`."""
        before_at, before_id = before or END_OF_TIME
        values = {
            "before_at": before_at,
            "before_id": before_id,
            "workflow": where.workflow,
            "state": None if where.state is None else where.state.value,
            "namespace": where.namespace,
            "attributes": encoded_attributes(where.attributes),
            "n": limit,
        }
        source, desk = _source(where), self._desk
        if not where.attributes or desk.book.dialect.name == "sqlite":
            rows = await desk.ask(LISTS[source], **values)
        else:
            rows = await desk.ask(WALKS[source], walk=max(WALK, 2 * limit), **values)
            if len(rows) < limit:
                rows = await desk.ask(listing.FIND, **values)
        return [self._desk.reader.run(row) for row in rows]


def _source(where: RunFilter) -> str:
    """Return which of the indexes leads to the runs soonest."""
    if where.state in TROUBLED:
        return "troubled"
    if where.state is not None and not where.state.has_ended:
        return "open"
    return "all" if where.namespace in (None, "default") else "tenant"


class Keeping(Part):
    """Snapshots and retention."""

    async def save_snapshot(self, run_id: str, *, generation: int, seq: int, blob: bytes) -> bool:
        """Store a compacted prefix of a history, replacing an older one; False if a newer one is there."""
        rows = await self._desk.change(
            sweeps.SAVE_SNAPSHOT, run_id=run_id, generation=generation, seq=seq, format=SNAPSHOT_FORMAT, blob=blob
        )
        return bool(rows)

    async def prune_results(self, *, age_seconds: float, limit: int) -> int:
        """Forget up to `limit` results of activities that are older than that; return how many."""
        return len(await self._desk.change(results.PRUNE, age=age_seconds, n=limit))

    async def prune(self, *, limit: int) -> Sequence[str]:
        """Delete up to `limit` ended runs whose retention has passed, with all their rows; return their ids."""
        async with self._desk.changing() as talk:
            over = [row.run_id for row in await talk.fetch(sweeps.OVER, limit=limit)]
            if over:
                for statement in sweeps.PRUNE:
                    await talk.fetch(statement, ids=over)
        return over

    async def prune_generations(self, *, limit: int) -> int:
        """Delete up to `limit` generations that runs have left behind for longer than their retention; return how many."""
        async with self._desk.changing() as talk:
            rows = await talk.fetch(sweeps.OLD_GENERATIONS, limit=limit)
            wanted = [(row.run_id, row.generation) for row in rows]
            if wanted:
                for statement in sweeps.PRUNE_GENERATIONS:
                    await talk.fetch(statement, ids=runs_of(wanted), w=wanted)
        return len(wanted)


def _standing(row: Row[Any]) -> Standing:
    ending = _ending(row) if _is_over(row) else None
    return Standing(row.run_id, RunState(row.state), row.generation, row.last_seq, row.lease_owner, ending)


def _ending(row: Row[Any]) -> Ending:
    state = RunState(row.state)
    return Ending(
        row.run_id,
        state,
        payload=row.payload if state.has_ended else None,
        reason=row.reason if state is RunState.BLOCKED else None,
    )


def _is_over(row: Row[Any]) -> bool:
    state = RunState(row.state)
    return state.has_ended or state is RunState.BLOCKED
