"""The one comparison between what code asks for and what history says it asked for.

Kind, command id, name, idempotency key and arguments must be equal; never line numbers, never options such as timeouts
and retries. Unequal argument bytes are compared once more after the journaled ones were read and written with today's
types, so that a new field or parameter with a default is no drift. A timer's deadline is not part of its identity: the
journaled one stands.
"""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from continuum.errors import ContinuumError
from continuum.model.events import Event, EventType

Recode = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Command:
    """Something that workflow code asks for; `recode` reads journaled arguments and writes them with today's types."""

    type: EventType
    command_id: int
    name: str | None = None
    payload: bytes | None = None
    key: str | None = None
    recode: Recode | None = None


class Drift(ContinuumError):
    """Code and history disagree: `expected` is what the journal holds at `seq`, `found` what the code did, at `site`."""

    def __init__(self, *, seq: int, expected: str, found: str, site: str | None, run_id: str | None = None) -> None:
        where = f" (asked for at {site})" if site else ""
        super().__init__(
            f"the code does not fit the history at event {seq}: expected {expected}, found {found}{where}. "
            "The run is blocked, nothing was written; deploy code that fits, or register the change as a new version.",
            run_id=run_id,
        )
        self.seq = seq
        self.expected = expected
        self.found = found
        self.site = site


def matches(command: Command, event: Event) -> bool:
    """Tell whether `event` is the record of `command`."""
    if (command.type, command.command_id, command.name, command.key) != (
        event.type,
        event.command_id,
        event.name,
        event.key,
    ):
        return False
    if command.type is not EventType.ACTIVITY_SCHEDULED:  # only activities carry arguments
        return True
    return command.payload == event.payload or same_input(command.payload, event.payload, command.recode)


def same_input(new: bytes | None, journaled: bytes | None, recode: Recode | None) -> bool:
    """Tell whether two inputs mean the same, today: equal bytes, or equal once the old was read with today's types."""
    if new == journaled:
        return True
    if journaled is None or new is None or recode is None:
        return False
    try:
        return recode(journaled) == new
    except ContinuumError:  # today's types cannot read it: so it is another input
        return False


def describe(event: Event | Command | None) -> str:
    """Name a command or event for people."""
    if event is None:
        return "the end of the history"
    name = f" {event.name}" if event.name else ""
    number = f" (command {event.command_id})" if event.command_id is not None else ""
    return f"{event.type.value}{name}{number}"


_INSIDE = (os.path.dirname(os.path.dirname(__file__)) + os.sep, os.path.dirname(asyncio.__file__) + os.sep)


def call_site() -> str | None:
    """Return `file:line in function` of the innermost frame that is neither ours nor asyncio's."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith((*_INSIDE, "<")):
            return f"{frame.filename}:{frame.lineno} in {frame.name}"
    return None
