"""A machine for looking: it replays a history and causes nothing in the world."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from continuum.model.failure import Failure
from continuum.replay.machine import Machine


class OfflineMachine(Machine):
    """A machine whose code causes nothing: a side effect that history does not hold never comes back."""

    __slots__ = ()

    async def side_effect(self, make: Callable[[], bytes]) -> bytes | Failure:
        """Return the journaled value, or wait for ever."""
        if self._tape.is_replaying:
            return await super().side_effect(make)
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]  # it never comes
