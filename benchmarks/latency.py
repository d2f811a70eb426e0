"""How long a signal takes until its sender's other half sees the run completed, on an idle system."""

from __future__ import annotations

import asyncio
import statistics
import time

import continuum
from benchmarks.measuring import Figure, instance
from benchmarks.workflows import Order, echo

SIGNALS = 200
BURST = 200


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
        runs = await asyncio.gather(*(continuum.start(echo, order) for _ in range(BURST)))
        begun = time.perf_counter()
        await asyncio.gather(*(run.signal("go", "now") for run in runs), *(run.result() for run in runs))
        burst = BURST / (time.perf_counter() - begun)
    p99 = statistics.quantiles(taken, n=100)[98]
    return [
        Figure("signal → completion seen, p50", "ms", (statistics.median(taken),), "final target ≤ 3"),
        Figure("signal → completion seen, p99", "ms", (p99,)),
        Figure(f"burst of {BURST} signals to parked runs", "signals/s", (burst,), "final target ≥ 5,000"),
    ]
