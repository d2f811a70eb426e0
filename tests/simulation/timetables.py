"""Schedules: which ones clients declare, pause, resume and trigger, drawn from the seed; in two seeds of five."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from continuum.client.client import Client
from continuum.client.scheduling import ScheduleOptions
from continuum.clock import VirtualClock
from continuum.errors import JournalUnavailable
from continuum.model.schedules import FIRE_TIME, Overlap
from tests.simulation.plans import STORY_SECONDS
from tests.simulation.story import CallLost
from tests.simulation.workflows import ticks

PAUSE_SECONDS = 0.5  # before a client whose call failed asks again


@dataclass(frozen=True, slots=True)
class Timetable:
    """A schedule as a client plans it; every moment is one of the story."""

    schedule_id: str
    every: float
    overlap: Overlap
    lasts: float  # an attempt of its runs
    catch_up: float
    declared: tuple[float, ...]  # the same, by hosts that start one after the other
    paused: tuple[float, float] | None  # when, and for how long
    triggered: tuple[float, ...]


def timetables_of(seed: int) -> list[Timetable]:
    """Draw the schedules of a seed."""
    draw = Random(f"{seed}/timetables")
    return [_timetable(draw, f"t{number}") for number in range(draw.choice((0, 0, 0, 1, 2)))]


def _timetable(draw: Random, schedule_id: str) -> Timetable:
    every = round(draw.uniform(1.0, 4.0), 3)
    begins = draw.uniform(0, STORY_SECONDS / 4)
    return Timetable(
        schedule_id,
        every,
        overlap=draw.choice(list(Overlap)),
        lasts=round(every * draw.choice((0.1, 0.5, 1.5)), 3),
        catch_up=draw.choice((0.0, 86_400.0)),
        declared=(begins, *(begins + draw.uniform(0, 5) for _ in range(draw.choice((0, 1, 2))))),
        paused=(draw.uniform(begins, STORY_SECONDS), draw.uniform(0.5, 8.0)) if draw.random() < 0.4 else None,
        triggered=tuple(draw.uniform(begins, STORY_SECONDS) for _ in range(draw.choice((0, 0, 1, 2)))),
    )


class Call(Protocol):
    """How a client asks some node."""

    def __call__(self, what: str, verb: Callable[[Client], Awaitable[Any]], /) -> Awaitable[Any]: ...


class Timekeepers:
    """The clients that look after schedules. Each asks until it is answered, except who triggers: that may count twice."""

    def __init__(self, timetables: Sequence[Timetable], clock: VirtualClock, call: Call) -> None:
        self._timetables = timetables
        self._clock = clock
        self._call = call

    async def play(self) -> None:
        """Do what is planned."""
        await asyncio.gather(*(self._keep(timetable) for timetable in self._timetables))

    async def stop(self) -> None:
        """Let no schedule fire any more."""
        for one in self._timetables:
            await self._pause(one)

    async def _keep(self, one: Timetable) -> None:
        await self._declare(one, one.declared[0])
        await asyncio.gather(
            *(self._declare(one, at) for at in one.declared[1:]),
            *(self._trigger(one, at) for at in one.triggered),
            *([] if one.paused is None else [self._rest(one, *one.paused)]),
        )

    async def _until(self, at: float) -> None:
        await self._clock.sleep(max(at - self._clock.monotonic(), 0.0))

    async def _declare(self, one: Timetable, at: float) -> None:
        await self._until(at)
        options = ScheduleOptions(every=one.every, id=one.schedule_id, overlap=one.overlap, catch_up=one.catch_up)
        arguments = (one.schedule_id, FIRE_TIME, one.lasts)
        await self._insist(f"schedule {one}", lambda client: client.schedule(ticks, arguments, options))

    async def _rest(self, one: Timetable, at: float, lasts: float) -> None:
        await self._until(at)
        await self._pause(one)
        await self._clock.sleep(lasts)
        name = one.schedule_id
        await self._insist(f"resume {name}", lambda client: client.scheduler("resume").resume(name))

    async def _pause(self, one: Timetable) -> None:
        name = one.schedule_id
        await self._insist(f"pause {name}", lambda client: client.scheduler("pause").pause(name))

    async def _trigger(self, one: Timetable, at: float) -> None:
        await self._until(at)
        name = one.schedule_id
        try:
            await self._call(f"trigger {name}", lambda client: client.scheduler("trigger").trigger(name))
        except (CallLost, JournalUnavailable):
            return

    async def _insist(self, what: str, verb: Callable[[Client], Awaitable[Any]]) -> None:
        while True:
            try:
                await self._call(what, verb)
            except (CallLost, JournalUnavailable):
                await self._clock.sleep(PAUSE_SECONDS)
            else:
                return
