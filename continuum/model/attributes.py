"""Search attributes: a small flat object beside a run, by which it is found.

A value is a string, a number, a boolean, or a list of those. An aware datetime becomes text, in UTC (RFC 3339). Types
count: 4 is not "4", and true is not 1; 4 is 4.0. None is no value: it is what a name has that is not there, so setting a
name to None removes it. Attributes are for finding runs and readable by whoever reads the database: no data, no secrets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from continuum.errors import DurableValueError
from continuum.model.names import NAME_MAX, is_short_name

AttributeScalar = str | int | float | bool | datetime
AttributeValue = AttributeScalar | Sequence[AttributeScalar] | None

ATTRIBUTES_MAX = 16_384  # bytes of JSON, of all attributes of a run together
_INTEGER_MAX = 1 << 63  # what every reader of JSON and both databases take
_FLOAT_MAX = float(1 << 53)  # beyond it the databases write a float as an integer, and neighbours are the same


def checked(value: object, *, what: str = "attributes") -> dict[str, Any]:
    """Return attributes as JSON has them, names with None included.

    Raises:
        DurableValueError: a name or a value cannot be stored; the path points at it.
    """
    if not isinstance(value, Mapping):
        raise DurableValueError(f"{what} must map names to values, not {value!r}"[:500], path=f"/{what}")
    found: dict[str, Any] = {}
    for name, one in value.items():
        path = f"/{what}/{_token(name)}"
        if not is_short_name(name):
            message = f"{what}: a name has 1 to {NAME_MAX} characters without control characters, not {name!r}"
            raise DurableValueError(message[:500], path=path)
        found[name] = _value(one, path)
    size = size_of(found)
    if size > ATTRIBUTES_MAX:
        raise DurableValueError(
            f"{what} take {size} bytes of JSON, more than {ATTRIBUTES_MAX}: they are for finding runs, not for data",
            path=f"/{what}",
        )
    return found


def merged(old: Mapping[str, Any] | None, changes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return attributes after changes: None removes a name; without any left, None."""
    return {name: one for name, one in {**(old or {}), **changes}.items() if one is not None} or None


def size_of(attributes: Mapping[str, Any]) -> int:
    """Return how many bytes of JSON attributes take."""
    return len(json.dumps(dict(attributes), ensure_ascii=False).encode())


def _value(value: object, path: str) -> Any:
    if isinstance(value, list | tuple):
        return [_scalar(item, f"{path}/{place}") for place, item in enumerate(value)]
    return None if value is None else _scalar(value, path)


def _scalar(value: object, path: str) -> str | int | float | bool:
    match value:
        case bool():
            return value
        case str() if "\x00" not in value and not any("\ud800" <= one <= "\udfff" for one in value):
            return str.__str__(value)  # of an Enum, its value
        case int() if -_INTEGER_MAX <= value < _INTEGER_MAX:
            return int(value)
        case float() if -_FLOAT_MAX < value < _FLOAT_MAX:
            return float(value)
        case datetime() if value.tzinfo is not None:
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case _:
            raise DurableValueError(f"{path}: {_why(value)}"[:500], path=path)


def _why(value: object) -> str:
    match value:
        case str():
            return "a text holds no NUL and no half of a character"
        case int():
            return f"{value!r} does not fit 64 bits; write it as text"
        case float():
            return f"{value!r} is no exact number of JSON's; write it as text, or as a whole number"
        case datetime():
            return f"{value!r} has no time zone"
        case None:
            return "a list holds no None"
        case _:
            return f"an attribute is a str, int, float, bool, an aware datetime, or a list of those, not {value!r}"


def _token(name: object) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")
