"""Example workflows: an order that is reviewed by a person, and a reminder that waits for days."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from pydantic import BaseModel, Field

import continuum
from continuum import Retry, activity, workflow

DEAR_CENTS = 10_000  # from here on a person must look at it


class Order(BaseModel):
    """What a customer wants."""

    id: str = Field(min_length=1)
    customer: str
    cents: int = Field(gt=0)


class Verdict(BaseModel):
    """What a reviewer says."""

    ok: bool
    by: str = "nobody"


class Receipt(BaseModel):
    """How it went."""

    order: str
    charge: str
    approved_by: str


@activity(retry=Retry(max_attempts=5), idempotency_key=lambda order: order.id)
async def charge(order: Order) -> str:
    """Charge the customer: here stands a call to a payment provider, with the idempotency key of the attempt."""
    return f"charge-{order.id}"


@workflow(name="orders.fulfil", signals={"review": Verdict}, retention=timedelta(days=30))
async def fulfil(order: Order) -> Receipt:
    """Charge an order once somebody has approved it; dear ones only."""
    verdict = Verdict(ok=True)
    if order.cents >= DEAR_CENTS:
        verdict = await continuum.wait_signal("review", Verdict, timeout=timedelta(hours=24))
    if not verdict.ok:
        raise continuum.ActivityError(f"order {order.id} was rejected by {verdict.by}", retryable=False)
    return Receipt(order=order.id, charge=await charge(order), approved_by=verdict.by)


@workflow(name="orders.remind")
async def remind(order_id: str, days: int = 3) -> str:
    """Wait for days, through every deploy in between."""
    await asyncio.sleep(days * 86_400)
    return f"order {order_id} is still open"
