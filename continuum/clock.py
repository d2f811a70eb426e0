"""The clocks of a process.

Durable decisions use the database's clock, never these. `SystemClock` paces the loops and times attempts;
`VirtualClock` does the same in tests, where a year's sleep takes a millisecond and every run of a seed is the same.
All waiting inside Continuum goes through the clock it was given.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Protocol, Self

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Cancellable(Protocol):
    """A planned call."""

    def cancel(self) -> None:
        """Forget it; harmless when it has happened."""
        ...


class Clock(Protocol):
    """Time as one process sees it."""

    def now(self) -> datetime:
        """Return the time of day, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Cancellable:
        """Plan a call on the running loop."""
        ...

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Bound what is awaited inside; raises TimeoutError."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        """Return the time of day, aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Cancellable:
        """Plan a call on the running loop."""
        return asyncio.get_running_loop().call_later(seconds, callback)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Bound what is awaited inside; raises TimeoutError."""
        return asyncio.timeout(seconds)


class _Planned:
    """An entry of the virtual clock's heap."""

    __slots__ = ("at", "callback", "number")

    def __init__(self, at: float, number: int, callback: Callable[[], object]) -> None:
        self.at = at
        self.number = number
        self.callback: Callable[[], object] | None = callback

    def __lt__(self, other: _Planned) -> bool:
        return (self.at, self.number) < (other.at, other.number)

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """A clock that stands still until it is moved; planned calls happen in order of time, then of planning."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._planned: list[_Planned] = []
        self._count = 0

    def now(self) -> datetime:
        """Return the virtual time of day."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Return virtual seconds since the clock was made."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been moved that far."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not future.done():  # else it was cancelled, and its task has not heard of it yet
                future.set_result(None)

        planned = self.call_later(seconds, wake)
        try:
            await future
        finally:
            planned.cancel()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Cancellable:
        """Plan a call for when the clock has been moved that far."""
        self._count += 1
        at = self._elapsed + max(seconds, 0.0)
        if seconds > 0:  # who waits for the last bit of a second must see time move, or will ask again for ever
            at = max(at, math.nextafter(self._elapsed, math.inf))
        planned = _Planned(at, self._count, callback)
        heapq.heappush(self._planned, planned)
        return planned

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Bound, in virtual time, what is awaited inside; raises TimeoutError."""
        return _VirtualTimeout(self, seconds)

    def next_deadline(self) -> float | None:
        """Return the virtual second of the next planned call, or None."""
        while self._planned and self._planned[0].callback is None:
            heapq.heappop(self._planned)
        return self._planned[0].at if self._planned else None

    def move_to(self, second: float) -> None:
        """Move to a virtual second and make the calls that are due, in order; never back."""
        while (due := self.next_deadline()) is not None and due <= second:
            self._elapsed = max(self._elapsed, due)
            callback = heapq.heappop(self._planned).callback
            assert callback is not None  # what was cancelled, next_deadline() has dropped
            callback()
        self._elapsed = max(self._elapsed, second)


class _VirtualTimeout:
    """`asyncio.timeout` whose deadline is a virtual one."""

    def __init__(self, clock: VirtualClock, seconds: float | None) -> None:
        self._clock = clock
        self._seconds = seconds
        self._inner = asyncio.timeout(None)
        self._planned: Cancellable | None = None

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        if self._seconds is not None:
            loop = asyncio.get_running_loop()
            self._planned = self._clock.call_later(self._seconds, lambda: self._inner.reschedule(loop.time()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._planned is not None:
            self._planned.cancel()
        await self._inner.__aexit__(kind, error, trace)
