"""One suite, three journals: `-k memory`, `-k sqlite`, `-k postgres` choose."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from continuum.journal.port import Journal
from tests.journal.backends import Harness, OpenHarness, open_memory
from tests.journal.builders import OTHER, OWNER, TTL, URL, an_owner
from tests.journal.sql import migrate_url, open_postgres, open_sqlite
from tests.support.pgbouncer import RECIPE
from tests.support.pgbouncer import VARIABLE as PGBOUNCER
from tests.support.postgres import driven, fresh_database


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("journal") / "template.db"
    asyncio.run(migrate_url(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: str) -> Iterator[str]:
    """The URL of a migrated database, to be emptied by each test."""
    with asyncio.Runner() as runner:
        database = fresh_database(postgres_url)
        url = runner.run(database.__aenter__())
        runner.run(migrate_url(url))
        yield url
        runner.run(database.__aexit__(None, None, None))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def open_harness(request: pytest.FixtureRequest, tmp_path: Path) -> OpenHarness:
    """How to open one of the three databases, empty and migrated."""
    match request.param:
        case "sqlite":
            return partial(open_sqlite, request.getfixturevalue("sqlite_template"), tmp_path / "journal.db")
        case "postgres" if os.environ.get(PGBOUNCER):
            return open_pooled(request)
        case "postgres":
            return partial(open_postgres, driven(request.getfixturevalue("migrated_postgres")))
        case _:
            return open_memory


def open_by_psycopg(url: str) -> OpenHarness:
    """Return how to open a migrated database, emptied, by psycopg."""
    return partial(open_postgres, driven(url, "psycopg"))


def open_pooled(request: pytest.FixtureRequest) -> OpenHarness:
    """Return how to open a migrated database, emptied, through PgBouncer."""
    pooler = request.getfixturevalue("pooler")
    return partial(open_postgres, pooler.url_of(request.getfixturevalue("migrated_postgres")), **RECIPE)


@pytest.fixture
async def harness(open_harness: OpenHarness) -> AsyncIterator[Harness]:
    """A database of this test's own."""
    async with open_harness() as harness:
        yield harness


@pytest.fixture
async def journal(harness: Harness) -> Journal:
    """A journal with two nodes: OWNER, who can be reached, and OTHER."""
    await harness.journal.register(an_owner(OWNER, advertise_url=URL), ttl_seconds=TTL)
    await harness.journal.register(an_owner(OTHER), ttl_seconds=TTL)
    return harness.journal
