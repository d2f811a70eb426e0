"""A process that is stopped past its TTL and goes on later finds that it has lost everything, and doubles nothing."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from tests.kill.conftest import count, expire, url_of
from tests.kill.processes import NodeProcess
from tests.kill.test_every_commit import HISTORY
from tests.support.eventually import eventually


async def test_a_process_that_wakes_up_late_is_refused(database: AsyncEngine, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    sleeper = NodeProcess(url_of(database), ledger, hold=True)
    owner = (await sleeper.said())["owner"]
    started = await sleeper.said()
    await eventually(lambda: ledger.read_text().split()[-1:] == ["3"])
    sleeper.send(signal.SIGSTOP)
    await expire(database, owner)

    other = NodeProcess(url_of(database), ledger)
    _owner, found, ended = await other.everything()
    assert found == {"started": started["started"], "existing": True}
    assert ended["result"] == 15

    Path(f"{ledger}.go").touch()
    sleeper.send(signal.SIGCONT)
    *_, late = await sleeper.everything()

    assert late == ended, "it tells the same result: the journal's, not its own"
    assert late["history"] == HISTORY, "nothing is doubled in the history"
    assert Counter(ledger.read_text().split())["3"] == 2
    assert await count(database, "SELECT count(*) FROM continuum_tasks") == 0
