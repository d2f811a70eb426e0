"""Every road of a wake, alone: memory, a notice, a poll. Each has its counter."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import continuum
from continuum import workflow
from continuum.journal.port import BadData
from continuum.journal.sql import migrate
from continuum.runtime.wakes import RUNS, TASKS, Wakes
from tests.support.eventually import eventually
from tests.support.hosting import Place, instance_of, wiring_of
from tests.support.stage import Stage

NEVER = 3_600.0  # a poll that no test will live to see
SILENT: dict[str, Any] = {
    "dispatcher": {"interval": NEVER},
    "activity_dispatcher": {"interval": NEVER},
    "recovery": {"interval": NEVER},
    "signal_router": {"catch_up": NEVER},
    "timer_wheel": {"horizon": NEVER},
}


@workflow
async def waits() -> int:
    return await continuum.wait_signal("go", int)


@workflow
async def waits_for_many(count: int) -> list[int]:
    return [await continuum.wait_signal("go", int) for _ in range(count)]


@workflow
async def double(n: int) -> int:
    return 2 * n


@pytest.fixture
async def postgres(postgres_database: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(postgres_database)
    await migrate(engine)
    yield engine
    await engine.dispose()


async def test_memory_alone_is_enough_where_the_run_lives(engine: AsyncEngine) -> None:
    async with Place("sqlite", engine).node(**SILENT) as app:
        run = await app.start(waits)
        await run.signal("go", 1)
        assert await run.result(timeout=15) == 1
        again = await app.start(waits)
        await again.signal("go", 2, delivery_id="d")  # by the inbox, and told in memory
        assert await again.result(timeout=15) == 2
        assert set(wiring_of(app).wakes.roads) == {"local"}


async def test_a_notice_alone_is_enough(postgres: AsyncEngine) -> None:
    place = Place("postgresql", postgres)
    async with place.node(**SILENT) as app, place.node(**SILENT, run_supervisor=False) as other:
        for node in (app, other):
            await eventually(lambda node=node: wiring_of(node).components["signal_router"].is_listening)  # type: ignore[misc, attr-defined]
        run = await app.start(waits)
        await other.signal(run.run_id, "go", 1)
        assert await run.result(timeout=15) == 1
        assert wiring_of(app).wakes.roads["listen"] == 1
        # Runs that nobody holds are told of too.
        pending = await other.start(double, 2)
        assert await pending.result(timeout=15) == 4


async def test_a_client_without_workers_tells_the_others(postgres: AsyncEngine) -> None:
    place = Place("postgresql", postgres)
    async with place.node(**SILENT) as app, place.node(client_only=True) as client:
        await eventually(lambda: wiring_of(app).components["signal_router"].is_listening)  # type: ignore[attr-defined]
        run = await client.start(waits)
        await eventually(lambda: run.run_id in wiring_of(app).registry)
        await client.signal(run.run_id, "go", 1)
        assert await run.result(timeout=15) == 1


async def test_a_poll_alone_is_enough(engine: AsyncEngine) -> None:
    place = Place("sqlite", engine)
    async with place.node() as app, place.node(client_only=True) as client:
        run = await app.start(waits)
        await client.signal(run.run_id, "go", 1)
        assert await run.result(timeout=15) == 1
        pending = await client.start(double, 2)
        assert await pending.result(timeout=15) == 4
        roads = wiring_of(app).wakes.roads
        assert roads["listen"] == 0
        assert roads["poll"] >= 2


# P22: evidence without any nudge
async def test_a_message_that_nobody_told_of_is_found_by_the_backstop(stage: Stage) -> None:
    app, client = await stage.still(), await stage.still(client_only=True)
    run = await app.instance.start(waits)
    await client.instance.signal(run.run_id, "go", 1)
    assert not app.parts.wakes.roads
    await app.once("signal_router")
    assert await run.result() == 1


async def test_one_nudge_brings_as_many_messages_as_there_are(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("continuum.runtime.signal_router.SCAN_MAX", 10)
    place = Place("sqlite", engine)
    async with place.node(**SILENT) as app, place.node(client_only=True) as client:
        run = await app.start(waits_for_many, 35)
        await eventually(lambda: run.run_id in wiring_of(app).registry)
        await asyncio.gather(*(client.signal(run.run_id, "go", n) for n in range(35)))
        wiring_of(app).wakes.read_inbox("local")
        assert sorted(await run.result(timeout=15)) == list(range(35))


# P21
async def test_a_listener_that_loses_its_connection_listens_again_and_looks(postgres: AsyncEngine) -> None:
    place = Place("postgresql", postgres)
    async with place.node(**SILENT) as app, place.node(client_only=True) as client:
        router: Any = wiring_of(app).components["signal_router"]
        await eventually(lambda: router.is_listening)
        run = await app.start(waits)
        async with postgres.connect() as connection:
            await connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND query LIKE 'LISTEN%%' AND pid <> pg_backend_pid()"
            )
        await eventually(lambda: not router.is_listening)
        await client.signal(run.run_id, "go", 1)
        assert await run.result(timeout=15) == 1
        assert wiring_of(app).wakes.roads["listen"] == 1
        await eventually(lambda: router.is_listening)


# P21
async def test_a_listener_that_breaks_in_any_way_is_tried_again(stage: Stage) -> None:
    node = await stage.node(has_pollers=True)
    router: Any = node.parts.components["signal_router"]
    await router.stop()
    tries = 0

    class Broken:
        async def listen(self) -> AsyncIterator[list[str]]:
            nonlocal tries
            tries += 1
            if tries < 4:
                raise (continuum.JournalUnavailable("away") if tries % 2 else RuntimeError("a bug"))
            yield []
            yield ["runs", "tasks", "unknown"]
            await asyncio.Event().wait()

        async def notify(self, notices: list[str]) -> None:
            return None

    router._notices, router._has_notices = Broken(), True
    await router.start()
    await stage.move(30)
    assert (tries, router.is_listening) == (4, True)
    await router.stop()
    assert not router.is_listening


@pytest.mark.parametrize("error", [continuum.JournalUnavailable("away"), BadData("the queue is full"), OSError()])
async def test_notices_are_gathered_and_may_be_lost(stage: Stage, error: Exception) -> None:
    node = await stage.node(has_pollers=True)
    router: Any = node.parts.components["signal_router"]
    await router.stop()
    said: list[list[str]] = []

    class Mouth:
        async def listen(self) -> AsyncIterator[list[str]]:
            await asyncio.Event().wait()
            yield []

        async def notify(self, notices: list[str]) -> None:
            said.append(notices)
            if len(said) == 1:
                raise error

    router._notices, router._has_notices = Mouth(), True
    await router.start()
    await stage.move(0.0)
    for notice in ("a", "b", "a", RUNS):
        router.tell_others(notice)
    await stage.move(1)
    router.tell_others(TASKS)
    await stage.move(1)
    assert said == [["a", "b", RUNS], [TASKS]]
    await router.stop()


def test_what_is_off_hears_nothing() -> None:
    wakes = Wakes()
    wakes.runs_waiting()
    wakes.tasks_waiting()
    wakes.message_posted("r", owner="somebody", here="me")
    wakes.message_posted("r", owner="me", here="me")
    wakes.message_posted("r", owner=None, here="me")
    assert not wakes.roads


async def test_a_wake_goes_to_who_can_act_on_it() -> None:
    wakes, heard = Wakes(), []
    wakes.claim_runs = lambda: heard.append("claim")
    wakes.read_inbox = lambda road: heard.append(f"read {road}")
    wakes.tell_others = lambda notice: heard.append(f"tell {notice}")
    for owner in (None, "me", "other"):
        wakes.message_posted("r", owner=owner, here="me")
    assert heard == ["claim", "tell runs", "read local", "tell r"]


async def test_instances_that_do_not_poll_stay_silent(stage: Stage) -> None:
    node = await stage.node()
    await stage.move(1e6)
    assert not node.parts.wakes.roads
    assert instance_of(node.children) is node.instance
