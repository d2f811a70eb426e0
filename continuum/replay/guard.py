"""The guard: meets code that reaches for the real world in a turn, where the purity check could not see it.

Python tells audit hooks of every file opened, socket made, process, thread or connection started (`sys.addaudithook`).
One hook is installed in the process when the first instance asks for it, for a hook can never be taken away; it asks
which loop is running in its thread, so outside of turns it costs that question, and for other instances too. Reading a
clock, the environment or entropy and printing raise no event, threads none before Python 3.12: these are for the purity
check alone.

Let through, because no run can tell: imports and what imported modules do at their top level, source read for a
traceback, time zones, finalizers that the garbage collector happens to call now, and whatever a `side_effect` does.
"""

from __future__ import annotations

import logging
import os
import sys
import zoneinfo
from asyncio import events as asyncio_events
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal, get_args

from continuum.errors import NondeterminismError
from continuum.replay.loop import WorkflowLoop
from continuum.replay.sites import is_installed
from continuum.telemetry.saying import say

GuardMode = Literal["raise", "warn", "off"]
GUARD_MODES: tuple[str, ...] = get_args(GuardMode)

logger = logging.getLogger("continuum.guard")

# Audit events, by their first word. Those that are absent (compile, exec, import, gc, object, sys …) stay in the process.
EVENTS = frozenset(
    (
        *("open", "os", "shutil", "tempfile", "glob", "pathlib", "mmap", "fcntl"),
        *("socket", "ssl", "http", "urllib", "ftplib", "imaplib", "poplib", "smtplib", "nntplib", "telnetlib"),
        *("sqlite3", "subprocess", "pty", "signal", "_thread", "time", "webbrowser", "syslog", "resource"),
        *("winreg", "msvcrt"),
    )
)
INPUT = "builtins.input"
HINT = "do it in an activity and await that, or in a quick `continuum.side_effect(...)`"

# Modules whose business it is to read: importing, showing source in tracebacks, time zones, finalizers.
READERS = frozenset(
    (
        *("_frozen_importlib", "_frozen_importlib_external", "importlib._bootstrap", "importlib._bootstrap_external"),
        *("linecache", "weakref", "zoneinfo._common", "zoneinfo._tzpath"),
    )
)
FINALIZER = "__del__"
DRIVERS = frozenset({WorkflowLoop._run_ready.__code__, WorkflowLoop._close_all.__code__})  # noqa: SLF001


class Guard:
    """What comes of it in the turns of one instance: the run is blocked, or it is told once for each site."""

    def __init__(self, mode: Literal["raise", "warn"]) -> None:
        self._raises = mode == "raise"
        self._told: set[str] = set()

    def met(self, loop: WorkflowLoop, event: str, args: tuple[Any, ...], frame: FrameType | None) -> None:
        """Act on an audit event of a turn."""
        site = _site(frame)
        if site is None or _is_of_a_time_zone(event, args):
            return
        what = f"a workflow's turn reached for the real world, {_what(event, args)}: {HINT}"
        with lifted(loop):  # to tell of it takes files too
            if self._raises:
                error = NondeterminismError(what)
                loop.owner.misused(error)
                raise error
            if site not in self._told:
                self._told.add(site)
                say(logger, logging.WARNING, "%s (%s)", what, site)


def guard_of(mode: str) -> Guard | None:
    """Return the guard for an instance, and install the hook if it is the first; None for "off"."""
    match mode:
        case "raise" | "warn":
            _install()
            return Guard(mode)
        case _:
            return None


@contextmanager
def lifted(loop: WorkflowLoop) -> Iterator[None]:
    """Look away while the block lasts."""
    guard, loop.guard = loop.guard, None
    try:
        yield
    finally:
        loop.guard = guard


_hooks: list[Callable[[str, tuple[Any, ...]], None]] = []


def _install() -> None:
    if not _hooks:
        _hooks.append(_hook)
        sys.addaudithook(_hook)


def _hook(
    event: str,
    args: tuple[Any, ...],
    running: Callable[[], object] = asyncio_events._get_running_loop,
    kind: type[WorkflowLoop] = WorkflowLoop,
) -> None:
    # Its needs are bound as defaults: it is called until the very end of the interpreter, when globals are gone.
    loop = running()
    if type(loop) is kind and loop.guard is not None and (event.partition(".")[0] in EVENTS or event == INPUT):
        loop.guard.met(loop, event, args, sys._getframe(1))


def _site(frame: FrameType | None) -> str | None:
    """Return the line of the workflow that led to an event, or None if the workflow did not."""
    nearest = own = None
    while frame is not None and frame.f_code not in DRIVERS:
        if frame.f_globals.get("__name__") in READERS or frame.f_code.co_name == FINALIZER:
            return None
        file = frame.f_code.co_filename
        nearest = nearest or f"{file}:{frame.f_lineno}"
        if own is None and not is_installed(file):
            own = f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return own or nearest


def _is_of_a_time_zone(event: str, args: tuple[Any, ...]) -> bool:
    """Tell whether a time zone is read: the accelerated `ZoneInfo` has no frame of its own."""
    path = args[0] if event == "open" else None
    return isinstance(path, str) and path.startswith(tuple(f"{folder}{os.sep}" for folder in zoneinfo.TZPATH))


def _what(event: str, args: tuple[Any, ...]) -> str:
    detail = f" {args[0]!r}" if args and isinstance(args[0], str | bytes | int) else ""
    return f"{event}{detail[:100]}"
