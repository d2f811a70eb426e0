"""Versions and change: several versions side by side, nodes that carry some of them, code that comes back."""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import text

import continuum
from continuum import JournalUnavailable, RunBlocked, RunState, activity, telemetry, workflow
from continuum.composition.instance import Instance
from continuum.definitions.catalog import scoped_catalog
from continuum.model.events import EventType
from continuum.model.owners import Owner
from continuum.model.runs import RunRow
from continuum.runtime import ledger
from tests.support.eventually import eventually
from tests.support.hosting import Place, crash, evict, instance_of, wiring_of


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """What a test defines is forgotten after it."""
    with scoped_catalog():
        yield


@pytest.fixture
def _no_back_off_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blocked run is not tried again within the time of a test, unless something else than the clock has it tried."""
    monkeypatch.setattr(ledger, "BLOCKED_BACKOFF_SECONDS", 3_600.0)


@activity(name="versions.add")
async def add(a: int, b: int) -> int:
    return a + b


@activity(name="versions.fails", retry=continuum.Retry(max_attempts=1))
async def fails() -> int:
    raise ValueError("as it does")


def counting(version: int, *, drifts: bool = False) -> Any:
    """One workflow in one of its versions."""

    @workflow(name="versions.counting", version=version)
    async def flow(n: int) -> tuple[int, int]:
        first = await (add(n, 1) if not drifts else add(n, 2))
        signalled = await continuum.wait_signal("go", int)
        return continuum.info().version, first + signalled * version

    return flow


async def test_versions_live_side_by_side_and_new_runs_take_the_highest(app: Instance) -> None:
    old = await app.start(counting(1), 1)
    newer, older = counting(2), counting(1)
    new = await app.start(newer, 1)
    also_new = await app.start(older, 1)  # a definition stands for its workflow, whichever version it is
    for run in (old, new, also_new):
        await run.signal("go", 10)
    assert [await run.result(timeout=15) for run in (old, new, also_new)] == [(1, 12), (2, 22), (2, 22)]


async def test_a_run_stays_on_its_version_whatever_is_deployed_meanwhile(place: Place) -> None:
    first = place.another()
    await first.start()
    run = await instance_of(first).start(counting(1), 1)
    await evict(instance_of(first), run.run_id, waits_for="go")
    await crash(first)
    counting(2)
    async with place.node() as second:
        await second.signal(run.run_id, "go", 10)
        assert await second.await_run(run.run_id, timeout=15) == [1, 12]
        assert (await second.get_run(run.run_id)).version == 1


async def test_what_a_node_carries_is_told_and_told_again_whenever_it_changes(place: Place) -> None:
    async def carried() -> set[tuple[str, int, str]]:
        return {(one.workflow, one.version, one.node) for one in await parts.journal.carriers()}

    counting(1)
    async with place.node(node="n1", heartbeater={"interval": 0.05}) as app:
        parts = wiring_of(app)
        await eventually(lambda: has(carried, ("versions.counting", 1, "n1")))
        counting(2)
        await eventually(lambda: has(carried, ("versions.counting", 2, "n1")))
        first = parts.node.owner
        assert first is not None
        await parts.journal.retire(first)  # it comes back under another id
        await eventually(lambda: parts.node.owner not in (None, first))
        await eventually(lambda: has(carried, ("versions.counting", 2, "n1")))
        async with place.node(node="n2", workflows=[counting(1)]):
            await eventually(lambda: has(carried, ("versions.counting", 1, "n2")))
            assert ("versions.counting", 2, "n2") not in await carried()
        assert not {one for one in await carried() if one[2] == "n2"}


async def has(carried: Callable[[], Coroutine[Any, Any, set[Any]]], one: Any) -> bool:
    return one in await carried()


async def test_a_database_that_cannot_be_told_holds_up_no_claim(place: Place) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise JournalUnavailable("as if the new table could not be written")

    heard: list[telemetry.TelemetryEvent] = []
    telemetry.attach(heard.append, ["versions.untold"])
    try:
        async with place.node() as app:
            wiring_of(app).journal.carry = away  # type: ignore[method-assign]
            flow = counting(3)
            runs = [await app.start(flow, 1) for _ in range(2)]
            await evict(app, runs[0].run_id, waits_for="go")
            for run in runs:
                await run.signal("go", 1)
            assert [await run.result(timeout=15) for run in runs] == [(3, 5), (3, 5)]
        assert heard
    finally:
        telemetry.detach(heard.append)


# P16
async def test_a_node_without_a_version_leaves_its_runs_to_one_that_has_it(place: Place) -> None:
    async with place.node(node="new") as new, place.node(node="old", workflows=[counting(1)]) as old:
        run = await new.start(counting(2), 1)
        await evict(new, run.run_id, waits_for="go")
        assert await old.signal(run.run_id, "go", 10) == "delivered"
        assert await old.await_run(run.run_id, timeout=15) == [2, 22]
        assert len(wiring_of(old).registry) == 0


# P15, P16: the version went away between the claim and the resume
async def test_a_claim_that_cannot_be_served_is_given_back_with_a_back_off_and_told(place: Place) -> None:
    async with place.node(node="new") as new:
        run = await new.start(counting(2), 1)
        await evict(new, run.run_id, waits_for="go")
    heard: list[telemetry.TelemetryEvent] = []
    telemetry.attach(heard.append, ["run.unservable"])
    try:
        async with place.node(node="old", workflows=[counting(1)], dispatcher=False) as old:
            parts = wiring_of(old)
            await old.signal(run.run_id, "go", 10)
            owner = parts.node.owner
            assert owner is not None
            claims = await parts.journal.claim_runs(owner, workflows=[("versions.counting", 2)], limit=10)
            (loaded,) = await parts.journal.load_runs([run.run_id])
            parts.runs.resume(claims.runs[0], loaded, owner=owner)

            async def released() -> RunRow | None:
                row = await parts.journal.run(run.run_id)
                return row if row is not None and row.lease_owner is None else None

            row = await eventually(released)
            assert row is not None
            assert row.state is RunState.SUSPENDED
            assert row.wake_at is not None
            assert row.wake_at > await parts.journal.now()
            assert [event.metadata["run_id"] for event in heard] == [run.run_id]
    finally:
        telemetry.detach(heard.append)


@pytest.mark.usefixtures("_no_back_off_helps")
# P129
async def test_drift_is_mended_by_the_node_that_brings_code_that_fits(place: Place) -> None:
    first = place.another()
    await first.start()
    run = await instance_of(first).start(counting(1), 1)
    await evict(instance_of(first), run.run_id, waits_for="go")
    await crash(first)
    counting(1, drifts=True)
    async with place.node() as wrong:
        await wrong.signal(run.run_id, "go", 10)
        with pytest.raises(RunBlocked, match=r"versions\.add") as caught:
            await wrong.await_run(run.run_id, timeout=15)
        assert "test_versions.py" in caught.value.reason  # where the code asks for something else now
        assert "event 2" in caught.value.reason
    counting(1)
    async with place.node() as right:
        assert await right.await_run(run.run_id, timeout=15, wait_blocked=True) == [1, 12]


@pytest.mark.usefixtures("_no_back_off_helps")
async def test_code_that_is_made_again_in_the_same_process_is_tried_at_once(app: Instance) -> None:
    run = await app.start(counting(1), 1)
    await evict(app, run.run_id, waits_for="go")
    counting(1, drifts=True)
    await run.signal("go", 10)
    with pytest.raises(RunBlocked):
        await run.result(timeout=15)
    counting(1)
    assert await run.result(timeout=15, wait_blocked=True) == (1, 12)


@pytest.mark.parametrize("event", [EventType.ACTIVITY_FAILED, EventType.STARTED])
# P128
async def test_a_history_that_cannot_be_read_blocks_its_run_and_keeps_no_lease(place: Place, event: EventType) -> None:
    @workflow(name="versions.patient")
    async def patient(n: int) -> None:
        try:
            await fails()
        except continuum.ActivityFailed:
            await continuum.wait_signal("go")

    async with place.node() as app:
        run = await app.start(patient, 1)
        await evict(app, run.run_id, waits_for="go")
        await spoil(place, run.run_id, event)
        await run.signal("go")
        with pytest.raises(RunBlocked, match="cannot be"):
            await run.result(timeout=15)
        row = await wiring_of(app).journal.run(run.run_id)
        assert row is not None
        assert (row.state, row.lease_owner) == (RunState.BLOCKED, None)
        assert await run.cancel() == "cancelled"


async def spoil(place: Place, run_id: str, type: EventType) -> None:
    """Write nonsense over the payload of an event."""
    nonsense = b"\xff{"
    if place.engine is None:
        history = place.store.events[run_id, 1]
        for number, stored in enumerate(history):
            if stored.event.type is type:
                history[number] = replace(stored, event=replace(stored.event, payload=nonsense))
        return
    async with place.engine.begin() as connection:
        statement = "UPDATE continuum_events SET payload = :payload WHERE run_id = :run_id AND type = :type"
        await connection.execute(text(statement), {"payload": nonsense, "run_id": run_id, "type": type.value})


# P128
async def test_a_run_that_kills_process_after_process_is_blocked_and_left_alone_by_the_next(place: Place) -> None:
    async with place.node(node="web", dispatcher=False, recovery=False) as web:
        journal = wiring_of(web).journal
        run = await web.start(counting(1), 1)
        await evict(web, run.run_id, waits_for="go")
        await web.signal(run.run_id, "go", 1)
        for number in range(5):
            dying = f"dying/app/boot/{number}"
            await journal.register(Owner(dying, "app", "dying"), ttl_seconds=60)
            (claim,) = (await journal.claim_runs(dying, workflows=[("versions.counting", 1)], limit=1)).runs
            assert claim.run_id == run.run_id
            await journal.retire(dying)
            await journal.sweep(crashes_max=5, backoff_seconds=3_600.0, task_backoff_seconds=1.0)
        async with place.node(node="next") as following:
            dispatcher = wiring_of(following).dispatcher
            for _ in range(2):
                await dispatcher.once()
            assert run.run_id not in wiring_of(following).registry
            with pytest.raises(RunBlocked, match="died 5 times"):
                await following.await_run(run.run_id, timeout=15)
