"""Stopping: no new work at once, what runs is finished or handed over, and the name is free again."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

import continuum
from continuum import InstanceDraining, InstanceNotStarted, Retry, activity, telemetry, workflow
from continuum.composition.instance import Instance
from tests.support.eventually import eventually
from tests.support.hosting import Place, instance_of, wiring_of

gate = threading.Event()
began: list[int] = []
found: list[Any] = []  # by attempts that go on where the last one was


@pytest.fixture(autouse=True)
def _begin_afresh() -> None:
    gate.clear()
    began.clear()
    found.clear()


@activity(timeout=None, retry=Retry(max_attempts=3, initial=0.01))
async def works() -> int:
    began.append(continuum.activity_context().attempt)
    while not gate.is_set():  # the gate is for threads too
        await asyncio.sleep(0.005)
    return began[-1]


@activity(timeout=None)
def works_in_a_thread() -> str:
    began.append(continuum.activity_context().attempt)
    gate.wait(30)
    return "done"


@activity(timeout=None, retry=Retry(max_attempts=3, initial=0.01))
async def copies() -> list[Any]:
    context = continuum.activity_context()
    found.append(context.last_heartbeat)
    context.heartbeat(10 * context.attempt)
    while not gate.is_set():
        await asyncio.sleep(0.005)
    return found


@workflow
async def copying() -> list[Any]:
    return await copies()


@workflow
async def working() -> int:
    return await works()


@workflow
async def working_in_a_thread() -> str:
    return await works_in_a_thread()


@workflow
async def parked() -> int:
    return await continuum.wait_signal("go", int)


async def test_readiness_goes_first_and_new_starts_are_refused(place: Place) -> None:
    async with place.node() as app:
        assert app.readiness().state == "ready"
        run = await app.start(working)
        await eventually(lambda: began == [1])
        draining = asyncio.create_task(app.drained(timeout=10))
        await eventually(lambda: app.readiness().state == "draining")
        with pytest.raises(InstanceDraining):
            await app.start(parked)
        with pytest.raises(InstanceDraining):
            await app.start_many([parked.bound()])
        gate.set()
        assert await draining is True
        assert app.readiness().state == "drained"
        assert len(wiring_of(app).registry) == 0
        async with place.node() as other:
            assert await other.await_run(run.run_id, timeout=15) == 1
        assert began == [1]


async def test_parked_runs_are_handed_over(place: Place) -> None:
    first = place.another()
    await first.start()
    runs = [await instance_of(first).start(parked) for _ in range(20)]
    await first.stop()
    assert instance_of(first).readiness().state == "not_started"
    assert await place.count("owners") == 0
    async with place.node() as other:
        for n, run in enumerate(runs):
            await other.signal(run.run_id, "go", n)
        assert [await other.await_run(run.run_id, timeout=15) for run in runs] == list(range(20))


async def test_a_drained_instance_still_answers(place: Place) -> None:
    async with place.node() as app:
        run = await app.start(parked)
        assert await app.drained() is True
        assert (await app.get_run(run.run_id)).state == "suspended"
        assert await app.signal(run.run_id, "go", 1) == "delivered"
        with pytest.raises(TimeoutError):
            await run.result(timeout=0.1)
        async with place.node() as other:
            assert await run.result(timeout=15) == await other.await_run(run.run_id) == 1


# P18
async def test_an_attempt_that_does_not_end_in_time_is_tried_elsewhere(place: Place) -> None:
    first = place.another(drain_timeout=0.2)
    await first.start()
    run = await instance_of(first).start(working)
    await eventually(lambda: began == [1])
    await asyncio.wait_for(first.stop(), 10)
    gate.set()
    async with place.node() as other:
        assert await other.await_run(run.run_id, timeout=15) == 2
    assert began == [1, 2]


async def test_an_attempt_that_is_handed_over_goes_on_where_its_last_heartbeat_was(place: Place) -> None:
    first = place.another(drain_timeout=0.2)
    await first.start()
    run = await instance_of(first).start(copying)
    await eventually(lambda: found == [None])
    await asyncio.wait_for(first.stop(), 10)
    gate.set()
    async with place.node() as other:
        assert await other.await_run(run.run_id, timeout=15) == [None, 10]


async def test_a_thread_that_does_not_return_does_not_hold_the_stop_up(place: Place) -> None:
    first = place.another(drain_timeout=0.2)
    await first.start()
    run = await instance_of(first).start(working_in_a_thread)
    await eventually(lambda: began == [1])
    await asyncio.wait_for(first.stop(), 10)
    gate.set()
    async with place.node() as other:
        assert await other.await_run(run.run_id, timeout=15) == "done"


# P18
async def test_a_database_that_is_away_does_not_hold_the_stop_up_and_is_told(place: Place) -> None:
    left: list[str] = []

    def note(event: telemetry.TelemetryEvent) -> None:
        left.append(event.name)

    telemetry.attach(note, ["instance.left_leases"])
    first = place.another(drain_timeout=0.3)
    await first.start()
    app = instance_of(first)
    await app.start(parked)
    journal = wiring_of(app).journal
    forever = asyncio.Event()

    async def hangs(*_: object) -> None:
        await forever.wait()

    journal.write = hangs  # type: ignore[method-assign, assignment]
    assert await app.drained(timeout=0.2) is False
    assert app.readiness().state == "degraded"
    await asyncio.wait_for(first.stop(), 10)
    telemetry.detach(note)
    assert left == ["instance.left_leases"]


# P5, P18
async def test_claims_that_come_back_during_a_drain_are_not_kept(place: Place) -> None:
    async with place.node(client_only=True) as client:
        runs = await client.start_many([parked.bound() for _ in range(10)])
    first = place.another()
    await first.start()
    await instance_of(first).drained()
    await wiring_of(instance_of(first)).dispatcher.claim([run.run_id for run in runs])
    await first.stop()
    async with place.node() as other:
        for run in runs:
            await other.signal(run.run_id, "go", 1)
        assert [await other.await_run(run.run_id, timeout=15) for run in runs] == [1] * 10


async def test_verbs_say_that_a_stopped_instance_is_stopped(place: Place) -> None:
    children = place.children(name="stopped")
    async with children:
        run = await instance_of(children).start(parked)
        await run.cancel()
    for verb in (
        lambda: continuum.start(parked, instance="stopped"),
        lambda: continuum.get_run(run.run_id, instance="stopped"),
        run.result,
        run.cancel,
    ):
        with pytest.raises(InstanceNotStarted, match="stopped"):
            await verb()
    assert continuum.readiness(instance="stopped").state == "not_started"
    assert await continuum.drain(instance="stopped") is True
    children.forget()


async def test_drain_by_name(app: Instance) -> None:
    await app.start(parked)
    assert await continuum.drain(instance="app", timeout=5) is True
    assert continuum.readiness(instance="app").state == "drained"


async def test_whoever_waits_for_a_database_that_is_away_is_told_when_the_instance_stops(place: Place) -> None:
    children = place.another(drain_timeout=0.3)
    await children.start()
    app = instance_of(children)
    run = await app.start(parked)
    journal, forever = wiring_of(app).journal, asyncio.Event()

    async def hangs(*_: object) -> None:
        await forever.wait()

    journal.write = hangs  # type: ignore[method-assign, assignment]
    verbs: list[Coroutine[Any, Any, object]] = [
        app.start(parked),
        app.start_many([parked.bound()]),
        run.signal("go", 1),
        run.cancel(),
    ]
    waiting = [asyncio.create_task(verb) for verb in verbs]
    await eventually(lambda: wiring_of(app).committer.in_flight >= 4)
    await asyncio.wait_for(children.stop(), 10)
    answers = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    assert [type(answer) for answer in answers] == [continuum.JournalUnavailable] * 4
