"""SIGKILL in the middle of a host's transactions: its rows, its runs and its signals agree all the same."""

import asyncio
import random
import signal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

import continuum
from tests.kill import host_node
from tests.kill.conftest import url_of
from tests.kill.host_node import CLOSE, ORDERS, Orders, tally
from tests.kill.processes import NodeProcess

STEPS = 13  # of an order on SQLite: eleven statements, the COMMIT, and what follows it; fewer on PostgreSQL
AT_RANDOM = 2


async def test_rows_runs_and_signals_of_a_host_agree_after_any_kill(database: AsyncEngine) -> None:
    async with database.begin() as connection:
        await connection.execute(text(ORDERS))
    async with continuum.application(database):
        told = (await continuum.start(tally)).run_id
    hosts = [
        NodeProcess.of(host_node.run, Orders(url_of(database), f"host{at}", told, at)) for at in range(1, STEPS + 1)
    ]
    free = [NodeProcess.of(host_node.run, Orders(url_of(database), f"free{n}", told)) for n in range(AT_RANDOM)]
    draw = random.Random()
    acknowledged: set[str] = set()
    refused: set[str] = set()

    def note(line: dict[str, str]) -> None:
        acknowledged.update({line["placed"]} if "placed" in line else ())
        refused.update({line["refused"]} if "refused" in line else ())

    for host in free:
        for _ in range(3 + draw.randrange(5)):
            note(await host.said())
        await asyncio.sleep(draw.random() / 50)  # it is to die anywhere
        host.send(signal.SIGKILL)
    for host in (*hosts, *free):
        for line in await host.everything():
            note(line)
        assert host.process.exitcode == -signal.SIGKILL

    async with database.connect() as connection:
        orders = {
            row.id: row.run_id
            for row in await connection.execute(text("SELECT id, CAST(run_id AS text) AS run_id FROM orders"))
        }
        runs = {
            row.id
            for row in await connection.execute(
                text("SELECT CAST(id AS text) AS id FROM continuum_runs WHERE workflow = 'kill.ship'")
            )
        }
    assert set(orders.values()) == runs
    assert len(runs) == len(orders)
    assert acknowledged <= set(orders)
    assert not refused & set(orders)
    assert len(orders) - len(acknowledged) <= STEPS + AT_RANDOM  # what was committed and not said any more
    assert {f"host{at}-1" for at in range(1, STEPS + 1)} <= acknowledged
    assert not refused.isdisjoint({f"free{n}-3" for n in range(AT_RANDOM)})

    fast = {"interval": 0.05}
    async with continuum.application(database, lease_ttl=1.0, recovery=fast, dispatcher=fast):
        for order, run_id in orders.items():
            assert await continuum.await_run(run_id, host_node.ship, timeout=30) == order
        await continuum.signal(told, "placed", CLOSE)
        assert sorted(await continuum.await_run(told, tally, timeout=30)) == sorted(orders)
