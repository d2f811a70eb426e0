"""Finds that nothing can wake what a test waits for, and says what the runs wait for: else the test would hang.

A standstill is more than that all is quiet: the test may have a task, a thread or another process that sends the signal
after a real sleep. So it is one only while the host's loop has nothing to run, no timer and no socket, and no thread does
anything; where a loop does not show its timers (uvloop) it is never one. What is seen of threads is where they are: one
that waits without a timeout for work, or for another thread, does nothing by itself. And it has to last for a while.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from types import FrameType
from typing import Any

from continuum.client.reading import History
from continuum.composition.instance import Instance
from continuum.composition.wiring import Wiring
from continuum.errors import ContinuumError
from continuum.model.runs import Run
from continuum.model.states import RunState
from continuum.runtime.execution import Execution
from continuum.testing.replaying import Waiting, waits_of

PATIENCE_SECONDS = 1.0  # real ones
POOLS = {("concurrent.futures.thread", "_worker"), ("continuum.runtime.threads", "_serve")}  # where idle threads stand


class Standstill(ContinuumError):
    """A test waits for a run that nothing can wake; the message says which runs wait for what."""


class Watch:
    """Tells how long nothing could have happened."""

    def __init__(self) -> None:
        self._since: float | None = None

    def is_over(self) -> None:
        """Hear that something happens, or that nobody waits."""
        self._since = None

    def has_lasted(self) -> bool:
        """Tell whether it has been a standstill for long enough; to be asked again and again while all is quiet."""
        loop = asyncio.get_running_loop()
        if self._since is None or may_be_woken(loop):
            self._since = loop.time()
        return loop.time() - self._since >= PATIENCE_SECONDS


def may_be_woken(loop: Any) -> bool:
    """Tell whether anything outside of the instances may still happen, as far as can be seen: in doubt it may."""
    try:
        has_timers = any(not timer.cancelled() for timer in loop._scheduled)  # noqa: SLF001
        watched = set(loop._selector.get_map()) - {loop._ssock.fileno()}  # noqa: SLF001
    except AttributeError:  # another kind of loop
        return True
    return bool(loop._ready) or has_timers or bool(watched) or any(_busy_threads())  # noqa: SLF001


def _busy_threads() -> Iterator[int]:
    own, frames = threading.get_ident(), sys._current_frames()  # noqa: SLF001  # public in all but its name
    for thread in threading.enumerate():
        if thread.ident is not None and thread.ident != own:
            frame = frames.get(thread.ident)
            if frame is None or not _waits_for_others(frame):
                yield thread.ident


def _waits_for_others(frame: FrameType) -> bool:
    place = frame.f_globals.get("__name__"), frame.f_code.co_name
    return place in POOLS or (place == ("threading", "wait") and frame.f_locals.get("timeout") is None)


async def standstill(instances: Iterable[Instance], *, wants_time: bool) -> Standstill:
    """Return the error that says which runs wait for what: those that somebody waits for, then the other open ones.

    `wants_time`: something becomes due later, but time does not move by itself.
    """
    lines = [line for instance in instances async for line in _told(instance)]
    still = (
        "with auto=False time moves by env.advance() alone, and nobody calls it"
        if wants_time
        else "no turn, no attempt, no timer and no message is under way"
    )
    return Standstill(f"nothing can wake what this test waits for: {still}.\n" + "\n".join(lines))


async def _told(instance: Instance) -> AsyncIterator[str]:
    wiring = instance.wiring
    if wiring is None:
        return
    awaited = wiring.awaiting.run_ids
    others = tuple(execution.facts.run_id for execution in wiring.registry)
    for run_id in dict.fromkeys((*awaited, *others)):
        run = await instance.get_run(run_id)
        what = await _standing(instance, wiring, run)
        yield f"  {run.workflow} ({run_id}{', awaited' if run_id in awaited else ''}) {what}"


async def _standing(instance: Instance, wiring: Wiring, run: Run) -> str:
    execution: Execution | None = wiring.registry.get(run.run_id)
    if run.state is RunState.BLOCKED:
        return f"is blocked: {run.blocked_reason}"
    if execution is None or execution.machine is None:
        return f"is {run.state.value}, and nothing here runs it"
    history = await instance.history(run.run_id)
    assert isinstance(history, History)  # what a reader returns, whom it is promised a list
    waits = waits_of(execution.machine, history.records)
    if not waits:
        return "waits for something of its own that none of its tasks sets: an Event, a Queue, a future"
    return f"waits for {', '.join(map(_said, waits))}"


def _said(waiting: Waiting) -> str:
    match waiting.kind:
        case "signal":
            return f"the signal {waiting.name!r}: send it, or give the wait a timeout"
        case "timer":
            return f"its timer at {waiting.data}"
        case kind:
            return f"the {kind} {waiting.name}"
