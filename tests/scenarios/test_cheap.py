"""Cheap by construction: statements do not grow with runs, and an idle instance hardly asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import continuum
from continuum import activity, workflow

RUNS = 1_000


@activity
async def twice(n: int) -> int:
    return 2 * n


@workflow(name="cheap.doubled")
async def doubled(n: int) -> int:
    return await twice(n)


@pytest.fixture
async def watching(postgres_database: str) -> AsyncIterator[AsyncEngine]:
    """An engine beside the instance's, in a database whose statements are counted."""
    engine = create_async_engine(postgres_database)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE EXTENSION IF NOT EXISTS pg_stat_statements"))
    yield engine
    await engine.dispose()


async def calls(engine: AsyncEngine) -> int:
    """Return how many statements were executed in this database, this question left out."""
    async with engine.connect() as connection:
        found = await connection.execute(
            text(
                "SELECT coalesce(sum(s.calls), 0) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid "
                "WHERE d.datname = current_database() AND s.query NOT LIKE '%pg_stat_statements%'"
            )
        )
        return int(found.scalar_one())


async def test_a_thousand_runs_take_at_most_a_hundred_statements(postgres_database: str, watching: AsyncEngine) -> None:
    async with continuum.application(
        postgres_database, migrations="upgrade", activity_supervisor={"max_concurrency": RUNS}
    ):
        before = await calls(watching)
        runs = await asyncio.gather(*(continuum.start(doubled, n) for n in range(RUNS)))
        results = await asyncio.gather(*(run.result() for run in runs))  # most have ended before anybody asks
        again = await asyncio.gather(*(run.result() for run in runs))
        spent = await calls(watching) - before
    assert results == again == [2 * n for n in range(RUNS)]
    assert spent <= 100, f"{spent} statements for {RUNS} one-activity runs"
