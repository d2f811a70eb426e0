"""The checker can fail: the library, broken on purpose in one place, is caught within a few seeds."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from continuum.journal.memory import recovery as memory_recovery
from continuum.journal.memory import tasks as memory_tasks
from continuum.journal.memory import writes as memory_writes
from continuum.journal.memory.store import MemoryStore, StoredTask
from continuum.journal.port import LoadedRun
from continuum.model.runs import RunRow
from continuum.model.states import WRITABLE
from continuum.model.writes import LANDED, Commit, Landed, Posted, Verdict
from continuum.runtime.delivery import Delivery
from continuum.runtime.execution import Execution
from continuum.runtime.flight import Phase
from continuum.runtime.home import Letter
from continuum.runtime.recovery import Recovery
from continuum.runtime.run_supervisor import RunSupervisor
from tests.simulation.adversary import Weather
from tests.simulation.running import simulate

SEEDS_MAX = 60
STORMY = Weather(
    delay=0.1,
    lost_question=0.05,
    lost_answer=0.1,
    late=0.05,
    cut=0.3,
    lost_notice=0.3,
    lost_nudge=0.3,
    crashes=2,
    freezes=3,
)
BRISK = replace(STORMY, delay=0.02)
CUT_OFF = Weather(delay=0.1, lost_question=0.1, cut=0.9, lost_nudge=0.5, crashes=1)
Patch = pytest.MonkeyPatch


def a_fence_without_the_lease(patch: Patch) -> None:
    def unmoved(row: RunRow, write: Commit) -> bool:
        return row.generation == write.generation and row.last_seq == write.base_seq

    patch.setattr(memory_writes, "_is_unmoved", unmoved)


def a_sweep_that_keeps_the_token(patch: Patch) -> None:
    freed = memory_recovery._freed

    def keeping(store: MemoryStore, row: RunRow, *limits: Any) -> RunRow:
        return replace(freed(store, row, *limits), lease_token=row.lease_token)

    patch.setattr(memory_recovery, "_freed", keeping)


def a_commit_judged_by_last_seq(patch: Patch) -> None:
    def judged(store: MemoryStore, write: Commit) -> Verdict | None:
        row = store.runs[write.run_id]
        if write.events:
            return LANDED if row.last_seq >= write.base_seq + len(write.events) else None
        return None if row.state in WRITABLE and row.lease_token == write.token else LANDED

    patch.setattr(memory_writes, "_judge_commit", judged)


def a_sweep_of_tasks_before_runs(patch: Patch) -> None:
    sweep, passes = memory_recovery.sweep, itertools.count()

    def tasks_first(store: MemoryStore, **limits: Any) -> Any:
        if next(passes) % 2:
            return sweep(store, **limits)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(MemoryStore, "active_runs", lambda _self: iter(()))
            return sweep(store, **limits)

    patch.setattr(memory_recovery, "sweep", functools.wraps(sweep)(tasks_first))


def an_execution_that_keeps_its_letters(patch: Patch) -> None:
    patch.setattr(RunSupervisor, "send_on", lambda _self, _letter: None)


def an_execution_that_drops_its_letters(patch: Patch) -> None:
    def drop(_self: RunSupervisor, letter: Letter) -> None:
        if letter.settled is not None:
            letter.settled(Posted())

    patch.setattr(RunSupervisor, "send_on", drop)


def an_execution_that_takes_letters_while_it_leaves(patch: Patch) -> None:
    def offer(self: Execution, letter: Letter) -> bool:
        if self.phase is Phase.GONE:
            return False
        self._put(letter)
        return True

    patch.setattr(Execution, "offer", offer)


def an_execution_that_forgets_what_came_before_its_history(patch: Patch) -> None:
    resume = Execution.resume

    def forgetful(self: Execution, loaded: LoadedRun) -> None:
        self._mailbox = []
        resume(self, loaded)

    patch.setattr(Execution, "resume", forgetful)


def a_message_read_twice(patch: Patch) -> None:
    patch.setattr(Execution, "_takes", lambda _self, _message: True)


def a_signal_answered_before_its_commit(patch: Patch) -> None:
    offer = Delivery.offer

    def hasty(self: Delivery, message: Any, settled: Callable[[Verdict], object]) -> bool:
        if not offer(self, message, lambda _verdict: None):
            return False
        settled(Landed())
        return True

    patch.setattr(Delivery, "offer", hasty)


def a_delivery_id_forgotten_when_it_is_read(patch: Patch) -> None:
    patch.setattr(MemoryStore, "entomb_message", MemoryStore.delete_message)


def a_task_of_whoever_asks(patch: Patch) -> None:
    patch.setattr(StoredTask, "belongs_to", lambda _self, _attempt: True)


def a_claim_of_what_others_hold(patch: Patch) -> None:
    def every(store: MemoryStore, activities: Any) -> list[StoredTask]:
        return [task for task in store.all_tasks() if task.activity in activities and task.key.run_id in store.active]

    patch.setattr(memory_tasks, "_free", every)


def a_recovery_without_audit(patch: Patch) -> None:
    async def nothing(_self: Recovery) -> None:
        """Give nothing back."""

    patch.setattr(Recovery, "audit", nothing)


MUTANTS = [
    a_fence_without_the_lease,
    a_sweep_that_keeps_the_token,
    a_sweep_of_tasks_before_runs,
    a_commit_judged_by_last_seq,
    an_execution_that_keeps_its_letters,
    an_execution_that_drops_its_letters,
    an_execution_that_takes_letters_while_it_leaves,
    an_execution_that_forgets_what_came_before_its_history,
    a_message_read_twice,
    a_signal_answered_before_its_commit,
    a_delivery_id_forgotten_when_it_is_read,
    a_task_of_whoever_asks,
    a_claim_of_what_others_hold,
    a_recovery_without_audit,
]


# One needs a node that is cut off in the middle of a commit with a signal in it, until another has gone on with the
# run; the other needs a signal in the moment between the answer to a claim and the first turn.
RARE: dict[Callable[[Patch], None], tuple[Weather, int]] = {
    a_commit_judged_by_last_seq: (CUT_OFF, 200),
    an_execution_that_forgets_what_came_before_its_history: (BRISK, 200),
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_broken_library_is_caught(mutant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutant(monkeypatch)
    weather, seeds_max = RARE.get(mutant, (STORMY, SEEDS_MAX))
    caught = next((seed for seed in range(seeds_max) if simulate(seed, weather).violations), None)
    assert caught is not None, f"{mutant.__name__} was not caught in {seeds_max} seeds"
