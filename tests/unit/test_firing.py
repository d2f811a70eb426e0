"""What is decided about a schedule's fire times: by table, with no journal and no clock."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from continuum.model.firing import (
    BACKOFF_MAX_SECONDS,
    FIRES_MAX,
    LOOKED_AT_MAX,
    ON_TIME_SECONDS,
    Plan,
    begun,
    failed,
    paused,
    plan,
    redefined,
    resumed,
    triggered,
)
from continuum.model.schedules import Definition, Overlap, Progress, ScheduleRow, ScheduleState, attributes_at, input_at
from continuum.model.states import RunState
from continuum.model.timing import Cron, Every, Once, Timing

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOURLY = Every(3_600_000_000)
RUN = "0190a000-0000-7000-8000-000000000001"


def hours(count: float) -> datetime:
    return NOON + timedelta(hours=count)


def a_schedule(
    *,
    timing: Timing = HOURLY,
    overlap: Overlap = Overlap.SKIP,
    catch_up_seconds: float = 86_400.0,
    next_at: datetime | None = NOON,
    last_state: RunState | None = None,
    **progress: object,
) -> ScheduleRow:
    definition = Definition(
        schedule_id="s",
        workflow="w",
        timing=timing,
        input=b"{}",
        overlap=overlap,
        catch_up_seconds=catch_up_seconds,
        attributes={"team": "a"},
    )
    stands = Progress(next_at=next_at, wake_at=next_at, last_run_id=RUN if last_state else None)
    return ScheduleRow(definition, replace(stands, **progress), 1, NOON, last_state=last_state)


def planned(row: ScheduleRow, now: datetime) -> Plan:
    result = plan(row, now)
    assert result is not None
    return result


def test_what_is_not_due_is_left_alone() -> None:
    assert plan(a_schedule(), NOON - timedelta(microseconds=1)) is None


def test_a_fire_time_starts_a_run_and_gives_way_to_the_next() -> None:
    decided = planned(a_schedule(), NOON)
    assert (decided.fires, decided.missed, decided.skipped, decided.cancels) == ((NOON,), 0, 0, None)
    assert decided.progress == Progress(next_at=hours(1), wake_at=hours(1), last_at=NOON, fired=1)


def test_once_is_over_after_its_time() -> None:
    decided = planned(a_schedule(timing=Once(NOON)), hours(1))
    assert decided.fires == (NOON,)
    assert decided.progress.state is ScheduleState.ENDED
    assert (decided.progress.next_at, decided.progress.wake_at) == (None, None)


OWED = [NOON, hours(1), hours(2)]


@pytest.mark.parametrize(
    ("overlap", "is_busy", "fires", "skipped", "buffered", "cancels"),
    [
        (Overlap.ALLOW, False, OWED, 0, None, None),
        (Overlap.ALLOW, True, OWED, 0, None, None),
        (Overlap.SKIP, False, OWED[:1], 2, None, None),
        (Overlap.SKIP, True, [], 3, None, None),
        (Overlap.BUFFER_ONE, False, OWED[:1], 1, OWED[1], None),
        (Overlap.BUFFER_ONE, True, [], 2, OWED[0], None),
        (Overlap.CANCEL_OTHER, False, OWED[-1:], 2, None, None),
        (Overlap.CANCEL_OTHER, True, OWED[-1:], 2, None, RUN),
    ],
)
def test_the_overlap_policy_decides_what_becomes_of_fire_times(
    overlap: Overlap,
    is_busy: bool,
    fires: list[datetime],
    skipped: int,
    buffered: datetime | None,
    cancels: str | None,
) -> None:
    last = RunState.SUSPENDED if is_busy else RunState.COMPLETED
    decided = planned(a_schedule(overlap=overlap, last_state=last), hours(2.5))
    assert (list(decided.fires), decided.skipped, decided.buffered, decided.cancels) == (
        fires,
        skipped,
        buffered,
        cancels,
    )
    progress = decided.progress
    assert (progress.fired, progress.skipped, progress.buffered_at) == (len(fires), skipped, buffered)
    assert (progress.next_at, progress.state) == (hours(3), ScheduleState.ACTIVE)


@pytest.mark.parametrize("state", RunState)
def test_a_run_overlaps_until_it_has_ended(state: RunState) -> None:
    assert planned(a_schedule(last_state=state), NOON).skipped == (not state.has_ended)


def test_a_put_off_run_starts_when_the_last_one_has_ended() -> None:
    waiting = {"buffered_at": NOON, "overlap": Overlap.BUFFER_ONE, "next_at": hours(1)}
    busy = a_schedule(last_state=RunState.RUNNING, **waiting)  # type: ignore[arg-type]
    free = a_schedule(last_state=RunState.FAILED, **waiting)  # type: ignore[arg-type]
    assert plan(busy, hours(0.5)) is None
    decided = planned(free, hours(0.5))
    assert (decided.fires, decided.progress.buffered_at, decided.progress.next_at) == ((NOON,), None, hours(1))


def test_one_put_off_run_is_enough() -> None:
    row = a_schedule(overlap=Overlap.BUFFER_ONE, last_state=RunState.RUNNING, buffered_at=NOON, next_at=hours(1))
    decided = planned(row, hours(1))
    assert (decided.fires, decided.skipped, decided.buffered, decided.progress.buffered_at) == ((), 1, None, NOON)


def test_a_schedule_with_a_put_off_run_has_not_ended() -> None:
    row = a_schedule(timing=Once(NOON), overlap=Overlap.BUFFER_ONE, last_state=RunState.RUNNING)
    decided = planned(row, NOON)
    assert (decided.progress.state, decided.progress.wake_at) == (ScheduleState.ACTIVE, None)


def test_what_is_older_than_the_window_is_missed_and_counted() -> None:
    decided = planned(a_schedule(catch_up_seconds=3600.0, overlap=Overlap.ALLOW), hours(5.5))
    assert decided.missed == decided.progress.missed == 5
    assert decided.fires == (hours(5),)


def test_nothing_is_missed_for_a_few_seconds() -> None:
    row = a_schedule(catch_up_seconds=0.0)
    assert planned(row, NOON + timedelta(seconds=ON_TIME_SECONDS)).fires == (NOON,)
    late = planned(row, NOON + timedelta(seconds=ON_TIME_SECONDS + 1))
    assert (late.fires, late.missed, late.progress.next_at) == ((), 1, hours(1))


def test_a_long_outage_is_worked_off_in_parts() -> None:
    row = a_schedule(overlap=Overlap.ALLOW, catch_up_seconds=1e9)
    first = planned(row, hours(1000))
    assert first.fires == tuple(hours(n) for n in range(FIRES_MAX))
    assert first.progress.wake_at == first.progress.next_at == hours(FIRES_MAX)
    counted = planned(a_schedule(catch_up_seconds=0.0), hours(10_000))
    assert (counted.missed, counted.progress.wake_at) == (LOOKED_AT_MAX, hours(LOOKED_AT_MAX))


# --- failing ----------------------------------------------------------------------------------------------------------


def test_failures_are_retried_later_and_later_and_then_no_more() -> None:
    row, now, delays = a_schedule(), NOON, []
    for _ in range(11):
        progress = failed(planned(row, now), now, "no code", attempts_max=12, backoff_seconds=5.0)
        assert (progress.state, progress.reason, progress.next_at) == (ScheduleState.ACTIVE, "no code", NOON)
        assert progress.wake_at is not None
        delays.append((progress.wake_at - now).total_seconds())
        row, now = replace(row, progress=progress), progress.wake_at
    assert delays == [5, 10, 20, 40, 80, 160, *[BACKOFF_MAX_SECONDS] * 5]
    progress = failed(planned(row, now), now, "no code", attempts_max=12, backoff_seconds=5.0)
    assert (progress.state, progress.attempts, progress.wake_at) == (ScheduleState.FAILED, 12, None)
    assert progress.next_at == NOON  # which one it was


def test_a_retry_keeps_its_fire_time_whatever_the_window() -> None:
    row = a_schedule(catch_up_seconds=0.0)
    progress = failed(planned(row, NOON), NOON, "no code", attempts_max=12, backoff_seconds=60.0)
    decided = planned(replace(row, progress=progress), hours(0.5))
    assert (decided.fires, decided.missed) == ((NOON,), 0)
    assert (decided.progress.attempts, decided.progress.reason) == (0, None)


def test_what_was_missed_before_a_failure_stays_missed() -> None:
    row = a_schedule(catch_up_seconds=60.0)
    progress = failed(planned(row, hours(2)), hours(2), "no code", attempts_max=12, backoff_seconds=60.0)
    assert (progress.missed, progress.next_at) == (2, hours(2))


# --- what callers do --------------------------------------------------------------------------------------------------


def test_a_new_schedule_waits_for_its_first_fire_time() -> None:
    assert begun(HOURLY, NOON) == Progress(next_at=hours(1), wake_at=hours(1))
    assert begun(Once(NOON), hours(3)) == Progress(next_at=NOON, wake_at=NOON)


def test_a_pause_passes_over_fire_times() -> None:
    row = a_schedule(buffered_at=hours(-1))
    resting = paused(row.progress)
    assert (resting.state, resting.wake_at, resting.buffered_at, resting.skipped) == (
        ScheduleState.PAUSED,
        None,
        None,
        1,
    )
    going_on = resumed(replace(row, progress=resting), hours(4.5))
    assert (going_on.state, going_on.next_at, going_on.wake_at) == (ScheduleState.ACTIVE, hours(5), hours(5))


def test_a_pause_may_pass_over_the_last_fire_time() -> None:
    row = a_schedule(timing=Once(NOON))
    assert resumed(replace(row, progress=paused(row.progress)), hours(1)).state is ScheduleState.ENDED


def test_a_failed_schedule_that_is_resumed_begins_with_what_failed() -> None:
    row = a_schedule(state=ScheduleState.FAILED, wake_at=None, attempts=12, reason="no code")
    progress = resumed(row, hours(3))
    assert progress == Progress(next_at=NOON, wake_at=NOON)


def test_resuming_what_is_active_and_pausing_what_has_ended_changes_nothing() -> None:
    active, ended = a_schedule(), a_schedule(next_at=None, state=ScheduleState.ENDED)
    assert resumed(active, hours(1)) == active.progress
    assert resumed(ended, hours(1)) == paused(ended.progress) == ended.progress


DAILY = Cron("0 0 * * *")


@pytest.mark.parametrize("state", [ScheduleState.ACTIVE, ScheduleState.FAILED, ScheduleState.ENDED])
def test_another_timing_begins_anew(state: ScheduleState) -> None:
    row = a_schedule(state=state, attempts=3, reason="no code", fired=7)
    progress = redefined(row, replace(row.definition, timing=DAILY), NOON)
    assert progress == Progress(next_at=hours(12), wake_at=hours(12), fired=7)


def test_another_input_mends_a_failure_and_keeps_the_fire_time() -> None:
    row = a_schedule(state=ScheduleState.FAILED, wake_at=None, attempts=12, reason="no code")
    progress = redefined(row, replace(row.definition, input=b'{"a":1}'), hours(3))
    assert progress == Progress(next_at=NOON, wake_at=NOON)


def test_what_is_paused_stays_paused_and_what_has_ended_ended() -> None:
    resting = replace(a_schedule(), progress=paused(a_schedule().progress))
    assert redefined(resting, replace(resting.definition, timing=DAILY), NOON).state is ScheduleState.PAUSED
    ended = a_schedule(timing=Once(NOON), next_at=None, state=ScheduleState.ENDED)
    assert redefined(ended, replace(ended.definition, input=b'{"a":1}'), hours(1)) == ended.progress


def test_a_trigger_makes_its_run_the_last_one() -> None:
    assert triggered(Progress(fired=1), RUN) == Progress(fired=2, last_run_id=RUN)


def test_a_run_carries_its_schedule_and_fire_time() -> None:
    definition = replace(a_schedule().definition, input=b'{"day":"0001-01-01T00:00:00.000001Z","n":1}')
    assert input_at(definition, NOON) == b'{"day":"2026-01-01T12:00:00Z","n":1}'
    assert attributes_at(definition, NOON) == {
        "team": "a",
        "continuum.schedule": "s",
        "continuum.scheduled_at": "2026-01-01T12:00:00Z",
    }
