"""One event per transition, handed to whoever listens.

`heard` maps the name of an event to its handlers and holds only names that somebody listens to. So an event that nobody
wants costs one look-up (`if "run.started" in heard:`), before anything is gathered for it. Whoever emits often asks that
way; whoever emits rarely just calls its `Emitter`.

A handler is called at once, on the thread that emits: mostly the instance's loop, for `loop.blocked` the heartbeat's
thread. It must be quick, and anything slow belongs behind a queue of its own: a call that takes longer than
`SLOW_SECONDS` is warned of, for the engine stands still meanwhile. One that raises is detached after a warning, and what
it raised goes no further: a listener never decides what becomes of a run.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Collection, Hashable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from time import perf_counter
from typing import Any

from msgspec import Struct

from continuum.errors import ConfigurationError
from continuum.telemetry.events import EVENTS
from continuum.telemetry.saying import say

logger = logging.getLogger(__name__)

SLOW_SECONDS = 0.05  # ten turns of other runs could have been made meanwhile


class TelemetryEvent(Struct, frozen=True):
    """`name` is dotted (`run.completed`); `measurements` are numbers with their unit in the key, like `delay_seconds`;
    `metadata` always holds `instance` and `node`.
    """

    name: str
    measurements: Mapping[str, float]
    metadata: Mapping[str, Any]


Handler = Callable[[TelemetryEvent], object]

heard: dict[str, tuple[Handler, ...]] = {}

_lock = threading.Lock()  # of attach and detach; who emits reads without it
_attached: dict[Handler, frozenset[str]] = {}
_slowest: dict[Handler, float] = {}


def attach(handler: Handler, events: Collection[str] | None = None) -> None:
    """Call `handler` with every event, or with those named in `events`; attaching again replaces its choice.

    Args:
        handler: a plain function; it is called on the thread that emits and must be quick.
        events: names, and patterns such as `run.*` or `*.failed`; None: all.

    Raises:
        ConfigurationError: no event has such a name, or the handler is an `async def`, cannot be called or has no hash.
    """
    if not callable(handler):
        raise ConfigurationError(f"telemetry handler {_named(handler)} is not callable: pass a function")
    if not isinstance(handler, Hashable):
        raise ConfigurationError(
            f"telemetry handler {_named(handler)} has no hash, by which it is found again: pass one of its methods"
        )
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__):
        raise ConfigurationError(
            f"telemetry handler {handler!r} is an `async def`, and handlers are called at once: pass a function that "
            "puts the event into a queue"
        )
    names = _names(["*"] if events is None else [events] if isinstance(events, str) else events)
    with _lock:
        _attached[handler] = names
        _share()


def detach(handler: Handler) -> None:
    """Stop calling `handler`; harmless if it is not attached."""
    with _lock:
        _attached.pop(handler, None)
        _slowest.pop(handler, None)
        _share()


def _names(patterns: Collection[str]) -> frozenset[str]:
    """Return the events that are meant."""
    names: set[str] = set()
    for pattern in patterns:
        meant = [name for name in EVENTS if name == pattern or fnmatchcase(name, pattern)]
        if not meant:
            near = get_close_matches(pattern, EVENTS, n=3, cutoff=0.6)
            hint = f"did you mean {', '.join(near)}?" if near else "docs/telemetry.md lists them all"
            raise ConfigurationError(f"no telemetry event is named {pattern!r}; {hint}")
        names.update(meant)
    return frozenset(names)


def _share() -> None:
    """Bring `heard` up to date, in place and name by name: others read it meanwhile."""
    for name in EVENTS:
        handlers = tuple(handler for handler, names in _attached.items() if name in names)
        if handlers:
            heard[name] = handlers
        else:
            heard.pop(name, None)


class Emitter:
    """Emits with the metadata that all events of one instance share."""

    __slots__ = ("_node", "instance")

    def __init__(self, *, instance: str, node: str) -> None:
        self.instance = instance
        self._node = node

    def __call__(self, name: str, measurements: Mapping[str, float] | None = None, /, **metadata: Any) -> None:
        """Hand `name` to whoever listens; `measurements` are numbers, everything else is metadata."""
        if name in heard:
            self.hand(name, measurements or {}, metadata)

    def hand(self, name: str, measurements: Mapping[str, float], metadata: dict[str, Any]) -> None:
        """Do the same with a dictionary that becomes the event's own: for what every run emits."""
        metadata["instance"] = self.instance
        metadata["node"] = self._node
        event = TelemetryEvent(name, measurements, metadata)
        for handler in heard.get(name, ()):
            began = perf_counter()
            try:
                handler(event)
            except KeyboardInterrupt:  # somebody wants the process to end
                raise
            except BaseException as error:  # noqa: BLE001  # even a CancelledError of the handler's own
                self._give_up(handler, event, error)
            else:
                seconds = perf_counter() - began
                if seconds > SLOW_SECONDS:
                    _warn_of_slowness(handler, event, seconds)

    def _give_up(self, handler: Handler, event: TelemetryEvent, error: BaseException) -> None:
        detach(handler)
        who, what = _named(handler), _named(error)
        said = "telemetry handler %s raised on %s and was detached: %s"
        say(logger, logging.WARNING, said, who, event.name, what, exc_info=error, extra=_whose(event))
        self("handler.detached", handler=who, event=event.name, error=what)


def _warn_of_slowness(handler: Handler, event: TelemetryEvent, seconds: float) -> None:
    """Warn when a handler is slow, and again when it is twice as slow as it was."""
    if seconds > 2 * _slowest.get(handler, 0.0):
        _slowest[handler] = seconds
        said = "telemetry handler %s took %.0f ms on %s, while the instance stood still: hand events to a queue"
        say(logger, logging.WARNING, said, _named(handler), seconds * 1000, event.name, extra=_whose(event))


def _named(thing: object) -> str:
    """Return a repr, also of what has none: it is the host's code that is asked."""
    try:
        return repr(thing)
    except Exception:  # noqa: BLE001  # its type says enough
        return f"<{type(thing).__name__}>"


def _whose(event: TelemetryEvent) -> dict[str, Any]:
    """Return what a log line says of an event."""
    return {key: event.metadata[key] for key in ("instance", "run_id", "workflow") if key in event.metadata}
