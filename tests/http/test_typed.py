"""`typed=True`: paths of their own for workflows and their signals."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

import continuum
import continuum.http
from continuum import workflow
from continuum.definitions.catalog import scoped_catalog
from tests.http.hosts import BASE, Verdict, caller, kind, pointers


class Order(BaseModel):
    id: str
    cents: int


class Receipt(BaseModel):
    order: str
    ok: bool


async def fulfil(order: Order, express: bool = False) -> Receipt:
    """Fulfil an order."""
    verdict = await continuum.wait_signal("fraud-review", Verdict)
    return Receipt(order=order.id, ok=verdict.ok and not express)


async def tidy() -> None:
    """Tidy up."""


@pytest.fixture
def host() -> FastAPI:
    made = FastAPI()
    with scoped_catalog():
        workflow(name="orders.fulfil", signals={"fraud-review": Verdict})(fulfil)
        workflow(name="a {name} that/is no path")(tidy)
        made.include_router(continuum.http.router(typed=True))
    return made


@pytest.fixture
async def typed(host: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    with scoped_catalog():
        workflow(name="orders.fulfil", signals={"fraud-review": Verdict})(fulfil)
        async with continuum.application(), caller(host, f"{BASE}/continuum") as client:
            yield client


RUNS = "/workflows/orders.fulfil/runs"


async def test_a_workflow_is_started_and_signalled_on_paths_of_its_own(typed: httpx.AsyncClient) -> None:
    answer = await typed.post(RUNS, json={"input": {"order": {"id": "o", "cents": 1}}, "attributes": {"a": 1}})
    run_id = answer.json()["run_id"]
    assert (answer.status_code, answer.json()["workflow"]) == (202, "orders.fulfil")
    assert answer.headers["location"] == f"/continuum/continuum/runs/{run_id}"
    signalled = await typed.post(f"{RUNS}/{run_id}/signals/fraud-review", json={"ok": True})
    assert signalled.json() == {"status": "delivered"}
    ended = await typed.get(f"/runs/{run_id}/await")
    assert ended.json()["result"] == {"order": "o", "ok": True}


async def test_a_typed_start_keeps_the_rules_of_a_start(typed: httpx.AsyncClient) -> None:
    body = {"input": {"order": {"id": "o", "cents": 1}}}
    keyed = {"Idempotency-Key": "k", "Prefer": "wait=0"}
    first, again = [await typed.post(RUNS, json=body, headers=keyed) for _ in range(2)]
    assert again.headers["idempotency-replayed"] == "true"
    by_name = await typed.post("/runs", json={"workflow": "orders.fulfil", **body}, headers=keyed)
    assert [answer.json()["run_id"] for answer in (again, by_name)] == [first.json()["run_id"]] * 2


async def test_misfits_are_pointed_at(typed: httpx.AsyncClient) -> None:
    answer = await typed.post(RUNS, json={"input": {"order": {"id": "o", "cents": "x"}, "extra": 1}})
    assert kind(answer) == (422, "input-invalid")
    assert sorted(pointers(answer)) == ["/input/extra", "/input/order/cents"]
    assert pointers(await typed.post(RUNS, json={})) == ["/input"]
    assert pointers(await typed.post(RUNS, json={"input": {}, "version": 1})) == ["/input/order", "/version"]


def test_the_schema_has_their_models(host: FastAPI) -> None:
    schema: dict[str, Any] = host.openapi()
    base = "/continuum/{instance}/workflows/orders.fulfil/runs"
    start = schema["paths"][base]["post"]
    assert (start["operationId"], start["description"]) == ("continuum_start_orders_fulfil", "Fulfil an order.")
    models = schema["components"]["schemas"]
    body = models[start["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]]
    assert body["properties"]["input"] == {"$ref": "#/components/schemas/OrdersFulfilRunInput"}
    assert "input" in body["required"]
    arguments = models["OrdersFulfilRunInput"]
    # Another model of this name in the process makes pydantic name both by their modules.
    assert arguments["properties"]["order"]["$ref"].endswith("Order")
    assert arguments["required"] == ["order"]
    ending = models[start["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]]
    assert any(one.get("$ref", "").endswith("Receipt") for one in ending["properties"]["result"]["anyOf"])
    signal = schema["paths"][f"{base}/{{run_id}}/signals/fraud-review"]["post"]
    assert signal["operationId"] == "continuum_signal_orders_fulfil_fraud_review"
    assert signal["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Verdict"}


def test_a_name_that_cannot_stand_in_a_path_is_left_to_the_path_that_takes_names(host: FastAPI) -> None:
    assert not [path for path in host.openapi()["paths"] if "no path" in path]
