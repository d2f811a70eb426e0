"""The database cuts connections, restarts, or loses the listener: everything that was acknowledged ends, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

import continuum
from continuum import activity, workflow
from continuum.composition.instance import Instance
from continuum.embedded_postgres import Server
from tests.support.cutting import CuttingProxy
from tests.support.eventually import eventually

FAST = {"interval": 0.1}


@activity(retry=continuum.Retry(initial=0.05))
async def double(n: int) -> int:
    return 2 * n


@workflow(name="away.doubled")
async def doubled(n: int) -> int:
    return await double(await double(n))


@workflow(name="away.waiting")
async def waiting(n: int) -> int:
    return n + await continuum.wait_signal("go", int)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of this test's own, to be restarted, and so with fsync on; reached by TCP: a proxy can stand before it."""
    with Server(fsync=True, tcp=True) as server:
        yield server


async def run_one(n: int) -> tuple[str, int, int]:
    """Start a run and wait for it, asking again whenever a read finds the database away; the key makes it one run."""
    while True:
        try:
            handle = await continuum.start(doubled, n, idempotency_key=f"k{n}")
            return handle.run_id, n, await handle.result(timeout=60)
        except continuum.JournalUnavailable:
            continue


async def check_histories(app: Instance, run_ids: list[str]) -> None:
    """Every command was answered once, and positions have no gap."""
    for run_id in run_ids:
        history = await app.history(run_id)
        assert [event.seq for event in history] == list(range(1, len(history) + 1))
        answered = [event.command_id for event in history if event.type == "activity_completed"]
        assert len(answered) == len(set(answered))


@pytest.mark.parametrize("hundred", ["the first", "the second"])  # two processes share them
async def test_an_answer_lost_after_the_commit_is_judged_rightly_200_times(server: Server, hundred: str) -> None:
    url = make_url(server.url)
    async with CuttingProxy(url.host or "", url.port or 0, share=0.3, cuts_max=100) as proxy:
        through = url.set(host="127.0.0.1", port=proxy.port)
        async with continuum.application(
            through.render_as_string(hide_password=False),
            migrations="upgrade",
            lease_ttl=20,
            dispatcher=FAST,
            activity_dispatcher=FAST,
            recovery=FAST,
            timer_wheel=False,
        ) as app:
            proxy.is_armed = True
            started: dict[str, int] = {}
            number = 0
            while proxy.cuts < proxy.cuts_max:
                wave = range(number, number + 10)
                number += 10
                for run_id, n, result in await asyncio.gather(*(run_one(n) for n in wave)):
                    assert result == 4 * n
                    started[run_id] = n
            assert proxy.cuts == 100
            await check_histories(app, list(started))
            page = await continuum.list_runs(limit=1_000)
            assert len(page.items) == len(started), "no start was doubled"


async def test_a_restart_under_load_loses_nothing(server: Server) -> None:
    async with continuum.application(
        server.url, migrations="upgrade", lease_ttl=20, dispatcher=FAST, activity_dispatcher=FAST, recovery=FAST
    ) as app:
        results: dict[str, int] = {}
        number = 0
        stopping = False

        def more_than(count: int) -> bool:
            return len(results) > count

        async def load() -> None:
            nonlocal number
            while not stopping:
                number += 1
                mine = number
                run_id, _, result = await run_one(mine)
                assert result == 4 * mine
                results[run_id] = mine

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(load())
            for round_ in range(1, 4):
                await eventually(partial(more_than, 20 * round_), within=60)
                await asyncio.to_thread(server.restart, immediate=True)
                await eventually(partial(more_than, len(results)), within=60)
            stopping = True
        assert sorted(results.values()) == list(range(1, number + 1))
        await check_histories(app, list(results))
        page = await continuum.list_runs(limit=1_000)
        assert sum(run.state is not continuum.RunState.COMPLETED for run in page.items) == 0


async def test_a_cut_listener_is_attached_again_and_polling_covers_the_gap(postgres_database: str) -> None:
    events: list[str] = []
    handler = lambda event: events.append(event.name)
    continuum.telemetry.attach(handler, ["listener.attached"])
    engine = create_async_engine(postgres_database)
    try:
        async with continuum.application(postgres_database, migrations="upgrade", dispatcher=FAST) as app:
            await eventually(lambda: events == ["listener.attached"])
            async with engine.connect() as connection:
                cut = text(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
                )
                assert (await connection.execute(cut)).scalar_one() == 1
            await eventually(lambda: len(events) == 2)
            handle = await continuum.start(waiting, 1)
            assert await continuum.signal(handle.run_id, "go", 2, delivery_id="d") == "delivered"
            assert await handle.result(timeout=20) == 3
            assert app.readiness().state == "ready"
    finally:
        continuum.telemetry.detach(handler)
        await engine.dispose()
