"""Repetitions, medians, and the machine's state."""

from __future__ import annotations

import gc
import os
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

import continuum
from continuum.composition.instance import Instance

DURABLE = ("fsync", "synchronous_commit", "full_page_writes")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number with its spread."""

    name: str
    unit: str
    values: tuple[float, ...]
    target: str = ""

    @property
    def median(self) -> float:
        """The middle of the repetitions."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        return f"{self.name:<52} {self.median:>12,.1f} {self.unit:<12} [{low:,.1f} – {high:,.1f}]  {self.target}"


@asynccontextmanager
async def instance(url: str, **options: Any) -> AsyncIterator[Instance]:
    """Run the default instance on a freshly migrated database."""
    async with continuum.application(url, migrations="upgrade", **options) as app:
        yield app


async def settings_of(url: str) -> dict[str, str]:
    """Read the durability settings; refuse a server that has one of them off."""
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            found = {name: str((await connection.execute(text(f"SHOW {name}"))).scalar()) for name in DURABLE}
            found["version"] = str((await connection.execute(text("SHOW server_version"))).scalar())
    finally:
        await engine.dispose()
    off = [name for name in DURABLE if found[name] == "off"]
    if off:
        raise SystemExit(f"{', '.join(off)} is off: numbers without durability are not measured")
    return found


async def repeated(times: int, measure: Callable[[], Awaitable[float]]) -> tuple[float, ...]:
    """Measure several times."""
    values = []
    for _ in range(times):
        gc.collect()
        values.append(await measure())
    return tuple(values)


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
