"""Declaring schedules, and what operators do with them.

Every verb reads a schedule, decides what it becomes, and writes it behind the revision that it read; who was quicker is
read again. Runs that verbs start are ordinary ones: a trigger inserts its run together with the schedule's new state, a
backfill starts its runs under the ids that the fire times have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from continuum.client.inputs import attributes_of, moment_of, short_name
from continuum.client.reading import PAGE_MAX, Page
from continuum.client.starting import Started, Starter, StartOptions
from continuum.codec import check_size
from continuum.definitions.calls import Call
from continuum.definitions.catalog import Catalog
from continuum.definitions.workflow import Workflow
from continuum.errors import InputInvalid, InstanceDraining, JournalUnavailable, Problem, RunExists, ScheduleNotFound
from continuum.ids import scheduled_run_id
from continuum.journal.port import Firing, ReadJournal, ScheduleJournal
from continuum.model import firing, timing
from continuum.model.policy import seconds
from continuum.model.schedules import (
    FIRE_TIME,
    RESERVED,
    Definition,
    Overlap,
    Progress,
    Schedule,
    ScheduleRow,
    ScheduleState,
    attributes_at,
    holds_fire_time,
    input_at,
    seen,
)
from continuum.model.timing import Timing, fire_times
from continuum.replay.matching import same_input
from continuum.runtime.node import Node
from continuum.runtime.schedule_runner import start_of
from continuum.runtime.telling import enqueued
from continuum.runtime.wakes import Wakes

CATCH_UP = timedelta(days=1)  # an outage of a night loses nothing
BACKFILL_MAX = 1_000
TRIES = 20  # each try was lost to a change by somebody else
TOGETHER = 100  # starts of a backfill that are under way at once

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def expect_fire_time(flow: Any, args: tuple[Any, ...], arguments: bytes) -> None:
    """Check that a fire time that was asked for can be put into the encoded arguments.

    Raises:
        InputInvalid: the workflow's type writes times in a way of its own.
    """
    given = (*flow.args, *flow.kwargs.values()) if isinstance(flow, Call) else args
    if any(one is FIRE_TIME for one in given) and not holds_fire_time(arguments):
        why = "FIRE_TIME goes to a parameter whose type does not write times as RFC 3339 text: annotate it as datetime"
        raise InputInvalid(why, problems=[Problem("", why)])


class SchedulerJournal(ReadJournal, ScheduleJournal, Protocol):
    """What schedules are kept in."""


class ScheduleOptions(Struct, frozen=True, kw_only=True):
    """What a caller decides about a schedule besides what it starts; not checked yet."""

    cron: Any = None
    every: Any = None
    start_at: Any = None
    timezone: Any = "UTC"
    id: Any = None
    overlap: Any = Overlap.SKIP
    catch_up: Any = CATCH_UP
    namespace: Any = "default"
    attributes: Any = None


class Scheduler:
    """Writes schedules."""

    def __init__(
        self,
        *,
        node: Node,
        journal: SchedulerJournal,
        starter: Starter,
        wakes: Wakes,
        catalog: Catalog,
        payload_max: int,
    ) -> None:
        self._node = node
        self._journal = journal
        self._starter = starter
        self._wakes = wakes
        self._catalog = catalog
        self._payload_max = payload_max
        self._named_after: dict[str, Definition] = {}  # schedules without an id of their own, declared here

    # --- declaring ----------------------------------------------------------------------------------------------------

    async def define(self, workflow: Workflow[..., Any], arguments: bytes, options: ScheduleOptions) -> str:
        """Let there be a schedule of this definition; return its id."""
        check_size(arguments, self._payload_max, f"the input of {workflow.name}")
        now = await self._journal.now()
        definition = _definition(workflow, arguments, options, now)
        if options.id is None:
            self._refuse_second(definition)
        for _ in range(TRIES):
            row = await self._journal.schedule(definition.schedule_id)
            if row is not None and self._is_same(row, definition, workflow):
                return definition.schedule_id
            if row is None:
                progress, revision, change = firing.begun(definition.timing, now), None, "defined"
            else:
                progress, revision, change = firing.redefined(row, definition, now), row.revision, "updated"
            if await self._journal.define_schedule(definition, progress, revision=revision):
                self._changed(definition.schedule_id, change)
                return definition.schedule_id
        raise _too_busy(definition.schedule_id)

    def _refuse_second(self, definition: Definition) -> None:
        first = self._named_after.setdefault(definition.schedule_id, definition)
        if first != definition:
            message = (
                f"this process has declared another schedule of {definition.workflow!r} without an id: give each an "
                "id= of its own, or the later one would replace the earlier"
            )
            raise InputInvalid(message, problems=[Problem("/id", "must be given: the workflow has another schedule")])

    @staticmethod
    def _is_same(row: ScheduleRow, new: Definition, workflow: Workflow[..., Any]) -> bool:
        old = row.definition
        if row.unreadable is not None or replace(old, input=new.input) != new:
            return False
        return same_input(new.input, old.input, workflow.signature.parameters.recode)

    # --- operating ----------------------------------------------------------------------------------------------------

    async def get(self, schedule_id: str) -> Schedule:
        """Read a schedule."""
        return seen(await self._row(schedule_id))

    async def page(self, *, state: ScheduleState | str | None, limit: Any, cursor: str | None) -> Page[Schedule]:
        """Read schedules in the order of their ids."""
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= PAGE_MAX:
            problem = Problem("/limit", f"must be 1 to {PAGE_MAX}")
            raise InputInvalid(f"limit must be an integer from 1 to {PAGE_MAX}, not {limit!r}", problems=[problem])
        chosen = None if state is None else _one_of(ScheduleState, state, "state")
        after = None if cursor is None else short_name(cursor, "cursor")
        rows = await self._journal.list_schedules(state=chosen, limit=limit + 1, after=after)
        more = rows[limit - 1].definition.schedule_id if len(rows) > limit else None
        return Page(tuple(seen(row) for row in rows[:limit]), more)

    async def pause(self, schedule_id: str) -> Schedule:
        """Let a schedule rest."""
        return await self._change(schedule_id, "paused", lambda row, _: firing.paused(row.progress))

    async def resume(self, schedule_id: str) -> Schedule:
        """Let a schedule go on."""
        return await self._change(schedule_id, "resumed", firing.resumed)

    async def delete(self, schedule_id: str) -> None:
        """Delete a schedule; its runs stay."""
        if not await self._journal.delete_schedule(short_name(schedule_id, "schedule_id")):
            raise _not_found(schedule_id)
        self._named_after.pop(schedule_id, None)
        self._changed(schedule_id, "deleted")

    async def _change(
        self, schedule_id: str, change: str, become: Callable[[ScheduleRow, datetime], Progress]
    ) -> Schedule:
        for _ in range(TRIES):
            row = await self._row(schedule_id)
            progress = become(row, await self._journal.now())
            if progress == row.progress:
                return seen(row)
            (has_landed,) = await self._journal.fire([Firing(schedule_id, row.revision, progress)])
            if has_landed:
                self._changed(schedule_id, change)
                return seen(replace(row, progress=progress))
        raise _too_busy(schedule_id)

    async def _row(self, schedule_id: str) -> ScheduleRow:
        row = await self._journal.schedule(short_name(schedule_id, "schedule_id"))
        if row is None:
            raise _not_found(schedule_id)
        return row

    def _changed(self, schedule_id: str, change: str) -> None:
        self._node.emit("schedule.changed", schedule=schedule_id, change=change)
        self._wakes.fire_schedules()

    # --- starting -----------------------------------------------------------------------------------------------------

    async def trigger(self, schedule_id: str) -> tuple[Workflow[..., Any], Started]:
        """Start a run now, whatever the schedule's state and its last run's."""
        for _ in range(TRIES):
            self._refuse_draining()
            row, now = await self._row(schedule_id), await self._journal.now()
            workflow = self._catalog.workflow(row.definition.workflow)
            run_id = self._node.new_id()
            start = start_of(_readable(row), workflow, run_id, now, now)
            progress = firing.triggered(row.progress, run_id)
            (has_landed,) = await self._journal.fire([Firing(schedule_id, row.revision, progress, (start,))])
            if has_landed:
                self._node.emit("schedule.triggered", schedule=schedule_id, run_id=run_id)
                enqueued(self._node.emit, start.run)
                self._wakes.runs_waiting()
                return workflow, Started(run_id, existing=False)
        raise _too_busy(schedule_id)

    async def backfill(self, schedule_id: str, start: Any, end: Any) -> tuple[Workflow[..., Any], list[Started]]:
        """Start the runs for the fire times from `start` until before `end` that have passed."""
        first, last = moment_of(start, "start"), moment_of(end, "end")
        if first is None or last is None or first >= last:
            problem = Problem("/end", "must be later than start")
            raise InputInvalid(
                f"a backfill needs a start and a later end, not {start!r} and {end!r}", problems=[problem]
            )
        row, now = await self._row(schedule_id), await self._journal.now()
        definition = _readable(row)
        workflow: Workflow[..., Any] = self._catalog.workflow(definition.workflow)
        moments = _between(definition.timing, first, min(last, now + _MICROSECOND))
        started: list[Started] = []
        for page in (moments[place : place + TOGETHER] for place in range(0, len(moments), TOGETHER)):
            started += await asyncio.gather(*(self._start(definition, workflow, moment) for moment in page))
        return workflow, started

    async def _start(self, definition: Definition, workflow: Workflow[..., Any], moment: datetime) -> Started:
        run_id = scheduled_run_id(definition.schedule_id, (moment - _EPOCH) // _MICROSECOND)
        options = StartOptions(
            run_id=run_id, namespace=definition.namespace, attributes=attributes_at(definition, moment)
        )
        arguments = workflow.signature.parameters.recode(input_at(definition, moment))
        try:
            return await self._starter.start(workflow, arguments, options)
        except RunExists:
            return Started(run_id, existing=True)

    def _refuse_draining(self) -> None:
        if self._node.is_draining:
            raise InstanceDraining(f"instance {self._node.instance!r} is shutting down and starts no new runs")


def _definition(workflow: Workflow[..., Any], arguments: bytes, options: ScheduleOptions, now: datetime) -> Definition:
    """Check everything.

    Raises:
        InputInvalid, DurableValueError, ConfigurationError: a value is not acceptable; the message says which would be.
    """
    attributes = attributes_of(options.attributes)
    if attributes is not None and any(name.startswith(RESERVED) for name in attributes):
        message = (
            f"attributes of a schedule must not begin with {RESERVED!r}: those of its runs say where they come from"
        )
        raise InputInvalid(message, problems=[Problem("/attributes", message)])
    definition = Definition(
        schedule_id=workflow.name if options.id is None else short_name(options.id, "id"),
        workflow=workflow.name,
        timing=_timing(options, now),
        input=arguments,
        overlap=_one_of(Overlap, options.overlap, "overlap"),
        catch_up_seconds=seconds(options.catch_up, name="catch_up"),
        namespace=short_name(options.namespace, "namespace"),
        attributes=attributes,
    )
    attributes_of(attributes_at(definition, now))  # with those that are added they must not be too large either
    return definition


def _timing(options: ScheduleOptions, now: datetime) -> Timing:
    start_at = moment_of(options.start_at, "start_at")
    if options.cron is not None and options.every is not None:
        raise _bad_timing("cron and every exclude each other")
    if options.cron is not None:
        return timing.cron(options.cron, options.timezone, start_at, now=now)
    if options.timezone != "UTC":
        raise _bad_timing("timezone goes with cron: intervals and moments are the same everywhere")
    if options.every is not None:
        return timing.every(seconds(options.every, name="every"), start_at)
    if start_at is None:
        raise _bad_timing("it would never fire: give cron=, every=, or start_at= alone for once")
    return timing.Once(start_at)


def _between(when: Timing, start: datetime, end: datetime) -> list[datetime]:
    moments: list[datetime] = []
    for moment in takewhile(lambda moment: moment < end, fire_times(when, after=start - _MICROSECOND)):
        moments.append(moment)
        if len(moments) > BACKFILL_MAX:
            raise InputInvalid(
                f"there are more than {BACKFILL_MAX} fire times between {start} and {end}: backfill in smaller parts",
                problems=[Problem("/end", "too far from start")],
            )
    return moments


def _readable(row: ScheduleRow) -> Definition:
    if row.unreadable is not None:
        raise InputInvalid(row.unreadable)
    return row.definition


def _one_of(kind: Any, value: Any, what: str) -> Any:
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(one.value for one in kind)
        problem = Problem(f"/{what}", f"must be one of {known}")
        raise InputInvalid(f"{value!r} is no {what}; there are {known}", problems=[problem]) from error


def _bad_timing(why: str) -> InputInvalid:
    return InputInvalid(f"this schedule cannot be made: {why}", problems=[Problem("", why)])


def _not_found(schedule_id: str) -> ScheduleNotFound:
    return ScheduleNotFound(f"there is no schedule {schedule_id!r} in this instance")


def _too_busy(schedule_id: str) -> JournalUnavailable:
    return JournalUnavailable(f"schedule {schedule_id!r} was changed by others {TRIES} times meanwhile; try again")
