"""Two processes on one SQLite file: what one leaves behind, the other finishes, and nobody hears of a lock."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

import continuum
from tests.databases.shared_node import RUNS, Orders, run
from tests.kill.processes import NodeProcess


async def test_two_processes_share_a_file_and_one_of_them_is_killed(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'shared.db'}"
    engine = create_async_engine(url)
    await continuum.migrate(engine)
    victim = NodeProcess.of(run, Orders(url, "a", "b", ends=False))
    survivor = NodeProcess.of(run, Orders(url, "b", "a", on_uvloop=True))
    await asyncio.gather(victim.said(), survivor.said())  # all runs are started, and being worked on
    victim.send(signal.SIGKILL)
    [told] = await survivor.everything()
    assert told["loop"] == "uvloop"
    assert told["results"] == [n + 102 for n in range(RUNS)] * 2
    assert told["errors"] == []
    async with engine.connect() as connection:
        states = await connection.execute(text("SELECT state, count(*) FROM continuum_runs GROUP BY state"))
        assert [tuple(row) for row in states] == [("completed", 2 * RUNS)]
    await engine.dispose()
