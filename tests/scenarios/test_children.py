"""Children: started in their parent's commit, heard of once, cancelled with it."""

import asyncio

import pytest

import continuum
from continuum import ChildCancelled, ChildFailed, RunCancelled, activity, workflow
from continuum.composition.instance import Instance
from continuum.ids import uuid7
from continuum.replay.family import child_run_id
from tests.support.eventually import eventually
from tests.support.hosting import Place, crash, evict, instance_of, wiring_of

done: list[int] = []


@pytest.fixture(autouse=True)
def _begin_afresh() -> None:
    done.clear()


@activity
async def settled(number: int) -> int:
    done.append(number)
    return number * 10


@workflow
async def settle(number: int) -> int:
    return await settled(number)


@workflow
async def refuse(number: int) -> int:
    raise ValueError(f"not {number}")


@workflow
async def stays(number: int) -> int:
    return number + await continuum.wait_signal("more", int)


@workflow
async def fan_out(count: int) -> int:
    children = [await continuum.start_child(settle, number) for number in range(count)]
    return sum(await asyncio.gather(*(child.result() for child in children)))


@workflow
async def hears_failures() -> list[object]:
    child = await continuum.start_child(refuse, 1)
    try:
        await child
    except ChildFailed as failed:
        return [failed.type, failed.child == child.run_id, failed.caused_by(ValueError)]
    return []


@workflow
async def family(depth: int) -> int:
    if depth:
        await (await continuum.start_child(family, depth - 1, id="next"))
    await continuum.wait_signal("never")
    return depth


@workflow
async def starts_and_leaves() -> str:
    return (await continuum.start_child(stays, 1, id="left")).run_id


@workflow
async def waits_for(number: int) -> int:
    child = await continuum.start_child(stays, number, id="one")
    try:
        return await child
    except ChildCancelled:
        return -1


@workflow
async def again_and_again(round: int = 0) -> list[int]:
    child = await continuum.start_child(settle, 7, id="the one")
    result = await child
    if round < 2:
        continuum.continue_as_new(round + 1)
    return [round, result]


async def test_results_come_back(app: Instance) -> None:
    run = await app.start(fan_out, 5)
    assert await run.result(timeout=15) == 100
    assert sorted(done) == [0, 1, 2, 3, 4]


async def test_a_thousand_children_are_one_commit(app: Instance) -> None:
    run = await app.start(fan_out, 1_000)
    assert await run.result(timeout=120) == sum(range(1_000)) * 10
    history = await app.history(run.run_id)
    assert [event.type for event in history[:1001]] == ["started", *["child_started"] * 1_000]
    assert len(done) == 1_000


async def test_a_failure_comes_back_with_what_was_raised(app: Instance) -> None:
    run = await app.start(hears_failures)
    assert await run.result(timeout=15) == ["builtins.ValueError", True, True]


async def test_children_inherit_namespace_and_attributes(app: Instance) -> None:
    run = await app.start(waits_for, 1, namespace="eu", attributes={"customer": "c1"})
    child = child_run_id(run.run_id, "one")
    await eventually(lambda: exists(app, child))
    seen = await app.get_run(child)
    assert (seen.namespace, seen.attributes, seen.parent) == ("eu", {"customer": "c1"}, run.run_id)
    await app.signal(child, "more", 4)
    assert await run.result(timeout=15) == 5


async def exists(app: Instance, run_id: str) -> bool:
    try:
        await app.get_run(run_id)
    except continuum.RunNotFound:
        return False
    return True


async def test_a_parent_that_left_memory_hears_of_its_child(app: Instance, place: Place) -> None:
    run = await app.start(waits_for, 1)
    child = child_run_id(run.run_id, "one")
    await eventually(lambda: exists(app, child))
    await eventually(lambda: _leaves(app, run.run_id))
    await app.signal(child, "more", 1)
    assert await run.result(timeout=15) == 2


def _leaves(app: Instance, run_id: str) -> bool:
    execution = wiring_of(app).registry.get(run_id)
    return execution is None or execution.evict()


async def test_a_parent_whose_process_died_hears_of_its_child_elsewhere(place: Place) -> None:
    first = place.another()
    await first.start()
    run = await instance_of(first).start(waits_for, 3)
    child = child_run_id(run.run_id, "one")
    await eventually(lambda: exists(instance_of(first), child))
    await crash(first)
    async with place.node() as second:
        await second.signal(child, "more", 4)
        assert await second.await_run(run.run_id, timeout=30) == 7


async def test_a_cancel_reaches_every_descendant(app: Instance) -> None:
    run = await app.start(family, 3)
    ids = [run.run_id]
    for _ in range(3):
        ids.append(child_run_id(ids[-1], "next"))
    await eventually(lambda: exists(app, ids[-1]))
    await run.cancel()
    for run_id in ids:
        with pytest.raises(RunCancelled):
            await app.await_run(run_id, timeout=15)


async def test_a_parent_that_ends_leaves_its_children_running(app: Instance) -> None:
    run = await app.start(starts_and_leaves)
    child = await run.result(timeout=15)
    await app.signal(child, "more", 1)
    assert await app.await_run(child, timeout=15) == 2


async def test_a_cancelled_child_is_heard_of(app: Instance) -> None:
    run = await app.start(waits_for, 1)
    child = child_run_id(run.run_id, "one")
    await eventually(lambda: exists(app, child))
    await app.cancel(child)
    assert await run.result(timeout=15) == -1


async def test_a_later_generation_gets_the_same_child(app: Instance) -> None:
    run = await app.start(again_and_again)
    assert await run.result(timeout=15) == [2, 70]
    assert (done, (await run.status()).generation) == ([7], 3)


async def test_a_run_id_that_somebody_took_fails_the_child(app: Instance) -> None:
    parent = str(uuid7())
    stranger = child_run_id(parent, "one")
    await app.start(stays, 9, run_id=stranger)

    run = await app.start(waits_for, 1, run_id=parent)
    with pytest.raises(continuum.RunFailed, match="another run has the id"):
        await run.result(timeout=15)


async def test_too_deep_a_family_blocks_where_it_would_go_on(place: Place) -> None:
    children = place.children("shallow", max_child_depth=2)
    async with children:
        app = instance_of(children)
        run = await app.start(family, 5)
        deepest = child_run_id(child_run_id(run.run_id, "next"), "next")
        await eventually(lambda: exists(app, deepest))
        with pytest.raises(continuum.RunBlocked, match="max_child_depth=2"):
            await app.await_run(deepest, timeout=15)
        assert not await exists(app, child_run_id(deepest, "next"))
    children.forget()


async def test_evicted_children_and_parents_meet_again(app: Instance) -> None:
    run = await app.start(waits_for, 1)
    child = child_run_id(run.run_id, "one")
    await eventually(lambda: exists(app, child))
    await evict(app, child, waits_for="more")
    await app.signal(child, "more", 1)
    assert await run.result(timeout=15) == 2
