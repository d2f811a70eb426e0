"""Where a run stands in its history, and what it adds to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from continuum.model.events import Event, EventType


class Tape:
    """Journaled events ahead of the cursor, then new ones behind the end; patches are asked for by name instead."""

    __slots__ = ("_added", "_cursor", "_history", "_patches", "last_seq")

    def __init__(self) -> None:
        self._added: list[Event] | None = None
        self.last_seq = 0
        self._history: Sequence[Event] = ()
        self._cursor = 0
        self._patches: dict[str | None, bool] | None = None

    def load(self, history: Sequence[Event]) -> None:
        """Stand before the first event of a history; an empty one ends the replay where it is."""
        if history:
            self.last_seq = history[-1].seq
        patches = [event.name for event in history if event.type is EventType.PATCHED]
        if patches:
            self._patches = dict.fromkeys(patches, True)
            history = [event for event in history if event.type is not EventType.PATCHED]
        self._history = history
        self._cursor = 0

    def patched(self, name: str, at: datetime) -> bool:
        """Decide once whether a run takes a patch: as journaled; else if no event is ahead, and then that is journaled."""
        self._patches = {} if self._patches is None else self._patches
        if name not in self._patches:
            self._patches[name] = not self.is_replaying
            if not self.is_replaying:
                self.add(EventType.PATCHED, at, name=name)
        return self._patches[name]

    @property
    def patches(self) -> Mapping[str | None, bool]:
        """What was decided so far, by name."""
        return self._patches or {}

    @property
    def is_replaying(self) -> bool:
        """Whether journaled events are ahead."""
        return self._cursor < len(self._history)

    @property
    def ahead(self) -> Event:
        """The next journaled event."""
        return self._history[self._cursor]

    def step(self) -> Event:
        """Pass the next journaled event, and return it."""
        event = self._history[self._cursor]
        self._cursor += 1
        return event

    def add(
        self,
        type: EventType,
        at: datetime,
        command_id: int | None = None,
        message_id: str | None = None,
        name: str | None = None,
        payload: bytes | None = None,
        key: str | None = None,
    ) -> Event:
        """Append a new event, and return it."""
        self.last_seq += 1
        event = Event(self.last_seq, type, at, command_id, message_id, name, payload, key)
        self._added = self._added or []
        self._added.append(event)
        return event

    def take(self) -> tuple[Event, ...]:
        """Take out what was added."""
        added, self._added = tuple(self._added or ()), None
        return added

    @property
    def unwritten(self) -> int:
        """How many events were added and not taken out."""
        return len(self._added or ())
