"""A host process for the kill tests of `session=`: it takes orders, each in one transaction of its own.

An order is a row, a run that ships it, and a signal to the run that keeps the tally: all by `session=`. Every third
order is refused after all that, and rolled back. With `at` the process sends itself SIGKILL before its n-th step of
the second order: a statement, the COMMIT, or what follows it. Without, it takes orders until it is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

import continuum
from continuum import workflow

ORDERS = "CREATE TABLE orders (id text PRIMARY KEY, run_id text NOT NULL)"
CLOSE = "close"


@dataclass(frozen=True)
class Orders:
    """What a host process is to do."""

    url: str
    name: str
    tally: str  # the run that is told of each order
    at: int | None = None  # the step of its second order at which it dies


say: Callable[[dict[str, Any]], None]


class Steps:
    """Counts the steps of the host's transactions, and ends the process at one of them."""

    def __init__(self, engine: AsyncEngine, at: int | None) -> None:
        self._at = at
        self._count = 0
        self.is_armed = False
        event.listen(engine.sync_engine, "before_cursor_execute", self.step)
        event.listen(engine.sync_engine, "commit", self.step)

    def step(self, *_: object) -> None:
        """Go on, or die."""
        self._count += self.is_armed
        if self._count == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


@workflow(name="kill.ship")
async def ship(order: str) -> str:
    """Be what has to happen for an order."""
    return order


@workflow(name="kill.tally")
async def tally() -> list[str]:
    """Gather what was placed."""
    placed: list[str] = []
    while (order := await continuum.wait_signal("placed", str)) != CLOSE:
        placed.append(order)
    return placed


class Refused(Exception):
    """The host changes its mind."""


async def place(engine: AsyncEngine, order: str, told: str, *, refused: bool) -> None:
    """Take an order, as a request handler would."""
    async with AsyncSession(engine) as session, session.begin():
        run = await continuum.start(ship, order, session=session)
        await session.execute(
            text("INSERT INTO orders VALUES (:order, :run_id)"), {"order": order, "run_id": run.run_id}
        )
        await continuum.signal(told, "placed", order, delivery_id=order, session=session)
        if refused:
            raise Refused


async def main(orders: Orders) -> None:
    """Run the host."""
    engine = create_async_engine(orders.url)
    steps = Steps(engine, orders.at)
    async with continuum.application(engine, lease_ttl=1.0, workflows=[ship]):
        for number in count(1):
            steps.is_armed = number > 1
            order = f"{orders.name}-{number}"
            try:
                await place(engine, order, orders.tally, refused=number % 3 == 0)
                steps.step()
                say({"placed": order})
            except Refused:
                say({"refused": order})


def run(orders: Orders, said: Connection) -> None:
    """Be a host process: the target of a fork."""
    global say  # noqa: PLW0603  # a process has one mouth
    say = said.send
    asyncio.run(main(orders))
