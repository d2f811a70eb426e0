"""Transfers booked by transactional activities: exactly once, wherever and however often nodes are killed."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from functools import partial
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import continuum
from tests.kill.conftest import count, url_of
from tests.kill.processes import NodeProcess
from tests.kill.transfer_node import FAST, TABLES, Moment, Orders, pay, run
from tests.support.eventually import eventually

ACCOUNTS = ("alice", "bob", "carol", "dave")
OPENING = 10_000

# SQLite: the lock, three of the activity's, the task's end, the message, COMMIT. PostgreSQL ends the task in one.
STATEMENTS = {"sqlite": 7, "postgresql": 5}

KILLS, NODES, TRANSFERS = 20, 4, 100


async def open_accounts(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        for statement in TABLES:
            await connection.execute(text(statement))
        for name in ACCOUNTS:
            await connection.execute(text(f"INSERT INTO accounts VALUES ('{name}', {OPENING})"))


async def check_books(engine: AsyncEngine, booked: dict[str, tuple[str, str, int]]) -> None:
    """Every run has one line in the books, the line says what the run was to do, and the balances follow from them."""
    async with engine.connect() as connection:
        lines = (await connection.execute(text("SELECT run_id, debit, credit, cents FROM transfers"))).all()
        balances = {row.name: row.cents for row in await connection.execute(text("SELECT name, cents FROM accounts"))}
    assert {line.run_id: (line.debit, line.credit, line.cents) for line in lines} == booked
    assert max(Counter(line.run_id for line in lines).values()) == 1, "booked twice"
    expected = Counter(dict.fromkeys(ACCOUNTS, OPENING))
    for line in lines:
        expected[line.debit] -= line.cents
        expected[line.credit] += line.cents
    assert balances == expected
    for table in ("tasks", "inbox"):
        assert await count(engine, f"SELECT count(*) FROM continuum_{table}") == 0
    completions = "SELECT count(*) FROM continuum_events WHERE type = 'activity_completed'"
    assert await count(engine, completions) == len(booked), "each result is journaled once"


async def test_a_transfer_survives_sigkill_at_any_statement(database: AsyncEngine) -> None:
    """Each victim dies with its lease; then all leases have expired, and one survivor finishes what they left."""
    await open_accounts(database)
    statements = STATEMENTS[database.dialect.name]
    deaths: list[tuple[int, Moment]] = [*((at, "before") for at in range(1, statements + 1)), (statements, "after")]
    runs = {str(UUID(int=place)): death for place, death in enumerate(deaths, 1)}
    await asyncio.gather(*[die(database, run_id, at, when) for run_id, (at, when) in runs.items()])
    booked = await count(database, "SELECT count(*) FROM transfers")
    assert booked == 1, "what has committed is booked: of all of them, that which died after COMMIT"
    await expire_all(database)

    async with continuum.application(database, lease_ttl=1.0, dispatcher=FAST, activity_dispatcher=FAST, recovery=FAST):
        for run_id in runs:
            assert await continuum.await_run(run_id, pay, timeout=30) == "alice paid bob 7"
    await check_books(database, dict.fromkeys(runs, ("alice", "bob", 7)))


async def die(engine: AsyncEngine, run_id: str, at: int, when: Moment) -> None:
    victim = NodeProcess.of(run, Orders(url_of(engine), run_id, at, when))
    said = await victim.everything()
    assert (victim.process.exitcode, len(said)) == (-9, 1), f"it was to die {when} statement {at}, and said {said}"


async def expire_all(engine: AsyncEngine) -> None:
    past = "clock_timestamp() - interval '1 hour'" if engine.dialect.name == "postgresql" else "0"
    async with engine.begin() as connection:
        await connection.execute(text(f"UPDATE continuum_owners SET expires_at = {past}"))


async def test_a_transfer_without_a_kill_takes_just_that_many_statements(database: AsyncEngine) -> None:
    await open_accounts(database)
    statements = STATEMENTS[database.dialect.name]
    node = NodeProcess.of(run, Orders(url_of(database), str(UUID(int=1)), statements + 1))
    assert (await node.everything())[-1] == {"result": "alice paid bob 7"}
    assert node.process.exitcode == 0


async def test_the_books_balance_after_twenty_kills_of_random_nodes(postgres_database: str) -> None:
    """Four nodes work, one of them is killed and another one started whenever some more transfers are booked."""
    engine = create_async_engine(postgres_database)
    await continuum.migrate(engine)
    await open_accounts(engine)
    draw = random.Random(7)
    orders = Orders(postgres_database, ttl=1.0)
    wanted: list[tuple[str, str, int]] = [pair_of(draw) for _ in range(TRANSFERS)]
    nodes = [NodeProcess.of(run, orders) for _ in range(NODES)]
    try:
        async with continuum.application(engine, client_only=True):
            handles = await continuum.start_many([pay.bound(*one) for one in wanted])
            for kills in range(KILLS):
                booked = kills * TRANSFERS // (2 * KILLS)
                await eventually(partial(has_booked, engine, booked), within=30)
                victim = nodes.pop(draw.randrange(NODES))
                victim.send(signal.SIGKILL)
                nodes.append(NodeProcess.of(run, orders))
            results = await asyncio.gather(*[handle.result(timeout=60) for handle in handles])
    finally:
        for node in nodes:
            node.send(signal.SIGKILL)
    assert results == [f"{debit} paid {credit} {cents}" for debit, credit, cents in wanted]
    await check_books(engine, {handle.run_id: one for handle, one in zip(handles, wanted, strict=True)})
    await engine.dispose()


async def has_booked(engine: AsyncEngine, lines: int) -> bool:
    return await count(engine, "SELECT count(*) FROM transfers") >= lines


def pair_of(draw: random.Random) -> tuple[str, str, int]:
    debit, credit = draw.sample(ACCOUNTS, 2)
    return debit, credit, draw.randrange(1, 500)
