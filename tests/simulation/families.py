"""What must hold between runs: parents and children, senders and receivers."""

from __future__ import annotations

import json
from collections.abc import Callable
from uuid import UUID, uuid5

from continuum.journal.memory import MemoryStore
from continuum.model.events import Event, EventType
from continuum.model.messages import MessageKind
from continuum.model.runs import RunRow
from continuum.model.states import RunState

CHILD_ENDINGS = {
    EventType.CHILD_COMPLETED: RunState.COMPLETED,
    EventType.CHILD_FAILED: RunState.FAILED,
    EventType.CHILD_CANCELLED: RunState.CANCELLED,
}
CANCELS = frozenset({MessageKind.CANCEL, MessageKind.COMPENSATE})
Generation = tuple[str, int]


class Families:
    """Watches who asked for whom, and who heard of whose end."""

    def __init__(self, store: MemoryStore, expect: Callable[[bool, str], None], record: Callable[[str], None]) -> None:
        self._store = store
        self._expect = expect
        self._record = record
        self._asked: dict[Generation, dict[str, bool]] = {}  # child → whether its end was heard
        self._children: dict[str, dict[str, None]] = {}  # of all generations
        self._sent: dict[tuple[str, int, int], Event] = {}

    def read(self, key: Generation, event: Event) -> None:
        """Take note of an event of a generation."""
        run_id = key[0]
        if event.type is EventType.CHILD_STARTED:
            child = str(uuid5(UUID(run_id), event.key or ""))
            self._asked.setdefault(key, {})[child] = False
            self._children.setdefault(run_id, {})[child] = None
            row = self._store.runs.get(child)
            self._expect(row is not None, f"{run_id} asked for {child}, which is not there")
            self._expect(row is None or row.parent_id == run_id, f"the child {child} of {run_id} has another parent")
        elif event.type in CHILD_ENDINGS:
            self._hear(key, event)
        elif event.type is EventType.MESSAGE_SENT:
            self._sent[(*key, event.command_id or 0)] = event

    def _hear(self, key: Generation, event: Event) -> None:
        asked, child = self._asked.get(key, {}), event.name or ""
        self._expect(asked.get(child) is False, f"{key} heard of the end of {child}: it had {asked.get(child)}")
        asked[child] = True
        row = self._store.runs.get(child)
        is_so = row is not None and row.state is CHILD_ENDINGS[event.type]
        self._expect(is_so, f"{key} heard {event.type.value} of {child}, which is {row}")

    def told(self, key: Generation, event: Event) -> tuple[str, str] | None:
        """Return whom an answered message was for and what it said, if it was a signal."""
        sent = self._sent[(*key, event.command_id or 0)]
        if not (sent.name or "").startswith("signal/"):
            return None
        return sent.key or "", str(json.loads(sent.payload or b"null"))

    def look(self, row: RunRow, old: RunRow | None) -> None:
        """Look at a run whose row has changed, once all rows of the same step are known."""
        if old is None and row.parent_id is not None:
            is_asked = row.run_id in self._children.get(row.parent_id, ())
            self._expect(is_asked, f"{row.run_id} is a child that {row.parent_id} never asked for")
        if row.state.has_ended:
            if row.state is RunState.CANCELLED:
                self._look_at_cascade(row)
            above = self._store.runs.get(row.parent_id or "")
            if above is not None:
                self._look_at_news(above)
        else:
            self._look_at_news(row)

    def _look_at_news(self, parent: RunRow) -> None:
        """Whoever asked for a child that has ended has heard of it, or has it in the inbox."""
        asked = self._asked.get((parent.run_id, parent.generation))
        if parent.state.has_ended or not asked:
            return
        waiting = [stored.message.name for stored in self._store.unread(parent.run_id)]
        for child, is_heard in asked.items():
            row = self._store.runs.get(child)
            if not is_heard and row is not None and row.state.has_ended:
                self._expect(
                    child in waiting, f"{child} has ended, and its parent {parent.run_id} will never hear of it"
                )

    def _look_at_cascade(self, row: RunRow) -> None:
        for child in self._children.get(row.run_id, ()):
            below = self._store.runs.get(child)
            if below is not None and below.parent_id == row.run_id and not below.state.has_ended:
                self._record(child)
