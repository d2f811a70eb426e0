"""continue_as_new: one run id, a bounded history, nothing lost on the way."""

import asyncio

import pytest

import continuum
from continuum import activity, workflow
from continuum.composition.instance import Instance
from continuum.ids import uuid7
from continuum.model.messages import Message, MessageKind
from continuum.model.writes import Post
from tests.support.eventually import eventually
from tests.support.hosting import Place, crash, evict, instance_of, wiring_of

log: list[int] = []


@pytest.fixture(autouse=True)
def _begin_afresh() -> None:
    log.clear()


@activity
async def bill(month: int) -> int:
    log.append(month)
    return month


@workflow
async def subscription(month: int, months: int) -> int:
    await bill(month)
    if month < months:
        continuum.continue_as_new(month + 1, months)
    return month


@workflow
async def collects(seen: list[int], wanted: int) -> list[int]:
    seen = [*seen, await continuum.wait_signal("item", int)]
    if len(seen) < wanted:
        continuum.continue_as_new(seen, wanted)
    return seen


@workflow
async def spins(left: int) -> int:
    if left:
        continuum.continue_as_new(left - 1)
    return left


@workflow(retention=0)
async def forgets(left: int) -> int:
    if left:
        continuum.continue_as_new(left - 1)
    await continuum.wait_signal("never")
    return left


async def test_callers_wait_for_the_run_whatever_its_generation(app: Instance) -> None:
    run = await app.start(subscription, 1, 4)
    assert await run.result(timeout=15) == 4
    status = await run.status()
    assert (log, status.generation, status.state) == ([1, 2, 3, 4], 4, "completed")


async def test_the_history_is_that_of_the_present_generation(app: Instance) -> None:
    run = await app.start(subscription, 1, 3)
    await run.result(timeout=15)
    assert [event.type for event in await app.history(run.run_id)] == [
        "started",
        "begun",
        "activity_scheduled",
        "activity_completed",
        "completed",
    ]


async def test_no_signal_is_lost_and_none_is_taken_twice(app: Instance) -> None:
    run = await app.start(collects, [], 40)
    for number in range(40):
        await run.signal("item", number, delivery_id=f"d{number}" if number % 2 else None)
    assert sorted(await run.result(timeout=30)) == list(range(40))


async def test_signals_that_came_at_once_go_along_in_order(app: Instance) -> None:
    run = await app.start(collects, [], 5)
    await evict(app, run.run_id, waits_for="item")
    for number in range(5):
        await run.signal("item", number)
    assert await run.result(timeout=15) == [0, 1, 2, 3, 4]


async def test_a_cancel_finds_the_run_in_whatever_generation(app: Instance) -> None:
    run = await app.start(collects, [], 3)
    await run.signal("item", 1)
    await eventually(lambda: _generation(app, run.run_id, 2))
    assert await run.cancel() == "cancelled"


async def _generation(app: Instance, run_id: str, number: int) -> bool:
    return (await app.get_run(run_id)).generation == number


async def test_attributes_and_keys_stay(app: Instance) -> None:
    run = await app.start(subscription, 1, 3, idempotency_key="k", attributes={"customer": "c1"})
    await run.result(timeout=15)
    assert (await run.status()).attributes == {"customer": "c1"}
    again = await app.start(subscription, 1, 3, idempotency_key="k")
    assert (again.run_id, again.existing) == (run.run_id, True)


async def test_a_process_that_dies_between_generations_is_followed_by_another(place: Place) -> None:
    first = place.another()
    await first.start()
    run = await instance_of(first).start(collects, [], 4)
    for number in range(2):
        await run.signal("item", number)
    await eventually(lambda: _generation(instance_of(first), run.run_id, 3))
    await crash(first)
    async with place.node() as second:
        for number in range(2, 4):
            await second.signal(run.run_id, "item", number)
        assert await second.await_run(run.run_id, timeout=30) == [0, 1, 2, 3]


async def test_a_long_loop_keeps_every_history_short(app: Instance) -> None:
    rounds = 2_000
    run = await app.start(spins, rounds)
    assert await run.result(timeout=120) == 0
    assert (await run.status()).generation == rounds + 1
    assert len(await app.history(run.run_id)) == 3


async def test_generations_left_behind_go_with_their_retention(place: Place) -> None:
    children = place.children()
    async with children:
        app = instance_of(children)
        run = await app.start(forgets, 50)
        await eventually(lambda: _generation(app, run.run_id, 51))

        async def is_small() -> bool:
            return await place.count("events") <= 3

        await eventually(is_small)
    children.forget()


async def test_awaiting_callers_are_told_once_at_the_end(app: Instance) -> None:
    run = await app.start(collects, [], 2)
    waiting = [asyncio.ensure_future(run.result(timeout=15)) for _ in range(5)]
    await run.signal("item", 1)
    await run.signal("item", 2)
    assert await asyncio.gather(*waiting) == [[1, 2]] * 5


@workflow
async def counts_down(left: int) -> int:
    if left:
        continuum.continue_as_new(left - 1)
    return 7


@workflow
async def waits_for_a_loop() -> int:
    return await (await continuum.start_child(counts_down, 3))


async def test_a_parent_gets_the_value_of_its_childs_last_generation(app: Instance) -> None:
    run = await app.start(waits_for_a_loop)
    assert await run.result(timeout=15) == 7


async def test_a_cancel_that_nobody_has_read_yet_is_honoured_by_the_next_generation(place: Place) -> None:
    """Recorded while the run's node is gone; whoever takes over cancels before any code runs."""
    first = place.another()
    await first.start()
    run = await instance_of(first).start(collects, [], 5)
    await run.signal("item", 1)
    await eventually(lambda: _generation(instance_of(first), run.run_id, 2))
    await crash(first)
    async with place.node(client_only=True) as client:
        message = Message(message_id=str(uuid7()), run_id=run.run_id, kind=MessageKind.CANCEL)
        await wiring_of(client).committer.put(Post(message))
        await wiring_of(client).committer.put(
            Post(
                Message(message_id=str(uuid7()), run_id=run.run_id, kind=MessageKind.SIGNAL, name="item", payload=b"2")
            )
        )
    async with place.node() as second:
        with pytest.raises(continuum.RunCancelled):
            await second.await_run(run.run_id, timeout=30)
        assert (await second.get_run(run.run_id)).generation == 2


@workflow
async def raises_cancelled() -> None:
    raise RuntimeError("cancelled")


async def test_an_error_that_says_cancelled_is_a_failure(app: Instance) -> None:
    run = await app.start(raises_cancelled)
    with pytest.raises(continuum.RunFailed):
        await run.result(timeout=15)
    assert (await run.status()).state == "failed"
