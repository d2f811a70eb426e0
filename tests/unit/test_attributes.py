"""What an attribute may be, and what becomes of it."""

from datetime import UTC, datetime, timedelta, timezone
from enum import IntEnum, StrEnum
from typing import Any

import pytest

from continuum.errors import DurableValueError
from continuum.model.attributes import ATTRIBUTES_MAX, checked, merged

AT = datetime(2026, 3, 1, tzinfo=UTC)


class Region(StrEnum):
    EU = "eu"


class Tier(IntEnum):
    GOLD = 1


def test_values_become_what_json_has() -> None:
    berlin = timezone(timedelta(hours=1))
    given = {
        "text": "Größe",
        "whole": 4,
        "part": 0.5,
        "yes": True,
        "at": datetime(2026, 3, 1, 9, 30, tzinfo=berlin),
        "tags": ("a", 1, True, datetime(2026, 3, 1, tzinfo=UTC)),
        "region": Region.EU,
        "tier": Tier.GOLD,
        "gone": None,
        "none": [],
    }

    found = checked(given)

    assert found == {
        "text": "Größe",
        "whole": 4,
        "part": 0.5,
        "yes": True,
        "at": "2026-03-01T08:30:00Z",
        "tags": ["a", 1, True, "2026-03-01T00:00:00Z"],
        "region": "eu",
        "tier": 1,
        "gone": None,
        "none": [],
    }
    assert [type(found[name]) for name in ("region", "tier", "yes")] == [str, int, bool]


@pytest.mark.parametrize(
    ("value", "path", "why"),
    [
        ({"a": {"b": 1}}, "/attributes/a", "an attribute is a str, int, float, bool, an aware datetime, or a list"),
        ({"a": object()}, "/attributes/a", "an attribute is"),
        ({"a": b"x"}, "/attributes/a", "an attribute is"),
        ({"a": {1}}, "/attributes/a", "an attribute is"),
        ({"a": [1, [2]]}, "/attributes/a/1", "an attribute is"),
        ({"a": ["b", None]}, "/attributes/a/1", "a list holds no None"),
        ({"a": float("nan")}, "/attributes/a", "nan is no exact number of JSON's"),
        ({"a": float("-inf")}, "/attributes/a", "-inf is no exact number"),
        ({"a": 2.0**53}, "/attributes/a", "write it as text, or as a whole number"),
        ({"a": 1 << 63}, "/attributes/a", "does not fit 64 bits; write it as text"),
        ({"a": -(1 << 63) - 1}, "/attributes/a", "does not fit 64 bits"),
        ({"a": AT.replace(tzinfo=None)}, "/attributes/a", "has no time zone"),
        ({"a": "nul\0"}, "/attributes/a", "a text holds no NUL"),
        ({"a": "\ud800"}, "/attributes/a", "half of a character"),
        ({"": 1}, "/attributes/", "a name has 1 to 200 characters"),
        ({"a/b\n": 1}, "/attributes/a~1b\n", "a name has"),
        ({7: 1}, "/attributes/7", "a name has"),
        ({"a": "x" * ATTRIBUTES_MAX}, "/attributes", "they are for finding runs, not for data"),
        ([("a", 1)], "/attributes", "must map names to values"),
        ("a=1", "/attributes", "must map names to values"),
    ],
)
def test_what_cannot_be_an_attribute_is_refused_with_its_place(value: Any, path: str, why: str) -> None:
    with pytest.raises(DurableValueError, match=why) as refused:
        checked(value)
    assert refused.value.path == path


def test_the_largest_that_fit() -> None:
    assert checked({"a": (1 << 63) - 1, "b": -(1 << 63), "c": "x" * 200, "d": 2.0**53 - 1})


def test_changes_are_merged_name_by_name() -> None:
    assert merged({"a": 1, "b": 2}, {"b": 3, "c": 4}) == {"a": 1, "b": 3, "c": 4}
    assert merged({"a": 1, "b": 2}, {"a": None, "z": None}) == {"b": 2}
    assert merged({"a": 1}, {"a": None}) is None
    assert merged(None, {}) is None
    assert merged(None, {"a": [1]}) == {"a": [1]}
