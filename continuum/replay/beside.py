"""Beside the run: where a side effect is made.

It is made once and never on replay. Whatever it took from its run (a number of its random source, the identity of a
command, a task) would not be taken on replay, and everything after it would be another. So while it is made the
workflow's loop is not the running one: this one is, which has nothing. Time and facts may be read, they stay as they are.
"""

from __future__ import annotations

import asyncio
from asyncio import events as asyncio_events
from collections.abc import Callable
from typing import Any, TypeVar

from continuum.errors import NotAllowedHere
from continuum.replay.loop import WorkflowLoop

T = TypeVar("T")


class BesideLoop(asyncio.AbstractEventLoop):
    """Stands where a workflow's loop would, and has nothing to give; `run` is the loop beside which it stands."""

    def __init__(self, run: WorkflowLoop) -> None:
        self.run = run


def beside(fn: Callable[[], T]) -> T:
    """Call a function that may do what it likes, but takes nothing from the run that asks."""
    run = asyncio_events._get_running_loop()
    assert type(run) is WorkflowLoop
    asyncio_events._set_running_loop(BesideLoop(run))  # type: ignore[abstract]  # made below
    try:
        return fn()
    finally:
        asyncio_events._set_running_loop(run)


def refuse_beside(what: str) -> None:
    """Raise NotAllowedHere where a side effect is being made."""
    if isinstance(asyncio_events._get_running_loop(), BesideLoop):
        raise NotAllowedHere(
            f"a side effect asked its run for {what}: it is made once and never on replay, so it can take nothing from "
            "the run, nor wait; ask before it, and let its function use the answer"
        )


def _refusing(name: str) -> Callable[..., Any]:
    def method(_self: BesideLoop, *_args: Any, **_kwargs: Any) -> Any:
        refuse_beside(f"loop.{name}()")

    method.__name__ = name
    method.__doc__ = "Raise NotAllowedHere."
    return method


for _name in dir(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name != "run":
        setattr(BesideLoop, _name, _refusing(_name))
