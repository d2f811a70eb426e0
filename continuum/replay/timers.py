"""The open deadlines of one run, earliest first."""

from __future__ import annotations

import heapq
from datetime import UTC, datetime, timedelta

from continuum.replay.loop import DurableTimer

NEVER = datetime.max.replace(tzinfo=UTC)  # a deadline beyond the calendar (`sleep(math.inf)`) is none


class Timers:
    """A heap; what was cancelled is dropped when it is met."""

    __slots__ = ("_heap", "_open")

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int]] = []
        self._open: dict[int, DurableTimer] = {}

    def __contains__(self, command_id: object) -> bool:
        return command_id in self._open

    def add(self, timer: DurableTimer, deadline: datetime) -> None:
        """Enter a timer."""
        self._open[timer.command_id] = timer
        heapq.heappush(self._heap, (deadline, timer.command_id))

    def cancel(self, command_id: int) -> None:
        """Forget a timer."""
        self._open.pop(command_id, None)

    def pop(self, command_id: int) -> DurableTimer:
        """Take a timer out, to fire it."""
        return self._open.pop(command_id)

    @property
    def deadline(self) -> datetime | None:
        """The earliest deadline."""
        while self._heap and self._heap[0][1] not in self._open:
            heapq.heappop(self._heap)
        return None if not self._heap or self._heap[0][0] == NEVER else self._heap[0][0]

    def due(self, at: datetime) -> DurableTimer | None:
        """Return the earliest timer if its time has come."""
        deadline = self.deadline
        return self._open[self._heap[0][1]] if deadline is not None and deadline <= at else None


def moment_of(when: float) -> datetime:
    """Return the first microsecond not before `when`: a timer fired too early would be asked for again, and again."""
    try:
        moment = datetime.fromtimestamp(when, UTC)
        return moment if moment.timestamp() >= when else moment + timedelta(microseconds=1)
    except (OverflowError, ValueError):
        return NEVER
