"""The memory journal lets a simulation stand before and after each step; the step itself stays whole."""

import pytest

from continuum.clock import VirtualClock
from continuum.journal.memory import MemoryJournal, MemoryStore
from continuum.journal.port import Ambiguous
from continuum.model.writes import LANDED
from tests.journal.builders import a_start


class Script:
    """Notes every step; raises before or after those named."""

    def __init__(self, *, before: str | None = None, after: str | None = None) -> None:
        self._before = before
        self._after = after
        self.steps: list[str] = []

    async def before(self, step: str) -> None:
        self.steps.append(step)
        if step == self._before:
            raise Ambiguous("the connection ended")

    async def after(self, step: str) -> None:
        if step == self._after:
            raise Ambiguous("the connection ended")


async def test_a_fault_before_a_step_keeps_it_from_happening() -> None:
    store, start = MemoryStore(VirtualClock()), a_start()
    with pytest.raises(Ambiguous):
        await MemoryJournal(store, faults=Script(before="write")).write(0, [start])
    assert await MemoryJournal(store).judge(start) is None


async def test_a_fault_after_a_step_loses_only_its_answer() -> None:
    store, start = MemoryStore(VirtualClock()), a_start()
    with pytest.raises(Ambiguous):
        await MemoryJournal(store, faults=Script(after="write")).write(0, [start])
    assert await MemoryJournal(store).judge(start) == LANDED


async def test_steps_are_named_as_in_the_port() -> None:
    script = Script()
    journal = MemoryJournal(MemoryStore(VirtualClock()), faults=script)
    await journal.open("continuum")
    await journal.write(0, [a_start()])
    await journal.declare_dead()
    await journal.notify(["run:1"])
    assert await journal.now() == await journal.now()
    assert script.steps == ["open", "write", "declare_dead", "notify", "now", "now"]
