"""Owners die, stop, lose their database or are told to go: their runs go on elsewhere, once."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.cluster.nodes import NOWHERE, SILENT, TTL, Cluster
from tests.kill.conftest import count
from tests.support.eventually import eventually
from tests.support.postgres import execute

POLLS = 0.2 + 0.2  # recovery and dispatcher, one interval each
SLACK = 6.0  # for a machine that is shared: what is bounded by minutes or hours would still be seen
ONCE = ["started", "activity_scheduled", "activity_completed", "completed"]


async def owner_of(database: AsyncEngine, run_id: str) -> str | None:
    """Return the node that holds a run."""
    async with database.connect() as connection:
        found = await connection.execute(text("SELECT lease_owner FROM continuum_runs WHERE id = :id"), {"id": run_id})
        owner = found.scalar_one()
    return None if owner is None else str(owner).partition("/")[0]


async def test_two_nodes_race_for_runs_and_each_is_claimed_once(cluster: Cluster) -> None:
    a, b = await cluster.start("a", "b")
    at = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    keys = [f"k{number}" for number in range(40)]
    runs = await asyncio.gather(*(cluster.run(a, "cluster.works", input={"key": key}, start_at=at) for key in keys))
    results = await asyncio.gather(*(cluster.result(b, run_id) for run_id in runs))
    assert [result["result"] for result in results] == keys
    assert Counter(line.split()[0] for line in cluster.ledger) == dict.fromkeys(keys, 1)
    for run_id in runs:
        assert await cluster.types(a, run_id) == [ONCE[0], "begun", *ONCE[1:]]
    claimed = [event["run_id"] for node in (a, b) for event in node.events("lease.acquired")]
    assert sorted(claimed) == sorted(runs)


async def test_an_owner_that_is_killed_is_taken_over_within_ttl_and_polls(
    cluster: Cluster, database: AsyncEngine
) -> None:
    a, b = await cluster.start("a", "b")
    async with cluster.holding() as release:
        run_id = await cluster.run(a, "cluster.works", input={"key": "k"})
        await eventually(lambda: cluster.ledger == ["k a"])
        a.send(signal.SIGKILL)
        began = time.monotonic()
        await eventually(lambda: len(cluster.ledger) == 2, within=60)
        taken = time.monotonic() - began
        assert await owner_of(database, run_id) != "a"
        release()
    assert (await cluster.result(b, run_id))["result"] == "k"
    assert cluster.ledger == ["k a", "k b"], "the attempt that died, and its repetition"
    assert await cluster.types(b, run_id) == ONCE
    # An attempt that a crash has consumed is made again after a back-off of a second.
    assert taken < TTL + POLLS + 1.0 + SLACK


async def test_an_owner_that_was_stopped_and_goes_on_is_fenced(cluster: Cluster, database: AsyncEngine) -> None:
    a, b = await cluster.start("a", "b")
    async with cluster.holding() as release:
        run_id = await cluster.run(a, "cluster.both", input={"key": "k"})
        await eventually(lambda: cluster.ledger == ["k a"])
        a.send(signal.SIGSTOP)
        await eventually(lambda: cluster.ledger == ["k a", "k b"], within=60)
        release()
        a.send(signal.SIGCONT)  # its attempt ends as well, and its result has nowhere to go
        await a.told("owner.lost")
    await a.told("lease.lost", run_id=run_id)
    assert await owner_of(database, run_id) != "a"
    await cluster.signal(b, run_id)
    assert (await cluster.result(b, run_id))["result"] == "k-after"
    types = await cluster.types(b, run_id)
    assert types.count("activity_completed") == types.count("activity_scheduled") == 2
    assert a.events("run.completed") == []
    again = await cluster.run(a, "cluster.works", input={"key": "again"})  # it is back, under a new owner id
    assert (await cluster.result(a, again))["result"] == "again"


@pytest.fixture
async def login(database: AsyncEngine) -> AsyncIterator[str]:
    """A role of one node's own, so that the database can be taken from this node alone."""
    url = database.url.render_as_string(hide_password=False)
    role = f"cluster_{make_url(url).database}"
    password = make_url(url).password
    await execute(url, f"CREATE ROLE {role} LOGIN SUPERUSER" + (f" PASSWORD '{password}'" if password else ""))
    yield role
    await database.dispose()
    await execute(url, f"DROP ROLE {role}")


async def test_an_owner_without_its_database_is_replaced_and_finds_that_it_lost(
    cluster: Cluster, database: AsyncEngine, login: str
) -> None:
    url = database.url.render_as_string(hide_password=False)
    everyones = dict(cluster.tenants)
    cluster.tenants = {"orders": make_url(url).set(username=login).render_as_string(hide_password=False)}
    (a,) = await cluster.start("a")
    cluster.tenants = everyones
    (b,) = await cluster.start("b")
    run_id = await cluster.run(a, "cluster.waits")
    assert await owner_of(database, run_id) == "a"
    await execute(url, f"ALTER ROLE {login} NOLOGIN")
    await execute(url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{login}'")
    assert (await cluster.http.get(f"{a.url}/readyz")).status_code == 503
    assert (await cluster.http.get(f"{a.url}/livez")).status_code == 200
    await eventually(lambda: count(database, "SELECT count(*) = 1 FROM continuum_owners"), within=30)
    await cluster.signal(b, run_id, "by b")
    assert (await cluster.result(b, run_id))["result"] == "by b"
    await execute(url, f"ALTER ROLE {login} LOGIN")
    await a.told("owner.lost")
    await a.told("lease.lost", run_id=run_id)
    await a.ready()
    assert a.events("run.completed") == []
    assert (await cluster.result(a, run_id))["result"] == "by b"


async def test_sigterm_hands_runs_over_at_once_without_waiting_for_the_ttl(
    cluster: Cluster, database: AsyncEngine
) -> None:
    a, b = await cluster.start("a", "b", ttl=60.0)
    parked = await cluster.run(a, "cluster.waits")
    async with cluster.holding() as release, httpx.AsyncClient(timeout=40) as poller:
        busy = await cluster.run(a, "cluster.both", input={"key": "k"})
        await eventually(lambda: cluster.ledger == ["k a"])
        url = f"{a.url}/continuum/orders/runs/{parked}/await"
        polling = asyncio.ensure_future(poller.get(url, params={"timeout": 30}))
        await asyncio.sleep(0.3)  # the request is on its way; when it has arrived cannot be seen from here
        began = time.monotonic()
        a.send(signal.SIGTERM)
        said = await polling
        assert said.status_code == 202, "a long poll is answered at once"
        assert time.monotonic() - began < 5
        release()
    await a.ended()  # by the signal in the end: uvicorn raises it again when it is done
    assert [event["complete"] for event in a.events("instance.drained", "instance.stopped")[:1]] == [True]
    assert len(a.events("instance.stopped")) == 1
    assert time.monotonic() - began < 10
    assert await owner_of(database, parked) is None or await owner_of(database, parked) == "b"
    async with database.connect() as connection:
        assert list(await connection.execute(text("SELECT DISTINCT crashes FROM continuum_runs"))) == [(0,)]
        owners = await connection.execute(text("SELECT node FROM continuum_owners"))
        assert owners.scalars().all() == ["b"]
    for run_id in (parked, busy):
        await cluster.signal(b, run_id, "on b")
    assert (await cluster.result(b, parked))["result"] == "on b"
    assert (await cluster.result(b, busy))["result"] == "k-after"
    assert cluster.ledger == ["k a", "k-after b"], "what was under way was finished, not repeated"
    assert time.monotonic() - began < 20, "not the 60 s of the TTL"


async def test_two_nodes_upgrade_one_empty_database_at_once(postgres_database: str, cluster: Cluster) -> None:
    await execute(postgres_database, "DROP SCHEMA public CASCADE")
    await execute(postgres_database, "CREATE SCHEMA public")
    a, b = await cluster.start("a", "b", migrations="upgrade", options=SILENT, advertise=NOWHERE)
    run_id = await cluster.run(a, "cluster.waits")
    await cluster.signal(b, run_id, 1)
    assert (await cluster.result(a, run_id))["result"] == 1
