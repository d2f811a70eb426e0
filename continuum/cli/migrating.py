"""`continuum migrate`: brings the tables of one database to the newest revision, or says that they are not there.

What does it for all tenants is `continuum.cli.fleet`.

What can go wrong, each with its own answer: no URL, a URL of a driver that is not async, of another database, of none
that answers, tables that a newer version of Continuum has made.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
from argparse import Namespace
from pathlib import Path

from alembic import command
from rich.console import Console
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from continuum.composition.building import DATABASE_URL
from continuum.composition.options import checked_name
from continuum.errors import ConfigurationError, SchemaNotReady
from continuum.journal.sql import brief_engine, head, migrate, rename, revision_of
from continuum.journal.sql.migrating import config

DRIVERS = {"postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}
PSYCOPG = "postgresql+psycopg"  # which is async, too
ALEMBIC = "alembic.runtime.migration"  # the logger on which Alembic names each step


def run(
    *, url: str | None, schema: str | None, checks: bool, prints: bool, renames: tuple[str, str] | None = None
) -> int:
    """Migrate, check, print or rename; return the exit code.

    Raises:
        ConfigurationError: it cannot be told which database, it cannot hold a journal, or the name cannot be changed.
        SchemaNotReady: (`checks`) there is something to do; the message has the command.
        JournalUnavailable: the database does not answer.
    """
    target = url_of(url)
    if renames is not None:
        asyncio.run(_rename(target, schema, *renames))
    elif prints:
        print_sql(target, schema)
    elif checks:
        asyncio.run(_check(target, schema, shown=_command(url, target, schema)))
    else:
        asyncio.run(_upgrade(target, schema))
    return 0


def url_of(given: str | None) -> URL:
    """Return the URL to migrate: the option, else the environment's.

    Raises:
        ConfigurationError: there is none, or none that the journal can use.
    """
    text = given or os.environ.get(DATABASE_URL)
    if not text:
        raise ConfigurationError(
            f"which database? Give --url postgresql+asyncpg://… or sqlite+aiosqlite:///file.db, or set {DATABASE_URL}"
        )
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise ConfigurationError(
            "the database URL cannot be read: write postgresql+asyncpg://user@host/database or sqlite+aiosqlite:///file.db"
        ) from error
    if url.drivername in {*DRIVERS.values(), PSYCOPG}:
        _check_directory(url)
        return url
    async_name = DRIVERS.get(url.drivername.partition("+")[0])
    if async_name is None:
        raise ConfigurationError(
            f"{url.drivername} cannot hold a journal: use postgresql+asyncpg://, {PSYCOPG}:// or sqlite+aiosqlite://"
        )
    better = url.set(drivername=async_name).render_as_string(hide_password=True)
    raise ConfigurationError(f"{url.drivername}:// is not an async driver; write {better}")


def print_sql(url: URL, schema: str | None) -> None:
    """Print the statements that make the tables from nothing."""
    made = config(schema=schema)
    made.output_buffer = sys.stdout
    made.cmd_opts = Namespace(x=[f"url={url.render_as_string(hide_password=False)}"])
    command.upgrade(made, "head", sql=True)


async def _check(url: URL, schema: str | None, *, shown: str) -> None:
    file = missing_file(url)
    if file is not None:  # to look into it would make it
        raise SchemaNotReady(f"there is no file {file}. Run\n    {shown}")
    engine = brief_engine(url)
    found, newest = await revision_of(engine, schema=schema), head()
    if found is None or found < newest:
        state = "has no Continuum tables" if found is None else f"is at revision {found}"
        raise SchemaNotReady(f"{where_of(url, schema)} {state}, this version needs revision {newest}. Run\n    {shown}")
    print(f"{where_of(url, schema)} is at revision {found}: nothing to do.")


async def _rename(url: URL, schema: str | None, old: str, new: str) -> None:
    if missing_file(url):
        raise SchemaNotReady(f"there is no file {url.database}")
    await rename(brief_engine(url), old, checked_name(new), schema=schema)
    print(f"{where_of(url, schema)} belongs to the instance {new!r} now.")


async def _upgrade(url: URL, schema: str | None) -> None:
    engine, where, newest = brief_engine(url), where_of(url, schema), head()
    console = Console(soft_wrap=True, highlight=False)
    with console.status(f"asking {where}"):
        before = None if missing_file(url) else await revision_of(engine, schema=schema)
    if before is not None and before >= newest:
        print(f"{where} is at revision {before}: nothing to do.")
        return
    print(f"{where}: {before or 'no tables'} → {newest}")
    steps = _Steps()
    logger = logging.getLogger(ALEMBIC)
    level = logger.level
    logger.addHandler(steps)
    logger.setLevel(logging.INFO)
    try:
        with console.status("migrating"):
            await migrate(engine, schema=schema)
    finally:
        logger.removeHandler(steps)
        logger.setLevel(level)
    print(f"{where} is at revision {await revision_of(engine, schema=schema)}.")


class _Steps(logging.Handler):
    """Prints each step that Alembic takes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the line of a step, and nothing else of what Alembic says."""
        if record.getMessage().startswith("Running upgrade"):
            print(f"  {record.getMessage().partition('-> ')[2]}", flush=True)


def where_of(url: URL, schema: str | None) -> str:
    """Return how a database is called in what is said of it; without its password."""
    shown = url.render_as_string(hide_password=True)
    return shown if schema is None else f"schema {schema!r} of {shown}"


def _file_of(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")):
        return None
    return Path(url.database)


def missing_file(url: URL) -> Path | None:
    """Return the file of a SQLite database that is not there; to look into it would make it."""
    file = _file_of(url)
    return None if file is None or file.exists() else file


def _check_directory(url: URL) -> None:
    file = _file_of(url)
    if file is not None and not file.parent.is_dir():
        raise ConfigurationError(f"there is no directory {file.parent} for {file.name}: make it first")


def _command(given: str | None, url: URL, schema: str | None) -> str:
    """Return the command that does what `--check` found undone; a URL of the environment stays there."""
    words = ["continuum", "migrate"]
    words += ["--url", url.render_as_string(hide_password=True)] if given else []
    words += ["--schema", schema] if schema is not None else []
    return shlex.join(words)
