"""Whether an instance takes work, and what is said where it does not run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from continuum.composition.instances import DEFAULT
from continuum.composition.late import LateStart


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether an instance takes work; `details` names what keeps failing."""

    state: Literal["ready", "draining", "drained", "degraded", "not_started"]
    instance: str
    details: tuple[str, ...] = ()


def not_started(name: str, late: LateStart | None) -> Readiness:
    """Return the readiness of an instance that does not run."""
    return Readiness("not_started", name, () if late is None or late.error is None else (str(late.error),))


def why_not_running(name: str, late: LateStart | None) -> str:
    """Return what a verb says of an instance that does not run."""
    if late is not None and late.is_waited_for:
        return f"instance {name!r} has not started yet, and is tried again: {late.error or 'it is being opened'}"
    how = (
        "enter `async with continuum.application()` first"
        if name == DEFAULT
        else "enter its children first (`async with children(...)`, or the host's lifespan)"
    )
    return f"instance {name!r} is registered but not running: {how}"
