"""SIGKILL around the moment in which a schedule starts its runs: each fire time has one run all the same."""

from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.kill import schedule_node
from tests.kill.conftest import url_of
from tests.kill.processes import NodeProcess
from tests.kill.schedule_node import HOURS, Moment, Orders


@pytest.mark.parametrize("moment", ["before", "within", "after"])
async def test_fire_times_survive_sigkill(database: AsyncEngine, moment: Moment) -> None:
    victim = NodeProcess.of(schedule_node.run, Orders(url_of(database), declares=True, kill=moment))
    (declared,) = await victim.everything()
    assert victim.process.exitcode == -9, "the process was to die at this fire"
    survivor = NodeProcess.of(schedule_node.run, Orders(url_of(database), declares=False))
    (ended,) = await survivor.everything()
    expected = [declared["first"] + timedelta(hours=number) for number in range(HOURS)]
    assert ended["results"] == [at.isoformat() for at in expected]
