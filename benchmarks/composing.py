"""Children per second, and whether the ten-thousandth generation of a run costs more than the first."""

from __future__ import annotations

import time
from itertools import pairwise

import continuum
from benchmarks.measuring import Figure, instance
from continuum import activity, workflow
from service.app import calm_collector

PIECE = 1_000  # generations that are timed together

moments: list[float] = []


@activity
async def tick(left: int) -> None:
    if left % PIECE == 0:
        moments.append(time.perf_counter())


@workflow(retention=0)
async def endless(left: int) -> int:
    await tick(left)
    if left:
        continuum.continue_as_new(left - 1)
    return left


@workflow
async def leaf(number: int) -> int:
    return number


@workflow
async def fan(count: int) -> int:
    children = [await continuum.start_child(leaf, number) for number in range(count)]
    return sum([await child for child in children])


async def measure(url: str, *, quick: bool = False) -> list[Figure]:
    """Measure a fan-out and a loop."""
    children, generations = (200, 2 * PIECE) if quick else (1_000, 10 * PIECE)
    async with instance(url):
        with calm_collector():
            rates = []
            for _ in range(3):
                begun = time.perf_counter()
                run = await continuum.start(fan, children)
                await run.result(timeout=600)
                rates.append(children / (time.perf_counter() - begun))
            moments.clear()
            loop = await continuum.start(endless, generations)
            await loop.result(timeout=1_200)
    pieces = [PIECE / (later - earlier) for earlier, later in pairwise(moments)]
    return [
        Figure(f"children of a fan-out of {children}, started to heard of", "children/s", rates),
        Figure(f"generations of one run, {generations} in a row, one activity each", "generations/s", pieces),
        Figure("the last thousand generations against the first", "×", [pieces[-1] / pieces[0]], "flat: about 1"),
    ]
