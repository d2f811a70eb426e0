"""The options of an activity that go with its tasks: checked where they are given, at the decorator or at a call."""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal, TypedDict

from msgspec.structs import replace

from continuum.errors import ConfigurationError
from continuum.model.policy import Duration, Retry, seconds
from continuum.model.tasks import TaskOptions

PRIORITY_MAX = 32_767  # the column is a smallint
ISOLATION_LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")

IsolationLevel = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


class Unset(Enum):
    """Marks an option that was left out, where None means none."""

    UNSET = "unset"


UNSET = Unset.UNSET


class Given(TypedDict, total=False):
    """What `task_options` takes."""

    retry: Retry | Unset
    timeout: Duration | Unset | None
    heartbeat_timeout: Duration | Unset | None
    queue: str | Unset
    priority: int | Unset
    isolation_level: IsolationLevel | Unset | None
    serialization_retries: int | Unset


def task_options(base: TaskOptions, given: Given) -> TaskOptions:
    """Return the options with what was given in place of what was there; what is UNSET is inherited.

    Raises:
        ConfigurationError: a value is out of range.
    """
    changes: dict[str, Any] = {}
    for name, value in given.items():
        if value is not UNSET:
            changes |= _CHECKS[name](name, value)
    return replace(base, **changes) if changes else base


def _retry(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Retry):
        raise ConfigurationError(f"{name} must be a continuum.Retry, not {value!r}")
    return {name: value}


def _limit(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {f"{name}_seconds": None}
    limit = seconds(value, name=name)
    if limit == 0:
        raise ConfigurationError(f"{name}=0 would never let an attempt finish; None means no limit")
    return {f"{name}_seconds": limit}


def _queue(name: str, value: Any) -> dict[str, Any]:
    if type(value) is not str or not value:
        raise ConfigurationError(f"{name} must be a name, not {value!r}")
    return {name: value}


def _priority(name: str, value: Any) -> dict[str, Any]:
    if type(value) is not int or not -PRIORITY_MAX <= value <= PRIORITY_MAX:
        raise ConfigurationError(f"{name} must be an integer, at most ±{PRIORITY_MAX}, not {value!r}")
    return {name: value}


def _isolation_level(name: str, value: Any) -> dict[str, Any]:
    if value is not None and value not in ISOLATION_LEVELS:
        raise ConfigurationError(
            f"{name} must be one of {', '.join(map(repr, ISOLATION_LEVELS))} or None, not {value!r}"
        )
    return {name: value}


def _serialization_retries(name: str, value: Any) -> dict[str, Any]:
    if type(value) is not int or value < 0:
        raise ConfigurationError(f"{name} must be an integer of at least 0, not {value!r}")
    return {name: value}


_CHECKS = {
    "retry": _retry,
    "timeout": _limit,
    "heartbeat_timeout": _limit,
    "queue": _queue,
    "priority": _priority,
    "isolation_level": _isolation_level,
    "serialization_retries": _serialization_retries,
}
