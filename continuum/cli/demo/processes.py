"""The nodes, seen from their parent: started, listened to, killed, drained.

Nothing of them outlives the parent: each watches a pipe (see `node`). They are in sessions of their own, so that Ctrl-C
reaches the parent alone, which then drains them.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from continuum.cli.demo.places import Place
from continuum.errors import ContinuumError

READY_SECONDS = 30.0  # importing takes a second; a machine may be slow
DRAIN_SECONDS = 15.0  # a little more than a node takes at most (`drain_timeout`)
LOG_LINES = 15  # of a node's log, in a message about it

Said = Callable[[str, dict[str, Any]], object]


class NodeFailed(ContinuumError):
    """A node process did not come up, or ended unasked; the message has the end of its log."""


class NodeProcess:
    """One node; `said` is called with its name and what it says."""

    def __init__(self, name: str, place: Place, said: Said) -> None:
        self.name = name
        self.pid = 0
        self._place = place
        self._said = said
        self._log = place.directory / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._is_expected_to_end = False

    async def start(self) -> None:
        """Start the process; it is `ready()` a second later."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "continuum.cli.demo.node", self._place.url),
                *("--name", self.name, "--ledger", str(self._place.ledger)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._listening = asyncio.create_task(self._listen(self._process), name=f"{self.name}.listen")

    async def ready(self) -> None:
        """Wait until it takes part.

        Raises:
            NodeFailed: it ended, or was not ready in time.
        """
        assert self._listening is not None, "start() comes first"
        waiting = asyncio.create_task(self._ready.wait())
        await asyncio.wait({waiting, self._listening}, timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self.check()
        if not self._ready.is_set():
            raise NodeFailed(f"{self.name} was not ready within {READY_SECONDS:g} s. {self.end_of_log()}")

    def check(self) -> None:
        """Raise `NodeFailed` if it ended unasked."""
        if self._process is not None and self._process.returncode is not None and not self._is_expected_to_end:
            raise NodeFailed(f"{self.name} ended unasked with code {self._process.returncode}. {self.end_of_log()}")

    async def kill(self) -> None:
        """End it with SIGKILL, as a crash of its machine would; returns when it is dead."""
        await self._end(signal.SIGKILL)

    async def drain(self) -> bool:
        """Let it finish or hand over what it holds; False if it had to be killed in the end."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._end(signal.SIGTERM)
        except TimeoutError:
            await self.kill()
            return False
        return True

    async def _end(self, how: signal.Signals) -> None:
        self._is_expected_to_end = True
        if self._process is None or self._listening is None:
            return
        if self._process.returncode is None:
            self._process.send_signal(how)
        await self._process.wait()
        await asyncio.shield(self._listening)  # ends with the process's stdout

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None, "it is a pipe"
        async for line in process.stdout:
            facts = json.loads(line)
            name = facts.pop("name")
            if name == "ready":
                self._ready.set()
            self._said(self.name, {"event": name, **facts})
        await process.wait()

    def end_of_log(self) -> str:
        """Return the last lines of its log, for a message."""
        lines = self._log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return f"The log of {self.name} ends:\n" + "\n".join(f"    {line}" for line in lines or ["(empty)"])


class Nodes:
    """All node processes, started together when entered; those that still run are ended when left."""

    def __init__(self, names: tuple[str, ...], place: Place, said: Said) -> None:
        self.all = tuple(NodeProcess(name, place, said) for name in names)

    def __getitem__(self, name: str) -> NodeProcess:
        return next(node for node in self.all if node.name == name)

    def check(self) -> None:
        """Raise `NodeFailed` if one of them ended unasked."""
        for node in self.all:
            node.check()

    async def __aenter__(self) -> Self:
        try:
            for node in self.all:
                await node.start()
            await asyncio.gather(*(node.ready() for node in self.all))
        except BaseException:
            await self._kill()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await asyncio.gather(*(node.drain() for node in self.all))
        else:  # whatever went wrong, what the nodes hold does not matter any more
            await self._kill()

    async def _kill(self) -> None:
        await asyncio.gather(*(node.kill() for node in self.all))
