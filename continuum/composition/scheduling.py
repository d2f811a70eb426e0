"""The verbs about schedules as an instance's methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar, TypeVarTuple, Unpack, overload
from zoneinfo import ZoneInfo

from continuum.client.client import Client
from continuum.client.reading import Page
from continuum.client.scheduling import CATCH_UP, ScheduleOptions
from continuum.client.starting import Started
from continuum.definitions.calls import Call
from continuum.definitions.handles import RunHandle
from continuum.definitions.schedule_handles import ScheduleHandle
from continuum.definitions.workflow import Workflow
from continuum.model.policy import Duration
from continuum.model.schedules import Overlap, Schedule, ScheduleState

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

Flow = Callable[[Unpack[Ts]], Coroutine[Any, Any, R]]
OverlapName = Literal["skip", "buffer_one", "allow", "cancel_other"]


class SchedulingVerbs(ABC):
    """What an instance does with schedules; `continuum.schedule` and its kin say what each verb does."""

    @property
    @abstractmethod
    def _client(self) -> Client: ...

    @abstractmethod
    def _handle(self, workflow: Workflow[..., Any], started: Started) -> RunHandle[Any]: ...

    @overload
    async def schedule(
        self,
        flow: Flow[*Ts, R],
        /,
        *args: *Ts,
        cron: str | None = ...,
        every: Duration | None = ...,
        start_at: datetime | None = ...,
        timezone: str | ZoneInfo = ...,
        id: str | None = ...,
        overlap: Overlap | OverlapName = ...,
        catch_up: Duration = ...,
        namespace: str = ...,
        attributes: Mapping[str, Any] | None = ...,
    ) -> ScheduleHandle[R]: ...
    @overload
    async def schedule(
        self,
        flow: Call[R],
        /,
        *,
        cron: str | None = ...,
        every: Duration | None = ...,
        start_at: datetime | None = ...,
        timezone: str | ZoneInfo = ...,
        id: str | None = ...,
        overlap: Overlap | OverlapName = ...,
        catch_up: Duration = ...,
        namespace: str = ...,
        attributes: Mapping[str, Any] | None = ...,
    ) -> ScheduleHandle[R]: ...
    async def schedule(  # type: ignore[misc]  # mypy does not see that Any takes a TypeVarTuple's arguments
        self,
        flow: Any,
        /,
        *args: Any,  # typed by the overloads
        cron: str | None = None,
        every: Duration | None = None,
        start_at: datetime | None = None,
        timezone: str | ZoneInfo = "UTC",
        id: str | None = None,
        overlap: Overlap | OverlapName = Overlap.SKIP,
        catch_up: Duration = CATCH_UP,
        namespace: str = "default",
        attributes: Mapping[str, Any] | None = None,
    ) -> ScheduleHandle[Any]:
        """Declare a schedule; see `continuum.schedule`."""
        options = ScheduleOptions(
            cron=cron,
            every=every,
            start_at=start_at,
            timezone=timezone,
            id=id,
            overlap=overlap,
            catch_up=catch_up,
            namespace=namespace,
            attributes=attributes,
        )
        return ScheduleHandle(await self._client.schedule(flow, args, options), self)

    async def get_schedule(self, schedule_id: str, /) -> Schedule:
        """Read a schedule; see `continuum.get_schedule`."""
        return await self._client.scheduler("get_schedule").get(schedule_id)

    async def list_schedules(
        self, *, state: ScheduleState | str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[Schedule]:
        """List schedules; see `continuum.list_schedules`."""
        return await self._client.scheduler("list_schedules").page(state=state, limit=limit, cursor=cursor)

    async def pause_schedule(self, schedule_id: str, /) -> Schedule:
        """Let a schedule rest; see `continuum.pause_schedule`."""
        return await self._client.scheduler("pause_schedule").pause(schedule_id)

    async def resume_schedule(self, schedule_id: str, /) -> Schedule:
        """Let a schedule go on; see `continuum.resume_schedule`."""
        return await self._client.scheduler("resume_schedule").resume(schedule_id)

    async def trigger_schedule(self, schedule_id: str, /) -> RunHandle[Any]:
        """Start a run now; see `continuum.trigger_schedule`."""
        return self._handle(*await self._client.scheduler("trigger_schedule").trigger(schedule_id))

    async def backfill_schedule(self, schedule_id: str, start: datetime, end: datetime, /) -> list[RunHandle[Any]]:
        """Start the runs of a range of past fire times; see `continuum.backfill_schedule`."""
        backfilled = self._client.scheduler("backfill_schedule").backfill(schedule_id, start, end)
        workflow, started = await backfilled
        return [self._handle(workflow, one) for one in started]

    async def delete_schedule(self, schedule_id: str, /) -> None:
        """Delete a schedule; see `continuum.delete_schedule`."""
        await self._client.scheduler("delete_schedule").delete(schedule_id)
