"""Workflows that another process can import: honest ones, and some that take from their process what they must not."""

import asyncio
import os
from datetime import timedelta

import continuum
from continuum import Retry, activity, workflow

calls: list[str] = []


@activity(retry=Retry(max_attempts=2, initial=60.0))
async def charge(order: str, cents: int) -> str:
    calls.append(f"charge {order}")
    return f"charged {cents}"


@activity
def ship(order: str) -> str:
    calls.append(f"ship {order}")
    return f"label-{order}"


@workflow(name="kit.fulfil", signals={"approved": bool})
async def fulfil(order: str, cents: int) -> list[str]:
    paid = await charge(order, cents)
    try:
        approved = await continuum.wait_signal("approved", bool, timeout=timedelta(days=7))
    except TimeoutError:
        approved = False
    if not approved:
        raise PermissionError(order)
    await asyncio.sleep(3600)
    return [paid, await ship(order)]


@workflow(name="kit.collects")
async def collects(names: set[str]) -> set[str]:
    """Honest: a set's order changes nothing that is asked for."""
    await asyncio.gather(*[ship(name) for name in sorted(names)])
    return names


NAMES = ["anna", "berta", "cora", "dora", "emma", "frida", "greta", "hanna", "ida", "jana"]


@workflow(name="kit.in_order_of_a_set", purity="off")
async def in_order_of_a_set() -> None:
    for name in set(NAMES):  # the mistake
        await ship(name)


remembered: list[str] = []


@workflow(name="kit.counts_its_runs", purity="off")
async def counts_its_runs() -> str:
    remembered.append("once more")  # the mistake: what a process remembers, another does not
    return await charge("o-1", len(remembered))


@workflow(name="kit.waits_differently", purity="off")
async def waits_differently() -> None:
    await asyncio.wait(
        [asyncio.create_task(continuum.wait_signal(name)) for name in set(NAMES)],  # the mistake: no command tells
        return_when=asyncio.FIRST_COMPLETED,
    )


PROCESS = os.getpid()


@workflow(name="kit.names_its_process", purity="off")
async def names_its_process() -> int:
    return PROCESS  # the mistake, in a result
