"""Requests whose transactions commit or roll back: orders and runs agree, whatever the answer."""

import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from sqlalchemy import text

import continuum
from continuum import RunCancelled
from continuum.definitions.catalog import scoped_catalog

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "order_api.py"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}"
    database: str = request.getfixturevalue("postgres_database")
    return database


@pytest.fixture
async def shop(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ModuleType]:
    """The example, running on a fresh database."""
    monkeypatch.setenv("CONTINUUM_DATABASE_URL", url)
    spec = importlib.util.spec_from_file_location("order_api", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "order_api", module)
    with scoped_catalog():
        spec.loader.exec_module(module)
        async with module.app.router.lifespan_context(module.app):
            yield module
        module.shop.forget()


@pytest.fixture
async def client(shop: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(shop.app), base_url="http://shop") as client:
        yield client


async def standing(shop: Any) -> tuple[int, int]:
    """Return how many orders and how many runs there are."""
    async with shop.engine.connect() as connection:
        row = await connection.execute(
            text("SELECT (SELECT count(*) FROM shop_orders), (SELECT count(*) FROM continuum_runs)")
        )
        orders, runs = row.one()
        return orders, runs


async def test_an_order_is_placed_paid_once_and_shipped(shop: Any, client: httpx.AsyncClient) -> None:
    placed = await client.post("/orders", json={"item": "keyboard"})
    assert placed.status_code == 202
    order = placed.json()
    assert await standing(shop) == (1, 1)
    answers = [await client.post(f"/orders/{order['id']}/payment?receipt=r-1") for _ in range(2)]
    assert [answer.json()["told"] for answer in answers] == ["delivered", "duplicate"]
    result = await continuum.await_run(order["run"], instance="shop", timeout=15)
    assert result == f"{order['id']} shipped, r-1"


async def test_a_request_that_is_refused_leaves_neither_order_nor_run(shop: Any, client: httpx.AsyncClient) -> None:
    assert (await client.post("/orders", json={"item": "mouse", "left": 0})).status_code == 409
    assert await standing(shop) == (0, 0)


async def test_an_order_that_is_taken_back_cancels_its_run(shop: Any, client: httpx.AsyncClient) -> None:
    order = (await client.post("/orders", json={"item": "lamp"})).json()
    assert (await client.delete(f"/orders/{order['id']}")).json() == {"state": "cancelled", "run": "requested"}
    with pytest.raises(RunCancelled):
        await continuum.await_run(order["run"], instance="shop", timeout=15)
