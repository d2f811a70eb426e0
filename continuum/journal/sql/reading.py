"""What callers ask; and the long-term care of what they could ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from continuum.journal.port import RunFilter
from continuum.journal.sql.desk import Part
from continuum.journal.sql.rows import encoded_attributes
from continuum.journal.sql.statements import opening, runs, sweeps
from continuum.model.events import Event
from continuum.model.packing import SNAPSHOT_FORMAT
from continuum.model.runs import Ending, RunRow
from continuum.model.states import RunState

# Before this comes everything: so the first page is read as the others are, by the index.
END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC), "ffffffff-ffff-ffff-ffff-ffffffffffff"


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

    async def endings(self, run_ids: Sequence[str]) -> Sequence[Ending]:
        """Return how those of the runs that have ended, or are blocked, stand."""
        rows = {row.run_id: row for row in await self._desk.ask(runs.ENDINGS, ids=list(run_ids))}
        return [
            Ending(
                run_id,
                state := RunState(rows[run_id].state),
                payload=rows[run_id].payload if state.has_ended else None,
                reason=rows[run_id].reason if state is RunState.BLOCKED else None,
            )
            for run_id in run_ids
            if run_id in rows
        ]

    async def list_runs(self, where: RunFilter, *, limit: int, before: tuple[datetime, str] | None) -> Sequence[RunRow]:
        """Return runs newest first by (created_at, id), strictly older than `before`."""
        found: list[RunRow] = []
        while len(found) < limit:
            page = await self._page(where, limit=limit, before=before)
            found += [row for row in page if contains(row.attributes or {}, where.attributes or {})]
            if len(page) < limit:
                break
            before = page[-1].created_at, page[-1].run_id
        return found[:limit]

    async def _page(self, where: RunFilter, *, limit: int, before: tuple[datetime, str] | None) -> list[RunRow]:
        before_at, before_id = before or END_OF_TIME
        rows = await self._desk.ask(
            runs.LIST,
            before_at=before_at,
            before_id=before_id,
            workflow=where.workflow,
            state=None if where.state is None else where.state.value,
            namespace=where.namespace,
            attributes=encoded_attributes(where.attributes),
            n=limit,
        )
        return [self._desk.reader.run(row) for row in rows]


def contains(whole: Any, part: Any) -> bool:
    """Tell whether `whole` contains `part`, as Postgres judges jsonb; SQLite has only narrowed down by names."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(key in whole and contains(whole[key], part[key]) for key in part)
    if isinstance(part, list | tuple):
        return isinstance(whole, list | tuple) and all(any(contains(have, want) for have in whole) for want in part)
    if isinstance(part, bool) or isinstance(whole, bool):
        return part is whole
    return bool(part == whole)


class Keeping(Part):
    """Snapshots and retention."""

    async def save_snapshot(self, run_id: str, *, generation: int, seq: int, blob: bytes) -> bool:
        """Store a compacted prefix of a history, replacing an older one; False if a newer one is there."""
        rows = await self._desk.change(
            sweeps.SAVE_SNAPSHOT, run_id=run_id, generation=generation, seq=seq, format=SNAPSHOT_FORMAT, blob=blob
        )
        return bool(rows)

    async def prune(self, *, limit: int) -> Sequence[str]:
        """Delete up to `limit` ended runs whose retention has passed, with all their rows; return their ids."""
        async with self._desk.changing() as talk:
            over = [row.run_id for row in await talk.fetch(sweeps.OVER, limit=limit)]
            if over:
                for statement in sweeps.PRUNE:
                    await talk.fetch(statement, ids=over)
        return over
