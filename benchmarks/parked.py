"""What runs cost that wait: memory and queries."""

from __future__ import annotations

import asyncio
import gc
import time

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

import continuum
from benchmarks.measuring import Figure, instance, resident_bytes
from benchmarks.workflows import Order, parked

RUNS = 10_000
IDLE_SECONDS = 20.0


async def measure(url: str, *, quick: bool = False) -> list[Figure]:
    """Park runs, then watch the idle system."""
    runs = RUNS // 10 if quick else RUNS
    engine = create_async_engine(url)
    async with instance(url):
        await _park(200)
        gc.collect()
        before = resident_bytes()
        await _park(runs)
        gc.collect()
        kib = (resident_bytes() - before) / runs / 1024
        queries, cpu = await _idle(engine, IDLE_SECONDS / (4 if quick else 1))
    await engine.dispose()
    return [
        Figure(f"resident parked run ({runs:,} of them)", "KiB", (kib,), "target ≤ 4"),
        Figure("queries while idle", "queries/s", (queries,), "target ≤ 1"),
        Figure("CPU while idle", "% of a core", (cpu,), "final target < 1"),
    ]


async def _park(count: int) -> None:
    order = Order(id="o-1", customer="c-1", cents=4_200)
    for start in range(0, count, 500):
        await asyncio.gather(*(continuum.start(parked, order) for _ in range(min(500, count - start))))


async def _idle(engine: object, seconds: float) -> tuple[float, float]:
    await asyncio.sleep(3)
    calls, spent, begun = await _calls(engine), time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - begun
    return (await _calls(engine) - calls - 1) / elapsed, (time.process_time() - spent) / elapsed * 100


async def _calls(engine: object) -> int:
    async with engine.connect() as connection:  # type: ignore[attr-defined]
        await connection.execute(text("CREATE EXTENSION IF NOT EXISTS pg_stat_statements"))
        await connection.commit()
        found = await connection.execute(
            text(
                "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid "
                "WHERE d.datname = current_database() AND query NOT ILIKE '%pg_stat_statements%'"
            )
        )
        return int(found.scalar_one())
