"""What a declared schedule is held by."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from continuum.definitions.handles import RunHandle
from continuum.model.schedules import Schedule

R_co = TypeVar("R_co", covariant=True)


class ScheduleVerbs(Protocol):
    """The verbs of an instance that a handle needs."""

    async def get_schedule(self, schedule_id: str, /) -> Schedule:
        """Read it."""
        ...

    async def pause_schedule(self, schedule_id: str, /) -> Schedule:
        """Let it rest."""
        ...

    async def resume_schedule(self, schedule_id: str, /) -> Schedule:
        """Let it go on."""
        ...

    async def trigger_schedule(self, schedule_id: str, /) -> RunHandle[Any]:
        """Start a run now."""
        ...

    async def backfill_schedule(self, schedule_id: str, start: datetime, end: datetime, /) -> list[RunHandle[Any]]:
        """Start the runs of a range of past fire times."""
        ...

    async def delete_schedule(self, schedule_id: str, /) -> None:
        """Delete it."""
        ...


class ScheduleHandle(Generic[R_co]):
    """A schedule, and what can be done with it."""

    __slots__ = ("_verbs", "schedule_id")

    def __init__(self, schedule_id: str, verbs: ScheduleVerbs) -> None:
        self.schedule_id = schedule_id
        self._verbs = verbs

    def __repr__(self) -> str:
        return f"ScheduleHandle({self.schedule_id!r})"

    async def describe(self) -> Schedule:
        """Read the schedule; see `continuum.get_schedule`."""
        return await self._verbs.get_schedule(self.schedule_id)

    async def pause(self) -> Schedule:
        """Let it rest; see `continuum.pause_schedule`."""
        return await self._verbs.pause_schedule(self.schedule_id)

    async def resume(self) -> Schedule:
        """Let it go on; see `continuum.resume_schedule`."""
        return await self._verbs.resume_schedule(self.schedule_id)

    async def trigger(self) -> RunHandle[R_co]:
        """Start a run now; see `continuum.trigger_schedule`."""
        return await self._verbs.trigger_schedule(self.schedule_id)

    async def backfill(self, start: datetime, end: datetime, /) -> list[RunHandle[R_co]]:
        """Start the runs of a range of past fire times; see `continuum.backfill_schedule`."""
        return await self._verbs.backfill_schedule(self.schedule_id, start, end)

    async def delete(self) -> None:
        """Delete it; see `continuum.delete_schedule`."""
        await self._verbs.delete_schedule(self.schedule_id)
