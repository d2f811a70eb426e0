"""Deadlines of this node: to the millisecond for what lives here, just in time for what nobody holds."""

import asyncio
from datetime import timedelta
from typing import Any

import continuum
from continuum import workflow
from tests.support.stage import Stage, settled


@workflow
async def naps(seconds: float) -> float:
    before = continuum.now()
    await asyncio.sleep(seconds)
    return (continuum.now() - before).total_seconds()


@workflow
async def races() -> str:
    try:
        await continuum.wait_signal("go", timeout=100)
    except TimeoutError:
        return "timed out"
    return "signalled"


async def test_a_run_is_poked_when_it_is_due_and_not_before(stage: Stage) -> None:
    node = await stage.node()
    run = await node.instance.start(naps, 10.0)
    await stage.move(9.9)
    assert node.holds(run.run_id)
    await stage.move(0.11)
    assert abs(await run.result() - 10.0) < 0.01


async def test_deadlines_of_many_runs_come_in_their_order(stage: Stage) -> None:
    node = await stage.node()
    for seconds in (5.0, 1.0, 9.0, 3.0, 7.0):
        await node.instance.start(naps, seconds)
    left = []
    for _ in range(5):
        await stage.move(2.0)
        left.append(len(node.parts.registry))
    assert left == [4, 3, 2, 1, 0]


async def test_a_signal_makes_a_deadline_void(stage: Stage) -> None:
    node = await stage.node()
    run = await node.instance.start(races)
    await settled()
    await run.signal("go")
    assert await run.result() == "signalled"
    await stage.move(200)
    types = [event.type for event in await node.instance.history(run.run_id)]
    assert "timer_fired" not in types


async def test_a_run_that_has_left_is_claimed_when_it_is_due(stage: Stage) -> None:
    node = await stage.node()
    run = await node.instance.start(naps, 10.0)
    execution = node.parts.registry.get(run.run_id)
    assert execution is not None
    assert execution.evict()
    await settled()
    assert not node.holds(run.run_id)
    await stage.move(10.1)
    assert abs(await run.result() - 10.0) < 0.2


async def test_runs_of_nobody_are_looked_for_ahead(stage: Stage) -> None:
    client, node = await stage.still(client_only=True), await stage.node()
    run = await client.instance.start(naps, 1.0, start_at=stage.clock.now() + timedelta(seconds=20))
    wheel: Any = node.parts.components["timer_wheel"]
    await node.once("timer_wheel")
    assert run.run_id in wheel._known
    await stage.move(19.9)
    assert stage.store.runs[run.run_id].state == "pending"
    await stage.move(0.2)
    assert node.holds(run.run_id)


async def test_a_wheel_that_was_stopped_remembers_nothing(stage: Stage) -> None:
    node = await stage.node()
    await node.instance.start(naps, 10.0)
    wheel: Any = node.parts.components["timer_wheel"]
    await wheel.stop()
    assert (wheel._heap, wheel._known, wheel._timer) == ([], {}, None)


async def test_a_draining_node_looks_for_nothing(stage: Stage) -> None:
    client, node = await stage.still(client_only=True), await stage.node()
    await client.instance.start(naps, 1.0, start_at=stage.clock.now() + timedelta(seconds=20))
    node.parts.node.is_draining = True
    wheel: Any = node.parts.components["timer_wheel"]
    wheel._heap.clear()
    wheel._known.clear()
    await node.once("timer_wheel")
    assert wheel._known == {}
