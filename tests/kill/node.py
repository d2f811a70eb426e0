"""A node process for the kill tests.

It starts one keyed run, of a workflow with five activities or (`family`) of one with a child, says so as soon as the start is acknowledged, waits for the result
and tells it with the history. On `kill` the process sends itself SIGKILL right before, or right after, the n-th batch
that its journal writes for a run. With `hold` the third activity lasts until the file `<ledger>.go` exists.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import continuum
from continuum import activity, workflow
from continuum.composition import building
from continuum.journal.sql import SqlJournal
from continuum.model.writes import Commit, Start, Verdict, Write


@dataclass(frozen=True)
class Orders:
    """What a node process is to do."""

    url: str
    ledger: Path
    kill: Literal["before", "after"] | None = None
    at: int = 0  # which batch of commits it dies at
    hold: bool = False
    ttl: float = 1.0
    family: bool = False  # run the workflow with a child, a debt and two generations instead


options: Orders
say: Callable[[dict[str, Any]], None]


class KillingJournal(SqlJournal):
    """Counts the batches that carry a run's commits, and ends the process at one of them."""

    count = 0

    async def write(self, lane: int, batch: Sequence[Write]) -> Sequence[Verdict]:
        """Write, or die."""
        counts = any(isinstance(write, Start | Commit) for write in batch)
        if counts:
            KillingJournal.count += 1
        is_it = counts and KillingJournal.count == options.at
        if is_it and options.kill == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        verdicts = await super().write(lane, batch)
        if is_it and options.kill == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return verdicts


@activity
async def step(number: int, total: int) -> int:
    """Append to the ledger, so that the test can count how often this really ran."""
    with options.ledger.open("a") as file:
        file.write(f"{number}\n")
    while options.hold and number == 3 and not Path(f"{options.ledger}.go").exists():
        await asyncio.sleep(0.02)  # the test says when
    return total + number


@workflow(name="kill.five")
async def five() -> int:
    """Perform five activities, one after the other."""
    total = 0
    for number in range(1, 6):
        total = await step(number, total)
    return total


def _write(line: str) -> None:
    with options.ledger.open("a") as file:
        file.write(f"{line}\n")


@activity
async def unbook(ticket: str) -> None:
    """Take a ticket back."""
    _write(f"unbook-{ticket}")


@activity(compensate=unbook)
async def book(ticket: str) -> str:
    """Book a ticket."""
    _write(f"book-{ticket}")
    return ticket


@activity
async def play(number: int) -> int:
    """Do what the child is for."""
    _write("play")
    return number + 1


@workflow(name="kill.child")
async def child(number: int) -> int:
    """Perform one activity."""
    return await play(number)


@workflow(name="kill.parent")
async def parent(generation: int = 1) -> int:
    """Book, ask for a child, continue as new; there, ask for the same child again, and undo."""
    if generation == 1:
        await book("t")
        await continuum.start_child(child, 41, id="the-child")
        continuum.continue_as_new(2)
    number = await (await continuum.start_child(child, 41, id="the-child"))
    await continuum.compensate_all()
    return number


async def main() -> None:
    """Run the node."""
    vars(building)["SqlJournal"] = KillingJournal  # the one seam through which journals are made
    fast = {"interval": 0.05}
    async with continuum.application(
        options.url,
        lease_ttl=options.ttl,
        dispatcher=fast,
        activity_dispatcher=fast,
        recovery=fast,
        signal_router={"catch_up": 0.2},
    ) as app:
        assert app.wiring is not None
        say({"owner": app.wiring.node.owner})
        run = await continuum.start(parent if options.family else five, idempotency_key="the-run")
        say({"started": run.run_id, "existing": run.existing})
        result = await run.result(timeout=30)
        history = [[event.type, event.command_id] for event in await continuum.history(run.run_id)]
        say({"result": result, "history": history})


def run(orders: Orders, said: Connection) -> None:
    """Be a node process: the target of a fork."""
    global options, say  # a process has one set of orders
    options, say = orders, said.send
    asyncio.run(main())
