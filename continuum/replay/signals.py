"""The signals of one run: received and not consumed, and those that are waited for. First in, first out, per name."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque

from msgspec import Struct


class Signal(Struct, frozen=True, gc=False):
    """A signal that was received; its message id goes with it into the next generation."""

    name: str
    payload: bytes | None
    message_id: str | None = None


Waiting = asyncio.Future[Signal]


class Signals:
    """Signals meet waits; a cancelled wait consumes nothing."""

    __slots__ = ("_received", "_served", "_waits")

    def __init__(self) -> None:
        self._received: dict[str, deque[Signal]] | None = None  # by name, made when it is needed: most are waited for
        self._served: list[Waiting] | None = None  # given to a wait whose code has not run since
        self._waits: list[tuple[str, Waiting]] = []

    def has(self, name: str) -> bool:
        """Tell whether a signal of this name could be taken without waiting."""
        return self._received is not None and name in self._received

    @property
    def awaited(self) -> tuple[str, ...]:
        """The names that are waited for."""
        return tuple(name for name, future in self._waits if not future.done())

    @property
    def unconsumed(self) -> list[Signal]:
        """What was received and reached no code, in the order in which it came for each name."""
        served = [future.result() for future in self._served or ()]
        return served + list(itertools.chain.from_iterable((self._received or {}).values()))

    def receive(self, signal: Signal) -> None:
        """Give a signal to who has waited longest, or keep it."""
        if not self._serve(signal):
            self._kept(signal.name).append(signal)

    async def take(self, name: str, future: Waiting) -> bytes | None:
        """Take the oldest signal of this name, or wait for the next by `future`."""
        kept = self._received.get(name) if self._received else None
        if self._received and kept:
            signal = kept.popleft()
            if not kept:
                del self._received[name]
            return signal.payload
        wait = (name, future)
        self._waits.append(wait)
        try:
            return (await future).payload
        except asyncio.CancelledError:
            was_served = future.done() and not future.cancelled()  # and cancelled, in the same drive: nobody saw it
            if was_served and not self._serve(future.result()):
                self._kept(name).appendleft(future.result())
            raise
        finally:
            if wait in self._waits:
                self._waits.remove(wait)
            if self._served and future in self._served:
                self._served.remove(future)

    def clear(self) -> None:
        """Forget who waits."""
        self._waits.clear()

    def _kept(self, name: str) -> deque[Signal]:
        self._received = {} if self._received is None else self._received
        return self._received.setdefault(name, deque())

    def _serve(self, signal: Signal) -> bool:
        for index, (wanted, future) in enumerate(self._waits):
            if wanted == signal.name and not future.done():
                del self._waits[index]
                self._served = self._served or []
                self._served.append(future)
                future.set_result(signal)
                return True
        return False
