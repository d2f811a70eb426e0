"""Stories are told on every journal: `-k memory`, `-k sqlite`, `-k postgres` choose."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from continuum.composition.instance import Instance
from continuum.journal.sql import migrate
from continuum.telemetry import TelemetryEvent, attach, detach
from tests.support.hosting import Place, instance_of
from tests.support.pgbouncer import RECIPE
from tests.support.pgbouncer import VARIABLE as PGBOUNCER
from tests.support.postgres import driven, execute, fresh_database
from tests.support.telling import complaints


async def _migrate(url: str) -> None:
    engine = create_async_engine(url)
    try:
        await migrate(engine)
    finally:
        await engine.dispose()


@pytest.fixture(autouse=True)
def _every_event_is_as_documented() -> Iterator[None]:
    """Whatever a story makes the engine tell, it is in the table, with these keys."""
    wrong: list[str] = []

    def judge(event: TelemetryEvent) -> None:
        wrong.extend(f"{event.name} {complaint}" for complaint in complaints(event))

    attach(judge)
    yield
    detach(judge)
    assert wrong == []


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("scenarios") / "template.db"
    asyncio.run(_migrate(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_scenarios(postgres_url: str) -> Iterator[str]:
    """The URL of a migrated database, emptied before each test: quicker than a new one each."""
    with asyncio.Runner() as runner:
        database = fresh_database(postgres_url)
        url = runner.run(database.__aenter__())
        runner.run(_migrate(url))
        yield url
        runner.run(database.__aexit__(None, None, None))


EMPTY = "TRUNCATE " + ", ".join(
    f"continuum_{table}"
    for table in (
        "runs",
        "events",
        "inbox",
        "tasks",
        "owners",
        "snapshots",
        "activity_results",
        "schedules",
        "workflow_versions",
        "instances",
    )
)


@pytest.fixture
def database_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str | None]:
    """The URL of a migrated database of a kind; None: in memory."""

    def url(kind: str) -> str | None:
        if kind == "memory":
            return None
        if kind == "postgres":
            postgres = driven(str(request.getfixturevalue("postgres_scenarios")))
            return request.getfixturevalue("pooler").url_of(postgres) if os.environ.get(PGBOUNCER) else postgres
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "app.db")
        return f"sqlite+aiosqlite:///{tmp_path / 'app.db'}"

    return url


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def database(request: pytest.FixtureRequest, database_of: Callable[[str], str | None]) -> str | None:
    """The URL of a migrated database of each kind."""
    return database_of(request.param)


@pytest.fixture
async def place(database: str | None) -> AsyncIterator[Place]:
    """An empty database of each kind."""
    if database is None:
        yield Place("memory", None)
        return
    if database.startswith("postgresql"):
        await execute(database, EMPTY)
    is_pooled = database.startswith("postgresql") and os.environ.get(PGBOUNCER)
    engine = create_async_engine(database, **(RECIPE if is_pooled else {}))
    try:
        yield Place(engine.dialect.name, engine)
    finally:
        await engine.dispose()


@pytest.fixture
async def app(place: Place) -> AsyncIterator[Instance]:
    """A running instance named "app", with everything on."""
    children = place.children()
    async with children:
        yield instance_of(children)
    children.forget()
