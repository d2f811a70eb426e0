"""How hosts open their SQLite file, and what an instance on it does alike."""

import sys
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import continuum
from continuum import activity, workflow
from tests.support.hosting import Place


@activity(transactional=True)
async def book(session: AsyncSession, n: int) -> int:
    await session.execute(text("INSERT INTO bookings VALUES (:n)"), {"n": n})
    return n


@workflow(name="sqlite.booked")
async def booked(n: int) -> int:
    return await book(n)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has had autocommit= since Python 3.12")
async def test_a_host_may_have_its_transactions_begun_as_sqlalchemy_recommends(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'app.db'}", connect_args={"autocommit": False})
    await continuum.migrate(engine)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE bookings (n integer)"))
    async with Place("sqlite", engine).node() as node:
        async with AsyncSession(engine) as session, session.begin():
            await session.execute(text("INSERT INTO bookings VALUES (1)"))
            run = await node.start(booked, 2, session=session)
        assert await run.result(timeout=20) == 2
        async with AsyncSession(engine) as session:
            await node.start(booked, 3, session=session)
            await session.rollback()
        assert await (await node.start(booked, 4)).result(timeout=20) == 4
    async with AsyncSession(engine) as session:
        assert list(await session.scalars(text("SELECT n FROM bookings ORDER BY n"))) == [1, 2, 4]
    await engine.dispose()
