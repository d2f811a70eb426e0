"""Migrations on both dialects: what they make, that they can be undone, and who may run them at the same time."""

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from continuum.errors import ConfigurationError, JournalUnavailable, SchemaNotReady, SchemaTaken
from continuum.journal.sql import SqlJournal, head, migrate, revision_of
from continuum.journal.sql.tables import REVISION, VERSION_TABLE, metadata
from tests.support.postgres import connect

ROOT = Path(__file__).parents[2]
DOWN = f"c{int(REVISION[1:]) - 1:04}"
TABLES = {
    "runs", "events", "inbox", "tasks", "owners", "snapshots", "activity_results", "schedules", "workflow_versions",
    "instances",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """A database, and where in it the tables are to be."""

    url: str
    engine: AsyncEngine
    schema: str | None

    async def migrate(self, revision: str = "head") -> None:
        await migrate(self.engine, schema=self.schema, revision=revision)

    async def revision(self) -> str | None:
        return await revision_of(self.engine, schema=self.schema)

    async def tables(self) -> set[str]:
        async with self.engine.connect() as connection:
            return await connection.run_sync(lambda c: set(inspect(c).get_table_names(schema=self.schema)))

    def command(self, *arguments: str) -> list[str]:
        schema = [] if self.schema is None else ["-x", f"schema={self.schema}"]
        return [sys.executable, "-m", "alembic", "-x", f"url={self.url}", *schema, *arguments]


@pytest.fixture(params=["sqlite", "postgres", "postgres with a schema"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str | None]:
    """An empty database, and a schema."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/c.db", None
    return request.getfixturevalue("postgres_database"), 'Ten"ant 1' if request.param.endswith("schema") else None


@pytest.fixture
async def target(where: tuple[str, str | None]) -> AsyncIterator[Target]:
    url, schema = where
    engine = create_async_engine(url, poolclass=NullPool)
    yield Target(url, engine, schema)
    await engine.dispose()


# --- what they make ---------------------------------------------------------------------------------------------------


async def test_an_upgrade_makes_the_tables_and_says_so(target: Target) -> None:
    assert await target.revision() is None
    await target.migrate()
    assert await target.revision() == head() == REVISION
    assert await target.tables() == {f"continuum_{name}" for name in TABLES} | {VERSION_TABLE}


async def test_the_metadata_are_what_the_migrations_arrive_at(target: Target) -> None:
    await target.migrate()

    def differences(connection: Connection) -> Sequence[Any]:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": VERSION_TABLE,
                "version_table_schema": target.schema,
                "include_schemas": target.schema is not None,
                "include_name": lambda name, kind, _: kind != "schema" or name == target.schema,
                "compare_server_default": True,
            },
        )
        found: Sequence[Any] = compare_metadata(context, metadata(connection.dialect.name, target.schema))
        return found

    async with target.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_a_fresh_schema_and_a_migrated_one_are_the_same(target: Target) -> None:
    await target.migrate()
    migrated = await description(target)
    await target.migrate("base")

    def create(connection: Connection) -> None:
        metadata(connection.dialect.name, target.schema).create_all(connection)

    async with target.engine.begin() as connection:
        await connection.run_sync(create)
    assert await description(target) == migrated


async def test_up_down_and_up_again_arrives_at_the_same(target: Target) -> None:
    await target.migrate()
    first = await description(target)
    await target.migrate("-1")
    assert await target.revision() == DOWN
    await target.migrate()
    assert await description(target) == first
    await target.migrate("base")
    assert await target.tables() == {VERSION_TABLE}
    assert await target.revision() is None
    await target.migrate()
    assert await description(target) == first


async def test_the_tables_of_a_host_are_left_alone(target: Target) -> None:
    async with target.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE orders (id integer primary key)"))
        await connection.execute(text("CREATE TABLE alembic_version (version_num text)"))
    await target.migrate()
    await target.migrate("base")
    async with target.engine.connect() as connection:
        assert {"orders", "alembic_version"} <= await connection.run_sync(lambda c: set(inspect(c).get_table_names()))


async def description(target: Target) -> list[str]:
    """Describe everything in the schema, but for the version table, as the database itself does."""
    if target.engine.dialect.name == "sqlite":
        statements = ["SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name LIKE 'continuum%'"]
    else:
        within = "n.oid = c.relnamespace AND n.nspname = COALESCE(:schema, 'public') AND c.relname LIKE 'continuum%'"
        of_table = f"FROM pg_class c JOIN pg_namespace n ON {within}"
        statements = [
            f"""SELECT concat_ws(' ', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                a.attidentity, pg_get_expr(d.adbin, d.adrelid)) {of_table} JOIN pg_attribute a ON a.attrelid = c.oid
                AND a.attnum > 0 AND c.relkind = 'r' LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum""",
            f"SELECT pg_get_indexdef(c.oid) {of_table} AND c.relkind = 'i'",
            f"SELECT conname || ' ' || pg_get_constraintdef(k.oid) {of_table} JOIN pg_constraint k ON k.conrelid = c.oid",
            f"SELECT c.relname || ' ' || array_to_string(c.reloptions, ',') {of_table} AND c.reloptions IS NOT NULL",
        ]
    found: list[str] = []
    async with target.engine.connect() as connection:
        for statement in statements:
            parameters = {"schema": target.schema} if ":schema" in statement else {}
            found += [_squeezed(row[0]) for row in await connection.execute(text(statement), parameters)]
    return sorted(line for line in found if VERSION_TABLE not in line)


def _squeezed(sql: str) -> str:
    return re.sub(r"\s+", " ", sql).strip()


# --- who runs them ----------------------------------------------------------------------------------------------------


# Imports once, then lets go of four processes at the same moment: starting Python is what takes time here.
AT_ONCE = """
import os, sys
import continuum.journal.sql
from alembic.config import main

children = []
for _ in range(4):
    if not (pid := os.fork()):
        try:
            main(sys.argv[1:])
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    children.append(pid)
sys.exit(any(os.waitpid(pid, 0)[1] for pid in children))
"""


@pytest.mark.parametrize("where", ["sqlite", "postgres with a schema"], indirect=True)
async def test_several_processes_may_upgrade_at_once(target: Target) -> None:
    command = [sys.executable, "-c", AT_ONCE, *target.command("upgrade", "head")[3:]]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert await target.revision() == head()


async def test_several_tasks_and_loops_may_upgrade_at_once(target: Target) -> None:
    errors: list[Exception] = []

    def elsewhere() -> None:
        try:
            asyncio.run(target.migrate())
        except Exception as error:  # noqa: BLE001  shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=elsewhere) for _ in range(3)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(target.migrate() for _ in range(5)))
    for thread in threads:
        await asyncio.get_running_loop().run_in_executor(None, thread.join)
    assert errors == []
    assert await target.revision() == head()


async def test_the_url_may_come_from_the_environment(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/c.db"
    environment = {**os.environ, "CONTINUUM_DATABASE_URL": url}
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    engine = create_async_engine(url)
    assert await revision_of(engine) == head()
    await engine.dispose()


def test_without_a_url_alembic_is_told_what_to_do() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CONTINUUM_DATABASE_URL"}
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "-x url=" in done.stderr


@pytest.mark.parametrize("where", ["sqlite", "postgres with a schema"], indirect=True)
async def test_the_offline_script_does_what_the_upgrade_does(target: Target) -> None:
    script = subprocess.run(
        target.command("upgrade", "head", "--sql"), cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    if target.engine.dialect.name == "sqlite":
        async with target.engine.begin() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            await raw.executescript(script)
    else:
        raw = await connect(target.url)
        await raw.execute(script)
        await raw.close()
    assert await target.revision() == head()
    offline = await description(target)
    await target.migrate("base")
    await target.migrate()
    assert await description(target) == offline


async def test_a_failed_upgrade_leaves_nothing_behind(target: Target) -> None:
    async with target.engine.begin() as connection:
        if target.schema is not None:
            quoted = target.schema.replace('"', '""')
            await connection.execute(text(f'CREATE SCHEMA "{quoted}"'))
            await connection.execute(text(f'SET LOCAL search_path TO "{quoted}"'))
        await connection.execute(text("CREATE TABLE continuum_snapshots (id integer)"))
    with pytest.raises(JournalUnavailable):
        await target.migrate()
    assert await target.tables() == {"continuum_snapshots"}


async def test_an_unreachable_database_is_reported(tmp_path: Path) -> None:
    engine = create_async_engine(f"postgresql+asyncpg://nobody@/nothing?host={tmp_path}")
    with pytest.raises(JournalUnavailable):
        await migrate(engine)


async def test_sqlite_has_no_schemas(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/c.db"
    with pytest.raises(ConfigurationError, match="no schemas"):
        await migrate(create_async_engine(url), schema="tenant")
    command = [sys.executable, "-m", "alembic", "-x", f"url={url}", "-x", "schema=tenant", "upgrade", "head"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert "no schemas" in done.stderr


# --- what a journal says to what it finds -----------------------------------------------------------------------------


async def test_an_unmigrated_database_is_refused_with_the_command_to_run(target: Target) -> None:
    journal = SqlJournal(target.engine, schema=target.schema)
    with pytest.raises(
        SchemaNotReady,
        match=r"no Continuum tables(.|\n)*continuum migrate --url (.|\n)*alembic -x url=(.|\n)*migrations=.upgrade",
    ):
        await journal.open("continuum")
    await journal.close()


async def test_an_upgrade_leaves_the_tables_of_a_newer_version_alone(target: Target) -> None:
    """A node of the version before is started again beside it: after a crash, or when a deploy is taken back."""
    await target.migrate()
    name = metadata(target.engine.dialect.name, target.schema).schema
    prefix = "" if not name else '"' + name.replace('"', '""') + '".'
    async with target.engine.begin() as connection:
        await connection.execute(text(f"UPDATE {prefix}{VERSION_TABLE} SET version_num = 'c9999'"))
    await target.migrate()
    assert await target.revision() == "c9999"


@pytest.mark.parametrize(("revision", "is_ready"), [("c0000", False), ("c9999", True)])
async def test_older_tables_are_refused_and_newer_ones_are_not(target: Target, revision: str, is_ready: bool) -> None:
    await target.migrate()
    table = metadata(target.engine.dialect.name, target.schema)
    name = f"{table.schema}" if table.schema else None
    prefix = "" if name is None else '"' + name.replace('"', '""') + '".'
    async with target.engine.begin() as connection:
        await connection.execute(text(f"UPDATE {prefix}{VERSION_TABLE} SET version_num = '{revision}'"))
    journal = SqlJournal(target.engine, schema=target.schema)
    if is_ready:
        await journal.open("continuum")
    else:
        with pytest.raises(SchemaNotReady, match="revision c0000"):
            await journal.open("continuum")
    await journal.close()


async def test_tables_belong_to_the_first_instance_that_opens_them(target: Target) -> None:
    await target.migrate()
    journals = [SqlJournal(target.engine, schema=target.schema) for _ in range(6)]
    names = ["billing", "shipping"] * 3
    opened = await asyncio.gather(
        *(journal.open(name) for journal, name in zip(journals, names, strict=True)), return_exceptions=True
    )
    winner = next(name for name, result in zip(names, opened, strict=True) if result is None)
    for name, result in zip(names, opened, strict=True):
        assert (result is None) == (name == winner), opened
        assert result is None or isinstance(result, SchemaTaken)
    for journal in journals:
        await journal.close()
