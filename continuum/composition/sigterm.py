"""SIGTERM begins the drain.

A server that is told to end stops accepting, waits until every connection has closed, and only then tells its
application. For an instance that is too late: long polls hold connections open, so the drain that would release them
never comes. So the signal is heard here as well, in front of whoever heard it before, who hears it right after: readiness
goes off, claims stop, whoever waits is released, executions are handed over, while the server closes down.

It is chained in the main thread only (nowhere else can it be), and put back at the end if it is still ours. A process
that would have been ended by the signal is ended by it once the drain is over; one that ignores it goes on ignoring it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from types import FrameType
from typing import Protocol


class Drained(Protocol):
    """An instance, as the signal sees it."""

    def begin_drain(self) -> None:
        """Take no more work."""
        ...

    async def drain(self) -> bool:
        """Hand over what there is."""
        ...


@asynccontextmanager
async def drains_on_sigterm(instances: Collection[Drained]) -> AsyncIterator[None]:
    """Drain these when SIGTERM comes, while the block lasts."""
    previous = signal.getsignal(signal.SIGTERM)
    is_chained = threading.current_thread() is threading.main_thread() and previous not in (None, signal.SIG_IGN)
    if not is_chained:
        yield
        return
    loop = asyncio.get_running_loop()
    draining: list[asyncio.Task[None]] = []

    async def drain() -> None:
        await asyncio.gather(*(instance.drain() for instance in instances), return_exceptions=True)
        if previous is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    def begin() -> None:
        if not draining:
            for instance in instances:
                instance.begin_drain()
            draining.append(loop.create_task(drain(), name="continuum.sigterm"))

    def hear(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nothing left to drain
            loop.call_soon_threadsafe(begin)
        if callable(previous):
            previous(number, frame)

    signal.signal(signal.SIGTERM, hear)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is hear:
            signal.signal(signal.SIGTERM, previous)
        await asyncio.gather(*draining)
