"""An order that is undone when its last step fails: `python examples/order_saga.py`.

Charge, reserve, ship. The parcel service refuses the second order for good, so what was done for it is undone, newest
first: the reservation, then the charge. In memory by default; set CONTINUUM_DATABASE_URL for a migrated database.
"""

import asyncio

from pydantic import BaseModel

import continuum
from continuum import ActivityError, Retry, activity, workflow


class Order(BaseModel):
    id: str
    cents: int
    city: str


ledger: list[str] = []  # what the outside world has seen


@activity
async def refund(order_id: str) -> None:
    ledger.append(f"refund {order_id}")


@activity
async def put_back(reservation: str) -> None:
    ledger.append(f"put back {reservation}")


@activity(retry=Retry(max_attempts=5, initial=0.05))
async def charge(order_id: str, cents: int) -> str:
    ledger.append(f"charge {order_id} {cents}")
    return f"charge-{order_id}"


@activity(compensate=put_back)
async def reserve(order_id: str) -> str:
    ledger.append(f"reserve {order_id}")
    return f"reservation-{order_id}"


@activity
async def ship(order: Order) -> str:
    if order.city == "Atlantis":
        raise ActivityError("no street leads there", retryable=False)
    return f"label-{order.id}"


@workflow
async def fulfil(order: Order) -> str:
    async with continuum.saga():
        # A charge that timed out may have gone through: so its refund is owed before it is even tried.
        await charge.options(compensate=refund.bound(order.id))(order.id, order.cents)
        await reserve(order.id)
        return await ship(order)


async def main() -> list[str]:
    ledger.clear()
    async with continuum.application():
        good = await continuum.start(fulfil, Order(id="o-1", cents=4200, city="Rome"))
        bad = await continuum.start(fulfil, Order(id="o-2", cents=100, city="Atlantis"))
        print("o-1:", await good.result(timeout=30))
        try:
            await bad.result(timeout=30)
        except continuum.RunFailed as failed:
            print("o-2:", failed)
    for line in ledger:
        print("  ", line)
    return ledger


if __name__ == "__main__":
    asyncio.run(main())
