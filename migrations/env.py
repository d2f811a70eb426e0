"""Runs migrations on either dialect, online and offline, one at a time however many processes try.

Where to: `config.attributes["connection"]` (what `continuum.migrate` gives), else `-x url=…`, else `-x tenant=…` (see
`continuum.tenants`), else the environment variable CONTINUUM_DATABASE_URL. `-x schema=…` names the schema on PostgreSQL,
which is created if need be; a tenant has its own.

PostgreSQL: everything in one transaction, behind an advisory lock that is taken before anything else: CREATE SCHEMA IF
NOT EXISTS races with itself. The lock belongs to the schema, so that tenants of one database need not wait for each
other, and to the transaction, so that it is right behind PgBouncer too. Another migration of the same tables is waited
for, but not for ever; other people's table locks only briefly, because everybody who comes after us would wait as well.
SQLite: everything inside BEGIN IMMEDIATE.

Alembic's context is global to the process: `continuum.migrate` runs all upgrades of a process in one thread.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, inspect

from continuum import tenants
from continuum.errors import ConfigurationError
from continuum.journal.sql.brief import brief_engine
from continuum.journal.sql.stamping import HOSTED
from continuum.journal.sql.tables import VERSION_TABLE, metadata
from continuum.tenants import Tenant

TURN_TIMEOUT = "300s"  # for another migration of the same tables, which may build an index
LOCK_TIMEOUT = "5s"

ARGUMENTS = ("url", "schema", "tenant")

arguments = context.get_x_argument(as_dictionary=True)


def chosen() -> Tenant | None:
    """Return the tenant that `-x tenant=…` names."""
    unknown = sorted(set(arguments) - set(ARGUMENTS))
    if unknown:
        raise SystemExit(f"-x {unknown[0]}=… is not known here; there are: {', '.join(ARGUMENTS)}")
    name = arguments.get("tenant")
    if not name:
        return None
    if arguments.get("url") or arguments.get("schema"):
        raise SystemExit("-x tenant=… says which database and schema: leave -x url= and -x schema= out")
    try:
        return tenants.tenant(str(name))
    except ConfigurationError as error:
        raise SystemExit(error.message) from error


tenant = chosen()
schema: str | None = (
    context.config.attributes.get("schema") or (tenant.schema if tenant else arguments.get("schema")) or None
)


def target() -> str:
    """Return the URL to migrate."""
    url = tenant.url if tenant else arguments.get("url") or os.environ.get("CONTINUUM_DATABASE_URL")
    if not url:
        raise SystemExit(
            "Which database? alembic -x url=postgresql+asyncpg://… upgrade head (or -x tenant=…, CONTINUUM_DATABASE_URL)"
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
    whose = "current_schema()" if schema is None else f"'{schema.replace(chr(39), 2 * chr(39))}'"
    number = f"CAST(CAST('x' || substr(md5('continuum ' || {whose}), 1, 16) AS bit(64)) AS bigint)"
    statements = [
        f"SET LOCAL lock_timeout = '{TURN_TIMEOUT}'",
        f"SELECT pg_advisory_xact_lock({number})",
        # What the session knows of the catalog may be older than the lock, that there is no such schema for example: so it is
        # behind a pooler. To open a table makes it look anew.
        "SELECT 1 FROM pg_catalog.pg_namespace LIMIT 1",
        f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'",
    ]
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
    """Migrate in one transaction: ours from its first statement to its last."""
    check(connection.dialect.name)
    with transaction(connection):
        for statement in preparations() if connection.dialect.name == "postgresql" else []:
            connection.exec_driver_sql(statement)
        refuse_hosted(connection)
        context.configure(connection=connection, **options(connection.dialect.name))
        with context.begin_transaction():
            context.run_migrations()


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Begin as the driver does, on PostgreSQL: a BEGIN that is prepared like a statement may miss its session in a pooler.

    Each statement sees what was committed before it, whatever the host's engine prefers: the lock is waited for.
    """
    if connection.dialect.name == "postgresql":
        connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            yield
        return
    connection.execution_options(isolation_level="AUTOCOMMIT")  # the driver would not begin by taking the lock
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        yield
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
    engine = brief_engine(target())
    async with engine.connect() as connection:
        await connection.run_sync(run_on)
    await engine.dispose()


if context.is_offline_mode():
    run_offline()
elif (given := context.config.attributes.get("connection")) is not None:
    run_on(given)
else:
    asyncio.run(run_online())
