"""Starting: once per key, one or many, now or later, here or elsewhere."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

import continuum
from continuum import (
    DurableValueError,
    IdempotencyConflict,
    InputInvalid,
    NotAllowedHere,
    RunExists,
    workflow,
)
from continuum.composition.instance import Instance
from continuum.definitions.catalog import scoped_catalog
from tests.support.eventually import eventually
from tests.support.hosting import Place, wiring_of


@workflow
async def double(n: int) -> int:
    return 2 * n


@workflow
async def waits(n: int) -> int:
    return n + await continuum.wait_signal("go", int)


@workflow
async def keyword(n: int, *, plus: int = 0) -> int:
    return n + plus


@workflow(name="test.other")
async def other(n: int) -> int:
    return n


async def test_a_key_makes_one_run_whatever_its_state(app: Instance) -> None:
    first = await app.start(waits, 1, idempotency_key="k")
    again = await app.start(waits, 1, idempotency_key="k")
    assert (first.existing, again.existing, again.run_id) == (False, True, first.run_id)
    await first.signal("go", 1)
    assert await again.result(timeout=15) == 2
    ended = await app.start(waits, 1, idempotency_key="k")
    assert (ended.existing, ended.run_id) == (True, first.run_id)
    assert await ended.result() == 2


async def test_a_key_with_another_input_is_a_conflict(app: Instance) -> None:
    run = await app.start(double, 1, idempotency_key="k")
    with pytest.raises(IdempotencyConflict) as caught:
        await app.start(double, 2, idempotency_key="k")
    assert caught.value.run_id == run.run_id


async def test_a_key_counts_within_its_namespace_and_workflow(app: Instance) -> None:
    runs = [
        await app.start(double, 1, idempotency_key="k"),
        await app.start(double, 2, idempotency_key="k", namespace="elsewhere"),
        await app.start(other, 3, idempotency_key="k"),
    ]
    assert [run.existing for run in runs] == [False] * 3
    assert len({run.run_id for run in runs}) == 3


def grows(*, is_grown: bool) -> Any:
    if not is_grown:

        @workflow(name="test.grows")
        async def flow(a: int) -> int:
            return a
    else:

        @workflow(name="test.grows")
        async def flow(a: int, b: int = 0) -> int:
            return a + b

    return flow


async def test_a_new_parameter_with_a_default_is_the_same_input(app: Instance) -> None:
    before = grows(is_grown=False)
    run = await app.start(before, 1, idempotency_key="k")
    after = grows(is_grown=True)
    again = await app.start(after, 1, idempotency_key="k")
    assert (again.existing, again.run_id) == (True, run.run_id)
    with pytest.raises(IdempotencyConflict):
        await app.start(after, 1, 5, idempotency_key="k")


# P86
async def test_eight_callers_at_once_start_one_run(place: Place) -> None:
    async with place.node() as app, place.node() as second:
        runs = await asyncio.gather(*[(app, second)[n % 2].start(double, 4, idempotency_key="k") for n in range(8)])
        assert len({run.run_id for run in runs}) == 1
        assert sorted(run.existing for run in runs) == [False] + [True] * 7
        assert {await run.result(timeout=15) for run in runs} == {8}
        assert await place.count("runs") == 1


# P97
@pytest.mark.parametrize("make", [str, UUID, lambda value: str(value).upper()])
async def test_a_caller_may_choose_the_run_id_once(app: Instance, make: Any) -> None:
    chosen = uuid4()
    run = await app.start(double, 1, run_id=make(str(chosen)))
    assert (run.run_id, await run.result(timeout=15)) == (str(chosen), 2)
    for flow in (double, other):
        with pytest.raises(RunExists) as caught:
            await app.start(flow, 1, run_id=chosen)
        assert caught.value.run_id == str(chosen)
    assert len(await app.history(chosen)) == 2


async def test_eight_callers_with_one_run_id_start_one_run(place: Place) -> None:
    chosen = uuid4()
    async with place.node() as app, place.node() as second:
        answers = await asyncio.gather(
            *[(app, second)[n % 2].start(waits, 4, run_id=chosen) for n in range(8)], return_exceptions=True
        )
        assert sum(isinstance(answer, RunExists) for answer in answers) == 7
        await app.signal(chosen, "go", 1)
        assert await app.await_run(chosen, timeout=15) == 5


async def test_a_run_id_with_its_key_is_the_same_start(app: Instance) -> None:
    chosen = uuid4()
    first = await app.start(double, 1, run_id=chosen, idempotency_key="k")
    again = await app.start(double, 1, run_id=chosen, idempotency_key="k")
    assert (first.run_id, again.existing) == (again.run_id, True)
    with pytest.raises(RunExists):
        await app.start(double, 1, run_id=chosen, idempotency_key="another")


async def test_keyword_only_parameters_go_through_bound(app: Instance) -> None:
    run = await app.start(keyword.bound(1, plus=2))
    assert await run.result(timeout=15) == 3


async def test_bad_input_names_the_field_and_writes_nothing(place: Place, app: Instance) -> None:
    start: Any = app.start
    with pytest.raises(InputInvalid) as caught:
        await start(double, "many")
    assert (caught.value.problems[0].pointer, await place.count("runs")) == ("/n", 0)
    for args in ((), (1, 2)):
        with pytest.raises(InputInvalid):
            await start(double, *args)
    with pytest.raises(NotAllowedHere, match="@workflow"):
        await start(lambda: None)
    with pytest.raises(InputInvalid, match="UUID"):
        await start(double, 1, run_id="seven")
    with pytest.raises(InputInvalid, match="time zone"):
        await start(double, 1, start_at=datetime(2030, 1, 1))  # noqa: DTZ001  # that is what is refused
    with pytest.raises(InputInvalid):
        await start(double, 1, idempotency_key="")
    with pytest.raises(DurableValueError, match="attributes"):
        await start(double, 1, attributes={"a": object()})
    assert await place.count("runs") == 0


async def test_many_are_started_in_the_order_given(app: Instance) -> None:
    runs = await app.start_many(double, range(20))
    assert [await run.result(timeout=15) for run in runs] == [2 * n for n in range(20)]
    bound = await app.start_many([keyword.bound(1, plus=n) for n in range(3)])
    assert [await run.result(timeout=15) for run in bound] == [1, 2, 3]
    assert await app.start_many(double, []) == []


async def test_many_are_started_all_or_none(place: Place, app: Instance) -> None:
    inputs: list[Any] = [*range(50), "no number", *range(50)]
    with pytest.raises(InputInvalid):
        await app.start_many(double, inputs)
    assert await place.count("runs") == 0


async def test_ten_thousand_are_started_in_one_commit_and_claimed_in_batches(place: Place) -> None:
    if place.kind != "postgresql":
        pytest.skip("a claim about batches on a server")
    async with place.node(client_only=True) as client:
        runs = await client.start_many(double, range(10_000))
    assert len(runs) == await place.count("runs") == 10_000
    async with place.node(dispatcher={"interval": 0.05, "batch": 500}) as app:
        results = await asyncio.gather(*[app.await_run(run.run_id, double, timeout=60) for run in runs[::97]])
        assert results == [2 * n for n in range(0, 10_000, 97)]
        await eventually(lambda: _completed(app, 10_000), within=60)


async def _completed(app: Instance, count: int) -> bool:
    cursor, found = None, 0
    while True:
        page = await app.list_runs(state="completed", limit=1000, cursor=cursor)
        found, cursor = found + len(page.items), page.next_cursor
        if cursor is None:
            return found == count


async def test_a_start_in_the_future_waits_for_its_time(app: Instance) -> None:
    at = datetime.now(UTC) + timedelta(seconds=0.4)
    run = await app.start(double, 1, start_at=at)
    assert (await run.status()).state == "pending"
    assert await run.result(timeout=15) == 2
    ended = await run.status()
    assert ended.ended_at is not None
    assert ended.ended_at >= at
    late = await app.start(double, 2, start_at=datetime.now(UTC) - timedelta(days=1))
    assert await late.result(timeout=15) == 4


async def test_without_a_run_supervisor_others_run_it(place: Place) -> None:
    async with place.node(run_supervisor=False) as front:
        run = await front.start(double, 1)
        assert (await run.status()).state == "pending"
        async with place.node():
            assert await run.result(timeout=15) == 2


# P79
async def test_an_instance_runs_only_what_it_serves(place: Place) -> None:
    async with place.node(workflows=[double]) as chosen:
        assert await (await chosen.start(double, 1)).result(timeout=15) == 2
        run = await chosen.start(other, 1)
        with pytest.raises(TimeoutError):
            await run.result(timeout=0.2)
        assert (await run.status()).state == "pending"
        async with place.node():
            assert await run.result(timeout=15) == 1


async def test_facts_are_kept_as_they_were_given(app: Instance) -> None:
    attributes = {"customer": "c1", "n": 4, "é": [1.5, "x", True]}
    run = await app.start(waits, 1, namespace="tenant-1", attributes=attributes)
    seen = await run.status()
    assert (seen.namespace, seen.attributes, seen.workflow, seen.version) == ("tenant-1", attributes, waits.name, 1)
    assert abs(seen.started_at - datetime.now(UTC)) < timedelta(minutes=1)
    await run.cancel()


# P2
async def test_a_run_that_was_just_started_is_not_claimed_by_another_node(place: Place) -> None:
    async with place.node() as app, place.node() as other_node:
        for n in range(20):
            run = await app.start(waits, n)
            await wiring_of(other_node).dispatcher.claim([run.run_id])
            assert run.run_id in wiring_of(app).registry
            assert run.run_id not in wiring_of(other_node).registry


async def test_the_highest_version_is_started_and_old_runs_stay_on_theirs(place: Place) -> None:
    with scoped_catalog():

        @workflow(name="test.versions", version=1)
        async def v1(n: int) -> str:
            return f"one {await continuum.wait_signal('go', int) + n}"

        async with place.node() as app:
            old = await app.start(v1, 1)

            @workflow(name="test.versions", version=2)
            async def v2(n: int) -> str:
                return f"two {n}"

            assert await (await app.start(v2, 1)).result(timeout=15) == "two 1"
            assert await (await app.start(v1, 2)).result(timeout=15) == "two 2"
            await old.signal("go", 1)
            assert await old.result(timeout=15) == "one 2"


async def test_a_start_that_had_to_wait_for_room_asks_again_what_this_node_may_begin() -> None:
    """The database was away: callers queued, and meanwhile the owner row was lost."""
    async with Place("memory", None).node() as app:
        wiring = wiring_of(app)
        lane = wiring.committer._lanes[0]
        lane._queue_max, length = 0, lane._queue_max
        starting = asyncio.create_task(app.start(double, 2))
        await eventually(lambda: len(lane._waiting) == 1)
        wiring.membership.lost()
        lane._queue_max = length
        lane._offer_room()
        assert await (await starting).result(timeout=10) == 4
