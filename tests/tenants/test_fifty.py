"""One process with fifty tenants: fifty databases, and fifty schemas of one; how many connections, threads and tasks."""

import asyncio
import contextlib
import io
import shutil
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import continuum
import continuum.http
from continuum import (
    Children,
    ConfigurationError,
    InstanceNotRegistered,
    InstanceNotStarted,
    activity,
    children,
    telemetry,
    workflow,
)
from continuum.cli.migrating import print_sql
from tests.support.eventually import eventually
from tests.support.hosting import QUICK, wiring_of
from tests.support.postgres import connect, execute, fresh_database

FIFTY = 50
IDLE_MAX = 3  # connections to PostgreSQL of a tenant that rests: it reads, listens, and renews its owner row
BUSY_MAX = 5  # and of one that works: two lanes more

# Everything that is on by default, at the pace that it has by default; leases are renewed a little more often.
OPTIONS: dict[str, Any] = {"node": "here", "lease_ttl": 12.0}


@activity
async def whose() -> str:
    return continuum.activity_context().instance


@workflow
async def answering(word: str) -> str:
    name = await whose()
    return f"{name} {await continuum.wait_signal('word', str)} {word}"


Places = dict[str, tuple[str, str | None]]  # of each tenant, the URL and the schema


@pytest.fixture
async def engines(
    request: pytest.FixtureRequest, sqlite_template: Path, migrated_postgres: str, postgres_url: str, tmp_path: Path
) -> AsyncIterator[dict[str, tuple[AsyncEngine, str | None]]]:
    """An engine and a schema for each tenant."""
    async with AsyncExitStack() as stack:
        if request.param == "schemas":
            places = await schemas(stack, postgres_url)
        else:
            places = await databases(stack, postgres_url, migrated_postgres, sqlite_template, tmp_path)
        made = {url: create_async_engine(url) for url, _ in places.values()}
        for engine in made.values():
            stack.push_async_callback(engine.dispose)
        yield {name: (made[url], schema) for name, (url, schema) in places.items()}


async def databases(stack: AsyncExitStack, server: str, template: str, file: Path, folder: Path) -> Places:
    """Forty-two SQLite files and eight PostgreSQL databases, copies of one that is migrated."""
    places: Places = {}
    for n in range(FIFTY - 8):
        places[f"t{n:02}"] = (f"sqlite+aiosqlite:///{shutil.copy(file, folder / f't{n}.db')}", None)
    for n in range(FIFTY - 8, FIFTY):
        places[f"t{n:02}"] = (await stack.enter_async_context(fresh_database(server, template=template)), None)
    return places


async def schemas(stack: AsyncExitStack, server: str) -> Places:
    """Fifty schemas of one database, made by the script that `continuum migrate --sql` prints."""
    url = await stack.enter_async_context(fresh_database(server))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        await asyncio.get_running_loop().run_in_executor(None, print_sql, make_url(url), "tenant_xx")
    connection = await connect(url)
    for n in range(FIFTY):
        await connection.execute(printed.getvalue().replace("tenant_xx", f"tenant_{n:02}"))
    await connection.close()
    return {f"t{n:02}": (url, f"tenant_{n:02}") for n in range(FIFTY)}


async def connections(url: str) -> Counter[str]:
    """Count this process's connections to a server by the tenant that holds them."""
    connection = await connect(url)
    try:
        rows = await connection.fetch(
            "SELECT application_name AS name FROM pg_stat_activity WHERE application_name LIKE 'continuum:t%'"
        )
    finally:
        await connection.close()
    return Counter(row["name"].partition(":")[2] for row in rows)


@pytest.mark.parametrize("engines", ["databases", "schemas"], indirect=True)
async def test_fifty_tenants_live_in_one_process(
    engines: dict[str, tuple[AsyncEngine, str | None]], postgres_url: str
) -> None:
    tenants = {name: children(name=name, engine=e, schema=schema, **OPTIONS) for name, (e, schema) in engines.items()}
    on_postgres = {name for name, (engine, _) in engines.items() if engine.dialect.name == "postgresql"}
    assert await connections(postgres_url) == {}  # nothing is opened before it is entered
    async with continuum.lifespan(*tenants.values(), on_sigterm=False):
        assert {continuum.readiness(instance=name).state for name in tenants} == {"ready"}
        idle = await connections(postgres_url)
        assert set(idle) == on_postgres
        assert max(idle.values()) <= IDLE_MAX
        await work(tenants)
        busy = await connections(postgres_url)
        assert max(busy.values()) <= BUSY_MAX
        assert [thread.name for thread in threading.enumerate()].count("continuum-heartbeat") == 1
    await eventually(lambda: no_connections(postgres_url))
    for one in tenants.values():
        one.forget()


async def work(tenants: dict[str, Children]) -> None:
    """Let every tenant run one and the same run id, each to an end of its own."""
    chosen = uuid4()
    runs = await asyncio.gather(
        *(continuum.start(answering, "please", instance=name, run_id=chosen) for name in tenants)
    )
    for name, run in zip(tenants, runs, strict=True):
        await run.signal("word", name.upper())
    ended = await asyncio.gather(*(run.result(timeout=30) for run in runs))
    assert ended == [f"{name} {name.upper()} please" for name in tenants]
    for name in list(tenants)[:: FIFTY // 5]:
        assert [run.run_id for run in (await continuum.list_runs(instance=name)).items] == [str(chosen)]


async def no_connections(url: str) -> bool:
    return not await connections(url)


# --- coming and going -------------------------------------------------------------------------------------------------


def sqlite(template: Path, path: Path) -> AsyncEngine:
    return create_async_engine(f"sqlite+aiosqlite:///{shutil.copy(template, path)}")


async def test_a_tenant_comes_and_goes_while_the_others_work(sqlite_template: Path, tmp_path: Path) -> None:
    """A host that adds a customer, and lets one go, without a restart."""
    engines = {name: sqlite(sqlite_template, tmp_path / f"{name}.db") for name in ("staying", "passing")}
    staying = children(name="staying", engine=engines["staying"], **OPTIONS)
    app = FastAPI()
    app.include_router(continuum.http.router(prefix="/c"))
    door = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host")
    async with continuum.lifespan(*staying, on_sigterm=False), door:
        waiting = await continuum.start(answering, "before", instance="staying")
        assert (await door.get("/c/passing/health/live")).status_code == 404
        for _ in range(2):  # the same one may come again
            passing = children(name="passing", engine=engines["passing"], **OPTIONS)
            async with passing:
                assert (await door.get("/c/passing/health/ready")).status_code == 200
                run = await continuum.start(answering, "in between", instance="passing")
                during = await continuum.start(answering, "during", instance="staying")
                await run.signal("word", "on")
                assert await run.result(timeout=15) == "passing on in between"
                with pytest.raises(ConfigurationError, match="instance 'passing' is running: stop it"):
                    children(name="passing", engine=engines["passing"])
            assert (await door.get("/c/passing/health/ready")).status_code == 503
            with pytest.raises(InstanceNotStarted):
                await continuum.start(answering, "too late", instance="passing")
            passing.forget()
            with pytest.raises(InstanceNotRegistered, match=r"Registered: .*staying"):
                await continuum.start(answering, "too late", instance="passing")
            assert (await door.get("/c/passing/health/live")).status_code == 404
            await during.signal("word", "on")
            assert await during.result(timeout=15) == "staying on during"
        await waiting.signal("word", "on")
        assert await waiting.result(timeout=15) == "staying on before"
    staying.forget()
    for engine in engines.values():
        await engine.dispose()


@activity
async def works() -> None:
    await gate.wait()


@workflow
async def working() -> None:
    await works()


gate = asyncio.Event()


async def test_each_tenant_has_limits_of_its_own(sqlite_template: Path, tmp_path: Path) -> None:
    """Twenty attempts wait in each; as many begin as the tenant may have at once, whatever the other has."""
    global gate  # noqa: PLW0603  an event belongs to a loop
    gate = asyncio.Event()
    limits = {"small": 2, "large": 7}
    engines = {name: sqlite(sqlite_template, tmp_path / f"{name}.db") for name in limits}
    tenants = [
        children(name=name, engine=engines[name], activity_supervisor={"max_concurrency": limit}, **OPTIONS)
        for name, limit in limits.items()
    ]
    async with continuum.lifespan(*tenants, on_sigterm=False):
        runs = [run for name in limits for run in await continuum.start_many([working.bound()] * 20, instance=name)]

        def begun() -> dict[str, int]:
            return {name: wiring_of(continuum.instance(name)).attempts.running for name in limits}

        await eventually(lambda: begun() == limits)
        gate.set()
        await asyncio.gather(*(run.result(timeout=30) for run in runs))
    for one in tenants:
        one.forget()
    for engine in engines.values():
        await engine.dispose()


# --- one that goes down -----------------------------------------------------------------------------------------------


async def test_a_tenant_whose_database_goes_down_does_not_disturb_the_others(
    postgres_url: str, migrated_postgres: str
) -> None:
    heard: list[telemetry.TelemetryEvent] = []
    async with (
        fresh_database(postgres_url, template=migrated_postgres) as up,
        fresh_database(postgres_url, template=migrated_postgres) as down,
    ):
        engines = {"up": create_async_engine(up), "down": create_async_engine(down)}
        tenants = [children(name=name, engine=engine, **QUICK) for name, engine in engines.items()]
        telemetry.attach(heard.append)
        async with continuum.lifespan(*tenants, on_sigterm=False):
            runs = {name: await continuum.start(answering, "then", instance=name) for name in engines}
            await taken_down(postgres_url, down)
            before = len(heard)
            for n in range(20):
                run = await continuum.start(answering, str(n), instance="up")
                await run.signal("word", "on")
                assert await run.result(timeout=15) == f"up on {n}"
            await eventually(lambda: continuum.readiness(instance="down").state == "degraded")
            assert continuum.readiness(instance="up").state == "ready"
            troubles = {"loop.crashed", "lease.renewal_failed", "owner.lost", "lease.lost", "commit.ambiguous"}
            assert {e.metadata["instance"] for e in heard[before:] if e.name in troubles} == {"down"}
            await execute(postgres_url, f'ALTER DATABASE "{make_url(down).database}" ALLOW_CONNECTIONS true')
            for name, run in runs.items():
                await eventually(partial(is_ready, name))
                await run.signal("word", "on")
                assert await run.result(timeout=15) == f"{name} on then"
        telemetry.detach(heard.append)
        for one in tenants:
            one.forget()
        for engine in engines.values():
            await engine.dispose()


def is_ready(name: str) -> bool:
    return continuum.readiness(instance=name).state == "ready"


async def taken_down(server: str, url: str) -> None:
    """Let nobody into a database, and throw out who is there."""
    name = make_url(url).database
    await execute(server, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    await execute(server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
