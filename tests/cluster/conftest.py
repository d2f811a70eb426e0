"""A migrated Postgres database per test, and nodes on it as processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import continuum
from tests.cluster.nodes import Cluster

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here: plain `pytest` leaves it out."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture
async def database(postgres_database: str) -> AsyncIterator[AsyncEngine]:
    """A migrated database, seen from outside."""
    engine = create_async_engine(postgres_database)
    await continuum.migrate(engine)
    yield engine
    await engine.dispose()


@pytest.fixture
async def cluster(database: AsyncEngine, tmp_path: Path) -> AsyncIterator[Cluster]:
    """No nodes yet, of one tenant named "orders"."""
    cluster = Cluster({"orders": database.url.render_as_string(hide_password=False)}, tmp_path)
    try:
        yield cluster
    finally:
        await cluster.close()
