"""When a run begins: with its first turn, however long it waited for that."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import continuum
import continuum.testing
from continuum import workflow


@workflow(name="begun.napping")
async def napping() -> datetime:
    begun = continuum.now()
    await asyncio.sleep(3600)
    return begun


async def test_a_run_that_starts_tomorrow_sleeps_its_full_hour_then() -> None:
    async with continuum.testing.environment() as env:
        tomorrow = env.now + timedelta(days=1)
        run = await continuum.start(napping, start_at=tomorrow)
        assert await run.result() == tomorrow
        assert env.now == tomorrow + timedelta(hours=1)
        assert [event.type for event in await env.history(run)][:2] == ["started", "begun"]
