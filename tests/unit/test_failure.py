"""A failure as data: bounded, JSON, whatever the exception is."""

import json
import math
from datetime import timedelta
from typing import Any

import pytest

from continuum.errors import ActivityError
from continuum.model.failure import DETAILS_MAX, MESSAGE_MAX, TRACEBACK_MAX, Failure, failure_of


class Unprintable(Exception):
    broken: BaseException = RuntimeError("no")

    def __str__(self) -> str:
        raise self.broken

    __repr__ = __str__


class Deadly(Unprintable):
    broken = SystemExit("no")


class Base(Exception):
    pass


class Special(Base, LookupError):
    pass


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001
        return caught


def test_a_failure_names_its_type_its_bases_and_its_place() -> None:
    failure = failure_of(raised(Special("no")))

    assert (failure.type, failure.message) == (f"{__name__}.Special", "no")
    assert failure.causes == (
        f"{__name__}.Special",
        f"{__name__}.Base",
        "builtins.LookupError",
        "builtins.Exception",
    )
    assert failure.traceback is not None
    assert "in raised" in failure.traceback
    assert (failure.attempts, failure.timed_out, failure.retryable, failure.retry_after) == (0, False, True, None)


def test_a_huge_error_is_cut() -> None:
    failure = failure_of(raised(ValueError("x" * 100_000)))

    assert len(failure.message) == MESSAGE_MAX
    assert failure.message.endswith("x…")
    assert failure.traceback is not None
    assert len(failure.traceback) == TRACEBACK_MAX
    assert failure.traceback.startswith("…x")
    assert len(failure.encode()) < 25_000


def test_a_deep_traceback_keeps_its_innermost_frames() -> None:
    def dig(depth: int, other: bool) -> None:
        if depth == 0:
            raise ValueError("bottom")
        (dig if other else dug)(depth - 1, not other)

    dug = dig
    with pytest.raises(ValueError, match="bottom") as caught:
        dig(500, True)
    failure = failure_of(caught.value)

    assert failure.traceback is not None
    assert failure.traceback.endswith("ValueError: bottom\n")


def test_an_unprintable_error_is_described_all_the_same() -> None:
    failure = failure_of(raised(Unprintable()))

    assert failure.message == "<Unprintable whose __str__ raised RuntimeError>"
    assert failure_of(raised(Deadly())).message == "<Deadly whose __str__ raised SystemExit>"
    assert Failure.decode(failure.encode()).message == failure.message


@pytest.mark.parametrize("message", ["\ud800", "a\0b", "ümläut", ""])
def test_any_text_can_be_encoded(message: str) -> None:
    failure = failure_of(raised(ValueError(message)))

    assert Failure.decode(failure.encode()) == failure
    failure.message.encode()


def test_an_activity_error_says_more() -> None:
    failure = failure_of(ActivityError("no", details={"code": 5}, retryable=False, retry_after=30))

    assert (failure.details, failure.retryable, failure.retry_after) == ({"code": 5}, False, 30)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0, 0),
        (1.5, 1.5),
        (timedelta(minutes=1), 60.0),
        (-1, None),
        (math.nan, None),
        (math.inf, None),
        ("5", None),
        (None, None),
    ],
)
def test_an_impossible_delay_is_left_to_the_policy(given: Any, expected: float | None) -> None:
    assert failure_of(ActivityError("no", retry_after=given)).retry_after == expected


@pytest.mark.parametrize("details", [object(), {"a": {1, 2}}, math.nan, {("a", "b"): 1}, [b"bytes"]])
def test_details_that_are_no_json_are_replaced_by_a_word(details: object) -> None:
    failure = failure_of(ActivityError("no", details=details))

    assert list(failure.details) == ["omitted"]
    assert failure.details["omitted"].startswith("the details are not JSON: ")
    Failure.decode(failure.encode())


def test_endless_details_are_replaced_by_a_word() -> None:
    endless: list[object] = []
    endless.append(endless)

    assert "not JSON" in failure_of(ActivityError("no", details=endless)).details["omitted"]


def test_large_details_are_replaced_by_a_word() -> None:
    assert failure_of(ActivityError("no", details="x" * DETAILS_MAX)).details == {
        "omitted": f"the details take {DETAILS_MAX + 2} bytes, more than details_max={DETAILS_MAX}"
    }
    assert failure_of(ActivityError("no", details="xx"), details_max=3).details == {
        "omitted": "the details take 4 bytes, more than details_max=3"
    }
    assert failure_of(ActivityError("no", details="x"), details_max=3).details == "x"


def test_bytes_hold_what_is_known_and_nothing_else() -> None:
    full = Failure("t", "m", ("a", "b"), {"x": 1}, "trace", 3, timed_out=True)

    assert Failure.decode(full.encode()) == full
    assert json.loads(Failure("t", "m").encode()) == {"type": "t", "message": "m", "causes": []}
    assert Failure.decode(b'{"type":"t","message":"m","of_tomorrow":1}') == Failure("t", "m")


def test_what_is_in_a_group_is_in_its_failure() -> None:
    said = ActivityError("declined", details={"code": 51}, retryable=False)
    group = ExceptionGroup("two", [ActivityError("busy", retry_after=3), ExceptionGroup("one", [Special("no"), said])])

    failure = failure_of(raised(group))

    where = "continuum.errors.ActivityError"
    assert failure.message == (
        f"two (2 sub-exceptions); {where}: busy; builtins.ExceptionGroup: one (2 sub-exceptions); "
        f"{__name__}.Special: no; {where}: declined"
    )
    assert failure.type == "builtins.ExceptionGroup"
    assert {f"{__name__}.Base", "builtins.LookupError", where} < set(failure.causes)
    assert (failure.details, failure.retryable, failure.retry_after) == ({"code": 51}, False, None)
