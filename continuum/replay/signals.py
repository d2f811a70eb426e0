"""The signals of one run: received and not consumed, and those that are waited for. First in, first out, per name."""

from __future__ import annotations

import asyncio

Waiting = asyncio.Future[bytes | None]


class Signals:
    """Signals meet waits; a cancelled wait consumes nothing."""

    __slots__ = ("_received", "_waits")

    def __init__(self) -> None:
        self._received: list[tuple[str, bytes | None]] | None = None  # made when it is needed: most are waited for
        self._waits: list[tuple[str, Waiting]] = []

    def has(self, name: str) -> bool:
        """Tell whether a signal of this name could be taken without waiting."""
        return any(received == name for received, _ in self._received or ())

    @property
    def awaited(self) -> tuple[str, ...]:
        """The names that are waited for."""
        return tuple(name for name, future in self._waits if not future.done())

    def receive(self, name: str, payload: bytes | None) -> None:
        """Give a signal to who has waited longest, or keep it."""
        if not self._serve(name, payload):
            self._received = self._received or []
            self._received.append((name, payload))

    async def take(self, name: str, future: Waiting) -> bytes | None:
        """Take the oldest signal of this name, or wait for the next by `future`."""
        received = self._received or []
        for index, (its_name, payload) in enumerate(received):
            if its_name == name:
                del received[index]
                return payload
        wait = (name, future)
        self._waits.append(wait)
        try:
            return await future
        except asyncio.CancelledError:
            was_served = future.done() and not future.cancelled()  # and cancelled, in the same drive: nobody saw it
            if was_served and not self._serve(name, future.result()):
                self._received = [(name, future.result()), *(self._received or ())]
            raise
        finally:
            if wait in self._waits:
                self._waits.remove(wait)

    def clear(self) -> None:
        """Forget who waits."""
        self._waits.clear()

    def _serve(self, name: str, payload: bytes | None) -> bool:
        for index, (wanted, future) in enumerate(self._waits):
            if wanted == name and not future.done():
                del self._waits[index]
                future.set_result(payload)
                return True
        return False
