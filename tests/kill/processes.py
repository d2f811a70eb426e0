"""Starts node processes and hears what they say.

They are forked from a server that has imported everything and has neither threads nor a loop, so that one takes
milliseconds to start; they are processes like any other, and die of SIGKILL like any other.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from tests.kill.node import Orders, run

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["tests.kill.node", "tests.kill.transfer_node", "asyncpg", "aiosqlite"])

SAYS_WITHIN_SECONDS = 40.0


class NodeProcess:
    """One node, and what it says."""

    def __init__(
        self,
        url: str,
        ledger: Path,
        *,
        kill: Literal["before", "after"] | None = None,
        at: int = 0,
        hold: bool = False,
        family: bool = False,
    ) -> None:
        self._start(run, Orders(url, ledger, kill, at, hold, family=family))

    def _start(self, target: Callable[[Any, Connection], None], orders: object) -> None:
        self._ear, mouth = forks.Pipe(duplex=False)
        self.process = forks.Process(target=target, args=(orders, mouth), daemon=True)
        self.process.start()
        mouth.close()

    @classmethod
    def of(cls, target: Callable[[Any, Connection], None], orders: object) -> NodeProcess:
        """Start another kind of node."""
        node = cls.__new__(cls)
        node._start(target, orders)
        return node

    async def said(self) -> dict[str, Any]:
        """Return what it says next."""
        async with asyncio.timeout(SAYS_WITHIN_SECONDS):
            found: dict[str, Any] = await asyncio.to_thread(self._ear.recv)
        return found

    async def everything(self) -> list[dict[str, Any]]:
        """Wait for its end and return all that it still said; it must have ended in order, or by SIGKILL."""
        lines = []
        try:
            while True:
                lines.append(await self.said())
        except EOFError:
            await asyncio.to_thread(self.process.join, SAYS_WITHIN_SECONDS)
        assert self.process.exitcode in (0, -signal.SIGKILL), f"the node failed: {self.process.exitcode}, said {lines}"
        return lines

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)
