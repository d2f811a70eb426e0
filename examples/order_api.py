"""A FastAPI host places orders in the request's own transaction: the row and its run commit together, or neither does.

    python examples/order_api.py                      # on the file orders.db: places, refuses, pays, prints what became
    CONTINUUM_DATABASE_URL=postgresql+asyncpg://localhost/shop python examples/order_api.py
    uvicorn examples.order_api:app

No outbox, no worker that carries rows over, no request that is answered before its run is safe. The session is the one
that FastAPI injects anyway; `session=session` is all that the endpoints say about it.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import continuum
from continuum import activity, children, workflow

engine = create_async_engine(os.environ.get("CONTINUUM_DATABASE_URL", "sqlite+aiosqlite:///orders.db"))
Sessions = async_sessionmaker(engine, expire_on_commit=False)
shop = children(name="shop", engine=engine, migrations="upgrade")


class Base(DeclarativeBase):
    """The host's own tables."""


class Order(Base):
    """An order, and the run that fulfils it."""

    __tablename__ = "shop_orders"

    id: Mapped[str] = mapped_column(primary_key=True)
    item: Mapped[str]
    state: Mapped[str]
    run_id: Mapped[str]


class Wish(BaseModel):
    """What a customer sends."""

    item: str
    left: int = 1  # of it, in stock


@activity
async def ship(order_id: str, receipt: str) -> str:
    """Send it off; a real one would hand `activity_context().idempotency_key` to the carrier."""
    return f"{order_id} shipped, {receipt}"


@workflow(name="shop.fulfil", signals={"paid": str})
async def fulfil(order_id: str) -> str:
    """Wait for the money, then ship."""
    receipt = await continuum.wait_signal("paid", str)
    return await ship(order_id, receipt)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Host the instance, and the host's own tables."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with continuum.lifespan(*shop):
        yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def transaction() -> AsyncIterator[AsyncSession]:
    """One transaction per request: committed if the endpoint returns, rolled back if it raises."""
    async with Sessions() as session, session.begin():
        yield session


# scope="function": the commit comes before the answer is sent. By default it comes after, and who was told that an order
# is placed would be wrong if the commit failed.
Session = Annotated[AsyncSession, Depends(transaction, scope="function")]


@app.post("/orders", status_code=202)
async def place(wish: Wish, session: Session) -> dict[str, str]:
    """Place an order."""
    order_id = f"o-{secrets.token_hex(4)}"
    run = await continuum.start(fulfil, order_id, instance="shop", session=session)
    session.add(Order(id=order_id, item=wish.item, state="placed", run_id=run.run_id))
    if wish.left < 1:
        raise HTTPException(409, f"no {wish.item} left")  # neither the row nor the run will ever exist
    return {"id": order_id, "run": run.run_id}


@app.post("/orders/{order_id}/payment")
async def pay(order_id: str, receipt: str, session: Session) -> dict[str, str]:
    """Note a payment and tell the run, both or neither; a retried webhook is noted and told once."""
    order = await session.get_one(Order, order_id)
    order.state = "paid"
    told = await continuum.signal(order.run_id, "paid", receipt, delivery_id=receipt, instance="shop", session=session)
    return {"state": order.state, "told": told}


@app.delete("/orders/{order_id}")
async def cancel(order_id: str, session: Session) -> dict[str, str]:
    """Take an order back: the run is cancelled as soon as this is committed."""
    order = await session.get_one(Order, order_id)
    order.state = "cancelled"
    return {"state": order.state, "run": await continuum.cancel(order.run_id, instance="shop", session=session)}


async def main() -> dict[str, Any]:
    """Play a short day at the shop."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
    ):
        placed = (await client.post("/orders", json={"item": "keyboard"})).json()
        refused = await client.post("/orders", json={"item": "mouse", "left": 0})
        told = [(await client.post(f"/orders/{placed['id']}/payment?receipt=r-1")).json()["told"] for _ in range(2)]
        shipped = await continuum.await_run(placed["run"], fulfil, instance="shop", timeout=30)
        taken_back = (await client.post("/orders", json={"item": "lamp"})).json()
        cancelled = (await client.delete(f"/orders/{taken_back['id']}")).json()["state"]
        return {"shipped": shipped, "refused": refused.status_code, "told": told, "cancelled": cancelled}


if __name__ == "__main__":
    print(asyncio.run(main()))
