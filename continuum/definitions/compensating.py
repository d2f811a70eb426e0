"""Undoing what a run has done: `compensate`, `compensate_all`, `saga`.

What is owed stands in the history (`replay.saga`): activities with `compensate=`, newest first. Undoing one is an
activity with its retries. One that finally fails is in the history too; it is crossed out like the others, and the rest
are undone all the same.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, TypeVar

from continuum.definitions.activity import Activity
from continuum.definitions.failing import finally_failed
from continuum.definitions.task_options import UNSET
from continuum.errors import ActivityFailed, NotAllowedHere
from continuum.model.failure import Failure
from continuum.replay.context import machine_for
from continuum.replay.machine import Machine
from continuum.replay.saga import Debt, sagas_around

R = TypeVar("R")


async def compensate(activity: Activity[..., R], result: R = UNSET, /) -> bool:  # type: ignore[assignment]
    """Undo the newest call of an activity that is still owed, or the one that returned `result`.

    Returns whether there was one: False says that it never completed, or has been undone before.

    Raises:
        ActivityFailed: the compensation finally failed.
        NotInWorkflow: outside of a workflow.
    """
    machine = machine_for("compensate()")
    if not isinstance(activity, Activity):
        raise NotAllowedHere(f"compensate() takes the activity that is to be undone, not {activity!r}")
    wanted = None if result is UNSET else activity.signature.result.encode(result)
    for debt in machine.debts.newest_first(activity=activity.name):
        if debt.answer is None and wanted in (None, debt.result):
            failure = await _undo(machine, debt)
            if failure is not None:
                raise failure
            return True
    return False


async def compensate_all(*, parallel: bool = False) -> list[ActivityFailed]:
    """Undo everything that is owed, newest first, or all at once; return the compensations that finally failed.

    Raises:
        NotInWorkflow: outside of a workflow.
    """
    machine = machine_for("compensate_all()")
    return await _undo_all(machine, machine.debts.newest_first(), parallel=parallel)


def saga(*, parallel: bool = False) -> AbstractAsyncContextManager[None]:
    """Undo what the body of an `async with` did if the body raises, and let its exception through.

    Raises:
        NotInWorkflow: outside of a workflow.
    """
    return _Saga(machine_for("saga()"), parallel=parallel)


class _Saga(AbstractAsyncContextManager[None]):
    def __init__(self, machine: Machine, *, parallel: bool) -> None:
        self._machine = machine
        self._parallel = parallel
        self._body: object = None  # what was done in it is told by this

    async def __aenter__(self) -> None:
        self._body = object()
        sagas_around.set((*sagas_around.get(), self._body))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        sagas_around.set(tuple(body for body in sagas_around.get() if body is not self._body))
        # Not for GeneratorExit, by which a run leaves memory, nor for continue_as_new, which takes debts along.
        if isinstance(error, Exception | asyncio.CancelledError):
            await _undo_all(self._machine, self._machine.debts.newest_first(body=self._body), parallel=self._parallel)


async def _undo_all(machine: Machine, debts: list[Debt], *, parallel: bool) -> list[ActivityFailed]:
    if parallel:
        failures: list[ActivityFailed | None] = await asyncio.gather(*(_undo(machine, debt) for debt in debts))
    else:
        failures = [await _undo(machine, debt) for debt in debts]
    return [failure for failure in failures if failure is not None]


async def _undo(machine: Machine, debt: Debt) -> ActivityFailed | None:
    answer: Any = await machine.undo(debt)
    if isinstance(answer, Failure):
        return finally_failed(answer, debt.compensation, machine.info.run_id)
    return None
