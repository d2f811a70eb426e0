"""An instance that its host can do without at its start: one of many tenants, whose database may be away or behind.

The host enters it as any other. Its first try to open is waited for, a second at most: what is merely wrong with the
host's code is raised there. A database that does not answer, or whose tables are not ready, is tried again and again in
the background; meanwhile the instance is `not_started`, its verbs raise with the reason, and nobody else is kept
waiting. Once its journal is open its other parts, entered long since, begin in their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from continuum.errors import JournalUnavailable, SchemaNotReady
from continuum.journal.port import Contended
from continuum.telemetry import Emitter
from continuum.telemetry.saying import say

logger = logging.getLogger(__name__)

FIRST_SECONDS = 1.0  # that a host's start waits for such an instance; a database that is well takes a tenth of it
PAUSE_SECONDS, PAUSE_MAX_SECONDS = 1.0, 30.0  # between two tries; doubled
PASSING = (JournalUnavailable, SchemaNotReady, Contended)  # what may be well again by itself, or by a migration


class Latecomer(Protocol):
    """A part that begins when the journal is open."""

    async def begin(self) -> None:
        """Begin."""
        ...

    async def end(self) -> None:
        """End, if it has begun."""
        ...


class LateStart:
    """Opens an instance as soon as it can be opened."""

    def __init__(
        self,
        name: str,
        *,
        node: str | None,
        open_now: Callable[[], Coroutine[Any, Any, None]],
        close_now: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._name = name
        self._emit = Emitter(instance=name, node=node or socket.gethostname())
        self._open_now = open_now
        self._close_now = close_now
        self._parts: list[Latecomer] = []
        self._task: asyncio.Task[None] | None = None
        self._enough = asyncio.Event()
        self.error: Exception | None = None  # why it is not open yet

    @property
    def is_waited_for(self) -> bool:
        """Whether it is still to be opened, or its parts are still to begin."""
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        """Try to open; go on without if that fails for a reason that passes, or takes too long.

        Raises:
            ConfigurationError and its kin: what does not pass.
        """
        if self._task is not None:
            return
        self._parts.clear()
        self._enough = asyncio.Event()  # of this loop
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(first), name=f"{self._name}.late")
        try:
            await asyncio.wait([first, self._task], timeout=FIRST_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the host does not start, so nobody will stop this
            await self.give_up()
            await self._close_now()
            raise
        first.cancel()  # from now on nobody is there to be told, but readiness
        if self._task.done():
            task, self._task = self._task, None
            await task

    def follow(self, part: Latecomer) -> None:
        """Let a part begin after those before it."""
        self._parts.append(part)

    async def give_up(self) -> None:
        """Try no longer; a try that is under way may end, for a second, because drivers leave threads behind if not."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            self._enough.set()
            await asyncio.wait([task], timeout=FIRST_SECONDS)
            task.cancel()
            await asyncio.wait([task])
        self.error = None

    async def _live(self, first: asyncio.Future[None]) -> None:
        pause = PAUSE_SECONDS
        while not self._enough.is_set():
            try:
                await self._open_now()
                await (self._close_now() if self._enough.is_set() else self._begin_all())
            except PASSING as error:
                self._say(error)
            except Exception as error:
                if not first.done():  # the host is told, who waits for this very try
                    raise
                self._say(error)
            else:
                self.error = None
                return
            finally:
                if not first.done():
                    first.set_result(None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._enough.wait()
            pause = min(pause * 2, PAUSE_MAX_SECONDS)

    def _say(self, error: Exception) -> None:
        if type(error) is not type(self.error):  # once for each reason: it may go on for days
            self._emit("instance.late", error=repr(error))
            say(logger, logging.WARNING, "instance %r is not started yet, and is tried again: %s", self._name, error)
        self.error = error

    async def _begin_all(self) -> None:
        begun: list[Latecomer] = []
        try:
            while len(begun) < len(self._parts):  # more may follow meanwhile
                begun.append(self._parts[len(begun)])
                await begun[-1].begin()
        except Exception:
            for part in reversed(begun):
                await part.end()
            await self._close_now()
            raise
