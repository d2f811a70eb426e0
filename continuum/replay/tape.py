"""Where a run stands in its history, and what it adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from continuum.model.events import Event, EventType


class Tape:
    """Journaled events ahead of the cursor, then new ones behind the end."""

    __slots__ = ("_added", "_cursor", "_history", "last_seq")

    def __init__(self) -> None:
        self._added: list[Event] | None = None
        self.last_seq = 0
        self._history: Sequence[Event] = ()
        self._cursor = 0

    def load(self, history: Sequence[Event]) -> None:
        """Stand before the first event of a history; an empty one ends the replay where it is."""
        self._history = history
        self._cursor = 0

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
        self.last_seq = event.seq
        return event

    def add(
        self,
        type: EventType,
        at: datetime,
        *,
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
