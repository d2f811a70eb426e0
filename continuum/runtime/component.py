"""What every part of an instance is: something with a name that is started and stopped, mostly a loop.

A loop's life is written here once: an interval with jitter, back-off after a crash, `nudge()` to run early, no double
start, cancellation at stop. What a loop does is its `once()`, which tests call by hand. A crash never tears the host
down: it is logged, emitted as `loop.crashed`, and the loop goes on after a while.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable
from random import Random
from types import TracebackType
from typing import Self

from continuum.clock import Cancellable, Clock
from continuum.telemetry import Emitter
from continuum.telemetry.saying import say

logger = logging.getLogger(__name__)

JITTER = 0.1  # of the interval, so that the nodes of a cluster do not poll in step
BACKOFF_MAX_SECONDS = 5.0  # how much later than its interval a loop finds that the database is back
DEGRADED_AFTER = 5  # crashes in a row after which readiness says so


class Component:
    """A named part of an instance; entering it starts it, leaving stops it."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def start(self) -> None:
        """Begin; harmless if it has begun."""

    async def stop(self) -> None:
        """End; harmless if it has not begun."""

    @property
    def is_degraded(self) -> bool:
        """Whether it keeps failing."""
        return False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Nudge:
    """A wait that can be cut short, from the loop's own thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None
        self._planned: Cancellable | None = None
        self._planned_at = 0.0

    def set(self) -> None:
        """End the present wait, or the next one at once."""
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def set_after(self, seconds: float) -> None:
        """End the wait in that many seconds, unless something earlier does; only the earliest plan is kept."""
        at = self._clock.monotonic() + seconds
        if self._planned is not None:
            if self._planned_at <= at:
                return
            self._planned.cancel()
        self._planned_at = at
        self._planned = self._clock.call_later(seconds, self._planned_call)

    def _planned_call(self) -> None:
        self._planned = None
        self.set()

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits, and nothing has ended the wait yet."""
        return self._waiter is not None and not self._waiter.done()

    async def wait(self, seconds: float | None) -> bool:
        """Wait until nudged (True), at most `seconds` (False); None: for as long as it takes."""
        if not self._is_set:
            self._waiter = asyncio.get_running_loop().create_future()
            timer = self._clock.call_later(seconds, self._expire) if seconds is not None else None
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        was_set, self._is_set = self._is_set, False
        return was_set

    def _expire(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Loop(Component):
    """A component that does one thing again and again.

    Args:
        interval: seconds between two passes; None runs only when nudged.
        draw: source of the jitter.
    """

    def __init__(
        self,
        name: str,
        *,
        interval: float | None,
        clock: Clock,
        draw: Random,
        emit: Emitter,
        starts_at_once: bool = True,
    ) -> None:
        super().__init__(name)
        self.interval = interval
        self.clock = clock
        self.emit = emit
        self._draw = draw
        self._nudge = Nudge(clock)
        self._task: asyncio.Task[None] | None = None
        self._crashes = 0
        self._is_backing_off = False
        self.was_asked = True  # whether the present pass was asked for, or is just the clock's
        self._starts_at_once = starts_at_once

    @abstractmethod
    async def once(self) -> bool:
        """Do one pass; True asks for the next one at once (a batch was full)."""

    def nudge(self, after_seconds: float = 0.0) -> None:
        """Ask for a pass soon, or after a while; many nudges make one pass."""
        if after_seconds > 0:
            self._nudge.set_after(after_seconds)
        else:
            self._nudge.set()

    async def start(self) -> None:
        """Begin looping."""
        if self._task is None:
            if self._starts_at_once:
                self._nudge.set()
            self._task = asyncio.get_running_loop().create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """End looping; a pass in progress is cancelled."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                current = asyncio.current_task()
                if current is not None and current.cancelling():
                    raise

    @property
    def is_resting(self) -> bool:
        """Whether it is stopped, or waits for its next pass."""
        return self._task is None or self._is_backing_off or self._nudge.is_waiting

    @property
    def is_degraded(self) -> bool:
        """Whether it has crashed many times in a row."""
        return self._crashes >= DEGRADED_AFTER

    async def _run(self) -> None:
        again = False
        while True:
            self.was_asked = again or await self._nudge.wait(self._pause())
            try:
                again = await self.once()
                self._crashes = 0
            except Exception as error:  # noqa: BLE001  # a loop is one of the doors that must not fall
                again = False
                self._crashes += 1
                self._report(error)
                self._is_backing_off = True
                try:
                    await self.clock.sleep(self._backoff())
                finally:
                    self._is_backing_off = False
                self.emit("loop.restarted", {"crashes": self._crashes}, loop=self.name)
                self._nudge.set()

    def _pause(self) -> float | None:
        if self.interval is None:
            return None
        return self.interval * self._draw.uniform(1 - JITTER, 1 + JITTER)

    def _backoff(self) -> float:
        seconds: float = min(0.1 * 2.0 ** min(self._crashes, 16), BACKOFF_MAX_SECONDS)
        return seconds * self._draw.uniform(0.5, 1.0)

    def _report(self, error: Exception) -> None:
        self.emit("loop.crashed", {"crashes": self._crashes}, loop=self.name, error=repr(error))
        level = logging.WARNING if self._crashes < DEGRADED_AFTER else logging.ERROR
        said = "%s failed (%d in a row), goes on: %r"
        whose = {"instance": self.emit.instance}
        say(logger, level, said, self.name, self._crashes, error, exc_info=error, extra=whose)


def soon(callback: Callable[[], object]) -> None:
    """Run a callback in the next pass of the running loop."""
    asyncio.get_running_loop().call_soon(callback)
