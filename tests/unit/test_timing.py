"""When schedules fire: cron in a wall clock that is put forward and back, intervals, single moments."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from continuum.errors import ContinuumError, InputInvalid
from continuum.model.timing import Cron, Every, Once, Timing, cron, every, fire_times

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def first(timing: Timing, count: int, *, after: datetime = NOW) -> list[str]:
    moments = islice(fire_times(timing, after=after), count)
    return [moment.isoformat(" ", "minutes").removesuffix("+00:00") for moment in moments]


def berlin(expression: str) -> Cron:
    return cron(expression, "Europe/Berlin", None, now=NOW)


def test_weekdays_at_eight_in_berlin_are_an_hour_earlier_in_utc_from_spring_on() -> None:
    times = first(berlin("0 8 * * MON-FRI"), 3, after=at("2026-03-26T12:00"))
    assert times == ["2026-03-27 07:00", "2026-03-30 06:00", "2026-03-31 06:00"]


# On 29 March 2026 clocks in Berlin go from 01:59:59 to 03:00:00; on 25 October from 02:59:59 back to 02:00:00.


def test_a_time_that_the_day_does_not_have_fires_at_the_first_moment_that_it_has() -> None:
    times = first(berlin("30 2 * * *"), 3, after=at("2026-03-27T12:00"))
    assert times == ["2026-03-28 01:30", "2026-03-29 01:00", "2026-03-30 00:30"]  # 02:30, 03:00, 02:30 in Berlin


def test_two_times_that_the_day_does_not_have_fire_once() -> None:
    assert first(berlin("0,30 2 29 3 *"), 2, after=at("2026-03-28T12:00")) == ["2026-03-29 01:00", "2027-03-29 00:00"]


def test_a_time_that_the_day_has_twice_fires_the_first_time() -> None:
    times = first(berlin("30 2 * * *"), 3, after=at("2026-10-23T12:00"))
    assert times == ["2026-10-24 00:30", "2026-10-25 00:30", "2026-10-26 01:30"]


def test_the_second_hour_of_a_name_does_not_bring_back_what_the_first_had() -> None:
    in_the_second = datetime(2026, 10, 25, 2, 10, fold=1, tzinfo=BERLIN)
    assert first(berlin("30 2 * * *"), 1, after=in_the_second) == ["2026-10-26 01:30"]


def test_what_fires_every_half_hour_goes_on_doing_so_while_the_clock_changes() -> None:
    for night in ("2026-03-29T00:00", "2026-10-25T00:00"):
        moments = list(islice(fire_times(berlin("*/30 * * * *"), after=at(night)), 8))
        assert {after - before for before, after in pairwise(moments)} == {timedelta(minutes=30)}


def test_a_fire_time_is_later_than_the_moment_asked_from() -> None:
    assert first(berlin("0 8 * * *"), 1, after=at("2026-01-05T07:00")) == ["2026-01-06 07:00"]
    assert first(berlin("0 8 * * *"), 1, after=at("2026-01-05T06:59:59.999999")) == ["2026-01-05 07:00"]


def test_cron_may_have_seconds_and_a_beginning() -> None:
    timing = cron("*/20 * * * * *", "UTC", at("2026-06-01T00:00"), now=NOW)
    moments = list(islice(fire_times(timing, after=NOW), 2))
    assert moments == [at("2026-06-01T00:00"), at("2026-06-01T00:00:20")]


def test_february_29_is_waited_for() -> None:
    assert first(cron("0 0 29 2 *", "UTC", None, now=NOW), 2) == ["2028-02-29 00:00", "2032-02-29 00:00"]


@pytest.mark.parametrize(
    ("expression", "zone", "says"),
    [
        ("0 0 30 2 *", "UTC", "no cron expression"),
        ("0 0 31 4,6,9,11 *", "UTC", "no cron expression"),
        ("0 0 * * MON#6", "UTC", "no cron expression"),
        ("0 8 * *", "UTC", "no cron expression"),
        ("61 * * * *", "UTC", "no cron expression"),
        ("", "UTC", "no cron expression"),
        ("tomorrow", "UTC", "no cron expression"),
        (5, "UTC", "must be an expression"),
        ("0 8 * * *", "Europe/Berlyn", "no time zone 'Europe/Berlyn'"),
        ("0 8 * * *", "", "IANA name"),
        ("0 8 * * *", "../etc/passwd", "no time zone"),
        ("0 8 * * *", None, "IANA name"),
        ("0 8 * * *", "\0", "no time zone"),
    ],
)
def test_bad_cron_is_refused_with_the_reason(expression: object, zone: object, says: str) -> None:
    with pytest.raises(InputInvalid, match=says) as refused:
        cron(expression, zone, None, now=NOW)
    assert refused.value.problems


def test_a_cron_that_finds_no_day_before_the_calendar_ends_never_fires() -> None:
    with pytest.raises(InputInvalid, match="never fires"):
        cron("0 0 29 2 *", "UTC", None, now=datetime(9999, 1, 1, tzinfo=UTC))


def test_a_zone_may_be_an_object() -> None:
    assert cron("0  8 * * *", BERLIN, None, now=NOW) == Cron("0 8 * * *", "Europe/Berlin")


def test_intervals_are_counted_from_1970_or_from_their_beginning() -> None:
    assert first(every(6 * 3600, None), 2, after=at("2026-01-01T05:00")) == ["2026-01-01 06:00", "2026-01-01 12:00"]
    anchored = every(6 * 3600, at("2026-01-01T01:30"))
    assert first(anchored, 2, after=at("2025-06-01T00:00")) == ["2026-01-01 01:30", "2026-01-01 07:30"]
    assert first(anchored, 1, after=at("2026-01-01T07:30")) == ["2026-01-01 13:30"]


@pytest.mark.parametrize("interval", [0.0, 0.5, 1e12])
def test_an_interval_that_makes_no_sense_is_refused(interval: float) -> None:
    with pytest.raises(InputInvalid, match="every must be"):
        every(interval, None)


def test_once_is_once() -> None:
    timing = Once(at("2026-05-01T00:00"))
    assert first(timing, 5) == ["2026-05-01 00:00"]
    assert first(timing, 5, after=at("2026-05-01T00:00")) == []


@pytest.mark.parametrize("timing", [Cron("0 0 1 1 *"), Every(86_400_000_000), Cron("0 8 * * *", "Europe/Berlin")])
def test_the_calendar_ends_without_a_word(timing: Timing) -> None:
    after = datetime(9999, 12, 30, 12, tzinfo=UTC)
    assert len(list(islice(fire_times(timing, after=after), 5))) <= 2


EXPRESSIONS = [
    "30 2 * * *",
    "0,30 1-3 * * *",
    "*/20 * * * *",
    "15 */2 * * *",
    "5 2 * * SUN",
    "0 0 1 * *",
    "59 23 L * *",
]
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "UTC"]


@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(ZONES),
    st.datetimes(datetime(2011, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_fire_times_only_grow_and_do_not_depend_on_where_one_starts_counting(
    expression: str, zone: str, after: datetime
) -> None:
    timing = Cron(expression, zone)
    moments = list(islice(fire_times(timing, after=after), 6))
    assert all(before < later for before, later in pairwise([after, *moments]))
    for place, moment in enumerate(moments[:-1]):
        assert next(fire_times(timing, after=moment)) == moments[place + 1]


def test_refusals_are_in_the_tree() -> None:
    assert issubclass(InputInvalid, ContinuumError)
