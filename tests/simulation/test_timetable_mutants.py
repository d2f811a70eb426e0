"""The checker of schedules can fail: what fires them, broken on purpose in one place, is caught within a few seeds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from msgspec.structs import replace

from continuum.journal.memory import schedules as memory_schedules
from continuum.journal.memory import writes as memory_writes
from continuum.journal.memory.store import MemoryStore
from continuum.journal.port import Firing
from continuum.model.firing import plan
from continuum.model.schedules import ScheduleRow
from continuum.runtime import schedule_runner
from continuum.runtime.schedule_runner import ScheduleRunner
from tests.simulation.running import simulate
from tests.simulation.test_mutants import STORMY

SEEDS_MAX = 60
Patch = pytest.MonkeyPatch


def a_schedule_without_its_revision(patch: Patch) -> None:
    fire = memory_schedules._fire

    def unfenced(store: MemoryStore, firing: Firing) -> bool:
        row = store.schedules.get(firing.schedule_id)
        return fire(store, firing if row is None else replace(firing, revision=row.revision))

    patch.setattr(memory_schedules, "_fire", unfenced)


def a_run_that_does_not_come_with_its_firing(patch: Patch) -> None:
    apply, count = memory_writes.apply, [0]

    def forgetful(store: MemoryStore, start: Any) -> Any:
        count[0] += 1
        return None if count[0] % 10 == 0 else apply(store, start)

    patch.setattr(memory_writes, "apply", forgetful)


def a_fire_time_that_stays(patch: Patch) -> None:
    def staying(row: ScheduleRow, now: datetime) -> Any:
        planned = plan(row, now)
        if planned is None or not planned.fires:
            return planned
        return replace(planned, progress=replace(planned.progress, next_at=planned.fires[-1]))

    patch.setattr(schedule_runner, "plan", staying)


def a_last_run_that_nobody_looks_at(patch: Patch) -> None:
    patch.setattr(ScheduleRow, "is_busy", property(lambda _self: False))


def a_run_that_is_not_cancelled_first(patch: Patch) -> None:
    async def nothing(_self: ScheduleRunner, _moves: Any) -> None:
        """Cancel nobody."""

    patch.setattr(ScheduleRunner, "_cancel_others", nothing)


def a_schedule_that_nobody_comes_for(patch: Patch) -> None:
    async def nothing(_self: ScheduleRunner) -> bool:
        return False

    patch.setattr(ScheduleRunner, "once", nothing)


MUTANTS = [
    a_schedule_without_its_revision,
    a_run_that_does_not_come_with_its_firing,
    a_fire_time_that_stays,
    a_last_run_that_nobody_looks_at,
    a_run_that_is_not_cancelled_first,
    a_schedule_that_nobody_comes_for,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_broken_schedule_is_caught(mutant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutant(monkeypatch)
    caught = next((seed for seed in range(SEEDS_MAX) if simulate(seed, STORMY).violations), None)
    assert caught is not None, f"{mutant.__name__} was not caught in {SEEDS_MAX} seeds"
