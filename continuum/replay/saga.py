"""What a run has done and may have to undo: its debts, oldest first.

An activity with `compensate=` leaves a debt: from scheduling on where the compensation's arguments are known by then,
else once it has completed. Undoing one is an activity like any other, so history alone says what is still owed; a debt
is crossed out when its compensation has been answered, whether by success or by final failure, and never undone twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from continuum.model.failure import Failure
from continuum.model.tasks import TaskOptions

Recode = Callable[[bytes], bytes]

# The sagas whose bodies surround the code that runs; tasks that it starts take them along.
sagas_around: ContextVar[tuple[object, ...]] = ContextVar("sagas_around", default=())


@dataclass(slots=True, eq=False)
class Debt:
    """One thing to undo: `compensation` with `arguments`, because `activity` was performed.

    `parameter` names what the activity's result is passed as, where the arguments are not known before.
    """

    activity: str
    compensation: str
    options: TaskOptions
    arguments: bytes | None = None
    parameter: str | None = None
    recode: Recode | None = None
    result: bytes | None = None
    command_id: int | None = None  # of the compensation, once it was asked for
    sagas: tuple[object, ...] = ()  # in the bodies of which the activity was performed
    answer: asyncio.Future[bytes | Failure] | None = field(default=None, repr=False)

    def encode(self) -> bytes:
        """Return it as the payload of `compensation_owed`."""
        return json.dumps(
            {
                "activity": self.activity,
                "arguments": _text(self.arguments),
                "result": _text(self.result),
                "options": self.options.encode().decode(),
            }
        ).encode()

    @classmethod
    def decode(cls, compensation: str, payload: bytes) -> Debt:
        """Return what `encode` wrote."""
        stored = json.loads(payload)
        return cls(
            stored["activity"],
            compensation,
            TaskOptions.decode(stored["options"].encode()),
            arguments=_bytes(stored["arguments"]),
            result=_bytes(stored["result"]),
        )


def _text(payload: bytes | None) -> str | None:
    return None if payload is None else payload.decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


class Debts:
    """The debts of one run."""

    __slots__ = ("_owed", "_promised", "_undoing")

    def __init__(self) -> None:
        self._owed: list[Debt] = []
        self._promised: dict[int, Debt] = {}  # by the command of an activity that has not completed yet
        self._undoing: dict[int, Debt] = {}  # by the command of the compensation

    def promise(self, command_id: int, debt: Debt) -> None:
        """Take note of an activity that was asked for."""
        self._promised[command_id] = debt
        debt.sagas = sagas_around.get()
        if debt.arguments is not None:
            self._owed.append(debt)

    def owe(self, debt: Debt) -> None:
        """Take over a debt of an earlier generation."""
        self._owed.append(debt)

    def completed(self, command_id: int, result: bytes) -> None:
        """Take note that an activity returned: what undoes it by its result is owed from now on."""
        debt = self._promised.pop(command_id, None)
        if debt is None:
            return
        debt.result = result
        if debt.arguments is None:
            debt.arguments = b"{%s:%s}" % (json.dumps(debt.parameter).encode(), result)
            self._owed.append(debt)

    def undoing(self, command_id: int, debt: Debt) -> None:
        """Take note that a compensation was asked for."""
        debt.command_id = command_id
        self._undoing[command_id] = debt

    def undone(self, command_id: int) -> Debt | None:
        """Cross out what a compensation was for, if the command is one, and return it."""
        debt = self._undoing.pop(command_id, None)
        if debt is not None:
            self._owed.remove(debt)
        return debt

    @property
    def in_progress(self) -> dict[int, Debt]:
        """The debts that are being undone, by the command of the compensation."""
        return self._undoing

    @property
    def is_blank(self) -> bool:
        """Whether nothing has to be looked up here."""
        return not (self._owed or self._promised)

    def newest_first(self, *, body: object = None, activity: str | None = None) -> list[Debt]:
        """Return what is owed: all of it, what was done in the body of one saga, or by one activity."""
        return [
            debt
            for debt in reversed(self._owed)
            if (body is None or body in debt.sagas) and (activity is None or debt.activity == activity)
        ]

    def oldest_first(self) -> list[Debt]:
        """Return what is owed, as another generation takes it over."""
        return list(self._owed)
