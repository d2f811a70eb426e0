"""How many connections an instance has: so many as the guide says, whatever it does, and none of the host's pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import continuum
from continuum import activity, workflow
from continuum.journal.sql import migrate
from tests.support.eventually import eventually
from tests.support.hosting import Place, wiring_of
from tests.support.postgres import connect

CONNECTIONS = 5  # two lanes, one that reads, one that listens, one for the heart; see docs/guides/databases.md
RUNS, WOKEN = 5_000, 200

COUNT = (
    "SELECT application_name, count(*) FROM pg_stat_activity WHERE datname = current_database() GROUP BY 1 ORDER BY 1"
)


@activity
async def increment(n: int) -> int:
    return n + 1


@workflow(name="connections.waiting")
async def waiting(n: int) -> int:
    return await increment(n + await continuum.wait_signal("go", int))


@pytest.fixture
async def engine(postgres_database: str) -> AsyncIterator[AsyncEngine]:
    """A host's engine that may have two connections, and does not wait for a third."""
    engine = create_async_engine(postgres_database, pool_size=2, max_overflow=0, pool_timeout=0.1)
    await migrate(engine)
    yield engine
    await engine.dispose()


async def test_five_thousand_runs_in_flight_have_five_connections_and_none_of_the_hosts(
    engine: AsyncEngine, postgres_database: str
) -> None:
    checkouts: list[Any] = []
    outside = await connect(postgres_database)
    peak = 0

    async def watch() -> None:
        nonlocal peak
        while True:
            counted = dict([tuple(row) for row in await outside.fetch(COUNT)])
            peak = max(peak, counted.get("continuum:app", 0))
            await asyncio.sleep(0.01)

    async with engine.connect() as one, engine.connect() as two:  # the host's requests have them all

        def note(_dbapi: object, _record: object, fairy: Any) -> None:
            if fairy._pool is engine.sync_engine.pool:  # pools made like it have its listeners
                checkouts.append(fairy)

        event.listen(engine.sync_engine, "checkout", note)
        async with Place("postgresql", engine).node() as node:
            watching = asyncio.create_task(watch())
            for _ in range(RUNS // 500):
                await node.start_many([waiting.bound(0) for _ in range(500)])
            woken = [await node.start(waiting, n, idempotency_key=f"k{n}") for n in range(WOKEN)]
            await eventually(lambda: len(wiring_of(node).registry) == RUNS + WOKEN)
            for run in woken:
                await run.signal("go", 1)
            assert [await run.result(timeout=60) for run in woken] == [n + 2 for n in range(WOKEN)]
            for host in (one, two):
                await host.execute(text("SELECT 1"))
            await eventually(lambda: peak >= CONNECTIONS)  # each is opened when it is first needed
            watching.cancel()
            await asyncio.wait([watching])
        assert (peak, checkouts) == (CONNECTIONS, [])
    async with engine.connect():
        assert len(checkouts) == 1  # the listener hears
    await outside.close()


async def test_a_name_that_the_host_has_given_its_connections_is_kept(postgres_database: str) -> None:
    named = {"server_settings": {"application_name": "shop"}}
    engine = create_async_engine(postgres_database, connect_args=named)
    await migrate(engine)
    outside = await connect(postgres_database)
    async with Place("postgresql", engine).node():
        counted = dict([tuple(row) for row in await outside.fetch(COUNT)])
        assert counted.pop("") == 1  # this one
        assert list(counted) == ["shop"]
    await outside.close()
    await engine.dispose()
