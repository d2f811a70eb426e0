"""Looks at schedules after every step that moves one on, and says what must never be so.

A fire time is decided once: it has its one run, or was skipped, missed or put off, and the counters say so. What a
policy forbids beside a run is looked up in the tables at the moment when the run appears.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

from continuum.ids import scheduled_run_id
from continuum.journal.memory import MemoryStore
from continuum.journal.port import Firing
from continuum.model.messages import MessageKind
from continuum.model.schedules import Overlap, ScheduleRow, ScheduleState
from continuum.model.timing import fire_times

STEPS = frozenset({"define_schedule", "fire"})
LATE_SECONDS = 12.0  # what nodes may be behind, a while after the last misfortune
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clockwork:
    """Watches the schedules of one store."""

    def __init__(self, store: MemoryStore, expect: Callable[[bool, str], None]) -> None:
        self._store = store
        self._expect = expect
        self._rows: dict[str, ScheduleRow] = {}
        self._decided: Counter[str] = Counter()  # fire times that steps have passed
        self._triggered: Counter[str] = Counter()
        self._fired: dict[str, set[datetime]] = {}

    def look(self, step: str, args: Sequence[Any], answer: Any) -> None:
        """Compare schedules with what they were before a step."""
        if step == "fire":
            for firing, has_landed in zip(args[-1], answer, strict=True):
                if has_landed:
                    self._look_at_starts(firing, self._rows[firing.schedule_id])
        for schedule_id, row in self._store.schedules.items():
            old = self._rows.get(schedule_id)
            if row is not old:
                if old is not None:
                    self._look_at_row(row, old)
                self._rows[schedule_id] = row

    def _look_at_starts(self, firing: Firing, old: ScheduleRow) -> None:
        name, now = firing.schedule_id, self._store.now()
        self._expect(old.revision == firing.revision, f"schedule {name} moved on from revision {old.revision}")
        fired = self._fired.setdefault(name, set())
        owed = [*([] if old.progress.buffered_at is None else [old.progress.buffered_at]), *self._passed(old, now)]
        moments = {scheduled_run_id(name, (moment - _EPOCH) // _MICROSECOND): moment for moment in owed}
        for start in firing.starts:
            self._expect(start.run_id in self._store.runs, f"schedule {name} says that it started {start.run_id}")
            moment = moments.get(start.run_id)
            if moment is None:
                self._triggered[name] += 1
                continue
            self._expect(moment not in fired, f"schedule {name} fired twice for {moment}")
            fired.add(moment)
            self._look_at_overlap(old)

    def _look_at_overlap(self, row: ScheduleRow) -> None:
        last = self._store.runs.get(row.progress.last_run_id or "")
        if last is None or last.state.has_ended or row.definition.overlap is Overlap.ALLOW:
            return
        name = row.definition.schedule_id
        if row.definition.overlap is Overlap.CANCEL_OTHER:
            kinds = {stored.message.kind for stored in self._store.unread(last.run_id)}
            self._expect(MessageKind.CANCEL in kinds, f"schedule {name} fires beside {last.run_id}, not cancelled")
        else:
            self._expect(False, f"schedule {name} fires beside {last.run_id}, which is {last.state.value}")

    def _look_at_row(self, row: ScheduleRow, old: ScheduleRow) -> None:
        name, new, before = row.definition.schedule_id, row.progress, old.progress
        self._expect(row.revision == old.revision + 1, f"schedule {name} went from {old.revision} to {row.revision}")
        was_resumed = before.state is ScheduleState.PAUSED and new.state is ScheduleState.ACTIVE
        if not was_resumed and new.next_at is not None:
            self._decided[name] += len(self._passed(old, new.next_at - _MICROSECOND))
        told = new.fired - self._triggered[name] + new.skipped + new.missed + (new.buffered_at is not None)
        self._expect(
            told == self._decided[name], f"schedule {name} tells of {told} fire times of {self._decided[name]}"
        )
        self._expect(new.state is not ScheduleState.FAILED, f"schedule {name} failed: {new.reason}")
        fired = len(self._fired.get(name, ()))
        self._expect(
            new.fired - self._triggered[name] == fired, f"schedule {name} tells of {new.fired} runs, not {fired}"
        )

    def _passed(self, row: ScheduleRow, until: datetime) -> list[datetime]:
        """Return the fire times that are not decided, up to a moment."""
        first = row.progress.next_at
        if first is None:
            return []
        return list(
            takewhile(lambda moment: moment <= until, fire_times(row.definition.timing, after=first - _MICROSECOND))
        )

    def look_when_calm(self) -> None:
        """Check that somebody came for each schedule, some time after the last misfortune."""
        now = self._store.now()
        for name, row in self._store.schedules.items():
            due = row.progress.next_at
            is_late = due is None or (now - due).total_seconds() > LATE_SECONDS
            is_resting = row.progress.state is ScheduleState.PAUSED
            self._expect(is_resting or not is_late, f"schedule {name} was due at {due}, and nobody comes")
