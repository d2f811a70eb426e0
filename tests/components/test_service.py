"""The deployable host: what it reads from the environment, its probes, its token, its size."""

import json
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

import continuum
import service.app
from continuum.composition.building import instances
from continuum.definitions.catalog import scoped_catalog
from continuum.errors import ConfigurationError
from service.settings import Settings

ROOT = Path(service.app.__file__).parent
ORDER = {"order": {"id": "o-1", "customer": "c-1", "cents": 4_200}}


@pytest.fixture(autouse=True)
def _its_workflows_are_its_own() -> Iterator[None]:
    """Leave nothing behind in the catalog that all tests share."""
    sys.modules.pop("service.workflows", None)
    with scoped_catalog():
        yield
    sys.modules.pop("service.workflows", None)
    for name in ("orders", "billing"):
        if (known := instances.known(name)) is not None:
            known.forget()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> pytest.MonkeyPatch:
    monkeypatch.setenv("CONTINUUM_TENANTS__orders", sqlite_url)
    monkeypatch.setenv("CONTINUUM_API_TOKEN", "let me in")
    return monkeypatch


@pytest.fixture
async def app(environment: pytest.MonkeyPatch) -> AsyncIterator[FastAPI]:
    made = service.app.create_app()
    async with made.router.lifespan_context(made):
        yield made


def caller(app: FastAPI, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host", headers=headers)


async def test_it_runs_an_order_for_whoever_has_the_token(app: FastAPI) -> None:
    async with caller(app) as stranger, caller(app, Authorization="Bearer let me in") as client:
        body = {"workflow": "orders.fulfil", "input": ORDER}
        assert (await stranger.post("/continuum/orders/runs", json=body)).status_code == 401
        wrong = {"Authorization": "Bearer let me out"}
        assert (await stranger.post("/continuum/orders/runs", json=body, headers=wrong)).status_code == 401
        said = await client.post("/continuum/orders/runs", json=body, headers={"Prefer": "wait=15"})
        assert said.json()["result"] == {"order": "o-1", "charge": "charge-o-1", "approved_by": "nobody"}
        dear = {"order": {**ORDER["order"], "cents": 10_000}}
        run = (await client.post("/continuum/orders/runs", json={**body, "input": dear})).json()["run_id"]
        signalled = await client.post(f"/continuum/orders/runs/{run}/signals/review", json={"ok": False, "by": "me"})
        assert signalled.status_code == 202
        ended = (await client.get(f"/continuum/orders/runs/{run}/await", params={"timeout": 15})).json()
        assert ended["state"] == "failed"
        assert "rejected by me" in ended["error"]["message"]


async def test_probes_need_no_token_and_tell_a_drain(app: FastAPI) -> None:
    async with caller(app) as client:
        assert (await client.get("/readyz")).json() == {"orders": "ready"}
        await continuum.drain(instance="orders")
        away = await client.get("/readyz")
        assert (away.status_code, away.json()) == (503, {"orders": "drained"})
        assert (await client.get("/livez")).status_code == 200


async def test_one_tenant_of_several_that_is_away_takes_nobody_else_down(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("CONTINUUM_TENANTS__billing", f"postgresql+asyncpg://me@/app?host={tmp_path}")
    made = service.app.create_app()
    async with made.router.lifespan_context(made), caller(made, Authorization="Bearer let me in") as client:
        said = await client.get("/readyz")
        assert (said.status_code, said.json()) == (200, {"billing": "not_started", "orders": "ready"})
        away = await client.get("/continuum/billing/health/ready")
        assert (away.status_code, away.json()["state"]) == (503, "not_started")
        assert "cannot connect to postgresql+asyncpg://" in away.json()["details"][0]
        body = {"workflow": "orders.fulfil", "input": ORDER}
        refused = await client.post("/continuum/billing/runs", json=body)
        assert refused.status_code == 503
        assert "is tried again" in refused.json()["detail"]
        assert (await client.post("/continuum/orders/runs", json=body)).status_code == 202
        await continuum.drain(instance="orders")
        assert (await client.get("/readyz")).status_code == 503


def test_settings_come_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CONTINUUM_TENANTS__billing", "sqlite+aiosqlite:///b.db")
    environment.setenv("CONTINUUM_PEER_SECRET", "new, old")
    settings = Settings()  # type: ignore[call-arg]
    assert sorted(settings.tenants) == ["billing", "orders"]
    assert settings.peer_secrets == ["new", "old"]
    assert "new" not in repr(settings)


@pytest.mark.parametrize(("name", "value"), [("LOG_LEVEL", "loud"), ("WORKFLOWS", ""), ("WORKFLOWS", "shop.flows,")])
def test_a_setting_that_cannot_be_is_named(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(f"CONTINUUM_{name}", value)
    with pytest.raises(ValueError, match=name.lower()):
        Settings()  # type: ignore[call-arg]


def test_no_tenants_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONTINUUM_TENANTS__orders", "CONTINUUM_TENANTS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="tenants"):
        service.app.create_app()


async def test_an_advertised_url_without_a_secret_does_not_start(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CONTINUUM_ADVERTISE_URL", "http://10.0.0.5:8000/continuum")
    made = service.app.create_app()
    with pytest.raises(ConfigurationError, match="secret"):
        async with made.router.lifespan_context(made):
            pass


def test_it_stays_small() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in ROOT.glob("*.py"))
    assert lines < 250


def test_its_log_is_json_if_the_environment_says_so(
    environment: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("CONTINUUM_LOG_FORMAT", "json")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        assert isinstance(service.app.app, FastAPI)
        logging.getLogger("shop").info("open")
    finally:
        root.handlers[:], root.level = handlers, level
        del service.app.app
    assert json.loads(capfd.readouterr().err.splitlines()[-1])["message"] == "open"


def test_importing_it_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONTINUUM_TENANTS__orders", raising=False)
    with pytest.raises(AttributeError, match="apps"):
        _ = service.app.apps
