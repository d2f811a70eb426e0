"""Runs migrations on either dialect, online and offline, one at a time however many processes try.

Where to: `config.attributes["connection"]` (what `continuum.migrate` gives), else `-x url=…`, else the environment
variable CONTINUUM_DATABASE_URL. `-x schema=…` names the schema on PostgreSQL, which is created if need be.

PostgreSQL: everything in one transaction, behind an advisory lock that is taken before anything else: CREATE SCHEMA IF
NOT EXISTS races with itself. Migrations wait for other people's table locks only briefly, because everybody who comes
after them would wait as well. SQLite: everything inside BEGIN IMMEDIATE.

Alembic's context is global to the process: `continuum.migrate` runs all upgrades of a process in one thread.
"""

import asyncio
import os
from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from continuum.journal.sql.stamping import HOSTED
from continuum.journal.sql.tables import VERSION_TABLE, metadata

ADVISORY_LOCK = 0x636F6E74696E7575  # "continuu"; of the database, whichever schema
LOCK_TIMEOUT = "5s"

arguments = context.get_x_argument(as_dictionary=True)
schema: str | None = context.config.attributes.get("schema") or arguments.get("schema") or None


def target() -> str:
    """Return the URL to migrate."""
    url = arguments.get("url") or os.environ.get("CONTINUUM_DATABASE_URL")
    if not url:
        raise SystemExit(
            "Which database? alembic -x url=postgresql+asyncpg://… upgrade head (or CONTINUUM_DATABASE_URL)"
        )
    return url


def check(dialect: str) -> None:
    """Refuse what cannot be."""
    if dialect == "sqlite" and schema is not None:
        raise SystemExit("SQLite has no schemas: leave -x schema= out, and give each instance a file of its own")


def options(dialect: str) -> dict[str, Any]:
    """Return what Alembic has to know, online and offline."""
    return {
        "target_metadata": metadata(dialect, schema),
        "version_table": VERSION_TABLE,
        "version_table_schema": schema,
        "include_schemas": schema is not None,
        "include_name": lambda name, kind, parents: is_ours(name, kind, parents.get("schema_name")),
        "transactional_ddl": True,
    }


def is_ours(name: str | None, kind: str, of_schema: str | None) -> bool:
    """Tell whether a thing in the database concerns us: autogenerate would propose to drop the host's tables."""
    match kind:
        case "schema":
            return name == schema
        case "table":
            return of_schema == schema and name is not None and name.startswith("continuum_") and name != VERSION_TABLE
        case _:
            return True


def quoted(name: str) -> str:
    """Return a schema's name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def preparations() -> list[str]:
    """Return what comes before the first migration on PostgreSQL."""
    statements = [f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})", f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"]
    if schema is not None:
        statements += [f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}", f"SET LOCAL search_path TO {quoted(schema)}"]
    return statements


def run_offline() -> None:
    """Print SQL instead of running it."""
    url = target()
    dialect = "sqlite" if url.startswith("sqlite") else "postgresql"
    check(dialect)
    context.configure(url=url, literal_binds=True, **options(dialect))
    with context.begin_transaction():
        if dialect == "postgresql":
            for statement in preparations():
                context.execute(statement)
        context.run_migrations()


def run_on(connection: Connection) -> None:
    """Migrate on a connection in autocommit: the transaction is ours from its first statement to its last."""
    postgres = connection.dialect.name == "postgresql"
    check(connection.dialect.name)
    connection.exec_driver_sql("BEGIN" if postgres else "BEGIN IMMEDIATE")
    try:
        for statement in preparations() if postgres else []:
            connection.execute(text(statement))
        refuse_hosted(connection)
        context.configure(connection=connection, **options(connection.dialect.name))
        with context.begin_transaction():
            context.run_migrations()
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


def refuse_hosted(connection: Connection) -> None:
    """Leave tables alone that a host migrates in its own history: it would find half of its work done."""
    database = inspect(connection)
    if not database.has_table(VERSION_TABLE, schema=schema):
        return
    if any(column["name"] == HOSTED for column in database.get_columns(VERSION_TABLE, schema=schema)):
        raise CommandError(
            "these tables are migrated in the history of the application that they stand beside "
            f"(see {VERSION_TABLE}.{HOSTED}): run its own `alembic upgrade heads`"
        )


async def run_online() -> None:
    """Migrate what the URL names."""
    engine = create_async_engine(target(), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.run_sync(run_on)
    await engine.dispose()


if context.is_offline_mode():
    run_offline()
elif (given := context.config.attributes.get("connection")) is not None:
    run_on(given)
else:
    asyncio.run(run_online())
