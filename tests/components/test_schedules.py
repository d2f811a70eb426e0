"""Schedules in virtual time: a year of fire times in milliseconds, outages, failing starts, draining nodes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import pytest
from msgspec.structs import replace
from pydantic import AfterValidator, PlainSerializer

import continuum
from continuum import FIRE_TIME, ConfigurationError, InputInvalid, RunState, ScheduleState, activity, workflow
from continuum.clock import VirtualClock
from continuum.definitions.catalog import scoped_catalog
from continuum.errors import DurableValueError, NotAllowedHere, ScheduleNotFound
from continuum.journal.port import Contended
from continuum.model.schedules import Schedule
from continuum.telemetry import TelemetryEvent, attach, detach
from continuum.testing import environment
from continuum.testing.environment import Environment
from tests.support.stage import Stage, settled

DAY = 86_400.0
START = datetime(2026, 1, 1, tzinfo=UTC)


@activity
async def note(moment: datetime) -> str:
    return moment.isoformat()


@workflow
async def report(moment: datetime) -> str:
    return await note(moment)


@workflow
async def patient(n: int) -> int:
    return await continuum.wait_signal("go", int) + n


@workflow
async def nap(seconds: float) -> None:
    await asyncio.sleep(seconds)


@pytest.fixture
def heard() -> Iterator[list[TelemetryEvent]]:
    events: list[TelemetryEvent] = []
    attach(events.append)
    yield events
    detach(events.append)


@pytest.fixture
async def env() -> AsyncIterator[Environment]:
    with scoped_catalog():
        async with environment(auto=False) as env:
            yield env


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    with scoped_catalog():
        stage = Stage(VirtualClock())
        yield stage
        await stage.clear()


async def runs_of(schedule_id: str, instance: Any = None) -> list[continuum.Run]:
    """The runs of a schedule, the oldest fire time first."""
    ask = continuum if instance is None else instance
    page = await ask.list_runs(attributes={"continuum.schedule": schedule_id}, limit=1000)
    assert page.next_cursor is None
    return sorted(page.items, key=lambda run: run.attributes["continuum.scheduled_at"])


def names(heard: list[TelemetryEvent], prefix: str = "schedule.") -> list[str]:
    return [event.name for event in heard if event.name.startswith(prefix)]


# --- firing -----------------------------------------------------------------------------------------------------------


async def test_a_year_of_months_is_twelve_runs(env: Environment, heard: list[TelemetryEvent]) -> None:
    monthly = await continuum.schedule(report, FIRE_TIME, cron="0 9 1 * *", timezone="Europe/Berlin", id="monthly")
    await env.advance(timedelta(days=365))
    runs = await runs_of("monthly")
    assert [run.attributes["continuum.scheduled_at"] for run in runs] == [
        f"2026-{month:02}-01T0{8 if month < 4 or month > 10 else 7}:00:00Z" for month in range(1, 13)
    ]
    assert {run.state for run in runs} == {RunState.COMPLETED}
    results = [await continuum.await_run(run.run_id, report) for run in runs]
    assert results == [run.attributes["continuum.scheduled_at"].replace("Z", "+00:00") for run in runs]
    fired = [event for event in heard if event.name == "schedule.fired"]
    assert [event.measurements for event in fired] == [{"lateness_seconds": 0.0}] * 12
    schedule = await monthly.describe()
    assert (schedule.fired, schedule.last_run_id, schedule.next_at) == (
        12,
        runs[-1].run_id,
        datetime(2027, 1, 1, 8, tzinfo=UTC),
    )
    assert schedule.last_at == datetime(2026, 12, 1, 8, tzinfo=UTC)


async def test_both_nights_on_which_clocks_change_have_one_run_each(env: Environment) -> None:
    await continuum.schedule(report, FIRE_TIME, cron="30 2 * * *", timezone="Europe/Berlin", id="nightly")
    await env.advance(timedelta(days=365))
    runs = await runs_of("nightly")
    assert len(runs) == 365
    times = {run.attributes["continuum.scheduled_at"] for run in runs}
    assert {"2026-03-29T01:00:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"} <= times
    assert "2026-10-25T01:30:00Z" not in times


async def test_an_interval_and_a_single_moment_fire_too(env: Environment) -> None:
    await continuum.schedule(report, FIRE_TIME, every=timedelta(hours=6), id="often")
    await continuum.schedule(report, FIRE_TIME, start_at=START + timedelta(hours=7), id="once")
    await env.advance(timedelta(days=1))
    assert len(await runs_of("often")) == 4
    (run,) = await runs_of("once")
    assert await continuum.await_run(run.run_id) == "2026-01-01T07:00:00+00:00"
    once = await continuum.get_schedule("once")
    assert (once.state, once.next_at, once.fired) == (ScheduleState.ENDED, None, 1)


async def test_time_jumps_to_fire_times_while_somebody_waits() -> None:
    async with environment() as env:
        await continuum.schedule(report, FIRE_TIME, every=timedelta(days=30), id="monthly")
        sleeper = await continuum.start(nap, 365 * DAY)
        await sleeper.result()
        assert len(await runs_of("monthly")) == (env.now - START).days // 30


async def test_runs_take_namespace_attributes_and_the_newest_version(env: Environment) -> None:
    @workflow(name="test.versioned", version=1)
    async def first() -> int:
        return 1

    await continuum.schedule(first, every=3600, id="versioned", namespace="eu", attributes={"team": "a"})

    @workflow(name="test.versioned", version=2)
    async def second() -> int:
        return 2

    await env.advance(3600)
    (run,) = await runs_of("versioned")
    assert (run.namespace, run.attributes["team"], run.version) == ("eu", "a", 2)


# --- overlap ----------------------------------------------------------------------------------------------------------


async def schedule_patient(overlap: Literal["skip", "buffer_one", "allow", "cancel_other"]) -> None:
    await continuum.schedule(patient, 1, every=3600, id="hourly", overlap=overlap)


async def test_skip_leaves_fire_times_out_while_the_last_run_is_active(
    env: Environment, heard: list[TelemetryEvent]
) -> None:
    await schedule_patient("skip")
    await env.advance(timedelta(hours=3))
    (first,) = await runs_of("hourly")
    await continuum.signal(first.run_id, "go", 1)
    await env.advance(timedelta(hours=1))
    assert [run.state for run in await runs_of("hourly")] == [RunState.COMPLETED, RunState.SUSPENDED]
    schedule = await continuum.get_schedule("hourly")
    assert (schedule.fired, schedule.skipped, schedule.missed) == (2, 2, 0)
    skipped = [event for event in heard if event.name == "schedule.skipped"]
    assert [(event.measurements, event.metadata["reason"]) for event in skipped] == [({"fire_times": 1}, "overlap")] * 2


async def test_buffer_one_starts_one_run_as_soon_as_the_last_has_ended(env: Environment) -> None:
    await schedule_patient("buffer_one")
    await env.advance(timedelta(hours=3.5))
    (first,) = await runs_of("hourly")
    await continuum.signal(first.run_id, "go", 1)
    await env.settle()
    second = (await runs_of("hourly"))[1]
    assert second.attributes["continuum.scheduled_at"] == "2026-01-01T02:00:00Z"
    assert second.started_at == START + timedelta(hours=3.5)
    schedule = await continuum.get_schedule("hourly")
    assert (schedule.fired, schedule.skipped) == (2, 1)


async def test_a_cancelled_run_makes_room_for_the_buffered_one(env: Environment) -> None:
    await schedule_patient("buffer_one")
    await env.advance(timedelta(hours=2))
    (first,) = await runs_of("hourly")
    assert await continuum.cancel(first.run_id) == "cancelled"
    await env.settle()
    assert len(await runs_of("hourly")) == 2


async def test_allow_lets_runs_live_side_by_side(env: Environment) -> None:
    await schedule_patient("allow")
    await env.advance(timedelta(hours=3))
    assert [run.state for run in await runs_of("hourly")] == [RunState.SUSPENDED] * 3


async def test_cancel_other_cancels_the_last_run_and_starts_the_next(env: Environment) -> None:
    await schedule_patient("cancel_other")
    await env.advance(timedelta(hours=3))
    states = [run.state for run in await runs_of("hourly")]
    assert states == [RunState.CANCELLED, RunState.CANCELLED, RunState.SUSPENDED]


# --- outages ----------------------------------------------------------------------------------------------------------


async def test_what_an_outage_left_out_is_made_up_for_within_the_window(
    stage: Stage, heard: list[TelemetryEvent]
) -> None:
    node = await stage.node()
    await node.instance.schedule(report, FIRE_TIME, every=3600, id="hourly", overlap="allow", catch_up=7200)
    await stage.move(3600.0)
    await node.children.stop()
    await stage.move(5.5 * 3600.0)
    again = await stage.node()
    await settled()
    times = [run.attributes["continuum.scheduled_at"][11:16] for run in await runs_of("hourly", again.instance)]
    assert times == ["01:00", "05:00", "06:00"]
    schedule = await again.instance.get_schedule("hourly")
    assert (schedule.fired, schedule.missed) == (3, 3)
    (missed,) = [event for event in heard if event.name == "schedule.skipped"]
    assert (missed.measurements, missed.metadata["reason"]) == ({"fire_times": 3}, "missed")
    late = [event.measurements["lateness_seconds"] for event in heard if event.name == "schedule.fired"]
    assert late == [0.0, 5400.0, 1800.0]


async def test_a_draining_node_fires_nothing_and_burns_no_attempts(stage: Stage) -> None:
    node = await stage.node()
    await node.instance.schedule(report, FIRE_TIME, every=3600, id="hourly")
    node.instance.begin_drain()
    await stage.move(7200.0)
    schedule = await node.instance.get_schedule("hourly")
    assert (schedule.fired, schedule.attempts, schedule.state) == (0, 0, ScheduleState.ACTIVE)
    other = await stage.node()
    await settled()
    assert len(await runs_of("hourly", other.instance)) == 1


async def test_two_nodes_that_have_both_read_what_is_due_start_one_run(stage: Stage) -> None:
    first, second = await stage.still(), await stage.still()
    await first.instance.schedule(report, FIRE_TIME, every=3600, id="hourly")
    await stage.move(3600.0)
    due = await second.parts.journal.due_schedules(workflows=[report.name], grace_seconds=5.0, limit=10)
    runner: Any = second.parts.components["schedule_runner"]
    moves = [runner._decide(row, due.now) for row in due.rows]
    await first.once("schedule_runner")
    assert not await runner._carry_out(moves, due.now)  # refused: look again
    assert len(await runs_of("hourly", first.instance)) == 1
    assert (await first.instance.get_schedule("hourly")).fired == 1


async def test_a_lock_that_is_not_to_be_had_costs_a_moment_and_no_alarm(
    stage: Stage, heard: list[TelemetryEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await stage.node()
    await node.instance.schedule(report, FIRE_TIME, every=3600, id="hourly")
    journal: Any = node.parts.journal
    fire = journal.fire
    met: list[object] = []

    async def contended(firings: Any) -> Any:
        if not met:
            met.append(firings)
            raise Contended("a lock was not to be had in time")
        return await fire(firings)

    monkeypatch.setattr(journal, "fire", contended)
    await stage.move(3601.0)
    (fired,) = [event for event in heard if event.name == "schedule.fired"]
    assert 0.04 < fired.measurements["lateness_seconds"] < 0.2
    assert names(heard, "loop.") == []


async def test_a_schedule_made_by_another_process_is_found_by_polling(stage: Stage) -> None:
    worker = await stage.node(has_pollers=True)
    client = await stage.node(client_only=True)
    await client.instance.schedule(report, FIRE_TIME, every=60, id="minutely")
    await stage.move(62.0)
    assert len(await runs_of("minutely", worker.instance)) == 1


async def test_without_a_runner_nothing_fires(stage: Stage) -> None:
    node = await stage.node(has_pollers=True, schedule_runner=False)
    await node.instance.schedule(report, FIRE_TIME, every=60, id="minutely")
    await stage.move(120.0)
    assert await runs_of("minutely", node.instance) == []


async def test_an_idle_runner_asks_the_pulse_and_nothing_else(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    node = await stage.node(has_pollers=True)
    await node.instance.schedule(report, FIRE_TIME, every=DAY, id="daily")
    await stage.move(5.0)
    asked: list[str] = []
    journal: Any = node.parts.journal
    step = journal._step

    async def witnessed(fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        asked.append(fn.__name__)
        return await step(fn, *args, **kwargs)

    monkeypatch.setattr(journal, "_step", witnessed)
    await stage.move(20.0)
    assert "due_schedules" not in asked
    assert 0 < asked.count("evidence") <= 20


# --- starts that fail -------------------------------------------------------------------------------------------------


async def test_a_workflow_that_is_gone_is_tried_later_and_later_and_then_the_schedule_has_failed(
    stage: Stage, heard: list[TelemetryEvent]
) -> None:
    node = await stage.node()
    known: Any = node.parts.world.catalog
    await node.instance.schedule(report, FIRE_TIME, every=DAY, id="daily")
    row = await node.parts.journal.schedule("daily")
    assert row is not None
    gone = replace(row.definition, workflow="test.gone")
    assert await node.parts.journal.define_schedule(gone, row.progress, revision=row.revision)
    await stage.move(DAY + 4.0)  # for a while it is left to nodes that know the workflow
    assert names(heard) == ["schedule.changed"]
    await stage.move(3600.0)
    assert names(heard)[1:] == [*["schedule.retried"] * 11, "schedule.failed"]
    delays = [e.measurements["backoff_seconds"] for e in heard if e.name == "schedule.retried"]
    assert delays == [5, 10, 20, 40, 80, 160, 300, 300, 300, 300, 300]
    schedule = await node.instance.get_schedule("daily")
    assert (schedule.state, schedule.attempts, schedule.next_at) == (ScheduleState.FAILED, 12, None)
    assert "no workflow 'test.gone' is registered" in (schedule.reason or "")
    assert [one.schedule_id for one in (await node.instance.list_schedules(state="failed")).items] == ["daily"]
    assert node.instance.readiness().state == "ready"
    heard.clear()
    await stage.move(30 * DAY)
    assert names(heard) == []  # never tried again

    known._workflows["test.gone", 1], known._newest["test.gone"] = report, 1
    await node.instance.resume_schedule("daily")
    await settled()
    schedule = await node.instance.get_schedule("daily")
    assert (schedule.state, schedule.reason, schedule.fired) == (ScheduleState.ACTIVE, None, 1)
    assert schedule.missed == 30  # older than the window of a day


async def test_a_node_that_knows_the_workflow_comes_first(stage: Stage, heard: list[TelemetryEvent]) -> None:
    node = await stage.node()
    await node.instance.schedule(report, FIRE_TIME, every=3600, id="hourly")
    stranger = await stage.still()
    await stage.move(3599.0)
    due = await stranger.parts.journal.due_schedules(workflows=["other"], grace_seconds=5.0, limit=10)
    assert due.rows == ()
    await stage.move(1.0)
    assert names(heard)[-1] == "schedule.fired"


async def test_an_input_that_no_longer_fits_fails_the_schedule_until_it_is_declared_anew(
    stage: Stage, heard: list[TelemetryEvent]
) -> None:
    node = await stage.node(schedule_runner={"attempts": 2, "backoff": 1})

    def define(kind: type) -> Any:
        async def billed(amount: kind) -> str:  # type: ignore[valid-type]
            return str(amount)

        return workflow(name="test.billed")(billed)

    await node.instance.schedule(define(str), "ten", every=60, id="bills")
    new = define(int)
    await stage.move(62.0)
    schedule = await node.instance.get_schedule("bills")
    assert (schedule.state, names(heard)) == (
        ScheduleState.FAILED,
        ["schedule.changed", "schedule.retried", "schedule.failed"],
    )
    assert "amount" in (schedule.reason or "")
    await node.instance.schedule(new, 10, every=60, id="bills")
    await stage.move(60.0)
    (*_, run) = await runs_of("bills", node.instance)
    assert await node.instance.await_run(run.run_id) == "10"


async def test_arguments_that_make_the_hosts_code_raise_hold_no_other_schedule_up(
    stage: Stage, heard: list[TelemetryEvent]
) -> None:
    moods = ["good"]

    def moody(value: int) -> int:
        if moods[0] == "bad":
            raise KeyError("nobody expected this")
        return value

    @workflow(name="test.moody")
    async def temper(value: Annotated[int, AfterValidator(moody)]) -> int:
        return value

    node = await stage.node()
    await node.instance.schedule(temper, 1, every=3600, id="a moody one")
    await node.instance.schedule(report, FIRE_TIME, every=3600, id="hourly")
    moods[0] = "bad"
    await stage.move(3601.0)
    assert len(await runs_of("hourly", node.instance)) == 1
    schedule = await node.instance.get_schedule("a moody one")
    assert (schedule.attempts, schedule.reason) == (1, "KeyError('nobody expected this')")
    assert names(heard, "loop.") == []


async def test_a_cancel_that_has_to_wait_holds_no_other_schedule_up(stage: Stage) -> None:
    node = await stage.node()
    await node.instance.schedule(patient, 1, every=3600, id="a", overlap="cancel_other")
    await node.instance.schedule(report, FIRE_TIME, every=3600, id="b")
    await stage.move(3600.0)
    runner: Any = node.parts.components["schedule_runner"]
    runner._cancel = lambda _run_id: node.parts.node.clock.sleep(2.0)
    await stage.move(3601.0)
    assert [len(await runs_of(name, node.instance)) for name in "ab"] == [1, 2]
    await stage.move(2.0)
    assert [len(await runs_of(name, node.instance)) for name in "ab"] == [2, 2]


# --- verbs ------------------------------------------------------------------------------------------------------------


async def test_the_same_declaration_again_changes_nothing(env: Environment, heard: list[TelemetryEvent]) -> None:
    async def declare() -> Schedule:
        handle = await continuum.schedule(
            report, FIRE_TIME, cron="0 8 * * *", timezone="Europe/Berlin", id="daily", attributes={"a": (1, 2)}
        )
        return await handle.describe()

    first = await declare()
    await env.advance(timedelta(hours=3))
    assert await declare() == first
    assert names(heard) == ["schedule.changed"]


async def test_another_declaration_replaces_the_old_and_keeps_what_it_did(env: Environment) -> None:
    await continuum.schedule(report, FIRE_TIME, every=3600, id="s")
    await env.advance(timedelta(hours=2))
    await continuum.schedule(report, FIRE_TIME, cron="0 0 * * *", id="s", overlap="allow")
    schedule = await continuum.get_schedule("s")
    assert (schedule.every, schedule.cron, schedule.overlap, schedule.fired) == (None, "0 0 * * *", "allow", 2)
    assert schedule.next_at == START + timedelta(days=1)
    await env.advance(timedelta(days=1))
    assert len(await runs_of("s")) == 3


async def test_a_schedule_is_named_after_its_workflow_and_a_second_one_needs_a_name(env: Environment) -> None:
    handle = await continuum.schedule(report, FIRE_TIME, every=3600)
    assert handle.schedule_id == report.name
    await continuum.schedule(report, FIRE_TIME, every=3600)
    with pytest.raises(InputInvalid, match="give each an id= of its own"):
        await continuum.schedule(report, FIRE_TIME, every=7200)
    await continuum.schedule(report, FIRE_TIME, every=7200, id="second")
    assert len((await continuum.list_schedules()).items) == 2


async def test_a_paused_schedule_rests_until_it_is_resumed(env: Environment) -> None:
    hourly = await continuum.schedule(report, FIRE_TIME, every=3600, id="hourly")
    assert (await hourly.pause()).state is ScheduleState.PAUSED
    await continuum.schedule(report, FIRE_TIME, every=3600, id="hourly")  # a boot changes nothing about it
    await env.advance(timedelta(hours=5.5))
    assert await runs_of("hourly") == []
    schedule = await hourly.resume()
    assert (schedule.state, schedule.next_at) == (ScheduleState.ACTIVE, START + timedelta(hours=6))
    await env.advance(timedelta(hours=1))
    assert len(await runs_of("hourly")) == 1


async def test_a_trigger_starts_a_run_beside_all_others(env: Environment) -> None:
    hourly = await continuum.schedule(patient, 1, every=3600, id="hourly")
    await hourly.pause()
    first, second = await hourly.trigger(), await hourly.trigger()
    await env.settle()
    assert {run.run_id for run in await runs_of("hourly")} == {first.run_id, second.run_id}
    schedule = await hourly.describe()
    assert (schedule.state, schedule.last_run_id, schedule.fired) == (ScheduleState.PAUSED, second.run_id, 2)
    await second.signal("go", 1)
    assert await second.result() == 2


async def test_a_triggered_run_counts_for_the_overlap_policy(env: Environment) -> None:
    hourly = await continuum.schedule(patient, 1, every=3600, id="hourly")
    await hourly.trigger()
    await env.advance(timedelta(hours=1))
    assert (await hourly.describe()).skipped == 1


async def test_a_backfill_starts_each_past_fire_time_once(env: Environment) -> None:
    daily = await continuum.schedule(report, FIRE_TIME, cron="0 8 * * *", id="daily")
    made = await daily.backfill(START - timedelta(days=10), START)
    assert [run.existing for run in made] == [False] * 10
    again = await daily.backfill(START - timedelta(days=11), START)
    assert [run.existing for run in again] == [False, *[True] * 10]
    await env.settle()
    results = [await run.result() for run in again]
    assert results[0] == "2025-12-21T08:00:00+00:00"
    assert results[-1] == "2025-12-31T08:00:00+00:00"
    assert (await daily.describe()).fired == 0  # they are not the schedule's own


async def test_a_fire_time_that_was_backfilled_already_starts_nothing_again(stage: Stage) -> None:
    node = await stage.still()
    hourly = await node.instance.schedule(report, FIRE_TIME, every=3600, id="hourly")
    await stage.move(3600.0)
    (run,) = await hourly.backfill(START + timedelta(minutes=1), START + timedelta(days=30))  # the future is left out
    await node.once("schedule_runner")
    assert [one.run_id for one in await runs_of("hourly", node.instance)] == [run.run_id]
    assert (await hourly.describe()).last_run_id == run.run_id


@pytest.mark.parametrize(
    ("start", "end", "says"),
    [
        (datetime(2025, 1, 1), START, "time zone"),  # noqa: DTZ001
        (START, START, "a later end"),
        (START - timedelta(days=1000), START, "smaller parts"),
        (None, START, "a later end"),
    ],
)
async def test_a_backfill_that_makes_no_sense_is_refused(env: Environment, start: Any, end: Any, says: str) -> None:
    hourly = await continuum.schedule(report, FIRE_TIME, every=3600, id="hourly")
    with pytest.raises(InputInvalid, match=says):
        await hourly.backfill(start, end)


async def test_a_deleted_schedule_fires_no_more_and_is_known_no_more(env: Environment) -> None:
    hourly = await continuum.schedule(report, FIRE_TIME, every=3600, id="hourly")
    await hourly.delete()
    await env.advance(timedelta(hours=2))
    assert await runs_of("hourly") == []
    for verb in (hourly.describe, hourly.pause, hourly.resume, hourly.trigger, hourly.delete):
        with pytest.raises(ScheduleNotFound, match="'hourly'"):
            await verb()
    with pytest.raises(ScheduleNotFound):
        await hourly.backfill(START, START + timedelta(hours=1))


async def test_schedules_are_listed_in_pages(env: Environment) -> None:
    for name in "cab":
        await continuum.schedule(report, FIRE_TIME, every=3600, id=name)
    first = await continuum.list_schedules(limit=2)
    assert [one.schedule_id for one in first.items] == ["a", "b"]
    rest = await continuum.list_schedules(limit=2, cursor=first.next_cursor)
    assert ([one.schedule_id for one in rest.items], rest.next_cursor) == (["c"], None)


async def test_a_schedule_tells_when_it_fires_next(env: Environment) -> None:
    handle = await continuum.schedule(report, FIRE_TIME, cron="0 8 1 * *", id="monthly")
    upcoming = (await handle.describe()).upcoming(3)
    assert upcoming == [datetime(2026, month, 1, 8, tzinfo=UTC) for month in (1, 2, 3)]
    assert (await handle.pause()).upcoming() == []


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({}, InputInvalid, "never fire"),
        ({"cron": "0 0 30 2 *"}, InputInvalid, "no cron expression"),
        ({"cron": "0 8 * * *", "timezone": "Europe/Berlyn"}, InputInvalid, "no time zone"),
        ({"cron": "0 8 * * *", "every": 60}, InputInvalid, "exclude each other"),
        ({"every": 60, "timezone": "Europe/Berlin"}, InputInvalid, "goes with cron"),
        ({"every": 0}, InputInvalid, "every must be"),
        ({"every": -1}, ConfigurationError, "every must be"),
        ({"every": "daily"}, ConfigurationError, "every must be"),
        ({"every": 60, "catch_up": -1}, ConfigurationError, "catch_up must be"),
        ({"every": 60, "catch_up": float("nan")}, ConfigurationError, "catch_up must be"),
        ({"every": 60, "overlap": "replace"}, InputInvalid, "skip, buffer_one, allow, cancel_other"),
        ({"every": 60, "id": ""}, InputInvalid, "id must be"),
        ({"every": 60, "id": "a\nb"}, InputInvalid, "id must be"),
        ({"every": 60, "namespace": ""}, InputInvalid, "namespace must be"),
        ({"every": 60, "attributes": {"continuum.schedule": "x"}}, InputInvalid, "must not begin"),
        ({"every": 60, "attributes": {"a": object()}}, DurableValueError, "an attribute is a str"),
        ({"start_at": datetime(2026, 5, 1)}, InputInvalid, "start_at must be a datetime with a time zone"),  # noqa: DTZ001
        ({"start_at": "tomorrow"}, InputInvalid, "start_at must be"),
    ],
)
async def test_what_cannot_be_scheduled_is_refused_at_the_call(
    env: Any, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        await continuum.schedule(report, FIRE_TIME, **options)
    assert (await continuum.list_schedules()).items == ()


async def test_arguments_are_checked_at_the_call(env: Environment) -> None:
    schedule: Any = continuum.schedule
    for arguments in ((), ("yesterday",), (FIRE_TIME, 5)):
        with pytest.raises(InputInvalid):
            await schedule(report, *arguments, every=60)
    with pytest.raises(NotAllowedHere, match="no workflow"):
        await schedule(note, FIRE_TIME, every=60)
    with pytest.raises(InputInvalid, match="no state"):
        await continuum.list_schedules(state="asleep")


async def test_a_fire_time_that_could_not_be_filled_in_is_refused(env: Environment) -> None:
    @workflow(name="test.epochs")
    async def epochs(at: Annotated[datetime, PlainSerializer(datetime.timestamp)]) -> None: ...

    for flow in (epochs.bound(FIRE_TIME), epochs.bound(at=FIRE_TIME)):
        with pytest.raises(InputInvalid, match="annotate it as datetime"):
            await continuum.schedule(flow, every=60)


async def test_a_fire_time_goes_wherever_a_time_goes(env: Environment) -> None:
    @workflow(name="test.span")
    async def span(times: list[datetime], *, until: datetime | None) -> tuple[bool, int]:
        return times[0] == until, len(times)

    await continuum.schedule(span.bound([FIRE_TIME, START], until=FIRE_TIME), every=60, id="span")
    await env.advance(60)
    (run,) = await runs_of("span")
    assert await continuum.await_run(run.run_id, span) == (True, 2)


async def test_a_workflow_cannot_schedule(env: Environment) -> None:
    @workflow(name="test.scheduler", purity="off")
    async def scheduler() -> str:
        try:
            await continuum.schedule(report, FIRE_TIME, every=60)
        except NotAllowedHere:
            return "refused"
        return "scheduled"

    run = await continuum.start(scheduler)
    await env.settle()
    assert await run.result() == "refused"
