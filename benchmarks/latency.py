"""How long a signal takes until its sender's other half sees the run completed, on an idle system."""

from __future__ import annotations

import asyncio
import statistics
import time
from functools import partial

import continuum
from benchmarks.measuring import Figure, instance, repeated
from benchmarks.workflows import Order, echo

SIGNALS = 200
BURST = 200


async def in_a_burst(order: Order) -> float:
    """Signal many parked runs at once; return how many per second have ended."""
    runs = await asyncio.gather(*(continuum.start(echo, order) for _ in range(BURST)))
    begun = time.perf_counter()
    await asyncio.gather(*(run.signal("go", "now") for run in runs), *(run.result() for run in runs))
    return BURST / (time.perf_counter() - begun)


async def measure(url: str, *, quick: bool = False) -> list[Figure]:
    """Measure single signals and a burst."""
    count = SIGNALS // (4 if quick else 1)
    order = Order(id="o-1", customer="c-1", cents=4_200)
    async with instance(url):
        taken = []
        for _ in range(count):
            run = await continuum.start(echo, order)
            begun = time.perf_counter()
            waiting = asyncio.ensure_future(run.result())
            await run.signal("go", "now")
            await waiting
            taken.append((time.perf_counter() - begun) * 1_000)
        bursts = await repeated(2 if quick else 5, partial(in_a_burst, order))
    p99 = statistics.quantiles(taken, n=100)[98]
    return [
        Figure("signal → completion seen, p50", "ms", (statistics.median(taken),), "final target ≤ 3"),
        Figure("signal → completion seen, p99", "ms", (p99,)),
        Figure(f"burst of {BURST} signals to parked runs", "signals/s", bursts, "final target ≥ 5,000"),
    ]
