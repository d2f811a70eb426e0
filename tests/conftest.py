"""Fixtures that every group may use. A test that names none of them needs no database."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import uvloop

from tests.support.pgbouncer import PgBouncer, pgbouncer
from tests.support.postgres import fresh_database, server_url


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server, one per pytest process, started when the first test asks for it."""
    with server_url() as url:
        yield url


@pytest.fixture
async def postgres_database(postgres_url: str) -> AsyncIterator[str]:
    """The URL of an empty database that only this test uses."""
    async with fresh_database(postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def pooler(postgres_url: str) -> Iterator[PgBouncer]:
    """A PgBouncer in transaction mode before that server, with very few connections to each database."""
    with pgbouncer(postgres_url) as running:
        yield running


if os.environ.get("CONTINUUM_TEST_LOOP") == "uvloop":  # make matrix

    def pytest_asyncio_loop_factories() -> dict[str, type[uvloop.Loop]]:
        """Run tests on uvloop."""
        return {"uvloop": uvloop.Loop}
