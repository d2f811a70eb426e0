"""Components are tried one by one, mostly over an in-memory journal whose time is moved by hand."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from continuum.clock import VirtualClock
from continuum.journal.sql import migrate
from tests.support.stage import Stage


@pytest.fixture
def clock() -> VirtualClock:
    """A clock that stands still."""
    return VirtualClock()


@pytest.fixture
async def stage(clock: VirtualClock) -> AsyncIterator[Stage]:
    """A database in memory and nodes on it, nothing of which runs by itself."""
    stage = Stage(clock)
    try:
        yield stage
    finally:
        await stage.clear()


async def _migrate(url: str) -> None:
    engine = create_async_engine(url)
    try:
        await migrate(engine)
    finally:
        await engine.dispose()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("components") / "template.db"
    asyncio.run(_migrate(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """The URL of a migrated SQLite file of this test's own."""
    shutil.copy(migrated_sqlite, tmp_path / "own.db")
    return f"sqlite+aiosqlite:///{tmp_path / 'own.db'}"


@pytest.fixture
async def engine(sqlite_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine on a migrated SQLite file of this test's own."""
    engine = create_async_engine(sqlite_url)
    try:
        yield engine
    finally:
        await engine.dispose()
