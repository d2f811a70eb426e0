"""Who is believed, and who hears of whom."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

import continuum
from continuum.runtime.signing import Call, keys_of
from tests.cluster.nodes import SECRET, SILENT, Cluster
from tests.support.postgres import fresh_database


async def test_a_wake_that_is_not_believed_is_401_and_changes_nothing(cluster: Cluster, database: AsyncEngine) -> None:
    (owner,) = await cluster.start("a", options=SILENT, is_deaf=True)
    run_id = await cluster.run(owner, "cluster.waits")
    async with database.begin() as connection:
        lease = (await connection.execute(text("SELECT lease_owner FROM continuum_runs"))).scalar_one()
    before = await state_of(database)
    keys, body = keys_of("s", SECRET), json.dumps({"runs": [run_id]}).encode()
    now = datetime.now(UTC)  # the database runs on this machine
    url = f"{owner.url}/continuum/orders/wake"

    async def post(headers: dict[str, str], content: bytes = body) -> httpx.Response:
        return await cluster.http.post(url, content=content, headers=headers)

    call = Call("/orders/wake", lease, body)
    good = keys.sign(call, now)
    for headers, content in (
        ({}, body),
        ({"Continuum-To": lease}, body),
        (keys.sign(call, now - timedelta(minutes=1)), body),
        (keys.sign(call, now + timedelta(minutes=1)), body),
        (keys_of("s", "another").sign(call, now), body),
        (good, b'{"runs": []}'),
        ({**good, "Continuum-To": "b/orders/x/1"}, body),
        (keys.sign(Call("/orders/peer", lease, body), now), body),
    ):
        said = await post(headers, content)
        assert said.status_code == 401
        assert said.headers["content-type"] == "application/problem+json"
    assert (await post(keys.sign(Call("/orders/wake", "b/orders/x/1", body), now))).status_code == 421
    assert await state_of(database) == before
    assert await cluster.state(owner, run_id) == "suspended"
    assert (await post(good)).status_code == 204


async def state_of(database: AsyncEngine) -> list[object]:
    """Everything about runs that a wake could change."""
    async with database.connect() as connection:
        runs = await connection.execute(text("SELECT state, lease_owner, lease_token, last_seq FROM continuum_runs"))
        inbox = await connection.execute(text("SELECT id FROM continuum_inbox"))
        return [list(runs), list(inbox)]


async def test_two_routers_and_two_instances_share_nothing_but_the_run_id(cluster: Cluster, postgres_url: str) -> None:
    async with fresh_database(postgres_url) as url:
        await _migrate(url)
        cluster.tenants["billing"] = url
        owner, other = await cluster.start("a", "b", options=SILENT, is_deaf=True, factory="make_two")
        try:
            await both_of_one_id(cluster, owner.url, other.url)
            assert sorted({event["instance"] for event in other.events("run.forwarded")}) == ["billing", "orders"]
        finally:
            await cluster.close()  # before its database goes


async def both_of_one_id(cluster: Cluster, owner: str, other: str) -> None:
    run_id = "0190d5a8-0000-7000-8000-00000000beef"

    async def ask(method: str, base: str, tenant: str, path: str = "", **more: object) -> httpx.Response:
        url = f"{base}/{tenant}-api/{tenant}/runs{path}"
        return await cluster.http.request(method, url, **more)  # type: ignore[arg-type]

    for tenant in ("orders", "billing"):
        said = await ask("POST", owner, tenant, json={"workflow": "cluster.waits", "run_id": run_id})
        assert said.status_code == 202, said.text
    assert (await ask("POST", other, "orders", f"/{run_id}/signals/go", json="mine")).status_code == 202
    ended = await ask("GET", other, "orders", f"/{run_id}/await", params={"timeout": 10})
    assert ended.json()["result"] == "mine"
    assert (await ask("GET", other, "billing", f"/{run_id}")).json()["state"] == "suspended"
    assert (await cluster.http.get(f"{other}/orders-api/billing/runs")).status_code == 404
    began = time.monotonic()
    assert (await ask("POST", other, "billing", f"/{run_id}/signals/go", json="too")).status_code == 202
    ended = await ask("GET", other, "billing", f"/{run_id}/await", params={"timeout": 10})
    assert ended.json()["result"] == "too"
    assert time.monotonic() - began < 10


async def _migrate(url: str) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(url)
    try:
        await continuum.migrate(engine)
    finally:
        await engine.dispose()
