"""`uvicorn service.app:app`: one instance per tenant, its REST API, its peers, its probes.

Every tenant is an instance with a database of its own. SIGTERM drains: `/readyz` turns 503, long polls are answered, runs
are handed over, and then the server ends (give it `--timeout-graceful-shutdown` longer than the drain).
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import continuum
from continuum import Children, http, logs
from service.settings import Settings

PREFIX = "/continuum"
PROBE_SECONDS = 2.0  # a readiness probe must answer before whoever asks gives up


def create_app(settings: Settings | None = None, **options: Any) -> FastAPI:
    """Return the application; `options` go to `continuum.children` on top of what the settings say."""
    chosen = settings or Settings()  # type: ignore[call-arg]  # from the environment
    for module in chosen.workflows.split(","):
        importlib.import_module(module.strip())
    engines = {name: create_async_engine(one.url, pool_pre_ping=True) for name, one in chosen.tenants.items()}
    tenants = Children()
    for name, tenant in chosen.tenants.items():
        tenants += continuum.children(
            name=name,
            engine=engines[name],
            schema=tenant.schema,
            node=chosen.node,
            migrations=chosen.migrations,
            lease_ttl=chosen.lease_ttl,
            drain_timeout=chosen.drain_timeout,
            required=len(engines) == 1,  # of several, one that is away must not keep the others from starting
            advertise_url=chosen.advertise_url,
            **options,
        )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for engine in engines.values():
                stack.push_async_callback(engine.dispose)  # ours: Continuum disposes of no engine of its host
            await stack.enter_async_context(continuum.lifespan(*tenants, on_sigterm=True))
            stack.enter_context(calm_collector())
            yield

    app = FastAPI(title="Continuum", version=continuum.__version__, lifespan=lifespan)
    guard = [Depends(Bearer(chosen.api_token))]
    app.include_router(
        http.router(prefix=PREFIX, instances=list(engines), dependencies=guard, peer_secret=chosen.peer_secrets)
    )
    _add_probes(app, engines)
    return app


@contextmanager
def calm_collector() -> Iterator[None]:
    """Let the garbage collector look at less, less often: what is loaded is frozen.

    Python's own thresholds (a look at the young every 700 objects) are made for small heaps: with a thousand runs in
    flight a quarter of the processor goes into looking at objects that are all alive. For a process of one's own.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class Bearer:
    """A dependency that asks clients for the API token, if there is one."""

    def __init__(self, token: SecretStr | None) -> None:
        self._token = token

    async def __call__(
        self, given: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
    ) -> None:
        """Refuse who does not know it."""
        if self._token is None:
            return
        known = self._token.get_secret_value().encode()
        if given is None or not secrets.compare_digest(given.credentials.encode(), known):
            raise HTTPException(401, "a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})


def _add_probes(app: FastAPI, engines: dict[str, AsyncEngine]) -> None:
    @app.get("/livez", tags=["probes"], summary="Does the process answer? The database is not asked.")
    async def livez() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/readyz", tags=["probes"], summary="Does a tenant take work?", responses={503: {"description": "No."}})
    async def readyz(response: Response) -> dict[str, str]:
        states = await asyncio.gather(*(_state(name, engine) for name, engine in engines.items()))
        takes_work = "ready" in states and not {"draining", "drained"} & set(states)  # one may be away: it has a probe
        response.status_code = 200 if takes_work else 503
        return dict(zip(engines, states, strict=True))


async def _state(name: str, engine: AsyncEngine) -> str:
    state = continuum.readiness(instance=name).state
    if state != "ready":
        return state
    try:
        async with asyncio.timeout(PROBE_SECONDS), engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except Exception:  # noqa: BLE001  # whatever a driver raises: there is no work to be done without the database
        return "database-away"
    return state


def __getattr__(name: str) -> FastAPI:
    """Make `app` when a server asks for it: importing this module alone reads no environment."""
    if name == "app":
        settings = Settings()  # type: ignore[call-arg]  # from the environment
        logs.configure(settings.log_format, level=settings.log_level)
        made = globals()["app"] = create_app(settings)
        return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
