"""How hosts open their SQLite file, and what an instance on it does alike."""

import asyncio
import sqlite3
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import continuum
from continuum import activity, workflow
from continuum.errors import ConfigurationError
from continuum.journal.sql import SqlJournal
from tests.support.eventually import eventually
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


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has had autocommit= since Python 3.12")
async def test_an_engine_whose_commits_do_nothing_is_refused(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'app.db'}", connect_args={"autocommit": True})
    with pytest.raises(ConfigurationError, match="say False"):
        async with continuum.application(engine, migrations="upgrade"):
            pass
    await engine.dispose()


class Counted(sqlite3.Connection):
    """A connection that is missed until it is closed."""

    opened: ClassVar[set[int]] = set()

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.opened.add(id(self))

    def close(self) -> None:
        super().close()
        self.opened.discard(id(self))


async def test_who_is_cancelled_while_the_file_is_opened_leaves_no_connection(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'app.db'}", connect_args={"factory": Counted})
    journal = SqlJournal(engine)
    for pauses in range(1, 8):
        asking = asyncio.create_task(journal.run("01890000-0000-7000-8000-000000000000"))
        for _ in range(pauses):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
    await journal.close()
    await eventually(lambda: Counted.opened == set(), within=5)
