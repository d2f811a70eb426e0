"""The order workflow, its activities, the twenty orders, and what is expected to come of each.

What happens to an order follows from its number and amount, so that the end can be predicted: the card gateway fails at
the first try of every fourth order; a large order waits for the fraud team's signal, a small one passes when nobody has
objected for a second; the fraud team rejects one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from pydantic import BaseModel

import continuum
from continuum import Retry, activity, activity_context, workflow

LARGE_CENTS = 50_000  # from here on an order is shipped only after the fraud team's verdict
GATEWAY_FAILS_EVERY = 4  # orders
REJECTED = 12  # the order that the fraud team does not like
REVIEW_WITHIN = timedelta(minutes=10)  # longer than any take-over, so that a verdict always comes in time
OBJECT_WITHIN = timedelta(seconds=1)
PACKING_SECONDS = 0.5
SIGNAL = "fraud_review"


class Order(BaseModel):
    """What a customer wants."""

    number: int
    item: str
    cents: int


class Verdict(BaseModel):
    """What the fraud team says."""

    ok: bool
    by: str


class Receipt(BaseModel):
    """How an order ended."""

    number: int
    outcome: str
    charge: str
    approved_by: str
    label: str | None = None
    mail: str | None = None


class GatewayBusyError(Exception):
    """The card gateway answered 503, as it does at times."""


async def perform(name: str, seconds: float, *, fails: bool = False) -> None:
    """Note in the ledger that this attempt runs, and take the time that the real thing would take."""
    context = activity_context()
    context.state.write(run_id=context.run_id, activity=name, attempt=context.attempt, fails=fails)
    await asyncio.sleep(seconds)


@activity(name="demo.validate")
async def validate(order: Order) -> Order:
    """Check an order and tidy it up."""
    await perform("validate", 0.1)
    return order.model_copy(update={"item": order.item.strip().lower()})


@activity(name="demo.charge", retry=Retry(max_attempts=5, initial=0.2, backoff=2.0), timeout=timedelta(seconds=10))
async def charge(number: int, cents: int) -> str:
    """Charge the card; the gateway is busy now and then."""
    fails = number % GATEWAY_FAILS_EVERY == 0 and activity_context().attempt == 1
    await perform("charge", 0.2, fails=fails)
    if fails:
        raise GatewayBusyError(f"order {number}: 503, try again")
    return f"charge-{number}-{cents}"


@activity(name="demo.refund")
async def refund(charge_id: str) -> str:
    """Give the money back."""
    await perform("refund", 0.1)
    return f"refund-of-{charge_id}"


@activity(name="demo.ship")
async def ship(order: Order) -> str:
    """Hand the parcel over."""
    await perform("ship", 0.3)
    return f"parcel-{order.number}-{order.item}"


@activity(name="demo.notify")
async def notify(order: Order) -> str:
    """Mail the customer."""
    await perform("notify", 0.2)
    return f"mail-{order.number}"


@workflow(name="demo.order")
async def fulfil(order: Order) -> Receipt:
    """See an order through, whatever becomes of the processes meanwhile."""
    order = await validate(order)
    paid = await charge(order.number, order.cents)
    within = REVIEW_WITHIN if order.cents >= LARGE_CENTS else OBJECT_WITHIN
    try:
        verdict = await continuum.wait_signal(SIGNAL, Verdict, timeout=within)
    except TimeoutError:
        verdict = Verdict(ok=True, by="silence")
    if not verdict.ok:
        await refund(paid)
        return Receipt(number=order.number, outcome="refunded", charge=paid, approved_by=verdict.by)
    await asyncio.sleep(PACKING_SECONDS)  # a durable timer
    label, mail = await asyncio.gather(ship(order), notify(order))
    return Receipt(number=order.number, outcome="shipped", charge=paid, approved_by=verdict.by, label=label, mail=mail)


# --- the twenty orders, and what is expected --------------------------------------------------------------------------

ITEMS = ("Kettle", "Lamp", "Chair", "Bicycle", "Desk")


def the_orders(count: int) -> list[Order]:
    """Return the orders of the demo; every other one is large."""
    return [
        Order(number=number, item=f" {ITEMS[number % len(ITEMS)]} ", cents=4_900 + number + number % 2 * LARGE_CENTS)
        if number != REJECTED
        else Order(number=number, item=" Gold ", cents=999_900)
        for number in range(1, count + 1)
    ]


def is_reviewed(order: Order) -> bool:
    """Tell whether the fraud team looks at an order."""
    return order.cents >= LARGE_CENTS


def verdict_on(order: Order) -> Verdict:
    """Return what the fraud team says about an order that it looks at."""
    return Verdict(ok=order.number != REJECTED, by="fraud team")


def expected_activities(order: Order) -> Sequence[str]:
    """Return what is performed for an order, each once."""
    return ("validate", "charge", "refund") if order.number == REJECTED else ("validate", "charge", "ship", "notify")


def expected_receipt(order: Order) -> Receipt:
    """Return how an order should end."""
    charge_id = f"charge-{order.number}-{order.cents}"
    approved_by = "fraud team" if is_reviewed(order) else "silence"
    if order.number == REJECTED:
        return Receipt(number=order.number, outcome="refunded", charge=charge_id, approved_by=approved_by)
    return Receipt(
        number=order.number,
        outcome="shipped",
        charge=charge_id,
        approved_by=approved_by,
        label=f"parcel-{order.number}-{order.item.strip().lower()}",
        mail=f"mail-{order.number}",
    )
