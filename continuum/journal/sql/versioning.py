"""Which code open runs need, and who carries it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from continuum.journal.sql.desk import Part
from continuum.journal.sql.reading import END_OF_TIME
from continuum.journal.sql.statements import versions
from continuum.model.states import RunState
from continuum.model.versions import Carrier, OpenRun, OpenRuns, PatchMarks


class Versioning(Part):
    """What a node says of its code, and what is known of everybody's."""

    async def carry(self, owner: str, *, workflows: Sequence[tuple[str, int]]) -> None:
        """Record what an owner carries; forget what those without a row did."""
        async with self._desk.changing() as talk:
            await talk.fetch(versions.DROP, owner=owner)
            await talk.fetch(versions.CARRY, owner=owner, w=list(workflows))
        await self._desk.change(versions.FORGET)

    async def retry_blocked(
        self, *, workflows: Sequence[tuple[str, int]], crashes_max: int, limit: int
    ) -> Sequence[str]:
        """Let blocked runs be due now; see `continuum.journal.port`."""
        rows = await self._desk.change(versions.RETRY_BLOCKED, m=list(workflows), crashes_max=crashes_max, n=limit)
        return sorted(row.run_id for row in rows)

    async def carriers(self) -> Sequence[Carrier]:
        """Return who carries what, of the owners that live."""
        rows = await self._desk.ask(versions.CARRIERS)
        return [Carrier(row.workflow, row.version, row.node, row.owner) for row in rows]

    async def open_counts(self) -> Sequence[OpenRuns]:
        """Return how many runs are open."""
        rows = await self._desk.ask(versions.OPEN_COUNTS)
        return [OpenRuns(row.workflow, row.version, RunState(row.state), row.runs) for row in rows]

    async def patch_marks(self) -> Sequence[PatchMarks]:
        """Return how many open runs take which patches."""
        rows = await self._desk.ask(versions.PATCH_MARKS)
        return [PatchMarks(row.workflow, row.version, row.name, row.runs) for row in rows]

    async def open_runs(
        self, *, workflow: str | None, limit: int, before: tuple[datetime, str] | None
    ) -> Sequence[OpenRun]:
        """Return open runs newest first by (created_at, id), strictly older than `before`."""
        before_at, before_id = before or END_OF_TIME
        rows = await self._desk.ask(
            versions.OPEN_RUNS, workflow=workflow, n=limit, before_at=before_at, before_id=before_id
        )
        moment = self._desk.reader.moment
        return [OpenRun(row.run_id, row.workflow, row.version, moment(row.created_at), row.last_seq) for row in rows]
