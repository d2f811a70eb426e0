"""What telemetry costs: throughput with it compiled out, with nobody listening, with a counter, with OpenTelemetry.

Each variant is a process of its own on a database of its own; they are asked for a round one after the other, so that
whatever else the machine does falls on all of them. A ratio is that of one round, against the process without telemetry;
the processor time per workflow is the steadier of the two numbers. The bytecodes of workflows that run one after the
other are nearly the same whatever the machine does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg
from sqlalchemy.engine import make_url

from benchmarks.measuring import Figure

OUT, NOBODY, COUNTING, OTEL = "compiled out", "no handler", "counting handler", "OpenTelemetry SDK"
VARIANTS = (OUT, NOBODY, COUNTING, OTEL)
TARGETS = {NOBODY: "target ≥ 0.98"}


@dataclass(frozen=True, slots=True)
class Round:
    """What one process did in one round."""

    per_second: float
    cpu_seconds: float  # per workflow


async def measure(url: str, *, quick: bool = False) -> list[Figure]:
    """Measure one-activity workflows, 200 in flight."""
    rounds, count = (3, 1_000) if quick else (12, 4_000)
    told: dict[str, list[Round]] = {variant: [] for variant in VARIANTS}
    async with AsyncExitStack() as stack:
        nodes = {variant: await stack.enter_async_context(_node(url, variant)) for variant in VARIANTS}
        for turn in range(-1, rounds):  # the first warms up
            for place in range(len(VARIANTS)):  # who goes first, goes last in the next round
                variant = VARIANTS[(place + turn) % len(VARIANTS)]
                one = await _ask(nodes[variant], count)
                if turn >= 0:
                    told[variant].append(one)
        counts = {variant: float(await _line(nodes[variant], "bytecodes")) for variant in VARIANTS}
    figures = [figure for variant in VARIANTS for figure in _figures(variant, told[variant], told[OUT])]
    return figures + [
        Figure(f"bytecodes per workflow, {variant}", "", (count,), f"{counts[OUT] / count:.3f} × without telemetry")
        for variant, count in counts.items()
    ]


def _figures(variant: str, rounds: list[Round], without: list[Round]) -> list[Figure]:
    rates = tuple(one.per_second for one in rounds)
    figures = [Figure(f"one-activity workflows, {variant}", "workflows/s", rates)]
    if variant != OUT:
        pairs = list(zip(rounds, without, strict=True))
        speed = tuple(one.per_second / base.per_second for one, base in pairs)
        effort = tuple(base.cpu_seconds / one.cpu_seconds for one, base in pairs)
        figures += [
            Ratio("… of the throughput without telemetry", "×", speed, TARGETS.get(variant, "")),
            Ratio("… by processor time per workflow", "×", effort, TARGETS.get(variant, "")),
        ]
    return figures


class Ratio(Figure):
    """A figure near one."""

    __slots__ = ()

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        return f"{self.name:<52} {self.median:>12.3f} {self.unit:<12} [{low:.3f} – {high:.3f}]  {self.target}"


@asynccontextmanager
async def _node(url: str, variant: str) -> AsyncIterator[Process]:
    name = f"telemetry_{VARIANTS.index(variant)}"
    await _create(url, name)
    database = make_url(url).set(database=name).render_as_string(hide_password=False)
    node = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.telemetry_node", variant, database, stdin=PIPE, stdout=PIPE
    )
    try:
        yield node
    finally:
        assert node.stdin is not None
        node.stdin.close()
        await node.wait()


async def _create(url: str, name: str) -> None:
    connection = await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))
    try:
        await connection.execute(f"DROP DATABASE IF EXISTS {name}")
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()


async def _ask(node: Process, count: int) -> Round:
    return Round(**json.loads(await _line(node, str(count))))


async def _line(node: Process, question: str) -> bytes:
    assert node.stdin is not None
    assert node.stdout is not None
    node.stdin.write(f"{question}\n".encode())
    answer = await node.stdout.readline()
    if not answer:
        raise SystemExit(f"a node of the benchmark ended with code {await node.wait()}")
    return answer
