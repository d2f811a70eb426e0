"""Migrating from code: what `alembic upgrade` does, on a host's engine.

All upgrades of a process run one after the other in one thread with a loop of its own, because Alembic keeps its
context in module globals; so `migrate` may be awaited on any loop, by any number of tasks at once, and no loop is
blocked. Across processes `migrations/env.py` takes an advisory lock.

At which revision the tables are is asked first, by each caller on its own loop: a database that does not answer keeps
the thread from nobody, and tables that a newer version has migrated are left as they are, so that a node of the version
before can be started again beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from continuum.errors import ConfigurationError, JournalUnavailable
from continuum.journal.sql import opening
from continuum.journal.sql.desk import Desk
from continuum.journal.sql.lines import Line, alone_at_first, private_engine
from continuum.journal.sql.rows import Reader
from continuum.journal.sql.statements.book import Book

_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="continuum-migrate")
_SECONDS = 30.0
LOCK_TIMED_OUT = "55P03"  # SQLSTATE lock_not_available
_PACKAGE = Path(__file__).resolve().parents[2]


def migrations_directory() -> Path:
    """Return where the migrations are: inside the package when installed from a wheel, beside it in a checkout."""
    inside = _PACKAGE / "migrations"
    return inside if inside.is_dir() else _PACKAGE.parent / "migrations"


def config(*, schema: str | None = None, connection: Connection | None = None) -> Config:
    """Return Alembic's configuration without a file."""
    made = Config()
    made.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes.update(schema=schema, connection=connection)
    return made


def head() -> str:
    """Return the newest revision."""
    revision = ScriptDirectory.from_config(config()).get_current_head()
    if revision is None:
        raise FileNotFoundError(f"no migrations in {migrations_directory()}")
    return revision


async def migrate(engine: AsyncEngine, *, schema: str | None = None, revision: str = "head") -> None:
    """Bring the tables to a revision, creating them (and the schema) if need be.

    Args:
        engine: the host's; it is neither altered nor disposed.
        schema: where the tables are to be, on PostgreSQL.
        revision: `head`, a revision, or a relative one such as `-1` or `base` to go down. Tables that a newer version
            has brought beyond our `head` are left alone.

    Raises:
        ConfigurationError: the engine cannot hold a journal, or its tables are not ours to migrate.
        JournalUnavailable: the database does not answer.
    """
    opening.dialect_of(engine, schema=schema)
    if revision == "head" and await _is_beyond(engine, schema):
        return
    run = command.downgrade if revision == "base" or revision.startswith("-") else command.upgrade

    def upgrade(connection: Connection) -> None:
        run(config(schema=schema, connection=connection), revision)

    await asyncio.get_running_loop().run_in_executor(_THREAD, _in_thread, engine, upgrade)


async def _is_beyond(engine: AsyncEngine, schema: str | None) -> bool:
    found = await revision_of(engine, schema=schema)
    return found is not None and found > head()


def _in_thread(engine: AsyncEngine, upgrade: Callable[[Connection], None]) -> None:
    asyncio.run(_run(private_engine(engine), upgrade))


async def _run(engine: AsyncEngine, upgrade: Callable[[Connection], None]) -> None:
    try:
        async with alone_at_first(engine):
            connection = await engine.connect()
        try:
            await connection.run_sync(upgrade)
        finally:
            await connection.close()
    except (OSError, DBAPIError) as error:
        raise JournalUnavailable(f"cannot migrate {engine.url!r}: {error}{_advice(error)}") from error
    except CommandError as error:
        raise ConfigurationError(f"{engine.url!r} cannot be migrated: {error}") from error
    finally:
        await engine.dispose()


def _advice(error: Exception) -> str:
    if getattr(getattr(error, "orig", None), "sqlstate", None) != LOCK_TIMED_OUT:
        return ""
    return (
        "\nAnother migration, or a long transaction, had these tables for too long. Nothing was changed: run it again."
    )


async def revision_of(engine: AsyncEngine, *, schema: str | None = None) -> str | None:
    """Return the revision that the tables are at; None if there are none."""
    async with _desk(engine, schema) as desk:
        return await opening.revision_of(desk)


async def instance_of(engine: AsyncEngine, *, schema: str | None = None) -> str | None:
    """Return the name of the instance that the tables belong to; None if there are none, or nobody has used them."""
    async with _desk(engine, schema) as desk:
        return None if await opening.revision_of(desk) is None else await opening.instance_of(desk)


async def rename(engine: AsyncEngine, old: str, new: str, *, schema: str | None = None) -> None:
    """Let tables that belong to the instance `old` belong to `new`, while no process runs under the old name.

    Raises:
        ConfigurationError: they do not belong to it, or it runs. SchemaNotReady: there are no tables.
        JournalUnavailable: the database does not answer.
    """
    async with _desk(engine, schema) as desk:
        await opening.rename_instance(desk, engine, old, new)


@asynccontextmanager
async def _desk(engine: AsyncEngine, schema: str | None) -> AsyncIterator[Desk]:
    dialect = opening.dialect_of(engine, schema=schema)
    book = Book(dialect, schema)
    line = Line(engine, book, lock_timeout_seconds=_SECONDS, answer_timeout_seconds=_SECONDS)
    try:
        yield Desk(book, Reader(dialect), line, line)
    finally:
        await line.close()
