"""The other driver of PostgreSQL: an instance hears, recovers and takes part in transactions as with asyncpg."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

import continuum
from continuum import activity, telemetry, workflow
from continuum.journal.sql import migrate
from continuum.telemetry import TelemetryEvent
from tests.support.eventually import eventually
from tests.support.hosting import Place, instance_of, wiring_of
from tests.support.postgres import driven, execute

QUIET: dict[str, Any] = {"signal_router": {"catch_up": 60}, "dispatcher": {"interval": 60}}  # who hears nothing is late


@activity(transactional=True)
async def book(session: AsyncSession, n: int) -> int:
    await session.execute(text("INSERT INTO bookings VALUES (:n)"), {"n": n})
    return n


@workflow(name="psycopg.booked")
async def booked(n: int) -> int:
    return await book(n)


@workflow(name="psycopg.waiting")
async def waiting(n: int) -> int:
    return n + await continuum.wait_signal("go", int)


@pytest.fixture
async def engine(postgres_database: str) -> AsyncIterator[AsyncEngine]:
    """An engine of psycopg's on an empty, migrated database."""
    engine = create_async_engine(driven(postgres_database, "psycopg"))
    await migrate(engine)
    yield engine
    await engine.dispose()


async def test_a_node_hears_what_another_posts_also_after_its_connections_were_cut(
    engine: AsyncEngine, postgres_database: str
) -> None:
    place = Place("postgresql", engine)
    said: list[TelemetryEvent] = []
    telemetry.attach(said.append, events=["listener.*"])
    first, second = place.another(node="first", **QUIET), place.another(node="second", **QUIET)
    async with first, second:
        await eventually(lambda: [event.name for event in said] == ["listener.attached"] * 2)
        run = await instance_of(first).start(waiting, 1)
        await instance_of(second).signal(run.run_id, "go", 2)
        assert await instance_of(first).await_run(run.run_id, timeout=10) == 3
        assert wiring_of(instance_of(first)).wakes.roads["listen"]
        del said[:]
        await execute(
            postgres_database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        await eventually(lambda: [event.name for event in said].count("listener.attached") == 2)
        run = await instance_of(first).start(waiting, 10)
        await instance_of(second).signal(run.run_id, "go", 2)
        assert await instance_of(first).await_run(run.run_id, timeout=10) == 12
    telemetry.detach(said.append)


async def test_a_hosts_transaction_holds_a_start_with_attributes_and_an_activity_its_booking(
    engine: AsyncEngine, postgres_database: str
) -> None:
    await execute(postgres_database, "CREATE TABLE bookings (n integer)")
    async with Place("postgresql", engine).node() as node:
        async with AsyncSession(engine) as session, session.begin():
            run = await node.start(booked, 7, idempotency_key="k", attributes={"customer": "c1"}, session=session)
            again = await node.start(booked, 7, idempotency_key="k", session=session)
            assert again.run_id == run.run_id
        assert await run.result(timeout=20) == 7
        found = await node.list_runs(attributes={"customer": "c1"})
        assert [(one.run_id, one.attributes) for one in found.items] == [(run.run_id, {"customer": "c1"})]
    async with AsyncSession(engine) as session:
        assert list(await session.scalars(text("SELECT n FROM bookings"))) == [7]
