"""A tenant whose database is away or behind when its host starts: the host starts, and the tenant when it can."""

import asyncio
import logging
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import continuum
from continuum import ConfigurationError, InstanceNotStarted, SchemaNotReady, activity, children, telemetry, workflow
from continuum.composition import late
from continuum.journal.sql import migrate
from tests.support.eventually import eventually
from tests.support.hosting import QUICK, instance_of


@activity
async def touch(n: int) -> int:
    return n


@workflow
async def touching(n: int) -> int:
    return await touch(n)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(late, "PAUSE_MAX_SECONDS", 0.02)


@pytest.fixture
def missing(tmp_path: Path) -> Path:
    """The path of a database that is not there yet: neither is its folder."""
    return tmp_path / "later" / "app.db"


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that takes a connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"postgresql+asyncpg://nobody:nothing@127.0.0.1:{server.getsockname()[1]}/nowhere"


@pytest.fixture
def names() -> Iterator[None]:
    yield
    for name in ("here", "late"):
        continuum.instance(name).forget()


@pytest.fixture(autouse=True)
async def _threads_end() -> AsyncIterator[None]:
    """Let the driver's threads end before the loop does: where a file cannot be opened, they tell it so once more."""
    yield
    await eventually(lambda: not any("_connection_worker" in thread.name for thread in threading.enumerate()))


def tenant(name: str, path: Path, **options: Any) -> continuum.Children:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=NullPool)
    return children(name=name, engine=engine, **{**QUICK, **options})


def state(name: str) -> str:
    return continuum.readiness(instance=name).state


@pytest.mark.usefixtures("names")
async def test_a_host_starts_without_a_tenant_that_is_away_and_takes_it_in_later(
    database_file: Path, missing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[telemetry.TelemetryEvent] = []
    telemetry.attach(heard.append, ["instance.late"])
    here, absent = tenant("here", database_file), tenant("late", missing, required=False)
    with caplog.at_level(logging.WARNING, logger=late.__name__):
        async with continuum.lifespan(*absent, *here):
            assert (state("here"), state("late")) == ("ready", "not_started")
            (why,) = continuum.readiness(instance="late").details
            assert "unable to open database file" in why
            with pytest.raises(
                InstanceNotStarted, match=r"'late' has not started yet, and is tried again: (.|\n)*open"
            ):
                await continuum.start(touching, 1, instance="late")
            assert await (await continuum.start(touching, 2, instance="here")).result(timeout=15) == 2
            await appears(missing, database_file)
            await eventually(lambda: state("late") == "ready")
            assert await (await continuum.start(touching, 3, instance="late")).result(timeout=15) == 3
    telemetry.detach(heard.append)
    assert {event.metadata["instance"] for event in heard} == {"late"}
    assert [record.getMessage().split(":")[0] for record in caplog.records if record.name == late.__name__] == [
        "instance 'late' is not started yet, and is tried again"
    ]
    assert (state("here"), state("late")) == ("not_started", "not_started")
    assert continuum.readiness(instance="late").details == ()


async def appears(missing: Path, like: Path) -> None:
    """Let a database be there from one moment to the next: a copy, that belongs to nobody."""
    prepared = missing.parent.with_name("prepared")
    prepared.mkdir()
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{shutil.copy(like, prepared / missing.name)}", poolclass=NullPool
    )
    async with engine.begin() as connection:
        for table in ("instances", "owners"):
            await connection.exec_driver_sql(f"DELETE FROM continuum_{table}")
    prepared.rename(missing.parent)


@pytest.mark.usefixtures("names")
async def test_a_tenant_that_is_behind_is_taken_in_once_it_is_migrated(database_file: Path, tmp_path: Path) -> None:
    here, behind = tenant("here", database_file), tenant("late", tmp_path / "behind.db", required=False)
    async with continuum.lifespan(*here, *behind):
        assert "no Continuum tables" in continuum.readiness(instance="late").details[0]
        await migrate(create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'behind.db'}", poolclass=NullPool))
        await eventually(lambda: state("late") == "ready")


async def test_a_tenant_that_is_required_fails_the_start(missing: Path, tmp_path: Path) -> None:
    with pytest.raises(SchemaNotReady, match="alembic -x url="):
        await tenant("late", tmp_path / "behind.db").start()
    assert state("late") == "not_started"
    continuum.instance("late").forget()


async def test_what_will_not_pass_fails_the_start_of_any(database_file: Path) -> None:
    """Nothing is gained by trying again: these tables are another instance's."""
    async with tenant("here", database_file):
        with pytest.raises(ConfigurationError, match="belong to the instance 'here'"):
            await tenant("late", database_file, required=False).start()
    assert state("late") == "not_started"
    for name in ("here", "late"):
        continuum.instance(name).forget()


@pytest.mark.parametrize("entered", ["as one", "each"])
async def test_a_tenant_that_never_came_leaves_nothing_behind(missing: Path, entered: str) -> None:
    before = asyncio.all_tasks()
    absent = tenant("late", missing, required=False)
    for _ in range(2):
        if entered == "as one":
            async with absent:
                assert state("late") == "not_started"
        else:
            async with continuum.lifespan(*absent):
                assert state("late") == "not_started"
    assert asyncio.all_tasks() == before
    absent.forget()


async def test_a_start_that_is_cancelled_leaves_nobody_trying(silent: str) -> None:
    before = asyncio.all_tasks()
    absent = children(name="late", engine=create_async_engine(silent), required=False)
    starting = asyncio.create_task(absent.start())
    await eventually(lambda: any(task.get_name() == "late.late" for task in asyncio.all_tasks()))
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert asyncio.all_tasks() - before <= {starting}
    absent.forget()


async def test_the_name_of_a_tenant_that_is_waited_for_is_taken(missing: Path, database_file: Path) -> None:
    absent = tenant("late", missing, required=False)
    async with absent:
        with pytest.raises(ConfigurationError, match="'late' is running"):
            tenant("late", database_file)
    absent.forget()


@pytest.mark.usefixtures("names")
async def test_a_tenant_that_does_not_answer_keeps_no_other_from_being_upgraded(silent: str, tmp_path: Path) -> None:
    absent = children(name="late", engine=create_async_engine(silent), required=False, migrations="upgrade")
    here = tenant("here", tmp_path / "new.db", migrations="upgrade")
    async with continuum.lifespan(*absent, *here):
        assert (state("late"), state("here")) == ("not_started", "ready")


async def test_a_part_that_cannot_begin_is_tried_again_with_all_the_others(database_file: Path, missing: Path) -> None:
    absent = tenant("late", missing, required=False)
    instance = instance_of(absent)
    async with absent:
        failing: Any = next(part for part in absent if part.name == "late.recovery")
        begin = failing.begin
        tries: list[str] = []

        async def begins_the_second_time() -> None:
            tries.append(state("late"))
            if len(tries) == 1:
                raise RuntimeError("not yet")
            await begin()

        failing.begin = begins_the_second_time
        await appears(missing, database_file)
        opening = instance.late
        assert opening is not None
        await eventually(lambda: len(tries) == 2 and not opening.is_waited_for)
        assert (state("late"), tries) == ("ready", ["ready", "ready"])
        assert await (await instance.start(touching, 3)).result(timeout=15) == 3
    absent.forget()
