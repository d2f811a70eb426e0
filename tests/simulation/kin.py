"""Steps that reach beyond one history: children, messages to other runs, debts, and the next generation.

A child plays a script of its own, under a nonce that names its parent and its key; so whoever asks for it again, in this
generation or a later one, means the same run. What undoes a step is called with a ticket that nobody else has.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import continuum
from continuum import (
    ActivityFailed,
    ChildCancelled,
    ChildFailed,
    ChildHandle,
    RunNotActive,
    RunNotFound,
    Workflow,
    activity,
)
from tests.simulation.hands import PATIENT, hands

LEFT, GONE, TOLD, NOBODY, UNDONE, NOTHING = "left", "gone", "told", "nobody", "undone", "nothing"
CHILD_FAILED, CHILD_CANCELLED, CHILD_LATE, NEXT, SAGA = "its child failed", "its child went", "late", "next", "saga"


@activity(name="simulation.unbook", retry=PATIENT)
async def unbook(ticket: str) -> None:
    await hands().clock.sleep(0.6)


@activity(name="simulation.unhold", retry=PATIENT)
async def unhold(ticket: str) -> None:
    await hands().clock.sleep(0.9)


@activity(name="simulation.book", retry=PATIENT, compensate=unbook)
async def book(ticket: str, seconds: float) -> str:
    await hands().clock.sleep(seconds)
    return ticket


@activity(name="simulation.hold", retry=PATIENT)
async def hold(ticket: str, seconds: float) -> str:
    await hands().clock.sleep(seconds)
    return ticket


class Place:
    """Where a script stands: whose it is, and how many words it has said in all generations."""

    def __init__(self, flow: Workflow[..., Any], nonce: str, said: int) -> None:
        self.flow = flow
        self.nonce = nonce
        self.said = said

    @property
    def ticket(self) -> str:
        """A name that no other step has."""
        return f"{self.nonce}/{self.said}"


# --- children ---------------------------------------------------------------------------------------------------------


async def _child(place: Place, rest: str) -> str:
    key, mode, steps = rest.split(":", 2)
    nonce = f"{place.nonce}.{key or place.said}"
    child: ChildHandle[list[str]] = await continuum.start_child(place.flow, nonce, json.loads(steps), id=key or None)
    if mode == "leave":
        return LEFT
    try:
        if mode == "signal":
            await child.signal("note", place.ticket)
        if mode in {"cancel", "undo"}:
            await child.cancel(compensate=mode == "undo")
    except RunNotActive:
        pass  # it has ended, which is told below
    try:
        return ",".join(await child.result(timeout=1.5 if mode == "brief" else None))
    except ChildFailed:
        return CHILD_FAILED
    except ChildCancelled:
        return CHILD_CANCELLED
    except TimeoutError:
        return CHILD_LATE


# --- other runs -------------------------------------------------------------------------------------------------------


async def _tell(place: Place, rest: str) -> str:
    run_id, name = rest.split(":")
    try:
        await continuum.signal(run_id, name, place.ticket)
    except (RunNotActive, RunNotFound):
        return NOBODY
    return TOLD


async def _kill(place: Place, rest: str) -> str:
    run_id, how = rest.split(":")
    try:
        await continuum.cancel(run_id, compensate=how == "undo")
    except (RunNotActive, RunNotFound):
        return NOBODY
    return TOLD


# --- debts ------------------------------------------------------------------------------------------------------------


async def _book(place: Place, seconds: str) -> str:
    booked = await book(place.ticket, float(seconds))
    return "booked" if booked == place.ticket else f"{booked} for {place.ticket}"


async def _hold(place: Place, seconds: str) -> str:
    await hold.options(compensate=unhold.bound(place.ticket))(place.ticket, float(seconds))
    return "held"


async def _drop(place: Place, limit: str) -> str:
    """What was withdrawn may have happened: what is owed from its scheduling on stays owed."""
    try:
        async with asyncio.timeout(float(limit)):
            return await _hold(place, "1.0")
    except TimeoutError:
        return GONE


async def _undo(place: Place, how: str) -> str:
    if how == "one":
        return UNDONE if await continuum.compensate(book) else NOTHING
    await continuum.compensate_all(parallel=how == "parallel")
    return UNDONE


async def _saga(place: Place, count: str) -> str:
    try:
        async with continuum.saga(parallel=True):
            for number in range(int(count)):
                await book(f"{place.ticket}/{number}", 0.2)
            raise ValueError("as the script says")
    except (ValueError, ActivityFailed):
        return SAGA


# --- generations ------------------------------------------------------------------------------------------------------


async def leave_open(place: Place, how: str) -> None:
    """Leave things behind that the next generation must not hear of."""
    if how == "open":
        lost = [asyncio.create_task(book(place.ticket, 0.2)), asyncio.create_task(asyncio.sleep(3.0))]
        await asyncio.sleep(
            0.2
        )  # its result comes at about the same time, perhaps while this generation's end is on its way
        assert not all(task.done() for task in lost)


KIN: dict[str, Callable[[Place, str], Awaitable[str]]] = {
    "child": _child,
    "tell": _tell,
    "kill": _kill,
    "book": _book,
    "hold": _hold,
    "drop": _drop,
    "undo": _undo,
    "saga": _saga,
}
KIN_ACTIVITIES = [book, hold, unbook, unhold]
