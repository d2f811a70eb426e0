"""One event per transition, handed to whoever listens.

Cheap when nobody listens (one truth test), harmless when a listener fails (it is reported once per event name through
`logging` and stays attached). Emission is synchronous and happens after the commit that it speaks of.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)
logger.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class TelemetryEvent:
    """`name` is dotted (`run.completed`); `measurements` are numbers with their unit in the key, like `delay_seconds`;
    `metadata` always holds `instance`.
    """

    name: str
    measurements: Mapping[str, float]
    metadata: Mapping[str, Any]


Handler = Callable[[TelemetryEvent], object]

_handlers: dict[Handler, frozenset[str] | None] = {}
_reported: set[tuple[Handler, str]] = set()


def attach(handler: Handler, events: Collection[str] | None = None) -> None:
    """Call `handler` with every event, or with those named in `events`; attaching again replaces its filter.

    The handler runs on the loop that emits: it must be quick, and anything slow belongs behind a queue of its own.
    """
    if isinstance(events, str):
        events = (events,)
    _handlers[handler] = None if events is None else frozenset(events)


def detach(handler: Handler) -> None:
    """Stop calling `handler`; harmless if it is not attached."""
    _handlers.pop(handler, None)
    _reported.difference_update([entry for entry in _reported if entry[0] == handler])


class Emitter:
    """Emits with the metadata that all events of one instance share."""

    __slots__ = ("_shared",)

    def __init__(self, *, instance: str, node: str) -> None:
        self._shared = {"instance": instance, "node": node}

    def __call__(self, name: str, measurements: Mapping[str, float] | None = None, /, **metadata: Any) -> None:
        """Hand `name` to whoever listens; `measurements` are numbers, everything else is metadata."""
        if _handlers:
            _hand_out(TelemetryEvent(name, measurements or {}, {**self._shared, **metadata}))

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens, for callers whose metadata costs something to gather."""
        return bool(_handlers)


def _hand_out(event: TelemetryEvent) -> None:
    for handler, names in tuple(_handlers.items()):
        if names is not None and event.name not in names:
            continue
        try:
            handler(event)
        except Exception:  # a listener must never decide what happens to a run
            if (handler, event.name) not in _reported:
                _reported.add((handler, event.name))
                logger.exception("telemetry handler %r failed on %s; further failures stay silent", handler, event.name)
