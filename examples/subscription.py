"""A subscription that bills every month, for years, with a short history: `python examples/subscription.py`.

Each month is a generation of the same run. A change of plan is a signal and waits for its turn; cancelling is one too, and
ends the loop in an orderly way. In virtual time, so three years take a moment.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel

import continuum
import continuum.testing
from continuum import activity, workflow


class Change(BaseModel):
    plan: Literal["basic", "pro", "none"]


PRICES = {"basic": 900, "pro": 2900}
billed: list[tuple[int, str, int]] = []


@activity
async def bill(customer: str, month: int, plan: str, cents: int) -> None:
    billed.append((month, plan, cents))


@workflow(retention=timedelta(days=90), signals={"change": Change})
async def subscription(customer: str, plan: str = "basic", month: int = 1) -> int:
    await bill(customer, month, plan, PRICES[plan])
    with suppress(TimeoutError):  # nobody changed anything: another month of the same
        plan = (await continuum.wait_signal("change", Change, timeout=timedelta(days=30))).plan
    if plan == "none":
        return month
    continuum.continue_as_new(customer, plan, month + 1)


async def main() -> int:
    billed.clear()
    async with continuum.testing.environment(auto=False) as env:
        run = await continuum.start(subscription, "c-1")
        for _ in range(24):
            await env.advance(timedelta(days=30))
        await run.signal("change", Change(plan="pro"))
        for _ in range(11):
            await env.advance(timedelta(days=30))
        await run.signal("change", Change(plan="none"))
        months = await run.result()
        history = await continuum.history(run.run_id)
    print(f"{months} months, {sum(cents for *_, cents in billed) / 100:.2f} billed, {len(history)} events at the end")
    return months


if __name__ == "__main__":
    asyncio.run(main())
