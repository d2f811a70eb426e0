"""A signal posted to the wrong node reaches the owner by each road alone: HTTP, LISTEN, polling."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.cluster.nodes import NOWHERE, SILENT, Cluster
from tests.kill.conftest import count
from tests.support.eventually import eventually

SCANS: dict[str, Any] = {**SILENT, "signal_router": {"catch_up": 0.5}}


async def test_a_signal_to_the_wrong_node_goes_to_its_owner_by_http(cluster: Cluster) -> None:
    owner, other = await cluster.start("a", "b", options=SILENT, is_deaf=True)
    run_id = await cluster.run(owner, "cluster.waits")
    await cluster.signal(other, run_id, 7)
    assert (await cluster.result(other, run_id, within=10))["result"] == 7
    forwarded = await other.told("run.forwarded")
    assert (forwarded["run_id"], forwarded["from_node"], forwarded["to_node"]) == (run_id, "b", "a")
    assert len(owner.events("run.completed")) == 1


async def test_by_listen_where_the_owner_cannot_be_called(cluster: Cluster) -> None:
    owner, other = await cluster.start("a", "b", options=SILENT, advertise=NOWHERE)
    for node in (owner, other):
        await node.told("listener.attached")
    run_id = await cluster.run(owner, "cluster.waits")
    await cluster.signal(other, run_id, 7)
    assert (await cluster.result(owner, run_id, within=10))["result"] == 7
    assert (await other.told("peer.failed"))["reason"] == "unreachable"
    assert other.events("run.forwarded") == []


async def test_by_polling_where_notices_go_nowhere_either(cluster: Cluster) -> None:
    owner, other = await cluster.start("a", "b", options=SCANS, advertise=NOWHERE, is_deaf=True)
    run_id = await cluster.run(owner, "cluster.waits")
    await cluster.signal(other, run_id, 7)
    assert (await cluster.result(owner, run_id, within=10))["result"] == 7
    assert other.events("run.forwarded") == []


async def test_two_workers_behind_one_port_are_reached_all_the_same(cluster: Cluster, database: AsyncEngine) -> None:
    (pair,) = await cluster.start("pair", workers=2, options=SILENT)
    (other,) = await cluster.start("b", options=SILENT)
    await eventually(lambda: count(database, "SELECT count(*) = 3 FROM continuum_owners"))
    runs: list[str] = []

    async def start() -> str:
        async with httpx.AsyncClient() as once:  # a connection of its own, taken by whichever worker comes first
            said = await once.post(f"{pair.url}/continuum/orders/runs", json={"workflow": "cluster.waits"})
            return str(said.json()["run_id"])

    async def both_have_some() -> int:
        runs.extend(await asyncio.gather(*(start() for _ in range(8))))
        return await count(database, "SELECT count(DISTINCT lease_owner) = 2 FROM continuum_runs")

    await eventually(both_have_some)
    for number, run_id in enumerate(runs):  # one by one: all calls go over one connection, and so to one of the workers
        await cluster.signal(other, run_id, number)
        assert (await cluster.result(pair, run_id, within=15))["result"] == number
    assert (await other.told("peer.failed"))["reason"] == "shared"


async def test_an_activity_completed_elsewhere_without_any_wake_is_found_by_its_owner(cluster: Cluster) -> None:
    (owner,) = await cluster.start(
        "a",
        options={**SCANS, "activity_supervisor": False, "activity_dispatcher": False},
        advertise=NOWHERE,
        is_deaf=True,
    )
    run_id = await cluster.run(owner, "cluster.works", input={"key": "k"})
    await cluster.start("b", options={"run_supervisor": False}, advertise=NOWHERE, is_deaf=True)
    assert (await cluster.result(owner, run_id, within=15))["result"] == "k"
    assert cluster.ledger == ["k b"]
    assert await cluster.types(owner, run_id) == ["started", "activity_scheduled", "activity_completed", "completed"]


async def test_a_cancel_on_another_node_is_honoured_by_the_owner(cluster: Cluster) -> None:
    owner, other = await cluster.start("a", "b", options=SILENT, is_deaf=True)
    run_id = await cluster.run(owner, "cluster.waits")
    said = await cluster.http.post(f"{other.url}/continuum/orders/runs/{run_id}/cancel")
    assert said.json() == {"status": "cancelled"}
    assert await cluster.state(other, run_id) == "cancelled"
    assert (await other.told("run.forwarded"))["to_node"] == "a"
    again = await cluster.http.post(f"{other.url}/continuum/orders/runs/{run_id}/cancel")
    assert again.status_code == 409
