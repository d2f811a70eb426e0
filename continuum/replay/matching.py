"""The one comparison between what code asks for and what history says it asked for.

Kind, command id, name, idempotency key and arguments must be equal; never line numbers, never options such as timeouts
and retries. Unequal argument bytes are compared once more after the journaled ones were read and written with today's
types, so that a new field or parameter with a default is no drift. A timer's deadline is not part of its identity: the
journaled one stands.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from msgspec import Struct

from continuum.errors import ContinuumError
from continuum.model.events import Event, EventType
from continuum.replay.loop import WorkflowLoop
from continuum.replay.sites import is_installed

Recode = Callable[[bytes], bytes]
Decode = Callable[[bytes], object]


class Command(Struct, frozen=True, gc=False):
    """Something that workflow code asks for.

    `decode` reads journaled arguments with today's types, `recode` also writes them again.
    """

    type: EventType
    command_id: int
    name: str | None = None
    payload: bytes | None = None
    key: str | None = None
    recode: Recode | None = None
    decode: Decode | None = None


class Drift(ContinuumError):
    """Code and history disagree: `expected` is what was journaled as `seq`, `at`; `found` is what the code did, at `site`.

    `site` is the line that asked, or on which the code waits without asking. Which line asked then is not journaled: the
    time says whose code it was.
    """

    def __init__(
        self,
        *,
        seq: int,
        expected: str,
        found: str,
        site: str | None,
        waits: bool = False,
        at: datetime | None = None,
        run_id: str | None = None,
    ) -> None:
        where = "" if site is None else f" ({'it waits' if waits else 'asked for'} at {site})"
        when = "" if at is None else f", journaled at {at:%Y-%m-%d %H:%M:%S} UTC"
        super().__init__(
            f"the code does not fit the history at event {seq}: expected {expected}{when}; found {found}{where}. "
            "The run is blocked, nothing was written; deploy code that fits, or register the change as a new version.",
            run_id=run_id,
        )
        self.seq = seq
        self.expected = expected
        self.found = found
        self.site = site
        self.at = at


_FREE = frozenset({EventType.TIMER_STARTED, EventType.SIDE_EFFECT_RECORDED})


def matches(command: Command, event: Event) -> bool:
    """Tell whether `event` is the record of `command`."""
    if (command.type, command.command_id) != (event.type, event.command_id):
        return False
    if command.type in _FREE:  # what a timer or a side effect came to, only history knows
        return True
    if (command.name, command.key) != (event.name, event.key):
        return False
    return same_input(command.payload, event.payload, command.recode, command.decode)


def same_input(new: bytes | None, journaled: bytes | None, recode: Recode | None, decode: Decode | None = None) -> bool:
    """Tell whether two inputs mean the same, today: equal bytes, or equal once the old was read with today's types.

    With `decode`, sets are equal in whatever order they were written: it is that of their members' hashes, and those of
    strings differ from process to process.
    """
    if new == journaled:
        return True
    if journaled is None or new is None or recode is None:
        return False
    try:
        old = recode(journaled)
        if old == new or decode is None or sorted(old) != sorted(new):  # a set in another order has the same bytes
            return old == new
        return decode(old) == decode(new)
    except ContinuumError:  # today's types cannot read it: so it is another input
        return False


def describe(event: Event | Command) -> str:
    """Name a command or event for people."""
    name = f" {event.name}" if event.name else ""
    number = f" (command {event.command_id})" if event.command_id is not None else ""
    return f"{event.type.value}{name}{number}"


def difference(command: Command, event: Event) -> str:
    """Say what is different about a command that is of the same name as the journaled one; no values, they may be secret."""
    if (command.type, command.command_id, command.name) != (event.type, event.command_id, event.name):
        return ""
    if command.key != event.key:
        return ", under another key"
    try:
        old, new = json.loads(event.payload or b"null"), json.loads(command.payload or b"null")
    except ValueError:
        return ", with an input that is not JSON"
    if not isinstance(old, dict) or not isinstance(new, dict):
        return ", with another input"
    names = [name for name in {**old, **new} if name not in old or name not in new or old[name] != new[name]]
    return f", with another {', '.join(names)}"


_INSIDE = (f"{Path(__file__).parent.parent}{os.sep}", f"{Path(asyncio.__file__).parent}{os.sep}")


def call_site() -> str | None:
    """Return `file:line in function` of the innermost frame of the workflow that is neither ours nor asyncio's.

    One that is in no library either is preferred: it is what somebody can mend.
    """
    frames = itertools.takewhile(_is_workflow, reversed(traceback.extract_stack()))
    foreign = sorted((frame for frame in frames if _is_foreign(frame.filename)), key=_is_of_a_library)
    return f"{foreign[0].filename}:{foreign[0].lineno} in {foreign[0].name}" if foreign else None


def waiting_site(task: asyncio.Task[Any]) -> str | None:
    """Return `file:line in function` of the innermost line of the workflow on which a task waits; None once it is done."""
    site: str | None = None
    inner: Any = task.get_coro()
    while inner is not None:
        frame: FrameType | None = getattr(inner, "cr_frame", None)
        if frame is not None and _is_foreign(frame.f_code.co_filename):
            site = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        inner = getattr(inner, "cr_await", None)  # a future awaits nothing: there it ends
    return site


def _is_workflow(frame: traceback.FrameSummary) -> bool:
    return frame.name != WorkflowLoop.drive.__name__ or _is_foreign(frame.filename)  # what drives us is the host's


def _is_of_a_library(frame: traceback.FrameSummary) -> bool:
    return is_installed(frame.filename)


def _is_foreign(filename: str) -> bool:
    return not filename.startswith(_INSIDE)
