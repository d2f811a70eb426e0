"""A node process that books transfers between accounts in transactional activities.

With `run` it starts one run of that id, and with `at` it sends itself SIGKILL at the n-th of its statements on the host's
engine: right before it, or (`after`) when the database has answered it. COMMIT counts as a statement. Without `run` it
works off what there is until it is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import continuum
from continuum import Retry, activity, activity_context, workflow

TABLES = (
    "CREATE TABLE accounts (name text NOT NULL, cents bigint NOT NULL)",
    "CREATE TABLE transfers (run_id text NOT NULL, debit text NOT NULL, credit text NOT NULL, cents bigint NOT NULL)",
)  # without a single key: nothing here would refuse a second booking
FAST = {"interval": 0.05}


Moment = Literal["before", "after"]


@dataclass(frozen=True)
class Orders:
    """What a node process is to do."""

    url: str
    run: str | None = None
    at: int = 0
    when: Moment = "before"
    ttl: float = 30.0


class OurSession(AsyncSession):
    """The host's own session class, whose commits can be counted."""

    class Sync(Session):
        """What is below it."""

    sync_session_class = Sync


@activity(transactional=True, retry=Retry(max_attempts=100, initial=0.01, max_delay=0.05))
async def transfer(session: OurSession, debit: str, credit: str, cents: int) -> str:
    """Move money, and write down that it was moved."""
    changes = sorted([(debit, -cents), (credit, cents)])
    for name, change in changes:
        await session.execute(
            text("UPDATE accounts SET cents = cents + :change WHERE name = :name"), {"change": change, "name": name}
        )
    row = {"run_id": activity_context().run_id, "debit": debit, "credit": credit, "cents": cents}
    await session.execute(text("INSERT INTO transfers VALUES (:run_id, :debit, :credit, :cents)"), row)
    return f"{debit} paid {credit} {cents}"


@workflow(name="kill.pay")
async def pay(debit: str, credit: str, cents: int) -> str:
    """Perform one transfer."""
    return await transfer(debit, credit, cents)


def watch(engine: AsyncEngine, orders: Orders) -> None:
    """End the process at a statement."""
    seen = 0

    def before(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if (seen, "before") == (orders.at, orders.when):
            os.kill(os.getpid(), signal.SIGKILL)

    def after(*_: Any) -> None:
        if (seen, "after") == (orders.at, orders.when):
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(engine.sync_engine, "before_cursor_execute", before)
    event.listen(engine.sync_engine, "commit", before)
    event.listen(OurSession.Sync, "after_commit", after)


async def main(orders: Orders, say: Callable[[dict[str, Any]], None]) -> None:
    """Run the node."""
    engine = create_async_engine(orders.url)
    watch(engine, orders)
    async with continuum.application(
        engine, lease_ttl=orders.ttl, dispatcher=FAST, activity_dispatcher=FAST, recovery={"interval": 0.1}
    ):
        say({"up": os.getpid()})
        if orders.run is None:
            await asyncio.Event().wait()  # for the kill
        run = await continuum.start(pay, "alice", "bob", 7, run_id=orders.run)
        say({"result": await run.result(timeout=30)})
    await engine.dispose()


def run(orders: Orders, said: Connection) -> None:
    """Be a node process: the target of a fork."""
    asyncio.run(main(orders, said.send))
