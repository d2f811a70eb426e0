"""Tenants to migrate and to host: SQLite files, and schemas of one PostgreSQL database."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from continuum.cli import main
from continuum.clock import VirtualClock
from continuum.journal.sql import migrate
from tests.support.postgres import fresh_database
from tests.support.stage import Stage

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Call the command line in this process; returns exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["continuum", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), said.out, said.err

    return call


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("tenants") / "template.db"
    asyncio.run(migrate(create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=NullPool)))
    return path


@pytest.fixture
def database_file(sqlite_template: Path, tmp_path: Path) -> Path:
    """A migrated SQLite file of this test's own."""
    return Path(shutil.copy(sqlite_template, tmp_path / "here.db"))


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A database in memory and nodes on it, nothing of which runs by itself."""
    stage = Stage(VirtualClock())
    try:
        yield stage
    finally:
        await stage.clear()


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: str) -> Iterator[str]:
    """The name of a migrated database, to be the template of others."""
    with asyncio.Runner() as runner:
        database = fresh_database(postgres_url)
        url = runner.run(database.__aenter__())
        runner.run(migrate(create_async_engine(url, poolclass=NullPool)))
        name = make_url(url).database
        assert name is not None
        yield name
        runner.run(database.__aexit__(None, None, None))
