"""Snapshots: whoever resumes from one goes on as whoever read the events; on every journal, for every kind of effect."""

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

import continuum
from continuum import Retry, activity, workflow
from continuum.composition.instance import Instance
from continuum.journal.port import LoadedRun
from continuum.model.packing import SNAPSHOT_FORMAT, pack_history, unpack_history
from continuum.runtime.execution import Execution
from continuum.runtime.snapshotter import Snapshotter
from continuum.testing import assert_replays
from tests.support.eventually import eventually
from tests.support.hosting import QUICK, Place, evict, instance_of, wiring_of

ROUNDS = 3


@activity
async def add(a: int, b: int) -> int:
    return a + b


@activity(retry=Retry(max_attempts=2, initial=0.01))
async def unsteady(n: int) -> str:
    if continuum.activity_context().attempt < 2:
        raise ConnectionError("once")
    return f"steady {n}"


@activity(retry=Retry(max_attempts=1))
async def refuses(n: int) -> None:
    raise ValueError(f"no {n}")


@activity
async def hangs() -> None:
    await asyncio.Event().wait()


async def caught(n: int) -> str:
    try:
        await refuses(n)
    except continuum.ActivityFailed as error:
        return f"{error.type}: {error.message}"
    return "not refused"


async def napped(n: int) -> str:
    await asyncio.sleep(0.01 * n)
    return continuum.now().isoformat()


async def timed_out(n: int) -> str:
    try:
        await continuum.wait_signal("nobody sends this", timeout=0.01)
    except TimeoutError:
        return f"too late {n}"
    return "in time"


async def noted(n: int) -> list[Any]:
    try:
        await continuum.side_effect(lambda: 1 // 0)
    except continuum.ContinuumError as error:
        return [await continuum.side_effect(lambda: str(uuid4())), str(error)]
    return []


async def drew(n: int) -> list[Any]:
    return [continuum.random().random(), str(continuum.uuid4()), await add(n, continuum.random().randrange(9))]


async def withdrew(n: int) -> int:
    task = asyncio.create_task(hangs())
    made = await add(n, 1)
    task.cancel()
    return made


async def gathered(n: int) -> list[Any]:
    return list(await asyncio.gather(add(n, 1), unsteady(n), napped(n), caught(n)))


async def said(n: int) -> str:
    continuum.log("INFO", f"round {n}")
    return await continuum.wait_signal("word", str)


@workflow(name="snapshots.small")
async def small(n: int) -> int:
    return await add(n, await continuum.wait_signal("word", int))


async def born(n: int) -> list[Any]:
    child = await continuum.start_child(small, n, id=f"child {n}")
    return [await child.signal("word", 7), await child]


async def changed(n: int) -> list[Any]:
    taken = continuum.patched(f"change {n}")
    return [taken, await add(n, 1) if taken else n]


@activity
async def take_back(total: int) -> None: ...


async def undid(n: int) -> str:
    try:
        async with continuum.saga():
            await add.options(compensate=take_back)(n, 1)
            await add.options(compensate=take_back.bound(n))(n, 2)
            await refuses(n)
    except continuum.ActivityFailed as error:
        return error.message
    return "not refused"


async def owed(n: int) -> int:
    """Owed from one round to the next: so also by who knows it from a snapshot alone."""
    await add.options(compensate=take_back)(n, 1)
    return len(await continuum.compensate_all()) if n == ROUNDS - 1 else 0


EFFECTS: dict[str, Callable[[int], Awaitable[Any]]] = {
    "activity": lambda n: add(n, n),
    "retried activity": unsteady,
    "failed activity": caught,
    "timer": napped,
    "timeout": timed_out,
    "side effect": noted,
    "chance": drew,
    "withdrawn activity": withdrew,
    "several at once": gathered,
    "signal that came early": said,
    "child": born,
    "patch": changed,
    "compensation": undid,
    "compensation owed": owed,
}


@workflow(name="snapshots.rounds")
async def rounds(effect: str) -> list[Any]:
    done = []
    for n in range(ROUNDS):
        done.append(await EFFECTS[effect](n))
        await continuum.wait_signal("go", int)
    return done


def snapshotter_of(app: Instance) -> Snapshotter:
    part = wiring_of(app).components["snapshotter"]
    assert isinstance(part, Snapshotter)
    return part


def execution_of(app: Instance, run_id: str) -> Execution:
    execution = wiring_of(app).registry.get(run_id)
    assert execution is not None
    return execution


async def is_parked(app: Instance, run_id: str, *, on: str = "go") -> None:
    def waits() -> bool:
        execution = wiring_of(app).registry.get(run_id)
        return bool(
            execution is not None and execution.is_idle and execution.machine and on in execution.machine.waits_for
        )

    await eventually(waits)


async def loaded(app: Instance, run_id: str) -> LoadedRun:
    (one,) = await wiring_of(app).journal.load_runs([run_id])
    return one


async def history_of(app: Instance, run_id: str, events: int) -> None:
    """Wait until a history has so many events, and nothing goes on."""

    async def is_there() -> bool:
        await is_parked(app, run_id)
        row = await wiring_of(app).journal.run(run_id)
        return row is not None and row.last_seq == events

    await eventually(is_there)


async def rows(place: Place) -> int:
    return await place.count("snapshots")


# P64
@pytest.mark.parametrize("effect", EFFECTS)
async def test_resuming_from_a_snapshot_equals_resuming_from_events(place: Place, effect: str) -> None:
    async with place.node(snapshotter={"threshold": 1, "interval": 3600}) as app:
        straight, cut = await app.start(rounds, effect), await app.start(rounds, effect)
        for run in (straight, cut):
            for n in range(ROUNDS):
                await run.signal("word", f"word {n}")
        for n in range(ROUNDS):
            await is_parked(app, cut.run_id)
            await snapshotter_of(app).once()
            stored = await loaded(app, cut.run_id)
            assert stored.snapshot_seq == stored.row.last_seq == len(stored.history)
            assert stored.history == tuple(await wiring_of(app).journal.history(cut.run_id))
            await evict(app, cut.run_id, waits_for="go")
            await cut.signal("go", n)
            await is_parked(app, straight.run_id)
            await straight.signal("go", n)
        results = [await straight.result(timeout=15), await cut.result(timeout=15)]
        histories = [await app.history(run.run_id) for run in (straight, cut)]
    shapes = [sorted((event.type, event.command_id or 0) for event in one) for one in histories]
    assert shapes[0] == shapes[1]
    assert [len(result) for result in results] == [ROUNDS, ROUNDS]
    for history, result in zip(histories, results, strict=True):  # who reads all the events comes to the same
        assert assert_replays(rounds, history).result == result


@workflow(name="snapshots.often", snapshot_threshold=2)
async def often() -> int:
    return await add(await add(1, 2), await continuum.wait_signal("go", int))


@workflow(name="snapshots.seldom", snapshot_threshold=1_000)
async def seldom() -> int:
    return await often.fn()


@workflow(name="snapshots.as_usual")
async def as_usual() -> int:
    return await often.fn()


# P59
@pytest.mark.parametrize(
    ("options", "compacted"),
    [
        ({"interval": 3600}, {often}),  # the instance's 1,000 does not keep the workflow's 2 from triggering
        ({"interval": 3600, "threshold": 2}, {often, as_usual}),
        ({"interval": 3600, "threshold": 1_000}, {often}),
    ],
)
async def test_the_most_specific_threshold_counts(place: Place, options: dict[str, Any], compacted: set[Any]) -> None:
    async with place.node(snapshotter=options) as app:
        runs = {flow: await app.start(flow) for flow in (often, seldom, as_usual)}
        for run in runs.values():
            await is_parked(app, run.run_id)
        await snapshotter_of(app).once()
        assert {flow for flow, run in runs.items() if (await loaded(app, run.run_id)).snapshot_seq} == compacted
        for run in runs.values():
            await run.signal("go", 10)
            assert await run.result(timeout=15) == 13


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "10"])
def test_a_threshold_that_is_none_is_refused_at_the_decorator(wrong: Any) -> None:
    async def flow() -> None: ...

    with pytest.raises(continuum.DefinitionError, match="snapshot_threshold must be an integer of at least 1"):
        workflow(name="snapshots.wrong", snapshot_threshold=wrong)(flow)


def of_the_future(history: Any) -> bytes:
    body = json.loads(zlib.decompress(pack_history(history)))
    return zlib.compress(json.dumps({"format": SNAPSHOT_FORMAT + 1, "chunks": body["events"]}).encode())


def of_the_past(history: Any) -> bytes:
    return json.dumps([event.type for event in history]).encode()


# P60, P63
@pytest.mark.parametrize(
    "foreign", [of_the_future, of_the_past, lambda history: b"\x00garbage"], ids=["future", "legacy", "garbage"]
)
@pytest.mark.parametrize("marked", [True, False], ids=["column says so", "only the blob says so"])
async def test_a_snapshot_of_another_format_falls_back_to_the_events_and_is_replaced(
    place: Place, foreign: Callable[[Any], bytes], marked: bool
) -> None:
    async with place.node(snapshotter={"threshold": 1, "interval": 3600}) as app:
        run = await app.start(as_usual)
        await evict(app, run.run_id, waits_for="go")
        history = await wiring_of(app).journal.history(run.run_id)
        blob = foreign(history)
        with pytest.raises(ValueError):
            unpack_history(blob)
        await wiring_of(app).journal.save_snapshot(run.run_id, generation=1, seq=history[-1].seq, blob=blob)
        if marked and place.engine is not None:
            async with place.engine.begin() as connection:
                await connection.execute(text(f"UPDATE continuum_snapshots SET format = {SNAPSHOT_FORMAT + 1}"))
        stored = await loaded(app, run.run_id)
        assert (stored.snapshot_seq, stored.history) == (0, tuple(history))
        await app.signal(run.run_id, "other", 1)  # it is loaded here again, from its events
        await is_parked(app, run.run_id)
        await snapshotter_of(app).once()
        replaced = await loaded(app, run.run_id)
        assert replaced.snapshot_seq == len(history) + 1
        await run.signal("go", 10)
        assert await run.result(timeout=15) == 13


@pytest.fixture
def other_database(sqlite_template: Path, tmp_path: Path) -> str:
    path = tmp_path / "other.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite+aiosqlite:///{path}"


# P61, P62
async def test_a_snapshot_stays_with_the_instance_that_wrote_the_events(place: Place, other_database: str) -> None:
    """The same run id on two instances with other thresholds: one is compacted, into its own database."""
    engine = create_async_engine(other_database)
    mine = place.children(name="mine", snapshotter={"threshold": 2, "interval": 3600})
    other = continuum.children(name="other", engine=engine, **{**QUICK, "snapshotter": {"threshold": 99}})
    chosen = str(uuid4())
    try:
        async with continuum.application(snapshotter={"threshold": 1, "interval": 3600}) as default, mine, other:
            apps = [instance_of(mine), instance_of(other), default]
            runs = [await app.start(as_usual, run_id=chosen) for app in apps[:2]]
            for app in apps[:2]:
                await is_parked(app, chosen)
            for app in apps:
                await snapshotter_of(app).once()
            assert [(await loaded(app, chosen)).snapshot_seq for app in apps[:2]] == [3, 0]
            assert await rows(place) == 1
            assert len(await wiring_of(default).journal.load_runs([chosen])) == 0
            await runs[0].signal("go", 10)
            assert await runs[0].result(timeout=15) == 13
            await runs[1].cancel()
    finally:
        await engine.dispose()
        mine.forget()
        other.forget()


# P62
async def test_a_history_is_read_only_when_a_snapshot_is_due(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place.node(snapshotter={"threshold": 5, "interval": 3600}) as app:
        read: list[str] = []
        journal = wiring_of(app).journal
        history = journal.history

        async def counted(run_id: str, **options: Any) -> Any:
            read.append(run_id)
            return await history(run_id, **options)

        monkeypatch.setattr(journal, "history", counted)
        run = await app.start(as_usual)
        for written in (4, 5, 6, 7):
            await run.signal("other")
            await history_of(app, run.run_id, written)
            await snapshotter_of(app).once()
            await snapshotter_of(app).once()
        assert read == [run.run_id]
        await run.cancel()


async def test_one_history_that_cannot_be_compacted_does_not_stand_in_the_way_of_the_others(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.node(snapshotter={"threshold": 1, "interval": 3600}) as app:
        runs = [await app.start(as_usual) for _ in range(3)]
        for run in runs:
            await is_parked(app, run.run_id)
        journal = wiring_of(app).journal
        history = journal.history

        async def poisoned(run_id: str, **options: Any) -> Any:
            if run_id == runs[0].run_id:
                raise continuum.DurableValueError("the payload codec cannot open it", run_id=run_id)
            return await history(run_id, **options)

        monkeypatch.setattr(journal, "history", poisoned)
        await snapshotter_of(app).once()
        assert [(await loaded(app, run.run_id)).snapshot_seq for run in runs] == [0, 3, 3]
        for run in runs:
            await run.cancel()


@workflow(name="snapshots.endless", snapshot_threshold=1)
async def endless(generation: int) -> int:
    total = await add(generation, await continuum.wait_signal("go", int))
    await continuum.wait_signal("on")
    if generation < 3:
        continuum.continue_as_new(generation + 1)
    return total


# P64
async def test_every_generation_has_a_snapshot_of_its_own(place: Place) -> None:
    async with place.node(snapshotter={"interval": 3600}) as app:
        run = await app.start(endless, 1)
        for generation in (1, 2, 3):
            await run.signal("go", 10)
            await is_parked(app, run.run_id, on="on")
            await snapshotter_of(app).once()
            stored = await loaded(app, run.run_id)
            assert (stored.row.generation, stored.snapshot_seq) == (generation, stored.row.last_seq)
            await evict(app, run.run_id, waits_for="on")
            await run.signal("on")
            if generation < 3:
                await is_parked(app, run.run_id)
        assert await run.result(timeout=15) == 13
