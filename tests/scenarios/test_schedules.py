"""Schedules on every journal: one run per fire time whatever nodes do and suffer; made up for, put off, failed, resumed."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

import continuum
from continuum import FIRE_TIME, RunCancelled, RunState, ScheduleState, workflow
from continuum.composition.instance import Instance
from continuum.definitions.catalog import scoped_catalog
from continuum.encryption import AesGcmCodec
from continuum.journal.port import Ambiguous, Firing
from continuum.telemetry import TelemetryEvent, attach, detach
from tests.support.eventually import eventually
from tests.support.hosting import Place, crash, instance_of, wiring_of

HOUR = timedelta(hours=1)


@workflow
async def report(moment: datetime) -> str:
    return moment.isoformat()


@workflow
async def patient(n: int) -> int:
    return await continuum.wait_signal("go", int) + n


@pytest.fixture
def heard() -> Iterator[list[TelemetryEvent]]:
    events: list[TelemetryEvent] = []
    attach(events.append)
    yield events
    detach(events.append)


async def rewind(instance: Instance, schedule_id: str, by: timedelta) -> datetime:
    """Let a schedule not have been looked at for a while; return its next fire time."""
    journal = wiring_of(instance).journal
    while True:
        row = await journal.schedule(schedule_id)
        assert row is not None
        assert row.progress.next_at is not None
        at = row.progress.next_at - by
        (landed,) = await journal.fire(
            [Firing(schedule_id, row.revision, replace(row.progress, next_at=at, wake_at=at))]
        )
        if landed:
            return at


async def runs_of(instance: Instance, schedule_id: str) -> list[continuum.Run]:
    page = await instance.list_runs(attributes={"continuum.schedule": schedule_id}, limit=1000)
    return sorted(page.items, key=lambda run: run.attributes["continuum.scheduled_at"])


async def fired(instance: Instance, schedule_id: str) -> int:
    return (await instance.get_schedule(schedule_id)).fired


async def test_a_fire_time_that_comes_starts_a_run(app: Instance) -> None:
    await app.schedule(report, FIRE_TIME, every=1, id="every second")
    first, *_ = await eventually(lambda: runs_of(app, "every second"))
    assert first.attributes["continuum.scheduled_at"] == str(await app.await_run(first.run_id, timeout=15)).replace(
        "+00:00", "Z"
    )
    schedule = await app.get_schedule("every second")
    assert schedule.fired >= 1


async def test_each_fire_time_has_one_run_whatever_number_of_nodes_races_for_it(place: Place, app: Instance) -> None:
    async with AsyncExitStack() as nodes:
        others = [await nodes.enter_async_context(place.node()) for _ in range(3)]
        handle = await app.schedule(report, FIRE_TIME, every=HOUR, id="hourly", overlap="allow", catch_up=100 * HOUR)
        first = await rewind(app, "hourly", 60 * HOUR)
        for node in (app, *others):
            wiring_of(node).wakes.fire_schedules()
        await eventually(lambda: _has_fired(app, "hourly", 60))
        runs = await runs_of(app, "hourly")
        times = [datetime.fromisoformat(run.attributes["continuum.scheduled_at"]) for run in runs]
        assert times == [first + n * HOUR for n in range(60)]
        schedule = await handle.describe()
        assert (schedule.fired, schedule.skipped, schedule.missed) == (60, 0, 0)
        results = await asyncio.gather(*(app.await_run(run.run_id, report, timeout=15) for run in runs))
        assert [datetime.fromisoformat(result) for result in results] == times


async def _has_fired(instance: Instance, schedule_id: str, count: int) -> bool:
    return await fired(instance, schedule_id) >= count


async def test_many_schedules_at_one_time_are_shared_by_the_nodes(place: Place, app: Instance) -> None:
    async with place.node() as other:
        for n in range(20):
            await app.schedule(report, FIRE_TIME, every=HOUR, id=f"s{n:02}")
        await asyncio.gather(*(rewind(app, f"s{n:02}", HOUR) for n in range(20)))
        wiring_of(other).wakes.fire_schedules()
        wiring_of(app).wakes.fire_schedules()
        for n in range(20):
            await eventually(lambda n=n: _has_fired(app, f"s{n:02}", 1))  # type: ignore[misc]
            assert len(await runs_of(app, f"s{n:02}")) == 1


async def test_what_was_due_while_nobody_ran_is_made_up_for_after_a_crash(place: Place) -> None:
    node = place.children()
    async with AsyncExitStack() as stack:
        await node.start()
        first = instance_of(node)
        await first.schedule(report, FIRE_TIME, every=HOUR, id="hourly", overlap="allow")
        await crash(node)
        node.forget()
        again = await stack.enter_async_context(place.node(schedule_runner=False))
        await rewind(again, "hourly", 30 * HOUR)
        second = await stack.enter_async_context(place.node())
        schedule = await eventually(lambda: _is_through(second, "hourly"))
        assert isinstance(schedule, continuum.Schedule)
        assert 23 <= schedule.fired <= 25  # the window is a day, and an hour is not over at once
        assert schedule.fired + schedule.missed == 30
        assert len(await runs_of(second, "hourly")) == schedule.fired


async def _is_through(instance: Instance, schedule_id: str) -> continuum.Schedule | None:
    schedule = await instance.get_schedule(schedule_id)
    is_ahead = schedule.next_at is not None and schedule.next_at > datetime.now(UTC)
    return schedule if is_ahead else None


async def test_an_answer_that_is_lost_starts_nothing_twice(place: Place, app: Instance) -> None:
    await app.schedule(report, FIRE_TIME, every=HOUR, id="hourly", overlap="allow")
    journal: Any = wiring_of(app).journal
    fire = journal.fire
    lost: list[object] = []

    async def deaf(firings: Any) -> Any:
        landed = await fire(firings)
        if len(lost) < 2 and any(firing.starts for firing in firings):
            lost.append(landed)
            raise Ambiguous("the connection ended before the answer")
        return landed

    journal.fire = deaf
    try:
        await rewind(app, "hourly", 3 * HOUR)
        wiring_of(app).wakes.fire_schedules()
        await eventually(lambda: _has_fired(app, "hourly", 3))
    finally:
        journal.fire = fire
    assert lost
    assert len(await runs_of(app, "hourly")) == 3
    for run in await runs_of(app, "hourly"):
        await app.await_run(run.run_id, timeout=15)


async def test_a_run_that_was_put_off_starts_when_the_last_one_ends_elsewhere(place: Place, app: Instance) -> None:
    async with place.node() as other:
        await app.schedule(patient, 1, every=HOUR, id="hourly", overlap="buffer_one")
        await rewind(app, "hourly", 3 * HOUR)
        wiring_of(app).wakes.fire_schedules()
        await eventually(lambda: _has_fired(app, "hourly", 1))
        (first,) = await runs_of(app, "hourly")
        schedule = await app.get_schedule("hourly")
        assert (schedule.fired, schedule.skipped) == (1, 1)
        await other.signal(first.run_id, "go", 1)
        await eventually(lambda: _has_fired(other, "hourly", 2))
        assert next(run.run_id for run in await runs_of(app, "hourly")) == first.run_id
        assert len(await runs_of(app, "hourly")) == 2


async def test_cancel_other_cancels_a_run_that_lives_elsewhere(place: Place, app: Instance) -> None:
    async with place.node(schedule_runner=False) as other:
        await app.schedule(patient, 1, every=HOUR, id="hourly", overlap="cancel_other")
        first = await other.trigger_schedule("hourly")
        await rewind(app, "hourly", HOUR)
        wiring_of(app).wakes.fire_schedules()
        with pytest.raises(RunCancelled):
            await first.result(timeout=15)
        await eventually(lambda: _has_fired(app, "hourly", 2))
        states = {run.run_id: run.state for run in await runs_of(app, "hourly")}
        assert states.pop(first.run_id) is RunState.CANCELLED
        assert [state.has_ended for state in states.values()] == [False]


async def test_a_start_that_fails_is_retried_then_visibly_failed_and_never_tried_again(
    place: Place, heard: list[TelemetryEvent]
) -> None:
    with scoped_catalog():

        @workflow(name="test.gone")
        async def gone() -> None: ...

        async with place.node(schedule_runner=False) as knows:
            await knows.schedule(gone, every=HOUR, id="hourly", attributes={"team": "a"})
            await rewind(knows, "hourly", HOUR)
    options = {"interval": 0.05, "attempts": 3, "backoff": 0.05}
    async with place.node(schedule_runner=options) as node:
        schedule = await eventually(lambda: _is(node, "hourly", ScheduleState.FAILED))
        assert isinstance(schedule, continuum.Schedule)
        assert (schedule.attempts, schedule.fired) == (3, 0)
        assert "no workflow 'test.gone'" in str(schedule.reason)
        assert node.readiness().state == "ready"
        told = [event.name for event in heard if event.name in {"schedule.retried", "schedule.failed"}]
        assert told == ["schedule.retried", "schedule.retried", "schedule.failed"]
        assert not (await wiring_of(node).journal.evidence()).schedules
        due = await wiring_of(node).journal.due_schedules(workflows=[], grace_seconds=0.0, limit=10)
        assert due.rows == ()
        await node.schedule(report, FIRE_TIME, every=HOUR, id="hourly")  # mended
        assert (await node.get_schedule("hourly")).state is ScheduleState.ACTIVE


async def _is(instance: Instance, schedule_id: str, state: ScheduleState) -> continuum.Schedule | None:
    schedule = await instance.get_schedule(schedule_id)
    return schedule if schedule.state is state else None


async def test_verbs_of_several_nodes_at_once_all_take_effect(place: Place, app: Instance) -> None:
    async with place.node() as other:
        handle = await app.schedule(patient, 1, every=HOUR, id="hourly")
        runs = await asyncio.gather(
            *(handle.trigger() for _ in range(5)),
            *(other.trigger_schedule("hourly") for _ in range(5)),
            other.pause_schedule("hourly"),
        )
        schedule = await handle.describe()
        assert (schedule.fired, schedule.state) == (10, ScheduleState.PAUSED)
        assert len({run.run_id for run in runs[:10] if isinstance(run, continuum.RunHandle)}) == 10
        assert {run.state for run in await runs_of(app, "hourly")} <= {
            RunState.PENDING,
            RunState.RUNNING,
            RunState.SUSPENDED,
        }


async def test_nodes_that_boot_together_declare_one_schedule(place: Place, app: Instance) -> None:
    async with place.node() as other:
        await asyncio.gather(*(node.schedule(report, FIRE_TIME, every=HOUR, id="s") for node in (app, other, app)))
        row = await wiring_of(app).journal.schedule("s")
        assert row is not None
        assert row.revision == 1


async def test_arguments_are_sealed_like_all_payloads(place: Place) -> None:
    place.codec = AesGcmCodec({"old": b"k" * 32}, primary="old")
    async with place.node() as node:
        handle = await node.schedule(patient, 123_454_321, every=HOUR, id="hourly")
        await node.schedule(patient, 123_454_321, every=HOUR, id="hourly")
        row = await wiring_of(node).journal.schedule("hourly")
        assert row is not None
        assert row.revision == 1  # the same definition, though it is never sealed alike
        run = await handle.trigger()
        await run.signal("go", 1)
        assert await run.result(timeout=15) == 123_454_322
        assert b"123454321" not in await place.everything()


async def test_a_schedule_whose_arguments_cannot_be_opened_fails_and_holds_no_other_up(place: Place) -> None:
    place.codec = AesGcmCodec({"old": b"k" * 32}, primary="old")
    async with place.node(schedule_runner=False) as node:
        await node.schedule(report, FIRE_TIME, every=HOUR, id="old key")
    place.codec = AesGcmCodec({"new": b"n" * 32}, primary="new")
    options = {"interval": 0.05, "attempts": 2, "backoff": 0.05}
    async with place.node(schedule_runner=options) as node:
        await node.schedule(report, FIRE_TIME, every=HOUR, id="new key")
        await rewind(node, "old key", HOUR)
        await rewind(node, "new key", HOUR)
        schedule = await eventually(lambda: _is(node, "old key", ScheduleState.FAILED))
        assert isinstance(schedule, continuum.Schedule)
        assert "cannot open" in str(schedule.reason)
        await eventually(lambda: _has_fired(node, "new key", 1))
