"""The database goes away and comes back; a client is told to come again, and needs nobody to mend anything."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import make_url

import continuum
from continuum.client.wire import Position
from continuum.embedded_postgres import Server
from continuum.http import desk
from tests.http.hosts import BASE, asked, caller, doubled, kind, start, started
from tests.support.cutting import CuttingProxy
from tests.support.eventually import eventually

QUICK = {"interval": 0.1}


class Database:
    """A PostgreSQL behind a proxy that can be shut."""

    def __init__(self, server: Server) -> None:
        url = make_url(server.url)
        self._proxy = CuttingProxy(url.host or "", url.port or 0, share=0, cuts_max=0)
        self._url = url.set(host="127.0.0.1")

    @property
    def url(self) -> str:
        return self._url.set(port=self._proxy.port).render_as_string(hide_password=False)

    async def comes(self) -> None:
        await self._proxy.__aenter__()

    async def goes(self) -> None:
        await self._proxy.__aexit__(None, None, None)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(tcp=True) as server:
        yield server


@pytest.fixture
async def database(server: Server) -> AsyncIterator[Database]:
    database = Database(server)
    await database.comes()
    yield database
    await database.goes()


@pytest.fixture
async def client(host: FastAPI, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        continuum.application(
            database.url, migrations="upgrade", lease_ttl=60, dispatcher=QUICK, activity_dispatcher=QUICK
        ),
        caller(host, f"{BASE}/continuum") as client,
    ):
        yield client


async def test_what_needs_the_database_is_503_until_it_is_back(client: httpx.AsyncClient, database: Database) -> None:
    run_id = await started(client, asked)
    waiting = asyncio.create_task(client.get(f"/runs/{run_id}/await", params={"timeout": 1}))
    await asyncio.sleep(0.1)
    await database.goes()
    async with asyncio.timeout(20):
        refused = await asyncio.gather(
            start(client, doubled, n=1, headers={"Idempotency-Key": "k"}),
            client.post(f"/runs/{run_id}/signals/go", json=1, headers={"Idempotency-Key": "s"}),
            client.get(f"/runs/{run_id}"),
            client.get("/runs"),
            client.get(f"/runs/{run_id}/events"),
            waiting,
        )
    assert [kind(answer) for answer in refused] == [(503, "database-unavailable")] * 6
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    ready = await client.get("/health/ready")
    assert (ready.status_code, ready.json()["state"]) == (503, "degraded")
    assert (await client.get("/health/live")).status_code == 200
    await database.comes()

    async def is_ready() -> bool:
        return (await client.get("/health/ready")).status_code == 200

    await eventually(is_ready, within=30)
    keyed = {"Idempotency-Key": "k", "Prefer": "wait=30"}
    again = await start(client, doubled, n=1, headers=keyed)
    assert (again.status_code, again.json()["result"]) == (200, 4)
    repeated = await client.post(f"/runs/{run_id}/signals/go", json=1, headers={"Idempotency-Key": "s"})
    assert repeated.status_code == 202
    assert (await client.get(f"/runs/{run_id}/await")).json()["result"] == [1]


async def test_a_cancel_that_nobody_can_record_is_503(client: httpx.AsyncClient, database: Database) -> None:
    run_id = await started(client, asked)
    await database.goes()
    assert kind(await client.post(f"/runs/{run_id}/cancel")) == (503, "database-unavailable")
    await database.comes()
    await eventually(lambda: ended(client, run_id), within=30)  # it was only late
    assert (await client.get(f"/runs/{run_id}")).json()["state"] == "cancelled"


async def test_a_client_who_waits_for_a_run_elsewhere_hears_soon_of_a_database_that_is_silent(
    client: httpx.AsyncClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "PATIENCE_SECONDS", 0.3)
    elsewhere = await asyncpg.connect(server.url.replace("+asyncpg", ""))
    try:
        async with elsewhere.transaction():
            await elsewhere.execute("LOCK TABLE continuum_runs")
            async with asyncio.timeout(20):  # of the 25 that the client is willing to wait
                answer = await client.get(f"/runs/{uuid4()}/await", params={"timeout": 25})
    finally:
        await elsewhere.close()
    assert kind(answer) == (503, "database-unavailable")
    assert "within 0.3 s" in answer.json()["detail"]


async def ended(client: httpx.AsyncClient, run_id: str) -> bool:
    return (await client.get(f"/runs/{run_id}/await", params={"timeout": 1})).status_code == 200


async def test_a_stream_outlasts_an_outage(client: httpx.AsyncClient, database: Database) -> None:
    run_id = await started(client, asked)
    looks = continuum.instance("continuum").wire.follow(run_id, after=Position())
    assert [one.event.type for one in (await anext(looks)).events] == ["started"]
    await database.goes()
    assert (await anext(looks)).events == ()
    await database.comes()
    await eventually(lambda: delivered(client, run_id), within=30)
    seen = [one.event.type async for look in looks for one in look.events]
    assert seen == ["signal_received", "completed"]


async def delivered(client: httpx.AsyncClient, run_id: str) -> bool:
    keyed = {"Idempotency-Key": "once"}
    return (await client.post(f"/runs/{run_id}/signals/go", json=1, headers=keyed)).status_code == 202
