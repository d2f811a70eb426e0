"""Ways to a database that need something in between, or somebody beside."""

import pytest

from tests.journal.backends import OpenHarness
from tests.journal.conftest import harness, journal, migrated_postgres, open_by_psycopg, open_pooled

__all__ = ["harness", "journal", "migrated_postgres"]


@pytest.fixture(params=["pgbouncer", "psycopg"])
def open_harness(request: pytest.FixtureRequest) -> OpenHarness:
    """How to open a migrated database, emptied, through PgBouncer or by the other driver."""
    if request.param == "psycopg":
        return open_by_psycopg(request.getfixturevalue("migrated_postgres"))
    return open_pooled(request)
