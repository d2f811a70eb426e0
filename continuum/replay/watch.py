"""What a workflow's loop knows of the guard that watches its turns (`continuum.replay.guard`)."""

from __future__ import annotations

from types import FrameType
from typing import Any, Protocol, TypeVar

L_contra = TypeVar("L_contra", contravariant=True)  # the loop, which in turn knows its guard


class Watch(Protocol[L_contra]):
    """What watches over the turns of an instance."""

    def met(self, loop: L_contra, event: str, args: tuple[Any, ...], frame: FrameType | None) -> None:
        """Act on an audit event."""
        ...


LoopGuard = Watch[Any]
