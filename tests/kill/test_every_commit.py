"""SIGKILL right before and right after every single commit of a run: the ending is the same, and nothing is lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.kill.conftest import count, expire, url_of
from tests.kill.processes import NodeProcess

COMMITS = 6  # the start with its first turn, and one for each of the five results; the last one ends the run

HISTORY: list[list[str | int | None]] = [["started", None]]
for _command in range(1, 6):
    HISTORY += [["activity_scheduled", _command], ["activity_completed", _command]]
HISTORY += [["completed", None]]


@pytest.mark.parametrize("at", range(1, COMMITS + 1))
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_run_survives_sigkill_at_any_commit(
    database: AsyncEngine, tmp_path: Path, when: Literal["before", "after"], at: int
) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    victim = NodeProcess(url_of(database), ledger, kill=when, at=at)
    said = await victim.everything()
    assert victim.process.exitcode == -9, "the process was to die at this commit"
    acknowledged = [line["started"] for line in said if "started" in line]
    await expire(database, said[0]["owner"])

    survivor = NodeProcess(url_of(database), ledger)
    _owner, started, ended = await survivor.everything()

    assert ended["result"] == 15
    assert ended["history"] == HISTORY
    assert acknowledged in ([], [started["started"]]), "an acknowledged start is found again"
    assert started["existing"] is (at > 1 or when == "after")
    assert await count(database, "SELECT count(*) FROM continuum_runs") == 1
    ran = Counter(ledger.read_text().split())
    assert set(ran) == {"1", "2", "3", "4", "5"}
    assert sum(ran.values()) <= 6, "at most the one attempt that was in flight is repeated"


FAMILY_HISTORY: list[list[str | int | None]] = [  # of the second generation
    ["started", None],
    ["compensation_owed", None],
    ["begun", None],
    ["child_started", 1],
    ["child_completed", 1],
    ["activity_scheduled", 2],
    ["activity_completed", 2],
    ["completed", None],
]
# The second commit asks for the child and continues as new. Later ones are the parent's and the child's, in any order.
FAMILY_KILLS = [("after", 1), ("before", 2), ("after", 2), ("after", 3), ("after", 4), ("after", 5), ("before", 6)]


@pytest.mark.parametrize(("when", "at"), FAMILY_KILLS)
async def test_a_family_survives_sigkill_at_any_commit(
    database: AsyncEngine, tmp_path: Path, when: Literal["before", "after"], at: int
) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    victim = NodeProcess(url_of(database), ledger, kill=when, at=at, family=True)
    said = await victim.everything()
    assert victim.process.exitcode == -9, "the process was to die at this commit"
    await expire(database, said[0]["owner"])

    _owner, _started, ended = await NodeProcess(url_of(database), ledger, family=True).everything()

    assert (ended["result"], ended["history"]) == (42, FAMILY_HISTORY)
    runs = "SELECT count(*) FROM continuum_runs WHERE "
    assert await count(database, f"{runs} state = 'completed'") == 2, "the run, and one child"
    assert await count(database, f"{runs} parent_id IS NOT NULL") == 1
    assert await count(database, f"{runs} generation = 2 AND parent_id IS NULL") == 1
    assert await count(database, "SELECT count(*) FROM continuum_inbox") == 0
    ran = Counter(ledger.read_text().split())
    assert set(ran) == {"book-t", "play", "unbook-t"}
    assert sum(ran.values()) <= 4, "at most the one attempt that was in flight is repeated"


async def test_without_a_kill_there_are_just_that_many_commits(database: AsyncEngine, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    node = NodeProcess(url_of(database), ledger, kill="before", at=COMMITS + 1)
    *_, ended = await node.everything()
    assert node.process.exitcode == 0
    assert ended["result"] == 15
    assert await count(database, "SELECT count(*) FROM continuum_owners") == 0, "a node that leaves in order retires"
