"""What a run owes, and whether it was undone: told from its histories alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from continuum.model.events import Event, EventType
from continuum.model.runs import RunRow
from continuum.model.states import RunState
from continuum.replay.saga import Debt

UNDOES = {"simulation.book": "simulation.unbook", "simulation.hold": "simulation.unhold"}
ANSWERS = frozenset({EventType.ACTIVITY_COMPLETED, EventType.ACTIVITY_FAILED})
Owed = tuple[str, str]  # the compensation, and the ticket that it takes


class Books:
    """The debts of one run, event by event."""

    def __init__(self, run_id: str, violate: Callable[[str], None]) -> None:
        self._run_id = run_id
        self._violate = violate
        self.owed: list[Owed] = []
        self._undone: set[Owed] = set()
        self._booking: dict[int, str] = {}  # commands whose result will be owed
        self._undoing: dict[int, Owed] = {}
        self._asked: set[Owed] = set()  # to be undone, in this generation

    def open(self, history: Sequence[Event]) -> None:
        """Begin a generation: everything that is owed must have come along, and nothing else."""
        carried = [_carried(event) for event in history if event.type is EventType.COMPENSATION_OWED]
        if carried != self.owed:
            self._violate(f"{self._run_id} owed {self.owed}, its next generation owes {carried}")
        self._booking, self._undoing, self._asked = {}, {}, set()

    def read(self, event: Event) -> None:
        """Take note of an event."""
        command_id = event.command_id or 0
        if event.type is EventType.ACTIVITY_SCHEDULED:
            ticket = json.loads(event.payload or b"{}").get("ticket", "")
            if event.name == "simulation.book":
                self._booking[command_id] = ticket
            elif event.name == "simulation.hold":
                self.owed.append(("simulation.unhold", ticket))
            elif event.name in UNDOES.values():
                self._ask(command_id, (event.name or "", ticket))
        elif event.type in ANSWERS:
            self._answer(event, command_id)

    def _ask(self, command_id: int, debt: Owed) -> None:
        if debt not in self.owed:
            self._violate(f"{self._run_id} undoes {debt}, which it does not owe: {self.owed}")
        if debt in self._asked:
            self._violate(f"{self._run_id} undoes {debt} twice")
        self._asked.add(debt)
        self._undoing[command_id] = debt

    def _answer(self, event: Event, command_id: int) -> None:
        ticket = self._booking.pop(command_id, None)
        if ticket is not None and event.type is EventType.ACTIVITY_COMPLETED:
            self.owed.append(("simulation.unbook", ticket))
        debt = self._undoing.pop(command_id, None)
        if debt is None:
            return
        if debt in self._undone:
            self._violate(f"{self._run_id} has undone {debt} twice")
        self._undone.add(debt)
        if debt in self.owed:
            self.owed.remove(debt)


def _carried(event: Event) -> Owed:
    debt = Debt.decode(event.name or "", event.payload or b"")
    return debt.compensation, json.loads(debt.arguments or b"{}").get("ticket", "")


def look_at_debts(row: RunRow, generations: Sequence[Sequence[Event]], violate: Callable[[str], None]) -> None:
    """Check that each debt was undone at most once, that none was forgotten, and all when that was asked for."""
    books = Books(row.run_id, violate)
    for number, history in enumerate(generations):
        if number:
            books.open(history)
        for event in history:
            books.read(event)
    if row.state is RunState.CANCELLED and was_undone(generations[-1]) and books.owed:
        violate(f"{row.run_id} was cancelled with compensation, and still owes {books.owed}")


def was_undone(history: Sequence[Event]) -> bool:
    """Tell whether a run was cancelled and came to the end of its undoing; a plain cancel has no payload."""
    asked = any(event.type is EventType.CANCEL_REQUESTED for event in history)
    return asked and history[-1].payload is not None
