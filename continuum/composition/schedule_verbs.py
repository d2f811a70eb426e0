"""The verbs about schedules as functions: each finds its instance and asks it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any, TypeVar, TypeVarTuple, Unpack, overload
from zoneinfo import ZoneInfo

from continuum.client.reading import Page
from continuum.client.scheduling import CATCH_UP
from continuum.composition.scheduling import OverlapName
from continuum.composition.verbs import resolve
from continuum.definitions.calls import Call
from continuum.definitions.handles import RunHandle
from continuum.definitions.schedule_handles import ScheduleHandle
from continuum.model.policy import Duration
from continuum.model.schedules import Overlap, Schedule, ScheduleState

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


@overload
async def schedule(
    flow: Callable[[Unpack[Ts]], Coroutine[Any, Any, R]],
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
    instance: str | None = ...,
) -> ScheduleHandle[R]: ...
@overload
async def schedule(
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
    instance: str | None = ...,
) -> ScheduleHandle[R]: ...
async def schedule(  # type: ignore[misc]  # long: the options are documented one by one  # mypy: as for start()
    flow: Any,
    /,
    *args: Any,
    cron: str | None = None,
    every: Duration | None = None,
    start_at: datetime | None = None,
    timezone: str | ZoneInfo = "UTC",
    id: str | None = None,
    overlap: Overlap | OverlapName = Overlap.SKIP,
    catch_up: Duration = CATCH_UP,
    namespace: str = "default",
    attributes: Mapping[str, Any] | None = None,
    instance: str | None = None,
) -> ScheduleHandle[Any]:
    """Let there be a schedule that starts runs of a workflow; returns once that is durable.

    Meant to be called whenever the host starts: the same definition again changes nothing, another one replaces it
    (a paused schedule stays paused, a failed one is active again). Exactly one run is started per fire time, whatever
    number of nodes there is.

    Args:
        flow: a workflow followed by its positional arguments, or `flow.bound(...)`. `continuum.FIRE_TIME` among them
            stands for the fire time of each run. Runs are started in the newest version then registered.
        cron: five fields (or six, with seconds first), as Debian's cron reads them, in `timezone`.
        every: an interval, seconds or timedelta, counted from `start_at` or else from the beginning of 1970 in UTC.
        start_at: an aware datetime: alone the only fire time; with `cron` no fire time is earlier.
        timezone: an IANA name or ZoneInfo, for `cron`.
        id: what the schedule is called, 1 to 200 characters; by default the workflow's name.
        overlap: what happens while the last run is still active: "skip", "buffer_one", "allow" or "cancel_other".
        catch_up: how late a fire time may be made up for after an outage; older ones are counted as missed.
        namespace: of the runs.
        attributes: of the runs, besides `continuum.schedule` and `continuum.scheduled_at`.

    Raises:
        InputInvalid, DurableValueError: an argument or option is not acceptable, or the cron expression never fires.
        ConfigurationError: a duration is negative or not a number.
        InstanceNotRegistered, InstanceNotStarted, WrongEventLoop, JournalUnavailable.
    """
    return await resolve(instance).schedule(
        flow,
        *args,
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


async def get_schedule(schedule_id: str, /, *, instance: str | None = None) -> Schedule:
    """Read a schedule: its definition, its state, its next and last fire time.

    Raises:
        ScheduleNotFound: there is none of this id.
    """
    return await resolve(instance).get_schedule(schedule_id)


async def list_schedules(
    *,
    state: ScheduleState | str | None = None,
    limit: int = 100,
    cursor: str | None = None,
    instance: str | None = None,
) -> Page[Schedule]:
    """List schedules in the order of their ids, by pages of at most 1,000; pass `next_cursor` on to read the next one.

    Raises:
        InputInvalid: the state, the limit or the cursor is not acceptable.
    """
    return await resolve(instance).list_schedules(state=state, limit=limit, cursor=cursor)


async def pause_schedule(schedule_id: str, /, *, instance: str | None = None) -> Schedule:
    """Let a schedule rest until it is resumed; what it has started goes on. Nothing changes for one that has ended.

    Raises:
        ScheduleNotFound: there is none of this id.
    """
    return await resolve(instance).pause_schedule(schedule_id)


async def resume_schedule(schedule_id: str, /, *, instance: str | None = None) -> Schedule:
    """Let a paused or failed schedule go on.

    The fire times that a pause passed over are gone (`backfill_schedule` starts their runs); those that a failure stood
    in the way of are made up for within the catch-up window.

    Raises:
        ScheduleNotFound: there is none of this id.
    """
    return await resolve(instance).resume_schedule(schedule_id)


async def trigger_schedule(schedule_id: str, /, *, instance: str | None = None) -> RunHandle[Any]:
    """Start a run now, whatever the schedule's state, and beside a last run that is still active.

    Raises:
        ScheduleNotFound: there is none of this id.
        WorkflowNotFound, InputInvalid, DurableValueError: its workflow is not known here, or takes other arguments.
        InstanceDraining: this instance is shutting down.
    """
    return await resolve(instance).trigger_schedule(schedule_id)


async def backfill_schedule(
    schedule_id: str, start: datetime, end: datetime, /, *, instance: str | None = None
) -> list[RunHandle[Any]]:
    """Start the runs for the fire times from `start` until before `end` that have passed, all of them at once.

    Overlap policy, state and catch-up window do not matter. A fire time whose run there is already starts nothing: its
    run is among those returned, with `existing` true. So a backfill may be repeated.

    Raises:
        ScheduleNotFound: there is none of this id.
        InputInvalid: the times are naive or in the wrong order, or there are more than 1,000 fire times between them.
        WorkflowNotFound, DurableValueError: its workflow is not known here, or takes other arguments.
        InstanceDraining: this instance is shutting down.
    """
    return await resolve(instance).backfill_schedule(schedule_id, start, end)


async def delete_schedule(schedule_id: str, /, *, instance: str | None = None) -> None:
    """Delete a schedule; its runs stay.

    Raises:
        ScheduleNotFound: there is none of this id.
    """
    await resolve(instance).delete_schedule(schedule_id)
