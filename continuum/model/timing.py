"""When a schedule fires: from a cron expression, an interval, or one moment to points in time.

Cron follows Debian's cron, in the wall-clock time of an IANA zone. Where the clock is put forward, a job at a fixed time
that the day does not have fires at the first moment that it has; where it is put back, it fires once, the first time
round. A job whose minute or hour begins with `*` goes by elapsed time: it fires in both of the hours that have one name,
and not in the one that is left out. An interval knows no wall clock at all. Whatever the rules say, no fire time is
given twice, and none before the one that was asked from.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from msgspec import Struct

from continuum.errors import InputInvalid, Problem

EVERY_MAX = timedelta(days=36_525)
EVERY_MIN = timedelta(seconds=1)  # what fires more often is a loop, and belongs into a workflow
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Cron(Struct, frozen=True, gc=False, tag="cron"):
    """At the times of a cron expression, in a time zone; not before `start_at`."""

    expression: str
    timezone: str = "UTC"
    start_at: datetime | None = None


class Every(Struct, frozen=True, gc=False, tag="every"):
    """At `start_at`, or else at the beginning of 1970 in UTC, and at each whole interval after it."""

    microseconds: int
    start_at: datetime | None = None


class Once(Struct, frozen=True, gc=False, tag="once"):
    """At one moment."""

    start_at: datetime


Timing = Cron | Every | Once


def cron(expression: object, zone: object, start_at: datetime | None, *, now: datetime) -> Cron:
    """Return the timing of a cron expression.

    Raises:
        InputInvalid: it is none, or it never fires, or there is no such time zone.
    """
    if not isinstance(expression, str):
        raise _invalid("cron", f"cron must be an expression like '0 8 * * MON-FRI', not {expression!r}")
    name = str(zone) if isinstance(zone, ZoneInfo) else zone
    timing = Cron(" ".join(expression.split()), _zone_name(name), start_at)
    try:
        first = next(fire_times(timing, after=now), None)
    except CronSimError as error:
        raise _invalid("cron", f"{expression!r} is no cron expression: {error}") from error
    if first is None:
        raise _invalid("cron", f"the cron expression {expression!r} never fires")
    return timing


def every(interval_seconds: float, start_at: datetime | None) -> Every:
    """Return the timing of an interval.

    Raises:
        InputInvalid: it is shorter than a second, or longer than a century.
    """
    microseconds = round(interval_seconds * 1_000_000)
    if not EVERY_MIN / _MICROSECOND <= microseconds <= EVERY_MAX / _MICROSECOND:
        raise _invalid("every", f"every must be 1 second to {EVERY_MAX.days} days, not {interval_seconds:g} s")
    return Every(microseconds, start_at)


def fire_times(timing: Timing, *, after: datetime) -> Iterator[datetime]:
    """Yield the fire times later than `after`, in UTC and in order, as far as the calendar goes."""
    match timing:
        case Once(start_at):
            if start_at > after:
                yield start_at
        case Every(microseconds, start_at):
            yield from _multiples(start_at or _EPOCH, microseconds, after, is_bounded=start_at is not None)
        case Cron(expression, zone, start_at):
            if start_at is not None and start_at > after:
                after = start_at - _MICROSECOND  # a fire time at start_at itself counts
            yield from _of_cron(expression, zone, after)


def _multiples(anchor: datetime, microseconds: int, after: datetime, *, is_bounded: bool) -> Iterator[datetime]:
    count = (after - anchor) // _MICROSECOND // microseconds + 1
    if is_bounded:
        count = max(count, 0)
    while True:
        try:
            moment = anchor + timedelta(microseconds=count * microseconds)
        except OverflowError:
            return
        yield moment
        count += 1


def _of_cron(expression: str, zone: str, after: datetime) -> Iterator[datetime]:
    simulation = CronSim(expression, after.astimezone(UTC if zone == "UTC" else ZoneInfo(zone)))
    while True:
        try:
            moment = next(simulation).astimezone(UTC)
        except (StopIteration, OverflowError, ValueError):  # nothing in fifty years, or the calendar ends
            return
        # Wall-clock times that the day does not have come out as one moment, and where the clock was put back a time may
        # come out that is earlier than `after`.
        if moment > after:
            after = moment
            yield moment


def _zone_name(name: object) -> str:
    try:
        if isinstance(name, str) and name:
            return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise _invalid("timezone", f"there is no time zone {name!r}: use an IANA name like 'Europe/Berlin'") from error
    raise _invalid("timezone", f"timezone must be an IANA name like 'Europe/Berlin', not {name!r}")


def _invalid(what: str, message: str) -> InputInvalid:
    return InputInvalid(message, problems=[Problem(f"/{what}", message)])
