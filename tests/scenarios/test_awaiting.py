"""Waiting for a run's end: any number of callers, anywhere, with or without a limit."""

import asyncio
import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

import continuum
from continuum import (
    ConfigurationError,
    InstanceNotStarted,
    ResultTimedOut,
    RunBlocked,
    RunCancelled,
    RunFailed,
    RunNotFound,
    workflow,
)
from continuum.composition.instance import Instance
from continuum.model.runs import Ending, Standing
from tests.support.eventually import eventually
from tests.support.hosting import Place, instance_of, wiring_of

NOBODY = "00000000-0000-4000-8000-000000000000"


@workflow
async def waits() -> dict[str, int]:
    return {"got": await continuum.wait_signal("go", int)}


@workflow(retention=0)
async def is_soon_forgotten() -> int:
    return await continuum.wait_signal("go", int)


@workflow
async def fails() -> None:
    raise LookupError("no luck")


@workflow
async def returns_dates() -> list[timedelta]:
    return [timedelta(days=1)]


@workflow
async def has_a_bug() -> int:
    await asyncio.sleep(0)
    return await None.nothing  # type: ignore[attr-defined,no-any-return]


async def test_fifty_callers_hear_of_one_end(place: Place) -> None:
    async with place.node() as app, place.node(client_only=True) as client:
        run = await app.start(waits)
        waiting = [asyncio.create_task(verbs.await_run(run.run_id)) for verbs in (app, client) for _ in range(25)]
        await eventually(lambda: wiring_of(app).awaiting.waiters == wiring_of(client).awaiting.waiters == 25)
        await run.signal("go", 3)
        assert await asyncio.gather(*waiting) == [{"got": 3}] * 50
        assert wiring_of(app).awaiting.waiters == wiring_of(client).awaiting.waiters == 0


# P78
@pytest.mark.parametrize("timeout", [0, 0.01, timedelta(milliseconds=10)])
async def test_a_timeout_is_told_and_the_run_goes_on(app: Instance, timeout: Any) -> None:
    run = await app.start(waits)
    with pytest.raises(ResultTimedOut) as caught:
        await run.result(timeout=timeout)
    assert (isinstance(caught.value, TimeoutError), caught.value.run_id) == (True, run.run_id)
    assert wiring_of(app).awaiting.waiters == 0
    await run.signal("go", 1)
    assert await run.result() == {"got": 1}


# P78
@pytest.mark.parametrize("timeout", [-1, math.nan, math.inf, "soon", True])
async def test_what_is_no_duration_is_refused(app: Instance, timeout: Any) -> None:
    run = await app.start(waits)
    with pytest.raises(ConfigurationError):
        await run.result(timeout=timeout)
    await run.cancel()


async def test_a_timeout_is_told_also_while_the_caller_is_being_cancelled(app: Instance) -> None:
    """A host's clean-up waits a little for its run, in a task that is cancelled already."""
    run = await app.start(waits)
    outcome: list[str] = []

    async def host() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await run.result(timeout=0.01)
            except ResultTimedOut:
                outcome.append("timed out")

    task = asyncio.create_task(host())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert outcome == ["timed out"]
    await run.cancel()


async def test_a_waiter_that_is_cancelled_is_cancelled(app: Instance) -> None:
    run = await app.start(waits)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.01):
            await run.result(timeout=60)
    assert not isinstance(caught.value, ResultTimedOut)
    assert wiring_of(app).awaiting.waiters == 0
    await run.cancel()


async def test_an_end_is_found_by_who_comes_late_and_typed_for_who_asks(app: Instance) -> None:
    run = await app.start(returns_dates)
    assert await run.result(timeout=15) == [timedelta(days=1)]
    assert await app.await_run(run.run_id, returns_dates) == [timedelta(days=1)]
    assert await app.await_run(run.run_id) == ["P1D"]
    handle = returns_dates.handle(run.run_id, instance="app")
    assert await handle.result() == [timedelta(days=1)]


async def test_a_failure_a_cancel_and_an_unknown_run_are_told_apart(app: Instance) -> None:
    failed, gone = await app.start(fails), await app.start(waits)
    with pytest.raises(RunFailed, match="no luck") as failure:
        await failed.result(timeout=15)
    assert (failure.value.type, failure.value.caused_by(Exception)) == ("builtins.LookupError", True)
    await gone.cancel()
    with pytest.raises(RunCancelled):
        await gone.result(timeout=15)
    with pytest.raises(RunNotFound):
        await app.await_run(NOBODY)


async def test_a_blocked_run_is_told_at_once_with_its_reason(place: Place) -> None:
    async with place.node() as app, place.node(client_only=True) as client:
        run = await app.start(has_a_bug)
        for verbs in (app, client):
            with pytest.raises(RunBlocked) as caught:
                await verbs.await_run(run.run_id, timeout=15)
            assert "AttributeError" in caught.value.reason
            assert "has_a_bug" in caught.value.reason  # the original traceback
            assert caught.value.run_id == run.run_id
        with pytest.raises(ResultTimedOut):
            await run.result(timeout=0.1, wait_blocked=True)
        waiting = asyncio.create_task(run.result(wait_blocked=True))
        await eventually(lambda: wiring_of(app).awaiting.waiters == 1)
        await run.cancel()
        with pytest.raises(RunCancelled):
            await waiting


# P41: the awaiters of a run that others end hear of it by themselves
async def test_an_end_on_another_node_is_heard_soon(place: Place) -> None:
    async with place.node() as app, place.node() as other:
        runs = [await app.start(waits) for _ in range(20)]
        waiting = [asyncio.create_task(other.await_run(run.run_id)) for run in runs]
        await eventually(lambda: wiring_of(other).awaiting.waiters == 20)
        for n, run in enumerate(runs):
            await run.signal("go", n)
        assert await asyncio.wait_for(asyncio.gather(*waiting), 10) == [{"got": n} for n in range(20)]


async def test_nobody_is_left_waiting_when_the_instance_stops(place: Place) -> None:
    children = place.another()
    await children.start()
    app = instance_of(children)
    run = await app.start(waits)
    waiting = asyncio.create_task(run.result())
    await eventually(lambda: wiring_of(app).awaiting.waiters == 1)
    await children.stop()
    with pytest.raises(InstanceNotStarted, match="stopped"):
        await asyncio.wait_for(waiting, 5)


async def test_nobody_begins_to_wait_on_an_instance_that_stopped_while_he_looked(place: Place) -> None:
    async with place.node() as app, place.node(client_only=True) as client:
        run = await app.start(waits)
        journal = wiring_of(client).journal
        looks, is_looking, has_stopped = journal.standings, asyncio.Event(), asyncio.Event()

        async def slowly(run_ids: Sequence[str]) -> Sequence[Standing]:
            found = await looks(run_ids)
            is_looking.set()
            await has_stopped.wait()
            return found

        journal.standings = slowly  # type: ignore[method-assign]
        waiting = asyncio.create_task(client.await_run(run.run_id))
        await is_looking.wait()
        await client.close()
        has_stopped.set()
        with pytest.raises(InstanceNotStarted, match="ask another node"):
            async with asyncio.timeout(10):
                await waiting


async def test_a_run_that_was_pruned_unseen_is_not_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continuum.runtime.awaiting.EVERYONE_EVERY", 3)
    async with place.node(pruner=False) as app, place.node(client_only=True) as client:
        run = await app.start(is_soon_forgotten)
        journal = wiring_of(client).journal
        endings = journal.endings

        async def nothing_yet(_: Sequence[str]) -> Sequence[Ending]:
            return ()

        journal.endings = nothing_yet  # type: ignore[method-assign, assignment]
        waiting = asyncio.create_task(client.await_run(run.run_id))
        await eventually(lambda: wiring_of(client).awaiting.waiters == 1)
        await run.signal("go", 1)
        await run.result(timeout=10)
        await eventually(lambda: wiring_of(app).journal.prune(limit=10))
        journal.endings = endings  # type: ignore[method-assign]
        with pytest.raises(RunNotFound, match="pruned"):
            async with asyncio.timeout(10):
                await waiting


async def test_who_waits_for_a_blocked_run_asks_at_leisure(place: Place) -> None:
    async with place.node() as app, place.node(client_only=True) as client:
        run = await app.start(has_a_bug)
        with pytest.raises(RunBlocked):
            await client.await_run(run.run_id, timeout=10)
        awaiting = wiring_of(client).awaiting
        waiting = asyncio.create_task(client.await_run(run.run_id, wait_blocked=True))
        await eventually(lambda: awaiting._delay == awaiting._slowest, within=10)
        waiting.cancel()


async def test_without_pubsub_everybody_polls(place: Place) -> None:
    async with place.node(pubsub=False) as app:
        run = await app.start(waits)
        waiting = asyncio.create_task(run.result())
        await eventually(lambda: wiring_of(app).awaiting.waiters == 1)
        await run.signal("go", 5)
        assert await asyncio.wait_for(waiting, 15) == {"got": 5}
