"""What all handlers share: which instances they serve, how long they let a database think, how they wait for runs.

A handler that waits holds no connection to the database: it waits for an ending that one poll per instance, a notice in
memory or a peer brings. It is released when a drain begins, and looks every few seconds whether its client is still there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from types import TracebackType
from typing import Self

from starlette.requests import Request

import continuum
from continuum.client.wire import Wire
from continuum.composition.instance import Instance
from continuum.errors import ConfigurationError, InstanceNotRegistered
from continuum.http.problems import DATABASE_AWAY, Refusal
from continuum.model.runs import Ending, RunRow

WAIT_MAX_SECONDS = 30.0  # proxies end requests that are silent for 60
PATIENCE_SECONDS = 4.0  # less than what HTTP clients wait by default (5 s), so that they hear why
PROBE_SECONDS = 5.0  # between two looks for a client that has gone


class Patience:
    """So many seconds for what asks the database, then a refusal; less, if the database has answered before."""

    __slots__ = ("_began", "_is_over", "_loop", "_timeout")

    def __init__(self, seconds: float) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._is_over = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        await self._timeout.__aenter__()
        return self

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return self._loop.time() - self._began

    def release(self) -> None:
        """Have no more limit: the database has answered. Too late, if the limit was passed or the caller has gone."""
        if not (self._is_over or self._timeout.expired()):
            self._timeout.reschedule(None)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over = True
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as timeout:
            raise Refusal(
                DATABASE_AWAY,
                f"the database has not answered within {PATIENCE_SECONDS:g} s; what was asked for may still come to "
                "pass: ask again with the same Idempotency-Key, and without one look first",
            ) from timeout


class Desk:
    """Finds instances, and asks them on behalf of clients.

    Args:
        instances: names served; None: all that are registered, asked at each request.
        wait_max: seconds that a client may wait in one request, at most 30.

    Raises:
        ConfigurationError: an argument cannot be.
    """

    def __init__(self, instances: Collection[str] | None, *, wait_max: float) -> None:
        if isinstance(instances, str):
            raise ConfigurationError(f"instances takes a list of names: [{instances!r}]")
        if not 0 <= wait_max <= WAIT_MAX_SECONDS:
            raise ConfigurationError(f"wait_max must be 0 to {WAIT_MAX_SECONDS:g} seconds, not {wait_max!r}")
        self._names = None if instances is None else frozenset(instances)
        self.wait_max = wait_max

    def instance(self, name: str) -> Instance:
        """Return an instance that is served here.

        Raises:
            InstanceNotRegistered: there is none of this name.
        """
        if self._names is not None and name not in self._names:
            raise InstanceNotRegistered(f"no instance named {name!r} is served here")
        return continuum.instance(name)

    def wire(self, name: str) -> Wire:
        """Return the verbs of an instance.

        Raises:
            InstanceNotRegistered, InstanceNotStarted.
        """
        return self.instance(name).wire

    def patience(self, *, beyond: float = 0.0) -> Patience:
        """Give up on a database that is away: a write waits for its return as long as it takes, a client must not.

        Args:
            beyond: seconds that are waited for something else.
        """
        return Patience(PATIENCE_SECONDS + beyond)

    async def outcome(self, request: Request, wire: Wire, run_id: str, seconds: float) -> Ending | RunRow:
        """Wait for a run's end; return how it ended, or why it is blocked, else where it stands after the wait.

        It may have ended after the wait was over: then that is what is said, for whoever hears of an end asks no more.
        """
        end = await self.ending(request, wire, run_id, seconds)
        if end is not None:
            return end
        async with self.patience():
            return await wire.outcome(run_id)

    async def ending(self, request: Request, wire: Wire, run_id: str, seconds: float) -> Ending | None:
        """Wait for a run's end; None after the time, when a drain begins, and when the client has gone."""
        first = min(seconds, PROBE_SECONDS)
        # Most waits are short, and cost no task.
        end = await wire.ending(run_id, timeout_seconds=first, look_seconds=PATIENCE_SECONDS)
        if end is not None or first == seconds or wire.is_draining:
            return end
        more = wire.ending(run_id, timeout_seconds=seconds - first, look_seconds=PATIENCE_SECONDS)
        waiting = asyncio.ensure_future(more)
        try:
            while not waiting.done() and not await request.is_disconnected():
                await asyncio.wait({waiting}, timeout=PROBE_SECONDS)
            return waiting.result() if waiting.done() else None
        finally:
            waiting.cancel()
