"""Hints between journals that share a store."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

UNHEARD_MAX = 1_000  # notices are hints: past this the oldest are lost, and polling finds the work


class Listener:
    """One `listen` in progress: what was said and not yet heard."""

    def __init__(self) -> None:
        self._unheard: deque[Sequence[str]] = deque(maxlen=UNHEARD_MAX)
        self._something = asyncio.Event()
        self._is_closed = False

    def hear(self, notices: Sequence[str]) -> None:
        """Note what was said; never waits."""
        self._unheard.append(notices)
        self._something.set()

    def close(self) -> None:
        """End the iteration."""
        self._is_closed = True
        self._something.set()

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Sequence[str]:
        while not self._unheard:
            if self._is_closed:
                raise StopAsyncIteration
            self._something.clear()
            await self._something.wait()
        return self._unheard.popleft()
