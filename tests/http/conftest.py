"""A host of FastAPI that mounts our router, in front of an instance on every journal."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

import continuum.http
from continuum.composition.instance import Instance
from tests.http.hosts import BASE, caller
from tests.scenarios.conftest import app, database, database_of, place, postgres_scenarios, sqlite_template

__all__ = ["app", "database", "database_of", "place", "postgres_scenarios", "sqlite_template"]


@pytest.fixture(scope="session")
def host() -> FastAPI:
    """An application with our routes below /continuum."""
    made = FastAPI()
    made.include_router(continuum.http.router())
    return made


@pytest.fixture
async def http(host: FastAPI, app: Instance) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the instance "app", on each journal; its URLs are relative to the instance."""
    async with caller(host, f"{BASE}/{app.name}") as client:
        yield client


@pytest.fixture
async def memory(host: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the default instance, in memory: for claims that no journal changes."""
    async with continuum.application(), caller(host, f"{BASE}/continuum") as client:
        yield client
