"""A migrated database of each kind, and ways to look at it from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import continuum


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a fresh, empty database is."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'kill.db'}"
    url: str = request.getfixturevalue("postgres_database")
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[AsyncEngine]:
    """Migrate the fresh database."""
    engine = create_async_engine(database_url)
    await continuum.migrate(engine)
    yield engine
    await engine.dispose()


def url_of(engine: AsyncEngine) -> str:
    """Return the database's URL, password included."""
    return engine.url.render_as_string(hide_password=False)


async def expire(engine: AsyncEngine, owner: str) -> None:
    """Let an owner's time pass, as if its TTL had gone by."""
    is_postgres = engine.dialect.name == "postgresql"
    past = "clock_timestamp() - interval '1 hour'" if is_postgres else "0"
    async with engine.begin() as connection:
        await connection.execute(
            text(f"UPDATE continuum_owners SET expires_at = {past} WHERE owner = :owner"), {"owner": owner}
        )


async def count(engine: AsyncEngine, statement: str) -> int:
    """Return one number."""
    async with engine.connect() as connection:
        return int((await connection.execute(text(statement))).scalar_one())
