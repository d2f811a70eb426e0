"""What starts runs again and again, or once: its definition, how it stands, and how callers see it.

A schedule is a row with a *definition* (what to start, when, and what if the last run is still active), which its
author declares, and a *progress* (which fire time comes next, what became of the last), which whoever fires it moves
on. `revision` grows with every change of either and is the fence of the next one.

active → paused (until resumed), failed (could not start its runs; until resumed), ended (no fire time is left).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any, Final

from msgspec import Struct

from continuum.model.runs import Attributes
from continuum.model.states import RunState
from continuum.model.timing import Cron, Every, Timing, fire_times

# A time that nobody means: in a schedule's arguments it stands for the fire time of each run.
FIRE_TIME: Final[datetime] = datetime(1, 1, 1, microsecond=1, tzinfo=UTC)
_FIRE_TIME = b'"0001-01-01T00:00:00.000001Z"'

SCHEDULE = "continuum.schedule"  # the attribute that names a run's schedule
SCHEDULED_AT = "continuum.scheduled_at"  # and the one that says for which fire time it was started
RESERVED = "continuum."  # attributes of schedules must not begin so


class ScheduleState(StrEnum):
    """Where a schedule stands, as stored in `continuum_schedules.state`."""

    ACTIVE = "active"
    PAUSED = "paused"
    FAILED = "failed"
    ENDED = "ended"


class Overlap(StrEnum):
    """What happens at a fire time while the schedule's last run is still active."""

    SKIP = "skip"  # nothing
    BUFFER_ONE = "buffer_one"  # the run starts when the last one has ended; further fire times are skipped meanwhile
    ALLOW = "allow"  # the run starts beside it
    CANCEL_OTHER = "cancel_other"  # the last run is cancelled, and the run starts


class Definition(Struct, frozen=True, gc=False, kw_only=True):
    """What the author of a schedule declares."""

    schedule_id: str
    workflow: str
    timing: Timing
    input: bytes  # the encoded arguments
    overlap: Overlap = Overlap.SKIP
    catch_up_seconds: float = 0.0
    namespace: str = "default"
    attributes: Attributes | None = None


class Progress(Struct, frozen=True, gc=False, kw_only=True):
    """How far a schedule has come. `wake_at` says when somebody is to look at it; None: not by itself."""

    state: ScheduleState = ScheduleState.ACTIVE
    next_at: datetime | None = None  # the first fire time that was not decided on yet
    wake_at: datetime | None = None
    last_at: datetime | None = None  # the last fire time that started a run
    last_run_id: str | None = None
    buffered_at: datetime | None = None  # a fire time whose run waits for the end of the last one
    attempts: int = 0  # failures in a row to start a run
    reason: str | None = None  # why the last of them failed
    fired: int = 0
    skipped: int = 0  # because the last run was still active
    missed: int = 0  # because they were too long ago when somebody looked


class ScheduleRow(Struct, frozen=True, gc=False):
    """A row of `continuum_schedules`, and the state of the schedule's last run (None: there is none, or it is pruned)."""

    definition: Definition
    progress: Progress
    revision: int
    created_at: datetime
    last_state: RunState | None = None
    unreadable: str | None = None  # why its input could not be opened

    @property
    def is_busy(self) -> bool:
        """Whether its last run is still active."""
        return self.last_state is not None and not self.last_state.has_ended


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as callers see it.

    One of `cron`, `every` and (alone) `start_at` says when it fires. `reason` tells why a failed one failed; `attempts`
    counts failures in a row. Of the fire times, `fired` started a run, `skipped` found the last run still active, and
    `missed` were longer ago than `catch_up` when an instance looked again.
    """

    schedule_id: str
    workflow: str
    state: ScheduleState
    cron: str | None
    every: timedelta | None
    start_at: datetime | None
    timezone: str
    overlap: Overlap
    catch_up: timedelta
    namespace: str
    attributes: Mapping[str, Any]
    next_at: datetime | None
    last_at: datetime | None
    last_run_id: str | None
    fired: int
    skipped: int
    missed: int
    attempts: int
    reason: str | None
    created_at: datetime
    _timing: Timing = field(repr=False)

    def upcoming(self, limit: int = 5) -> list[datetime]:
        """Return the next fire times, in UTC; none unless it is active."""
        return list(islice(self._upcoming(), limit))

    def _upcoming(self) -> Iterator[datetime]:
        if self.next_at is not None:
            yield self.next_at
            yield from fire_times(self._timing, after=self.next_at)


def seen(row: ScheduleRow) -> Schedule:
    """Return a schedule as callers see it."""
    definition, progress, timing = row.definition, row.progress, row.definition.timing
    return Schedule(
        schedule_id=definition.schedule_id,
        workflow=definition.workflow,
        state=progress.state,
        cron=timing.expression if isinstance(timing, Cron) else None,
        every=timedelta(microseconds=timing.microseconds) if isinstance(timing, Every) else None,
        start_at=timing.start_at,
        timezone=timing.timezone if isinstance(timing, Cron) else "UTC",
        overlap=definition.overlap,
        catch_up=timedelta(seconds=definition.catch_up_seconds),
        namespace=definition.namespace,
        attributes=dict(definition.attributes or {}),
        next_at=progress.next_at if progress.state is ScheduleState.ACTIVE else None,
        last_at=progress.last_at,
        last_run_id=progress.last_run_id,
        fired=progress.fired,
        skipped=progress.skipped,
        missed=progress.missed,
        attempts=progress.attempts,
        reason=progress.reason,
        created_at=row.created_at,
        _timing=timing,
    )


def input_at(definition: Definition, moment: datetime) -> bytes:
    """Return the arguments of the run for a fire time."""
    return definition.input.replace(_FIRE_TIME, b'"' + _text(moment).encode() + b'"')


def holds_fire_time(arguments: bytes) -> bool:
    """Tell whether there is a place for the fire time in encoded arguments."""
    return _FIRE_TIME in arguments


def attributes_at(definition: Definition, moment: datetime) -> Attributes:
    """Return the attributes of the run for a fire time."""
    return {**(definition.attributes or {}), SCHEDULE: definition.schedule_id, SCHEDULED_AT: _text(moment)}


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
