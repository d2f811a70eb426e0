"""A node process on a SQLite file that another one writes as well; on uvloop if told so.

It starts its runs, says so, then signals its own and the other node's, reads about them meanwhile, and tells every error
that a verb has raised.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import uvloop

import continuum
from continuum import activity, workflow
from continuum.composition.instance import Instance

RUNS = 25


@dataclass(frozen=True)
class Orders:
    """What a node process is to do."""

    url: str
    name: str
    other: str
    on_uvloop: bool = False
    ends: bool = True  # else it goes on for ever: somebody will kill it


@activity
async def step(number: int) -> int:
    await asyncio.sleep(0.005)
    return number + 1


@workflow(name="shared.counting")
async def counting(number: int) -> int:
    number = await step(await step(number))
    return number + await continuum.wait_signal("go", int)


def run(orders: Orders, mouth: Connection) -> None:
    """Be the process."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if orders.on_uvloop else None) as runner:
        mouth.send(runner.run(_main(orders, mouth)))


async def _main(orders: Orders, mouth: Connection) -> dict[str, Any]:
    fast = {"interval": 0.05}
    errors: list[str] = []
    async with continuum.application(
        orders.url,
        node=orders.name,
        lease_ttl=1.5,
        dispatcher=fast,
        activity_dispatcher=fast,
        recovery=fast,
        signal_router={"catch_up": 0.1},
    ) as app:
        async with asyncio.TaskGroup() as group:
            started = [
                group.create_task(app.start(counting, n, idempotency_key=f"{orders.name}{n}")) for n in range(RUNS)
            ]
        mouth.send({"started": [task.result().run_id for task in started]})
        reading = asyncio.create_task(_read(app, errors))
        others = [await app.start(counting, n, idempotency_key=f"{orders.other}{n}") for n in range(RUNS)]
        runs = [*(task.result() for task in started), *others]
        for run in runs:
            await run.signal("go", 100, delivery_id="once")
        while not orders.ends:
            await asyncio.sleep(1)
        results = [await run.result(timeout=40) for run in runs]
        reading.cancel()
        return {"results": results, "errors": errors, "loop": type(asyncio.get_running_loop()).__module__}


async def _read(app: Instance, errors: list[str]) -> None:
    """Ask about runs all the time; no answer may be that the database is locked."""
    while True:
        try:
            page = await app.list_runs(limit=20)
            for run in page.items[:3]:
                await app.history(run.run_id)
        except Exception as error:  # noqa: BLE001  all of them are told
            errors.append(repr(error))
        await asyncio.sleep(0.01)
