"""Schedules: a row each, moved on together with the runs that it starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import Row

from continuum.journal.port import DueSchedules, Firing
from continuum.journal.sql.desk import Part
from continuum.journal.sql.lines import Talk
from continuum.journal.sql.rows import encoded_attributes
from continuum.journal.sql.statements import schedules
from continuum.journal.sql.writing import WriteWithin
from continuum.model.schedules import Definition, Overlap, Progress, ScheduleRow, ScheduleState
from continuum.model.states import RunState
from continuum.model.timing import Timing

_TIMING: msgspec.json.Decoder[Timing] = msgspec.json.Decoder(Timing)


class Scheduling(Part):
    """Defining, finding what is due, moving on."""

    write_within: WriteWithin  # of this dialect

    async def define_schedule(self, definition: Definition, progress: Progress, *, revision: int | None) -> bool:
        """Insert a schedule (revision None) or change one; False: it is there already, or is not as it was seen."""
        columns = {
            "id": definition.schedule_id,
            "workflow": definition.workflow,
            "namespace": definition.namespace,
            "timing": msgspec.json.encode(definition.timing).decode(),
            "input": definition.input,
            "overlap": definition.overlap.value,
            "catch_up": definition.catch_up_seconds,
            "attributes": encoded_attributes(definition.attributes),
        }
        if revision is None:
            return bool(
                await self._desk.change(
                    schedules.DEFINE,
                    **columns,
                    state=progress.state.value,
                    next_at=progress.next_at,
                    wake_at=progress.wake_at,
                )
            )
        async with self._desk.changing() as talk:
            if not await talk.fetch(schedules.REDEFINE, **columns, revision=revision):
                return False
            return bool(await _move(talk, [Firing(definition.schedule_id, revision, progress)]))

    async def schedule(self, schedule_id: str) -> ScheduleRow | None:
        """Return a schedule."""
        rows = await self._desk.ask(schedules.BY_ID, id=schedule_id)
        return self._row(rows[0]) if rows else None

    async def list_schedules(
        self, *, state: ScheduleState | None, limit: int, after: str | None
    ) -> Sequence[ScheduleRow]:
        """Return schedules in the order of their ids, strictly after `after`."""
        chosen = None if state is None else state.value
        rows = await self._desk.ask(schedules.LIST, after=after or "", state=chosen, n=limit)
        return [self._row(row) for row in rows]

    async def delete_schedule(self, schedule_id: str) -> bool:
        """Delete a schedule; its runs stay."""
        return bool(await self._desk.change(schedules.DELETE, id=schedule_id))

    async def due_schedules(self, *, workflows: Sequence[str], grace_seconds: float, limit: int) -> DueSchedules:
        """Return what somebody is to look at; see `continuum.journal.port`."""
        rows = await self._desk.ask(schedules.DUE, workflows=list(workflows), grace=grace_seconds, n=limit)
        moment = self._desk.reader.moment
        first = rows[0]
        later = [] if first.mine is None else [moment(first.mine)]
        if first.others is not None:
            later.append(moment(first.others) + timedelta(seconds=grace_seconds))
        due = tuple(self._row(row) for row in rows if row.id is not None)
        return DueSchedules(due, moment(first.now), min(later, default=None))

    async def fire(self, firings: Sequence[Firing]) -> Sequence[bool]:
        """Move schedules on and insert their runs, all in one transaction."""
        async with self._desk.changing() as talk:
            moved = await _move(talk, sorted(firings, key=lambda firing: firing.schedule_id))
            starts = [start for firing in firings if firing.schedule_id in moved for start in firing.starts]
            if starts:
                await self.write_within(talk, starts)
        return [firing.schedule_id in moved for firing in firings]

    def _row(self, row: Row[Any]) -> ScheduleRow:
        maybe = self._desk.reader.maybe
        return ScheduleRow(
            definition=Definition(
                schedule_id=row.id,
                workflow=row.workflow,
                timing=_TIMING.decode(row.timing),
                input=row.input,
                overlap=Overlap(row.overlap),
                catch_up_seconds=row.catch_up_seconds,
                namespace=row.namespace,
                attributes=None if row.attributes is None else json.loads(row.attributes),
            ),
            progress=Progress(
                state=ScheduleState(row.state),
                next_at=maybe(row.next_at),
                wake_at=maybe(row.wake_at),
                last_at=maybe(row.last_at),
                last_run_id=row.last_run_id,
                buffered_at=maybe(row.buffered_at),
                attempts=row.attempts,
                reason=row.reason,
                fired=row.fired,
                skipped=row.skipped,
                missed=row.missed,
            ),
            revision=row.revision,
            created_at=self._desk.reader.moment(row.created_at),
            last_state=None if row.last_state is None else RunState(row.last_state),
        )


async def _move(talk: Talk, firings: Sequence[Firing]) -> set[str]:
    rows = await talk.fetch(schedules.MOVE, m=[_cells(firing) for firing in firings])
    return {row.id for row in rows}


def _cells(firing: Firing) -> tuple[object, ...]:
    progress = firing.progress
    return (
        firing.schedule_id,
        firing.revision,
        progress.state.value,
        progress.next_at,
        progress.wake_at,
        progress.last_at,
        progress.last_run_id,
        progress.buffered_at,
        progress.attempts,
        progress.reason,
        progress.fired,
        progress.skipped,
        progress.missed,
    )
