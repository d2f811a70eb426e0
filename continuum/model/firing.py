"""What is to be done at a schedule's fire times: functions from a row and the database's time to what it becomes.

Everything that has become due is decided in order: fire times that are longer ago than the catch-up window are missed;
for the others the overlap policy says whether a run starts, is put off, or is left out. A start that cannot be made is
tried again, later and later, with its fire time kept, and after so many attempts the schedule has failed and is left
alone until somebody resumes it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import chain

from msgspec import Struct
from msgspec.structs import replace

from continuum.model.schedules import Definition, Overlap, Progress, ScheduleRow, ScheduleState
from continuum.model.timing import Once, Timing, fire_times

FIRES_MAX = 10  # runs that one schedule starts in one pass; the rest comes in the next
LOOKED_AT_MAX = 500  # fire times that one pass counts as missed
ON_TIME_SECONDS = 10.0  # what is no later than this was not missed, however short the catch-up window
BACKOFF_MAX_SECONDS = 300.0


class Plan(Struct, frozen=True, gc=False):
    """What is to be done now, and how the schedule stands afterwards but for the run ids."""

    progress: Progress
    retry: Progress  # what a failing start begins from: nothing decided but what was missed
    fires: tuple[datetime, ...] = ()
    cancels: str | None = None  # this run, first
    buffered: datetime | None = None
    skipped: int = 0
    missed: int = 0


def plan(row: ScheduleRow, now: datetime) -> Plan | None:
    """Decide what is due; None: nothing is."""
    progress = row.progress
    times, next_at, missed = _due(row, now)
    owed = [*([] if progress.buffered_at is None else [progress.buffered_at]), *times]
    fires, buffered = _allowed(row.definition.overlap, owed, is_busy=row.is_busy)
    skipped = len(owed) - len(fires) - (buffered is not None)
    if not (fires or skipped or missed) and buffered == progress.buffered_at:
        return None
    has_ended = next_at is None and buffered is None
    missed_too = replace(progress, missed=progress.missed + missed)
    return Plan(
        progress=replace(
            missed_too,
            state=ScheduleState.ENDED if has_ended else ScheduleState.ACTIVE,
            next_at=next_at,
            wake_at=next_at,
            last_at=fires[-1] if fires else progress.last_at,
            buffered_at=buffered,
            attempts=0 if fires else progress.attempts,
            reason=None if fires else progress.reason,
            fired=progress.fired + len(fires),
            skipped=progress.skipped + skipped,
        ),
        retry=replace(missed_too, next_at=times[0]) if times else missed_too,
        fires=tuple(fires),
        cancels=row.progress.last_run_id if fires and row.is_busy and _cancels(row.definition.overlap) else None,
        buffered=buffered if buffered != progress.buffered_at else None,
        skipped=skipped,
        missed=missed,
    )


def _due(row: ScheduleRow, now: datetime) -> tuple[list[datetime], datetime | None, int]:
    """Return the fire times that have come and are not missed, the first that has not come, and how many are missed."""
    first, timing = row.progress.next_at, row.definition.timing
    if first is None:
        return [], None, 0
    oldest = now - timedelta(seconds=max(row.definition.catch_up_seconds, ON_TIME_SECONDS))
    is_retried = row.progress.attempts > 0  # it was in time when it was first tried
    times: list[datetime] = []
    missed = 0
    for moment in chain((first,), fire_times(timing, after=first)):
        if moment > now or len(times) == FIRES_MAX or missed == LOOKED_AT_MAX:
            return times, moment, missed
        if moment < oldest and not (is_retried and moment == first):
            missed += 1
        else:
            times.append(moment)
    return times, None, missed


def _allowed(overlap: Overlap, owed: list[datetime], *, is_busy: bool) -> tuple[list[datetime], datetime | None]:
    """Return which of the owed fire times start a run now, and which one waits."""
    match overlap:
        case Overlap.ALLOW:
            return owed, None
        case Overlap.SKIP:
            return ([] if is_busy else owed[:1]), None
        case Overlap.CANCEL_OTHER:
            return owed[-1:], None
        case Overlap.BUFFER_ONE:
            fires = [] if is_busy else owed[:1]
            return fires, next(iter(owed[len(fires) :]), None)


def _cancels(overlap: Overlap) -> bool:
    return overlap is Overlap.CANCEL_OTHER


def failed(planned: Plan, now: datetime, reason: str, *, attempts_max: int, backoff_seconds: float) -> Progress:
    """Return how a schedule stands whose runs could not be started: to be tried again, or failed."""
    attempts = planned.retry.attempts + 1
    tried = replace(planned.retry, attempts=attempts, reason=reason)
    if attempts >= attempts_max:
        return replace(tried, state=ScheduleState.FAILED, wake_at=None)
    delay = min(backoff_seconds * 2.0 ** (attempts - 1), BACKOFF_MAX_SECONDS)
    return replace(tried, wake_at=now + timedelta(seconds=delay))


# --- what callers do --------------------------------------------------------------------------------------------------


def begun(timing: Timing, now: datetime) -> Progress:
    """Return how a new schedule stands. A moment that has passed already is judged by the catch-up window."""
    first = timing.start_at if isinstance(timing, Once) else next(fire_times(timing, after=now), None)
    return Progress(next_at=first, wake_at=first, state=ScheduleState.ACTIVE if first else ScheduleState.ENDED)


def redefined(row: ScheduleRow, new: Definition, now: datetime) -> Progress:
    """Return how a schedule stands whose definition has changed: what made it fail is taken for mended."""
    progress = row.progress
    fresh = begun(new.timing, now)
    if progress.state is ScheduleState.PAUSED:
        return replace(progress, next_at=fresh.next_at)
    if new.timing != row.definition.timing:
        buffered = progress.buffered_at
        state = fresh.state if buffered is None else ScheduleState.ACTIVE
        return replace(progress, state=state, next_at=fresh.next_at, wake_at=fresh.wake_at, attempts=0, reason=None)
    if progress.state is ScheduleState.ENDED:
        return progress
    return _awake(progress)


def paused(progress: Progress) -> Progress:
    """Return how a schedule stands that is to rest; a run that waits for the end of the last one is left out."""
    if progress.state is ScheduleState.ENDED:
        return progress
    left_out = 0 if progress.buffered_at is None else 1
    return replace(
        progress,
        state=ScheduleState.PAUSED,
        wake_at=None,
        buffered_at=None,
        attempts=0,
        reason=None,
        skipped=progress.skipped + left_out,
    )


def resumed(row: ScheduleRow, now: datetime) -> Progress:
    """Return how a schedule stands that is to go on.

    What a pause passed over is gone; where a failure stood in the way, the catch-up window decides.
    """
    progress = row.progress
    if progress.state is ScheduleState.FAILED:
        return _awake(progress)
    if progress.state is not ScheduleState.PAUSED:
        return progress
    first = next(fire_times(row.definition.timing, after=now), None)
    state = ScheduleState.ACTIVE if first is not None else ScheduleState.ENDED
    return replace(progress, state=state, next_at=first, wake_at=first)


def triggered(progress: Progress, run_id: str) -> Progress:
    """Return how a schedule stands that has started a run out of turn."""
    return replace(progress, last_run_id=run_id, fired=progress.fired + 1)


def _awake(progress: Progress) -> Progress:
    return replace(progress, state=ScheduleState.ACTIVE, wake_at=progress.next_at, attempts=0, reason=None)
