"""The host that schemathesis calls: `python -m tests.http.fuzzed DATABASE_URL PORT`. The names are those of the examples."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import create_async_engine

import continuum
import continuum.http
from continuum import activity, workflow

NAME = "orders"
WAIT_MAX_SECONDS = 0.2  # thousands of waits of random length would last for hours

STRICT = ConfigDict(strict=True)  # pydantic's lax mode takes 0 for False, which a schema denies


class Order(BaseModel):
    model_config = STRICT
    id: str
    cents: int


class Verdict(BaseModel):
    model_config = STRICT
    ok: bool


@activity
async def charge(order: Order) -> int:
    return order.cents


@workflow(name="orders.fulfil", signals={"fraud_review": Verdict})
async def fulfil(order: Order) -> dict[str, Any]:
    paid = await charge(order)
    if paid % 2:
        raise ValueError("odd")
    verdict = await continuum.wait_signal("fraud_review", Verdict)
    return {"paid": paid, "ok": verdict.ok}


@workflow(name="orders.remind")
async def remind(order_id: str) -> str:
    return order_id


def host(url: str) -> FastAPI:
    """Return an application whose database is at `url`."""
    children = continuum.children(name=NAME, engine=create_async_engine(url), migrations="upgrade")

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with children:
            yield

    app = FastAPI(title="Fuzzed", version="1", lifespan=lifespan)
    app.include_router(continuum.http.router(typed=True, wait_max=WAIT_MAX_SECONDS))
    return app


if __name__ == "__main__":
    uvicorn.run(host(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
