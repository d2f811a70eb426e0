"""Runs whose code must be mended: nothing of the bad turn is written, and better code goes on from there."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import continuum
from continuum import Run, RunBlocked, RunFailed, activity, workflow
from continuum.composition.instance import Instance
from continuum.definitions.catalog import scoped_catalog
from continuum.runtime import ledger
from tests.support.eventually import eventually
from tests.support.hosting import Place, crash, evict, instance_of, wiring_of


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocked runs are tried again soon; what a test defines is forgotten after it."""
    monkeypatch.setattr(ledger, "BLOCKED_BACKOFF_SECONDS", 0.2)
    with scoped_catalog():
        yield


@activity
async def add(a: int, b: int) -> int:
    return a + b


@activity
async def multiply(a: int, b: int) -> int:
    return a * b


def growing(version: str) -> Any:
    """One workflow, as it is written and rewritten in the course of a test."""

    @workflow(name="test.growing")
    async def flow(n: int) -> int:
        first = await (multiply(n, 10) if version == "drifted" else add(n, 1))
        if version == "buggy":
            raise AttributeError("a bug in the workflow's own code")
        signalled = await continuum.wait_signal("go", int)
        if version == "late bug":
            raise NameError("a bug after the signal")
        return first + signalled

    return flow


async def blocked(app: Instance, run_id: str) -> str:
    """Wait until a run is blocked, and return the reason. (Word of new code may have it tried once more.)"""
    with pytest.raises(RunBlocked) as caught:
        await app.await_run(run_id, timeout=15)

    async def row() -> Run | None:
        run = await app.get_run(run_id)
        return run if run.state == "blocked" else None

    run = await eventually(row)
    assert run is not None
    assert (run.error, run.blocked_reason) == (None, caught.value.reason)
    return caught.value.reason


async def types(app: Instance, run_id: str) -> list[str]:
    return [event.type for event in await app.history(run_id)]


async def test_a_bug_blocks_and_mended_code_goes_on(app: Instance) -> None:
    run = await app.start(growing("buggy"), 1)
    reason = await blocked(app, run.run_id)
    assert "a bug in the workflow's own code" in reason
    assert "test_blocked.py" in reason  # the original traceback
    assert await types(app, run.run_id) == ["started", "activity_scheduled"]
    growing("good")
    assert await run.signal("go", 5) == "delivered"  # a blocked run is active: it takes signals
    assert await run.result(timeout=15, wait_blocked=True) == 7
    assert (await types(app, run.run_id)).count("activity_scheduled") == 1


async def test_a_bug_in_the_first_turn_blocks_too(app: Instance) -> None:
    @workflow(name="test.first")
    async def broken() -> int:
        raise ImportError("no module named numpi")

    run = await app.start(broken)
    assert "numpi" in await blocked(app, run.run_id)
    assert await types(app, run.run_id) == ["started"]


async def test_a_bug_after_a_signal_keeps_the_signal(app: Instance) -> None:
    run = await app.start(growing("late bug"), 1)
    await run.signal("go", 5)
    await blocked(app, run.run_id)
    assert "signal_received" not in await types(app, run.run_id)
    growing("good")
    assert await run.result(timeout=15, wait_blocked=True) == 7


async def test_drift_blocks_writes_nothing_and_the_right_code_resumes(app: Instance) -> None:
    run = await app.start(growing("good"), 1)
    await evict(app, run.run_id, waits_for="go")
    before = await app.history(run.run_id)
    growing("drifted")
    await run.signal("go", 5)
    reason = await blocked(app, run.run_id)
    assert "add" in reason
    assert "multiply" in reason
    assert await app.history(run.run_id) == before
    growing("good")
    assert await run.result(timeout=15, wait_blocked=True) == 7


async def test_a_cancel_ends_a_drifted_run_without_its_code(app: Instance) -> None:
    run = await app.start(growing("good"), 1)
    await evict(app, run.run_id, waits_for="go")
    growing("drifted")
    await run.signal("go", 5)
    await blocked(app, run.run_id)
    assert await run.cancel() == "cancelled"


async def test_an_input_that_todays_types_cannot_read_blocks(app: Instance) -> None:
    def reading(kind: Any) -> Any:
        async def flow(n: kind) -> int:
            return await continuum.wait_signal("go", int)

        return workflow(name="test.reading")(flow)

    run = await app.start(reading(str), "seven")
    await evict(app, run.run_id, waits_for="go")
    reading(int)
    await run.signal("go", 5)
    assert "cannot be read" in await blocked(app, run.run_id)
    reading(str)
    assert await run.result(timeout=15, wait_blocked=True) == 5


# P15, P16
async def test_an_unknown_version_is_left_to_nodes_that_know_it(place: Place) -> None:
    with scoped_catalog():
        flow = growing("good")
        first = place.another()
        await first.start()
        run = await instance_of(first).start(flow, 1)
        await crash(first)
    ignorant = place.another()
    async with ignorant:  # its process never imported the workflow
        parts = wiring_of(instance_of(ignorant))
        assert await instance_of(ignorant).signal(run.run_id, "go", 5) == "delivered"
        for _ in range(3):
            await parts.dispatcher.once()
        assert len(parts.registry) == 0
        row = await parts.journal.run(run.run_id)
        assert row is not None
        assert not row.state.has_ended
        assert row.state != "blocked"
        with scoped_catalog():
            growing("good")
            async with place.node() as knowing:
                assert await knowing.await_run(run.run_id, timeout=15) == 7


async def test_a_history_beyond_its_limit_blocks_with_the_way_out(place: Place) -> None:
    @workflow(name="test.endless")
    async def endless() -> None:
        while True:
            await add(1, 1)

    async with place.node(history_max=60) as app:
        run = await app.start(endless)
        assert "history_max" in await blocked(app, run.run_id)
        assert len(await app.history(run.run_id)) <= 70
        await run.cancel()


async def test_a_workflow_that_never_waits_blocks_and_holds_nobody_up(app: Instance) -> None:
    @workflow(name="test.spinning")
    async def spinning() -> None:
        while True:  # the fault that this is about
            await asyncio.sleep(0)

    run = await app.start(spinning)
    other = await app.start(growing("good"), 1)
    assert "never waits" in await blocked(app, run.run_id)
    await other.signal("go", 1)
    assert await other.result(timeout=15) == 3
    await run.cancel()


async def test_a_result_that_cannot_be_stored_fails_the_run(app: Instance) -> None:
    @workflow(name="test.unstorable")
    async def unstorable() -> Any:
        return {"deep": [object()]}

    run = await app.start(unstorable)
    with pytest.raises(RunFailed, match="/deep/0") as caught:
        await run.result(timeout=15)
    assert caught.value.caused_by(continuum.DurableValueError)


async def test_a_result_of_another_type_fails_the_run(app: Instance) -> None:
    @workflow(name="test.mistyped")
    async def mistyped() -> int:
        return "no number"  # type: ignore[return-value]

    run = await app.start(mistyped)
    with pytest.raises(RunFailed):
        await run.result(timeout=15)


async def test_fails_on_decides_what_fails(app: Instance) -> None:
    @workflow(name="test.strict", fails_on=(Exception,))
    async def strict() -> None:
        raise AttributeError("is a failure here")

    @workflow(name="test.lenient", fails_on=(KeyError,))
    async def lenient() -> None:
        raise ValueError("is a bug here")

    with pytest.raises(RunFailed, match="is a failure here"):
        await (await app.start(strict)).result(timeout=15)
    with pytest.raises(RunBlocked, match="is a bug here"):
        await (await app.start(lenient)).result(timeout=15)


async def test_reaching_for_the_real_world_blocks(app: Instance) -> None:
    @workflow(name="test.reaching", purity="off")
    async def reaching() -> None:
        await asyncio.to_thread(print)

    assert "asyncio" in (await blocked(app, (await app.start(reaching)).run_id)).lower()


async def test_a_verb_in_a_workflow_blocks_with_what_to_use_instead(app: Instance) -> None:
    @workflow(name="test.starting", purity="off")
    async def starting() -> None:
        await continuum.start(growing("good"), 1, instance="app")

    reason = await blocked(app, (await app.start(starting)).run_id)
    assert "NotAllowedHere" in reason
    assert "activity" in reason


@pytest.mark.parametrize("was_there", [False, True])
async def test_a_verb_in_a_workflow_is_refused_also_without_a_default_instance(app: Instance, was_there: bool) -> None:
    if was_there:
        async with continuum.application():
            pass

    @workflow(name="test.asking", purity="off")
    async def asking(verb: str) -> None:
        match verb:
            case "start":
                await continuum.start(growing("good"), 1)
            case "get_run":
                await continuum.get_run(continuum.info().run_id)
            case "await_run":
                await continuum.await_run(continuum.info().run_id)
            case "list_runs":
                await continuum.list_runs()
            case _:
                await continuum.history(continuum.info().run_id)

    for verb in ("start", "get_run", "await_run", "list_runs", "history"):
        assert "NotAllowedHere" in await blocked(app, (await app.start(asking, verb)).run_id)


# P76
async def test_a_database_that_is_away_never_becomes_a_runs_failure(place: Place) -> None:
    async with place.node() as app:
        run = await app.start(growing("good"), 1)
        parts, refused = wiring_of(app), 0
        write = parts.journal.write

        async def away(*args: Any) -> Any:
            nonlocal refused
            refused += 1
            if refused <= 3:
                raise continuum.JournalUnavailable("the database is away")
            return await write(*args)

        parts.journal.write = away  # type: ignore[method-assign, assignment]
        await run.signal("go", 5)
        assert await run.result(timeout=15) == 7
        assert refused > 3
        await eventually(lambda: parts.committer.in_flight == 0)
