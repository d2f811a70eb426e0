"""What a cluster node serves: the deployable host of `service/`, with polls as quick or slow as the test wants.

It is read by uvicorn in a process of its own. What Continuum's telemetry tells goes to a file, one JSON object a line,
together with the road by which each message came.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import create_async_engine

import continuum
import continuum.http
from continuum import activity, telemetry, workflow
from service.app import create_app
from tests.cluster.traced import trace

OPTIONS, LOG, LEDGER, DEAF = "CLUSTER_OPTIONS", "CLUSTER_LOG", "CLUSTER_LEDGER", "CLUSTER_DEAF"
TESTS, SPANS = "CLUSTER_TESTS", "CLUSTER_SPANS"


@activity(timeout=None)
async def effect(key: str) -> str:
    """Append to the ledger; while the file `<ledger>.hold` exists, last."""
    ledger = Path(os.environ[LEDGER])
    with ledger.open("a") as file:
        file.write(f"{key} {os.environ['CONTINUUM_NODE']}\n")
    while Path(f"{ledger}.hold").exists():
        await asyncio.sleep(0.02)
    return key


@workflow(name="cluster.waits")
async def waits() -> Any:
    """Wait for a signal and return it."""
    return await continuum.wait_signal("go", object)


@workflow(name="cluster.works")
async def works(key: str) -> str:
    """Perform one activity."""
    return await effect(key)


@workflow(name="cluster.both")
async def both(key: str) -> str:
    """Perform one activity, then wait for a signal, then perform another."""
    await effect(key)
    await continuum.wait_signal("go", object)
    return await effect(f"{key}-after")


def _die_with_the_tests() -> None:
    """End this process, and the supervisor of several workers, when the tests are gone, however they ended."""
    while psutil.pid_exists(int(os.environ[TESTS])):
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


def _prepare() -> None:
    threading.Thread(target=_die_with_the_tests, daemon=True).start()
    log = Path(os.environ[LOG]).open("a", buffering=1)  # noqa: SIM115  # for as long as the process lives

    def tell(event: telemetry.TelemetryEvent) -> None:
        log.write(json.dumps({"name": event.name, **event.metadata, **event.measurements}, default=str) + "\n")

    telemetry.attach(tell)
    if os.environ.get(DEAF):  # LISTEN leads nowhere, as behind a pooler that passes no notices on

        async def nothing(self: Any, notices: Any) -> None: ...

        from continuum.journal.sql.journal import SqlJournal

        SqlJournal.notify = nothing  # type: ignore[method-assign]


def make() -> FastAPI:
    """Return the deployable host."""
    _prepare()
    return create_app(**json.loads(os.environ[OPTIONS]))


def make_traced() -> FastAPI:
    """Return the deployable host, traced."""
    return trace(make(), Path(os.environ[SPANS]))


def make_two() -> FastAPI:
    """Return a host with two instances behind a router each, with secrets of their own."""
    _prepare()
    app = FastAPI()
    both = continuum.Children()
    for name in ("orders", "billing"):
        prefix = f"/{name}-api"
        both += continuum.children(
            name=name,
            engine=create_async_engine(os.environ[f"CONTINUUM_TENANTS__{name}"]),
            node=os.environ["CONTINUUM_NODE"],
            advertise_url=os.environ["CONTINUUM_ADVERTISE_URL"].replace("/continuum", prefix),
            **json.loads(os.environ[OPTIONS]),
        )
        app.include_router(continuum.http.router(prefix=prefix, instances=[name], peer_secret=f"of {name}"))
    app.router.lifespan_context = lambda _app: continuum.lifespan(*both)

    @app.get("/readyz")
    async def readyz() -> None: ...

    return app
