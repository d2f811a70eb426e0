"""PgBouncer in transaction mode: an instance leaves nothing in the sessions that it shares, and loses nothing with them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

import continuum
from continuum import ConfigurationError, activity, telemetry, workflow
from continuum.journal.sql import SqlJournal, migrate
from continuum.telemetry import TelemetryEvent
from tests.support.eventually import eventually
from tests.support.hosting import Place, crash, instance_of, wiring_of
from tests.support.pgbouncer import POOL_SIZE, RECIPE, RECIPE_OF_PSYCOPG, PgBouncer
from tests.support.postgres import connect, driven, execute

RUNS = 30
OURS = "continuum_"


@activity(retry=continuum.Retry(initial=0.05, max_attempts=20))
async def double(n: int) -> int:
    return 2 * n


@workflow(name="pooled.doubled")
async def doubled(n: int) -> int:
    return await double(await double(n))


@activity(transactional=True)
async def book(session: AsyncSession, n: int) -> int:
    await session.execute(text("INSERT INTO bookings VALUES (:n)"), {"n": n})
    return n


@workflow(name="pooled.booked")
async def booked(n: int) -> int:
    return await book(n)


@workflow(name="pooled.waiting")
async def waiting(n: int) -> int:
    return n + await continuum.wait_signal("go", int)


@pytest.fixture(params=["asyncpg", "psycopg"])
async def through(
    request: pytest.FixtureRequest, pooler: PgBouncer, postgres_database: str
) -> AsyncIterator[AsyncEngine]:
    """An engine that leads through the pooler to an empty database, migrated on that way by three at once."""
    url = make_url(pooler.url_of(postgres_database)).set(drivername=f"postgresql+{request.param}")
    engine = create_async_engine(url, **(RECIPE if request.param == "asyncpg" else RECIPE_OF_PSYCOPG))
    await asyncio.gather(*(migrate(engine) for _ in range(3)))
    yield engine
    await engine.dispose()


@pytest.fixture
async def place(through: AsyncEngine) -> Place:
    """That database, to host instances."""
    return Place("postgresql", through)


def recipe_of(engine: AsyncEngine) -> dict[str, Any]:
    return RECIPE_OF_PSYCOPG if engine.dialect.driver == "psycopg" else RECIPE


Session = dict[str, str]


async def sessions(url: str, count: int) -> list[tuple[Session, list[str]]]:
    """Return settings and prepared statements of so many sessions that are different ones, as a host finds them."""
    found = []
    async with AsyncExitStack() as stack:
        for _ in range(count):
            connection = await connect_bare(url)
            stack.push_async_callback(connection.close)
            await stack.enter_async_context(connection.transaction())  # keeps its session, so the next has another
            settings = await connection.fetch("SELECT name, setting FROM pg_settings")
            statements = await connection.fetch("SELECT statement FROM pg_prepared_statements")
            found.append(({row["name"]: row["setting"] for row in settings}, [row["statement"] for row in statements]))
    return found


async def connect_bare(url: str) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(url.replace("+asyncpg", ""), statement_cache_size=0)


async def test_a_host_finds_its_own_settings_in_every_session_that_an_instance_has_used(
    place: Place, pooler: PgBouncer, postgres_database: str
) -> None:
    [(untouched, _)] = await sessions(postgres_database, 1)

    async def of_all_sessions() -> tuple[set[str], set[str]]:
        found = await sessions(pooler.url_of(postgres_database), POOL_SIZE)
        touched = {name for settings, _ in found for name in untouched if settings[name] != untouched[name]}
        return touched - {"application_name"}, {one for _, statements in found for one in statements if OURS in one}

    _, of_migrations = await of_all_sessions()  # Alembic's are prepared by SQLAlchemy, under the host's names
    async with place.node() as node:
        runs = [await node.start(doubled, n) for n in range(RUNS)]
        assert [await run.result(timeout=20) for run in runs] == [4 * n for n in range(RUNS)]
        assert wiring_of(node).journal.deafness is not None
        touched, statements = await of_all_sessions()
        assert (touched, statements - of_migrations) == (set(), set())
        # On the host's own connections SQLAlchemy prepares, under the names that the host has chosen.
        await execute(postgres_database, "CREATE TABLE bookings (n integer)")
        async with AsyncSession(place.engine) as session, session.begin():
            await session.execute(text("INSERT INTO bookings VALUES (-1)"))
            booking = await node.start(booked, 7, session=session)
        assert await booking.result(timeout=20) == 7
        async with AsyncSession(place.engine) as session:
            assert list(await session.scalars(text("SELECT n FROM bookings ORDER BY n"))) == [-1, 7]
        assert (await of_all_sessions())[0] == set()


async def test_runs_outlive_their_node_the_pooler_and_all_of_its_sessions(
    place: Place, pooler: PgBouncer, postgres_database: str
) -> None:
    first, second = place.another(), place.another(node="other")
    await first.start()
    await second.start()
    waiters = [await instance_of(first).start(waiting, n) for n in range(RUNS)]
    runs = [await instance_of(first).start(doubled, n) for n in range(RUNS)]
    await crash(first)
    direct = await connect(postgres_database)
    ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    signalling = asyncio.create_task(
        asyncio.wait([asyncio.create_task(signal_until_heard(second, run.run_id, 100)) for run in waiters])
    )
    for _ in range(3):
        await direct.execute(ending)
        await asyncio.sleep(0.05)
    pooler.restart()
    await signalling
    await direct.close()
    results = [await result_of(second, run.run_id) for run in [*runs, *waiters]]
    assert results == [4 * n for n in range(RUNS)] + [100 + n for n in range(RUNS)]
    await second.stop()


async def result_of(node: object, run_id: str) -> object:
    """Await a run, again if a connection turns out to be dead: psycopg notices that when it is used."""
    while True:
        try:
            return await instance_of(node).await_run(run_id, timeout=30)  # type: ignore[arg-type]
        except continuum.JournalUnavailable:
            await asyncio.sleep(0.05)


async def signal_until_heard(node: object, run_id: str, payload: int) -> None:
    """Signal, again while the database is away; the delivery id makes it one."""
    while True:
        try:
            await instance_of(node).signal(run_id, "go", payload, delivery_id="one")  # type: ignore[arg-type]
        except continuum.JournalUnavailable:
            await asyncio.sleep(0.05)
        else:
            return


async def test_an_instance_that_cannot_listen_says_so_once_and_still_tells_those_who_can(
    place: Place, postgres_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert place.engine is not None
    said: list[TelemetryEvent] = []
    direct = create_async_engine(driven(postgres_database, place.engine.dialect.driver))
    telemetry.attach(said.append, events=["listener.absent", "listener.attached", "listener.lost"])
    slow = {"interval": 60}
    with caplog.at_level(logging.WARNING, "continuum"):
        async with AsyncExitStack() as stack:
            deaf = await stack.enter_async_context(place.node(name="app", node="deaf"))
            hearing = place.another(
                node="hearing",
                journal=lambda: SqlJournal(place.engine, listen_engine=direct),  # type: ignore[arg-type]
                signal_router={"catch_up": 60},
                dispatcher=slow,
            )
            await stack.enter_async_context(hearing)
            await eventually(lambda: [event.name for event in said] == ["listener.absent", "listener.attached"])
            run = await instance_of(hearing).start(waiting, 1)
            await eventually(lambda: run.run_id in wiring_of(instance_of(hearing)).registry)
            await deaf.signal(run.run_id, "go", 2)
            assert await instance_of(hearing).await_run(run.run_id, timeout=10) == 3  # long before the next scan
    telemetry.detach(said.append)
    assert [record.getMessage() for record in caplog.records if "listen_engine=" in record.getMessage()] != []
    assert [event.name for event in said] == ["listener.absent", "listener.attached"]
    await direct.dispose()


async def test_a_listen_engine_of_another_driver_is_refused(through: AsyncEngine, postgres_database: str) -> None:
    other = {"asyncpg": "psycopg", "psycopg": "asyncpg"}[through.dialect.driver]
    with pytest.raises(ConfigurationError, match="another driver than the engine"):
        SqlJournal(through, listen_engine=create_async_engine(driven(postgres_database, other)))


async def test_a_listen_engine_that_cannot_listen_is_refused(
    place: Place, pooler: PgBouncer, through: AsyncEngine
) -> None:
    pooled = create_async_engine(through.url, **recipe_of(through))
    journal = SqlJournal(through, listen_engine=pooled)
    with pytest.raises(ConfigurationError, match="listen_engine cannot listen: the connection leads through a pooler"):
        await journal.open("app")
    await journal.close()
    await pooled.dispose()
