"""One node of the demo: `python -m continuum.cli.demo.node URL --name node-1 --ledger FILE`.

What a host does in its lifespan, in the smallest process that can. It talks to its parent in lines of JSON on stdout
(that it is ready, and what Continuum's telemetry tells about dead owners). SIGTERM drains it. Its stdin is a pipe that
the parent holds open: end-of-file means that the parent is gone, however that came about, and ends this process at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import threading
from pathlib import Path

import continuum
from continuum import telemetry
from continuum.cli.demo import orders
from continuum.cli.demo.ledger import Ledger
from continuum.telemetry import TelemetryEvent

LEASE_TTL_SECONDS = 3.0  # instead of 30, so that the take-over is quick to watch
POLL_SECONDS = 0.2  # instead of 1: orders come one by one, and both nodes should get some
# Instead of 30: a client without workers does not tell the nodes that it has sent a signal, so they look.
SIGNALS_SECONDS = 0.25
TOLD = ("owner.dead", "recovery.swept", "dispatcher.claimed", "owner.lost", "loop.crashed")


def main() -> None:
    """Run the node until it is told to stop."""
    arguments = argparse.ArgumentParser(description="One node of `continuum demo`.")
    arguments.add_argument("url")
    arguments.add_argument("--name", required=True)
    arguments.add_argument("--ledger", required=True, type=Path)
    given = arguments.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    threading.Thread(target=_die_with_parent, name="die-with-parent", daemon=True).start()
    ledger = Ledger(given.ledger)
    try:
        asyncio.run(serve(given.url, given.name, ledger))
    finally:
        ledger.close()


async def serve(url: str, name: str, ledger: Ledger) -> None:
    """Take part in the work until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    telemetry.attach(tell_event, TOLD)
    async with continuum.application(
        url,
        node=name,
        lease_ttl=LEASE_TTL_SECONDS,
        dispatcher={"interval": POLL_SECONDS},
        signal_router={"catch_up": SIGNALS_SECONDS},
        workflows=[orders.fulfil],
        state=ledger,
    ):
        tell("ready", {})
        await stop.wait()


def tell_event(event: TelemetryEvent) -> None:
    """Pass a telemetry event on to the parent."""
    tell(event.name, {**event.metadata, **event.measurements})


def tell(name: str, facts: dict[str, object]) -> None:
    """Say something to the parent."""
    print(json.dumps({"name": name, **facts}, default=str), flush=True)


def _die_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
