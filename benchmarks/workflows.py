"""The workflows that are measured."""

from __future__ import annotations

from pydantic import BaseModel

import continuum
from continuum import activity, workflow


class Order(BaseModel):
    """A small input, as real ones are."""

    id: str
    customer: str
    cents: int


@activity
async def add(a: int, b: int) -> int:
    """Do next to nothing."""
    return a + b


@workflow
async def one_step(n: int) -> int:
    """Perform one activity."""
    return await add(n, 1)


@workflow
async def ten_steps(n: int) -> int:
    """Perform ten activities, one after the other."""
    for _ in range(10):
        n = await add(n, 1)
    return n


@workflow
async def parked(order: Order) -> str:
    """Wait for a signal that never comes."""
    return await continuum.wait_signal("go", str)


@workflow
async def echo(order: Order) -> str:
    """Wait for a signal and return it."""
    return await continuum.wait_signal("go", str)
