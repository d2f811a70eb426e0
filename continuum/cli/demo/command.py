"""The demo from beginning to end: a place, two nodes, the story, the verdict, and what remains.

The last line of stdout is one JSON object, whatever happens. After a failure the directory with the ledger, the nodes'
logs (and the database, if it is SQLite) is kept and named; otherwise nothing remains: no process, no file.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import traceback

import continuum
from continuum.cli.demo import orders as shop
from continuum.cli.demo.places import Place, a_place
from continuum.cli.demo.processes import Nodes
from continuum.cli.demo.screen import Screen, a_console, a_screen
from continuum.cli.demo.story import Story
from continuum.cli.demo.verify import Report, verify
from continuum.errors import ContinuumError

ORDERS = 20
NODES = ("node-1", "node-2")
INTERRUPTED = 130  # 128 + SIGINT, as shells say it
LOOK_SECONDS = 1.0  # between two looks at the surviving node, while it stays up

TRY = """
The surviving node stays up. Try this in another terminal, with the same Python:

import asyncio, continuum
from continuum.cli.demo.orders import Order, Verdict, fulfil

async def main():
    async with continuum.application("{url}", client_only=True):
        run = await continuum.start(fulfil, Order(number=99, item="Piano", cents=500_000))
        print(await continuum.signal(run.run_id, "fraud_review", Verdict(ok=True, by="you")))
        print(await run.result(timeout=30))
        for event in await continuum.history(run.run_id):
            print(event.seq, event.type, event.name, event.data)

asyncio.run(main())

Ctrl-C drains the node and removes everything.
"""


def run(*, postgres: bool, stays: bool) -> int:
    """Run the demo; return the exit code. With `stays` the surviving node remains until Ctrl-C."""
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: tidy up
        signal.signal(ending, signal.default_int_handler)
    try:
        with a_place(postgres=postgres) as place:
            return _run_at(place, stays=stays)
    except KeyboardInterrupt:
        print(_failed("interrupted"), flush=True)
        return INTERRUPTED
    except ContinuumError as error:  # there is no place: PostgreSQL did not start
        print(f"continuum demo: {error.message}", file=sys.stderr)
        print(_failed(error.message), flush=True)
        return 1


def _run_at(place: Place, *, stays: bool) -> int:
    console = a_console()
    total = sum(len(shop.expected_activities(order)) for order in shop.the_orders(ORDERS))
    console.print(f"Continuum demo on {place.description}", markup=False, soft_wrap=True)
    try:
        with a_screen(console, total=total) as screen:
            report = asyncio.run(_tell(place, screen, stays=stays))
    except ModuleNotFoundError:  # answered by `continuum.cli.main`; there is nothing to keep
        raise
    except Exception as error:  # noqa: BLE001  # a door: whatever it is, the evidence is kept and named
        place.keeps = True
        if isinstance(error, ContinuumError):
            print(f"continuum demo: {error.message}", file=sys.stderr)
        else:
            traceback.print_exception(error)
        _tell_what_is_kept(place)
        print(_failed(str(error)), flush=True)
        return 1
    if not report.is_good:
        place.keeps = True
        _tell_what_is_kept(place)
    print(json.dumps(report.summary), flush=True)
    return 0 if report.is_good else 1


async def _tell(place: Place, screen: Screen, *, stays: bool) -> Report:
    async with (
        continuum.application(place.url, migrations="upgrade", client_only=True) as client,
        Nodes(NODES, place, screen.heard) as nodes,
    ):
        screen.ready({node.pid: node.name for node in nodes.all})
        names = " and ".join(f"{node.name} (pid {node.pid})" for node in nodes.all)
        screen.say(f"{names} are ready, with lease_ttl=3 instead of 30, so that a dead node is noticed sooner")
        story = Story(place=place, client=client, nodes=nodes, screen=screen, count=ORDERS)
        report = verify(await story.play())
        screen.report(report)
        if stays and report.is_good:
            print(TRY.format(url=place.url), flush=True)
            await _until_interrupted(nodes)
            screen.say("draining")
    return report


async def _until_interrupted(nodes: Nodes) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(ending, stop.set)
    while not stop.is_set():
        nodes.check()
        try:
            await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
        except TimeoutError:
            continue


def _tell_what_is_kept(place: Place) -> None:
    print(f"Kept for a look: {place.directory} (the nodes' logs, the ledger of attempts, the database if it is SQLite)")


def _failed(reason: str) -> str:
    """Return the last line where there is nothing to report."""
    nothing = {"killed_pid": None, "takeover_seconds": None, "repeats": None, "runs_per_second": None}
    return json.dumps({"orders": ORDERS, "verified": 0, **nothing, "error": reason.partition("\n")[0]})
