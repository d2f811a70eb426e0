"""What has to be true before the first statement: the engine, the schema, and whose tables these are."""

from __future__ import annotations

import sqlite3

from sqlalchemy.ext.asyncio import AsyncEngine

from continuum.errors import ConfigurationError, SchemaNotReady, SchemaTaken
from continuum.journal.sql.desk import Desk
from continuum.journal.sql.dialects import Dialect
from continuum.journal.sql.dialects.postgres import POSTGRES
from continuum.journal.sql.dialects.psycopg import PSYCOPG
from continuum.journal.sql.dialects.sqlite import SQLITE
from continuum.journal.sql.statements import opening
from continuum.journal.sql.tables import REVISION, VERSION_TABLE

POSTGRES_MIN = 130_000
SQLITE_MIN = (3, 37, 0)  # STRICT tables; RETURNING, UPDATE … FROM and MATERIALIZED are older
NAME_BYTES_MAX = 63  # PostgreSQL cuts longer names off without a word

_DRIVERS: dict[tuple[str, str], Dialect] = {
    ("postgresql", "asyncpg"): POSTGRES,
    ("postgresql", "psycopg"): PSYCOPG,
    ("sqlite", "aiosqlite"): SQLITE,
}


def dialect_of(engine: object, *, schema: str | None = None) -> Dialect:
    """Return the dialect of an engine that the journal can use.

    Raises:
        ConfigurationError: it cannot use it; the message says what to give it instead.
    """
    if not isinstance(engine, AsyncEngine):
        raise ConfigurationError(
            f"engine={engine!r} is not an AsyncEngine: make it with "
            "sqlalchemy.ext.asyncio.create_async_engine('postgresql+asyncpg://…' or 'sqlite+aiosqlite:///…')"
        )
    name, driver = engine.dialect.name, engine.dialect.driver
    dialect = words_of(engine)
    if dialect is None:
        raise ConfigurationError(
            f"an engine for {name}+{driver} cannot hold a journal: use postgresql+asyncpg://, postgresql+psycopg:// or "
            "sqlite+aiosqlite://"
        )
    if dialect is SQLITE:
        _check_sqlite(engine, schema)
    elif schema is not None and not 0 < len(schema.encode()) <= NAME_BYTES_MAX:
        raise ConfigurationError(f"schema={schema!r} is not a name of 1 to {NAME_BYTES_MAX} bytes")
    return dialect


def words_of(engine: AsyncEngine) -> Dialect | None:
    """Return the dialect of an engine's driver, whether or not a journal could be in its database."""
    return _DRIVERS.get((engine.dialect.name, engine.dialect.driver))


def _check_sqlite(engine: AsyncEngine, schema: str | None) -> None:
    database = engine.url.database
    if not database or ":memory:" in database or "mode=memory" in database or engine.url.query.get("mode") == "memory":
        raise ConfigurationError(
            "a SQLite database in memory belongs to one connection, and the journal needs its own: give it a file "
            "(sqlite+aiosqlite:///continuum.db), or no engine at all for the journal in memory"
        )
    if engine.url.query.get("cache") == "shared":
        raise ConfigurationError(
            "cache=shared lets the connections of a process lock each other's tables, and nobody waits for such a lock: "
            "leave it out"
        )
    if schema is not None:
        raise ConfigurationError(f"schema={schema!r}: SQLite has no schemas, use another file")
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        raise ConfigurationError(
            f"SQLite {sqlite3.sqlite_version} is too old: {'.'.join(map(str, SQLITE_MIN))} is needed"
        )


def migrate_command(engine: AsyncEngine, schema: str | None) -> str:
    """Return the command that brings the tables up to date, and another one for who has an alembic.ini."""
    url = engine.url.render_as_string(hide_password=True)
    ours, alembic = ("", "") if schema is None else (f" --schema {schema}", f" -x schema={schema}")
    return (
        f"continuum migrate --url {url}{ours}\n"
        f"(beside an alembic.ini with script_location = continuum:migrations also\n"
        f"    alembic -x url={url}{alembic} upgrade head)"
    )


async def check_server(desk: Desk) -> str | None:
    """Check the server's version; return the schema in which it looks for unqualified tables.

    Raises:
        ConfigurationError: it is too old. JournalUnavailable: it does not answer.
    """
    if desk.book.dialect is SQLITE:
        return None
    (row,) = await desk.ask(opening.SERVER)
    if row.version < POSTGRES_MIN:
        raise ConfigurationError(f"PostgreSQL {row.version // 10_000} is too old: {POSTGRES_MIN // 10_000} is needed")
    schema: str | None = row.schema
    return schema


async def revision_of(desk: Desk) -> str | None:
    """Return the revision that the tables are at; None if there are none."""
    name = desk.book.dialect.table(VERSION_TABLE, desk.book.schema)
    (row,) = await desk.ask(opening.HAS_TABLES, name=name)
    if not row.ready:
        return None
    rows = await desk.ask(opening.REVISION)
    return rows[0].version_num if rows else None


async def check_revision(desk: Desk, engine: AsyncEngine) -> None:
    """Check that the tables are what this version needs, or newer: a migration expands first, contracts a release later.

    Raises:
        SchemaNotReady: with the command to run.
    """
    revision = await revision_of(desk)
    if revision is not None and revision >= REVISION:
        return
    found = "no Continuum tables" if revision is None else f"Continuum tables of revision {revision}"
    where = "the database" if desk.book.schema is None else f"schema {desk.book.schema!r}"
    raise SchemaNotReady(
        f"{where} has {found}, this version needs revision {REVISION}. Run\n"
        f"    {migrate_command(engine, desk.book.schema)}\n"
        'or let the instance do it at its start: migrations="upgrade"'
    )


async def instance_of(desk: Desk) -> str | None:
    """Return the instance that the tables belong to; None: nobody has used them."""
    rows = await desk.ask(opening.INSTANCE)
    return rows[0].name if rows else None


async def claim_tables(desk: Desk, instance: str) -> None:
    """Let the tables belong to this instance name, for ever.

    Raises:
        SchemaTaken: they belong to another one.
    """
    name = await instance_of(desk)
    if name is None:
        await desk.change(opening.CLAIM_TABLES, name=instance)
        name = await instance_of(desk)
    if name != instance:
        table = desk.book.dialect.table("continuum_instances", desk.book.schema)
        raise SchemaTaken(
            f"these tables belong to the instance {name!r}, not to {instance!r} (see {table}): give each instance a "
            "database, or on PostgreSQL a schema, of its own. If it is the same instance under a new name, and no "
            f"process runs under the old one: continuum migrate --rename {name} {instance}"
        )


async def rename_instance(desk: Desk, engine: AsyncEngine, old: str, new: str) -> None:
    """Let tables that belong to `old` belong to `new`.

    Raises:
        ConfigurationError: they do not belong to it, or it has a process that lives. SchemaNotReady: no tables.
    """
    await check_revision(desk, engine)
    if await desk.change(opening.RENAME, old=old, new=new):
        return
    name = await instance_of(desk)
    if name != old:
        belongs = "to nobody yet" if name is None else f"to the instance {name!r}"
        raise ConfigurationError(f"these tables belong {belongs}, not to {old!r}")
    rows = await desk.ask(opening.LIVING)
    nodes = ", ".join(sorted({row.node for row in rows})) or "one that has just stopped"
    raise ConfigurationError(
        f"{old!r} runs on {nodes}: stop it first. A process that was killed counts until its lease has run out "
        "(lease_ttl, 30 s unless it was told otherwise)"
    )
