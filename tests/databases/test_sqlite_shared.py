"""Two processes on one SQLite file: what one leaves behind, the other finishes, and nobody hears of a lock."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

import continuum
from continuum.journal.port import Contended
from continuum.journal.sql import SqlJournal
from tests.databases.shared_node import RUNS, Orders, run
from tests.journal.builders import OWNER, TTL, an_owner
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


async def test_a_hosts_long_transaction_is_waited_for_but_not_by_the_heart(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shared.db'}")
    await continuum.migrate(engine)
    journal = SqlJournal(engine, lock_timeout_seconds=0.01)
    await journal.look()  # from now on the file is in WAL mode, for everybody
    async with engine.connect() as host:
        await host.execute(text("INSERT INTO continuum_instances (name, created_at) VALUES ('app', 0)"))
        opening = asyncio.create_task(journal.open("app"))
        with pytest.raises(Contended):
            await journal.heart().renew(OWNER, ttl_seconds=TTL)
        await asyncio.sleep(0.1)  # ten times as long as a statement waits
        assert not opening.done()
        await host.commit()
    await opening
    async with engine.connect() as host:
        await host.execute(text("UPDATE continuum_instances SET created_at = 1"))
        changes = [
            asyncio.create_task(change)
            for change in (journal.register(an_owner(OWNER), ttl_seconds=TTL), journal.delete_schedule("none"))
        ]
        await asyncio.sleep(0.1)
        assert not any(change.done() for change in changes)
        await host.commit()
    await asyncio.gather(*changes)
    await journal.close_heart()
    await journal.close()
    await engine.dispose()
