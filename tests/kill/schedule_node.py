"""A node process for the kill tests of schedules.

The first one declares an hourly schedule and lets it not have been looked at for a day; each fires what is due, says
when nothing is left, and waits for all runs. On `kill` the process sends itself SIGKILL right before its first fire,
within its transaction (the schedule has moved on, no run is inserted yet), or right after.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from multiprocessing.connection import Connection
from typing import Any, Literal

from msgspec.structs import replace

import continuum
from continuum import FIRE_TIME, workflow
from continuum.composition import building
from continuum.journal.port import Firing
from continuum.journal.sql import SqlJournal
from continuum.model.writes import Write

HOURS = 24
Moment = Literal["before", "within", "after"]


@dataclass(frozen=True)
class Orders:
    """What a node process is to do."""

    url: str
    declares: bool
    kill: Moment | None = None


options: Orders
say: Callable[[dict[str, Any]], None]


def die_at(moment: Moment) -> None:
    if options.kill == moment:
        os.kill(os.getpid(), signal.SIGKILL)


class KillingJournal(SqlJournal):
    """Ends the process around the fires that start runs."""

    async def fire(self, firings: Sequence[Firing]) -> Sequence[bool]:
        """Fire, or die."""
        if not any(firing.starts for firing in firings):
            return await super().fire(firings)
        die_at("before")
        insert = self.write_within

        async def dying_insert(talk: Any, starts: Sequence[Write]) -> Any:
            die_at("within")
            return await insert(talk, starts)

        self.write_within = dying_insert
        landed = await super().fire(firings)
        die_at("after")
        return landed


@workflow(name="kill.scheduled")
async def scheduled(at: datetime) -> str:
    """Say for when it was started."""
    return at.isoformat()


async def main() -> None:
    """Run the node."""
    vars(building)["SqlJournal"] = KillingJournal  # the one seam through which journals are made
    fast = {"interval": 0.05}
    async with continuum.application(
        options.url, lease_ttl=1.0, dispatcher=fast, recovery=fast, schedule_runner=fast
    ) as app:
        assert app.wiring is not None
        if options.declares:
            await app.schedule(
                scheduled, FIRE_TIME, every=3600, id="hourly", overlap="allow", catch_up=timedelta(days=9)
            )
            row = await app.wiring.journal.schedule("hourly")
            assert row is not None
            assert row.progress.next_at is not None
            first = row.progress.next_at - timedelta(hours=HOURS)
            say({"first": first})
            await app.wiring.journal.fire(
                [Firing("hourly", row.revision, replace(row.progress, next_at=first, wake_at=first))]
            )
        while (await app.get_schedule("hourly")).fired < HOURS:
            await asyncio.sleep(0.02)  # the test has a deadline
        runs = (await app.list_runs(limit=1_000)).items
        say({"results": sorted([str(await app.await_run(run.run_id, timeout=30)) for run in runs])})


def run(orders: Orders, said: Connection) -> None:
    """Be a node process: the target of a fork."""
    global options, say  # a process has one set of orders
    options, say = orders, said.send
    asyncio.run(main())
