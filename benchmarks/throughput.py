"""Workflows and steps per second, start to completed, in one process."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import continuum
from benchmarks.measuring import Figure, instance, repeated
from benchmarks.workflows import one_step, ten_steps
from continuum import Workflow
from service.app import calm_collector

REPETITIONS = 3


async def in_flight(flow: Workflow[[int], int], count: int, width: int) -> float:
    """Run `count` workflows, `width` at a time; return workflows per second."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            handle = await continuum.start(flow, number)
            await handle.result()

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(width)))
    return count / (time.perf_counter() - begun)


async def measure(url: str, *, quick: bool = False) -> list[Figure]:
    """Measure one-step and ten-step workflows."""
    scale = 4 if quick else 1
    options: dict[str, Any] = {"activity_supervisor": {"max_concurrency": 2_000}}
    async with instance(url, **options):
        await in_flight(one_step, 2_000 // scale, 200)
        with calm_collector():
            figures = await _figures(scale)
        wild = await repeated(REPETITIONS, lambda: in_flight(one_step, 20_000 // scale, 1_000))
    figures.append(Figure("the first, with Python's own collector thresholds", "workflows/s", wild))
    return figures


async def _figures(scale: int) -> list[Figure]:
    figures = [
        Figure(
            f"one-activity workflows, {width} in flight",
            "workflows/s",
            await repeated(REPETITIONS, partial(in_flight, one_step, count // scale, width)),
            target,
        )
        for width, count, target in (
            (1_000, 20_000, "target ≥ 5,000 (final 10,000)"),
            (200, 10_000, ""),
            (20, 4_000, ""),
            (1, 400, ""),
        )
    ]
    steps = await repeated(REPETITIONS, partial(in_flight, ten_steps, 4_000 // scale, 1_000))
    figures.append(
        Figure(
            "ten-activity workflows, 1,000 in flight",
            "steps/s",
            tuple(value * 10 for value in steps),
            "target ≥ 10,000 (final 20,000)",
        )
    )
    return figures
