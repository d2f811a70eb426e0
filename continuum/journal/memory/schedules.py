"""Schedules: every change names the revision that it was decided on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from continuum.journal.memory import writes
from continuum.journal.memory.store import MemoryStore
from continuum.journal.port import DueSchedules, Firing
from continuum.model.schedules import Definition, Progress, ScheduleRow, ScheduleState


def define_schedule(store: MemoryStore, definition: Definition, progress: Progress, *, revision: int | None) -> bool:
    """Insert a schedule, or change one that is as it was seen."""
    row = store.schedules.get(definition.schedule_id)
    if (None if row is None else row.revision) != revision:
        return False
    created_at = store.now() if row is None else row.created_at
    store.schedules[definition.schedule_id] = ScheduleRow(definition, progress, (revision or 0) + 1, created_at)
    return True


def schedule(store: MemoryStore, schedule_id: str) -> ScheduleRow | None:
    """Return a schedule."""
    row = store.schedules.get(schedule_id)
    return None if row is None else _with_last_state(store, row)


def list_schedules(
    store: MemoryStore, *, state: ScheduleState | None, limit: int, after: str | None
) -> Sequence[ScheduleRow]:
    """Return schedules by id."""
    ids = sorted(one for one in store.schedules if after is None or one > after)
    rows = [store.schedules[one] for one in ids]
    chosen = [row for row in rows if state in {None, row.progress.state}]
    return [_with_last_state(store, row) for row in chosen[:limit]]


def delete_schedule(store: MemoryStore, schedule_id: str) -> bool:
    """Delete a schedule."""
    return store.schedules.pop(schedule_id, None) is not None


def is_due(store: MemoryStore, row: ScheduleRow, now: datetime) -> bool:
    """Tell whether somebody is to look at a schedule: its time has come, or the run that its put-off one waited for is over."""
    progress = row.progress
    if progress.state is not ScheduleState.ACTIVE:
        return False
    if progress.wake_at is not None and progress.wake_at <= now:
        return True
    is_waiting = progress.buffered_at is not None and progress.attempts == 0
    return is_waiting and not _with_last_state(store, row).is_busy


def due_schedules(store: MemoryStore, *, workflows: Sequence[str], grace_seconds: float, limit: int) -> DueSchedules:
    """Return what is due for a node that knows these workflows, the longest due first."""
    now, grace = store.now(), timedelta(seconds=grace_seconds)
    active = [row for row in store.schedules.values() if row.progress.state is ScheduleState.ACTIVE]
    mine = [row for row in active if row.definition.workflow in workflows]
    others = [row for row in active if row.definition.workflow not in workflows]
    due = [row for row in mine if is_due(store, row, now)] + [row for row in others if _wakes(row, now - grace)]
    later = [row.progress.wake_at for row in mine if row.progress.wake_at is not None] + [
        row.progress.wake_at + grace for row in others if row.progress.wake_at is not None
    ]
    return DueSchedules(
        tuple(_with_last_state(store, row) for row in sorted(due, key=_by_time)[:limit]),
        now,
        min((moment for moment in later if moment > now), default=None),
    )


def fire(store: MemoryStore, firings: Sequence[Firing]) -> Sequence[bool]:
    """Move schedules on, with their runs; one that is not as it was seen stays, without them."""
    for firing in firings:
        writes.check(firing.starts)
    return [_fire(store, firing) for firing in firings]


def _fire(store: MemoryStore, firing: Firing) -> bool:
    row = store.schedules.get(firing.schedule_id)
    if row is None or row.revision != firing.revision:
        return False
    store.schedules[firing.schedule_id] = replace(row, progress=firing.progress, revision=row.revision + 1)
    for start in firing.starts:
        writes.apply(store, start)  # refused: a run of this id exists, and is left as it is
    return True


def _with_last_state(store: MemoryStore, row: ScheduleRow) -> ScheduleRow:
    last = store.runs.get(row.progress.last_run_id or "")
    return row if last is None else replace(row, last_state=last.state)


def _wakes(row: ScheduleRow, by: datetime) -> bool:
    return row.progress.wake_at is not None and row.progress.wake_at <= by


def _by_time(row: ScheduleRow) -> tuple[datetime, str]:
    return row.progress.wake_at or row.created_at, row.definition.schedule_id
