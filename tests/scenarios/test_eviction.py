"""A bounded cache: runs leave memory and come back, with and without snapshots, and nobody notices."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

import continuum
from continuum import activity, telemetry, workflow
from continuum.model.packing import pack_history
from continuum.runtime.snapshotter import Snapshotter
from tests.support.eventually import eventually
from tests.support.hosting import Place, evict, instance_of, wiring_of


@activity
async def add(a: int, b: int) -> int:
    return a + b


@workflow
async def sums(steps: int) -> int:
    total = 0
    for step in range(steps):
        total = await add(total, step)
    total += await continuum.wait_signal("go", int)
    for step in range(steps):
        total = await add(total, step)
    return total


@workflow
async def naps(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "woken"


@workflow
async def parked(n: int) -> int:
    return n + await continuum.wait_signal("go", int)


async def test_fifty_parked_runs_share_a_cache_of_three_and_all_wake(place: Place) -> None:
    most = 0

    def count(_event: telemetry.TelemetryEvent) -> None:
        nonlocal most
        most = max(most, len(wiring_of(app).registry))

    # A slow poll: who waits for room is told when there is some, and does not wait for the clock.
    async with place.node(run_supervisor={"cache": 3}, dispatcher={"interval": 5.0}) as app:
        telemetry.attach(count, ["run.resumed", "run.started", "run.evicted"])
        try:
            runs = [await app.start(parked, n) for n in range(50)]
            await eventually(lambda: len(wiring_of(app).registry) <= 3)
            await asyncio.gather(*[run.signal("go", 1) for run in runs])
            results = await asyncio.wait_for(asyncio.gather(*[run.result(timeout=30) for run in runs]), 10)
        finally:
            telemetry.detach(count)
        assert results == [n + 1 for n in range(50)]
        assert most <= 6  # those on their way out are not gone yet


async def test_evicted_sleepers_wake_on_time(place: Place) -> None:
    async with place.node(run_supervisor={"cache": 1}) as app:
        runs = [await app.start(naps, 0.2) for _ in range(10)]
        assert [await run.result(timeout=15) for run in runs] == ["woken"] * 10


@pytest.mark.parametrize("off", ["timer_wheel", "signal_router", "recovery", "snapshotter", "pruner", "pubsub"])
async def test_what_is_off_is_polled_for(place: Place, off: str) -> None:
    options: dict[str, Any] = {off: False}
    async with place.node(**options) as app, place.node(client_only=True) as outside:
        nap, wait = await app.start(naps, 0.1), await app.start(sums, 3)
        await outside.signal(wait.run_id, "go", 10)
        assert await nap.result(timeout=15) == "woken"
        assert await wait.result(timeout=15) == 16


async def test_activities_run_elsewhere_when_there_is_no_supervisor_for_them(place: Place) -> None:
    async with place.node(activity_supervisor=False) as app:
        run = await app.start(sums, 1)
        await run.signal("go", 10)
        with pytest.raises(TimeoutError):
            await run.result(timeout=0.2)
        async with place.node(run_supervisor=False):
            assert await run.result(timeout=15) == 10


async def test_without_a_registry_a_node_hosts_no_runs(place: Place) -> None:
    async with place.node(registry=False) as front:
        run = await front.start(parked, 1)
        assert (await run.status()).state == "pending"
        async with place.node():
            await run.signal("go", 1)
            assert await run.result(timeout=15) == 2


async def test_a_long_history_is_compacted_and_resumed_from_the_snapshot(place: Place) -> None:
    async with place.node(snapshotter={"threshold": 20, "interval": 0.02}) as app:
        run = await app.start(sums, 15)
        saved = await eventually(lambda: _saved(place))
        assert saved >= 1
        await evict(app, run.run_id, waits_for="go")
        loaded = (await wiring_of(app).journal.load_runs([run.run_id]))[0]
        assert loaded.snapshot_seq >= 20
        assert list(loaded.history) == list(await wiring_of(app).journal.history(run.run_id))
        await run.signal("go", 1000)
        assert await run.result(timeout=15) == 105 + 1000 + 105


async def _saved(place: Place) -> int:
    return await place.count("snapshots")


# P60, P63
async def test_a_snapshot_of_an_unknown_format_falls_back_to_the_events(place: Place) -> None:
    async with place.node(snapshotter=False) as app:
        run = await app.start(sums, 15)
        await evict(app, run.run_id, waits_for="go")
        journal = wiring_of(app).journal
        history = await journal.history(run.run_id)
        blob = b"\xff" + pack_history(history)[1:]
        try:
            await journal.save_snapshot(run.run_id, generation=1, seq=history[-1].seq, blob=blob)
        except ValueError:
            pytest.skip("this journal looks into its snapshots")
        await run.signal("go", 1000)
        assert await run.result(timeout=15) == 1210


# P62
async def test_a_snapshot_is_taken_once_per_threshold(place: Place) -> None:
    async with place.node(snapshotter={"threshold": 20, "interval": 60.0}) as app:
        run = await app.start(sums, 15)
        snapshotter = wiring_of(app).components["snapshotter"]
        assert isinstance(snapshotter, Snapshotter)
        execution = wiring_of(app).registry.get(run.run_id)
        assert execution is not None
        await eventually(lambda: execution.is_idle and execution.machine and "go" in execution.machine.waits_for)
        grown = execution.grown
        await snapshotter.once()
        assert (grown >= 20, execution.grown, await place.count("snapshots")) == (True, 0, 1)
        await snapshotter.once()
        assert execution.grown == 0
        await run.cancel()


async def test_a_timer_beyond_the_horizon_fires_at_its_time(place: Place) -> None:
    async with place.node(timer_wheel={"horizon": 0.1}, run_supervisor={"cache": 1}) as app:
        far, near = await app.start(naps, 0.6), await app.start(naps, 0.05)
        before = datetime.now(UTC)
        assert [await near.result(timeout=15), await far.result(timeout=15)] == ["woken"] * 2
        ended = (await far.status()).ended_at
        assert ended is not None
        assert (ended - before).total_seconds() > 0.3


async def test_what_happens_while_a_run_leaves_is_not_lost(place: Place) -> None:
    """An eviction on its way to the database, a signal that comes just then."""
    children = place.another()
    async with children:
        app = instance_of(children)
        for n in range(20):
            run = await app.start(parked, n)
            execution = wiring_of(app).registry.get(run.run_id)
            assert execution is not None
            await eventually(execution.evict)
            assert await run.signal("go", n) == "delivered"  # the mailbox is closed already
            assert await run.result(timeout=15) == 2 * n
