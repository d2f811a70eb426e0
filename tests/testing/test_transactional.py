"""Transactional activities under the testing kit: on the test's own database, faked, or refused with the way out."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

import continuum
from continuum import Retry, RunFailed, activity, activity_context, workflow
from continuum.testing import environment


@activity(transactional=True, retry=Retry(initial=3600, max_delay=3600))
async def book(session: AsyncSession, label: str) -> int:
    await session.execute(text("INSERT INTO entries VALUES (:label)"), {"label": label})
    if activity_context().attempt == 1:
        raise OSError("not yet")
    return len((await session.execute(text("SELECT label FROM entries"))).all())


@workflow
async def books(label: str) -> int:
    return await book(label)


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    """What a test has at hand: a database in memory."""
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE entries (label text)"))
    yield engine
    await engine.dispose()


async def test_it_writes_to_the_engine_of_the_test_in_virtual_time(engine: AsyncEngine) -> None:
    async with environment(engine=engine) as env:
        began = env.now
        assert await (await continuum.start(books, "a")).result() == 1
        assert env.now - began >= timedelta(minutes=50), "it was retried after its back-off"
        assert await (await continuum.start(books, "b")).result() == 2
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT label FROM entries"))).scalars().all() == ["a", "b"]


async def test_a_fake_gets_what_the_workflow_passes() -> None:
    async with environment(activities={book: len}):
        assert await (await continuum.start(books, "abc")).result() == 3


async def test_without_a_database_it_fails_at_once_with_the_way_out() -> None:
    async with environment() as env:
        began = env.now
        with pytest.raises(RunFailed, match=r"in memory.*tests, environment\(engine=\.\.\.\) or a fake"):
            await (await continuum.start(books, "a")).result()
        assert env.now == began, "trying again would mend nothing"
