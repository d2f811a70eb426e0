"""What the simulation and those who read along found wrong in the runtime, one small test for each."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

import continuum
from continuum import JournalUnavailable, Retry, activity, workflow
from continuum.clock import VirtualClock
from continuum.codec import PayloadContext
from continuum.journal.group import GroupCommitter
from continuum.journal.memory import MemoryJournal, MemoryStore
from continuum.journal.port import Ambiguous, Claim
from continuum.journal.sealing import sealed
from continuum.model.messages import Message, MessageKind
from continuum.model.states import RunState
from continuum.model.tasks import Attempt, TaskKey
from continuum.model.writes import LANDED, FreeTask, StartMany
from continuum.runtime.decisions import pending_start
from continuum.telemetry import Emitter
from tests.journal.builders import a_run
from tests.support.stage import Node, Stage, settled


@activity(name="regressions.slow", retry=Retry(max_attempts=1), timeout=None)
async def slow() -> str:
    begun.append("slow")
    await asyncio.get_running_loop().create_future()
    return "never"


@workflow(name="regressions.waits")
async def waits() -> str:
    return await continuum.wait_signal("go", str)


@workflow(name="regressions.works")
async def works() -> str:
    return await slow()


@workflow(name="regressions.begets")
async def begets(generation: int = 1) -> str:
    if generation == 1:
        await continuum.wait_signal("go", str)
        await continuum.start_child(waits)
        continuum.continue_as_new(2)
    return await continuum.wait_signal("end", str)


begun: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_has_begun() -> Iterator[None]:
    begun.clear()
    yield
    begun.clear()


class Outage:
    """Lets the next calls of some steps fail."""

    def __init__(self, **times: int) -> None:
        self.times = times
        self.lost_answers: dict[str, int] = {}

    async def before(self, step: str) -> None:
        if self.times.get(step, 0) > 0:
            self.times[step] -= 1
            raise JournalUnavailable("no connection")

    async def after(self, step: str) -> None:
        if self.lost_answers.get(step, 0) > 0:
            self.lost_answers[step] -= 1
            raise Ambiguous("the connection broke")


def outage(node: Node, **times: int) -> Outage:
    faults = Outage(**times)
    journal = node.parts.journal
    assert isinstance(journal, MemoryJournal)
    journal._faults = faults
    return faults


async def started(node: Node, flow: Any) -> str:
    handle = await node.instance.start(flow)
    await settled()
    return str(handle.run_id)


# --- executions -------------------------------------------------------------------------------------------------------


async def test_an_answer_that_changes_nothing_is_acknowledged_all_the_same(stage: Stage) -> None:
    """An attempt whose command was over by then stayed "known" for ever: its letter had no commit to be answered by."""
    node = await stage.still()
    run_id = await started(node, waits)
    told: list[object] = []
    stale = Message("m-1", run_id, MessageKind.ACTIVITY_COMPLETED, payload=b"1", generation=1, command_id=99)
    assert node.parts.delivery.offer(stale, told.append)
    await settled()
    assert told == [LANDED]


async def test_an_execution_in_doubt_survives_an_outage(stage: Stage) -> None:
    """Its release failed once with the database away, and it stayed in memory, leased and deaf, for ever."""
    node = await stage.still()
    run_id = await started(node, waits)
    outage(node, run=2, release_run=2)
    execution = node.parts.registry.get(run_id)
    assert execution is not None
    node.parts.runs.doubt(execution)
    await stage.move(5.0)
    assert not node.holds(run_id)
    assert stage.store.runs[run_id].lease_owner is None


async def test_a_run_without_code_is_given_back_in_spite_of_an_outage(stage: Stage) -> None:
    node = await stage.still(workflows=[])
    other = await stage.still()
    run_id = await started(other, waits)
    execution = other.parts.registry.get(run_id)
    assert execution is not None
    assert execution.evict()
    await settled()
    outage(node, release_run=2)
    stage.store.put_run(replace(stage.store.runs[run_id], lease_owner=node.owner, lease_token=9))
    (loaded,) = await node.parts.journal.load_runs([run_id])
    node.parts.runs.resume(Claim(run_id, 9, 1, 1), loaded, owner=node.owner)
    await stage.move(5.0)
    assert stage.store.runs[run_id].lease_owner is None


async def test_a_slow_claim_does_not_push_out_a_newer_one(stage: Stage) -> None:
    """Its answer came after the lease had been given back and claimed again: the newer execution was discarded."""
    node = await stage.still()
    run_id = await started(node, waits)
    newer = node.parts.registry.get(run_id)
    (loaded,) = await node.parts.journal.load_runs([run_id])
    node.parts.runs.resume(Claim(run_id, 0, 1, 1), loaded, owner=node.owner)
    await settled()
    assert node.parts.registry.get(run_id) is newer


async def test_a_run_that_ended_between_the_claim_and_the_load_is_not_brought_to_life(stage: Stage) -> None:
    """Its history ends, so its first turn had nothing to write: the execution stood in memory for ever, and deaf."""
    other = await stage.still()
    run_id = await started(other, waits)
    await other.instance.signal(run_id, "go", "on")
    assert stage.store.runs[run_id].state is RunState.COMPLETED
    paused = await stage.still()
    (loaded,) = await paused.parts.journal.load_runs([run_id])
    paused.parts.runs.resume(Claim(run_id, 1, 1, 1), loaded, owner=paused.owner)
    await settled()
    assert not paused.holds(run_id)


async def test_whoever_claims_runs_is_nudged_for_the_child_of_a_generation_that_ended(stage: Stage) -> None:
    """It was found by the dispatcher's next poll only: a second late, for every child that was asked for last."""
    node = await stage.still()
    run_id = await started(node, begets)
    nudges: list[str] = []
    node.parts.runs._wakes.claim_runs = lambda: nudges.append("claim")
    await node.instance.signal(run_id, "go", "on")
    await settled()
    assert stage.store.runs[run_id].generation == 2
    assert nudges


async def test_a_message_that_was_posted_again_after_it_was_read_does_not_stay_in_the_inbox(stage: Stage) -> None:
    """Its sender had lost the answer. The row woke the run again and again, and its next generation read it anew."""
    node = await stage.still()
    run_id = await started(node, waits)
    message = Message("0190b0c5-0000-7000-8000-000000000001", run_id, MessageKind.SIGNAL, name="other", payload=b'"a"')
    await node.parts.delivery.post(message)
    await settled()
    assert not stage.store.unread(run_id), "it was read"
    for _ in range(2):  # the sender's nudge, and the backstop's scan
        await node.parts.delivery.post(message)
        await settled()
    assert not stage.store.unread(run_id)
    stage.store.add_message(message)
    execution = node.parts.registry.get(run_id)
    assert execution is not None
    assert execution.evict()
    await settled()
    await node.once("dispatcher")
    assert node.holds(run_id)
    assert not stage.store.unread(run_id)
    read = [stored.event for stored in stage.store.events[run_id, 1] if stored.event.message_id is not None]
    assert len(read) == 1


# --- attempts ---------------------------------------------------------------------------------------------------------


async def test_an_attempt_that_runs_already_is_not_begun_again(stage: Stage) -> None:
    """Freed by a write that came late and claimed by the same node, it ran twice under one name."""
    node = await stage.still()
    run_id = await started(node, works)
    assert begun == ["slow"]
    (task,) = stage.store.tasks[run_id].values()
    stage.store.put_task(replace(task, owner=None))
    await node.once("activity_dispatcher")
    assert begun == ["slow"]
    assert stage.store.task(task.key) == task
    assert node.parts.attempts._taken_in_all == 1


async def test_a_freed_task_is_not_freed_again_when_the_answer_was_lost() -> None:
    """By the second sending the same node may hold it once more, under the same name."""
    clock = VirtualClock()
    sent = 0

    class Losing(MemoryJournal):
        async def write(self, lane: int, batch: Any) -> Any:
            nonlocal sent
            sent += 1
            if sent > 1:
                return [LANDED for _ in batch]
            await super().write(lane, batch)
            raise Ambiguous("the connection broke")

    committer = GroupCommitter(
        journal=Losing(MemoryStore(clock)), clock=clock, draw=Random(0), emit=Emitter(instance="i", node="n")
    )
    free = asyncio.ensure_future(committer.put(FreeTask(Attempt(TaskKey("r", 1, 1), "me", 1))))
    for _ in range(5):
        await settled()
        clock.move_to(clock.monotonic() + 1.0)
    assert await free == LANDED
    assert sent == 1


# --- callers ----------------------------------------------------------------------------------------------------------

Verb = Callable[[Node, str], Awaitable[object]]
VERBS: dict[str, Verb] = {
    "start": lambda node, _: node.instance.start(waits),
    "start_many": lambda node, _: node.instance.start_many([waits.bound()]),
    "signal": lambda node, run_id: node.instance.signal(run_id, "other", delivery_id="d-1"),
    "cancel": lambda node, run_id: node.instance.cancel(run_id),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_caller_whose_write_was_left_unanswered_hears_that_the_journal_is_away(stage: Stage, verb: str) -> None:
    """It was told that the database refuses the value, which no later try would change."""
    node = await stage.still()
    run_id = await started(node, waits)
    outage(node, write=1_000)
    call = asyncio.ensure_future(VERBS[verb](node, run_id))
    await settled()
    await stage.clear()
    with pytest.raises(JournalUnavailable):
        await call


# --- journals and clocks ----------------------------------------------------------------------------------------------


class Salted:
    """A codec that writes other bytes every time, as encryption does."""

    def __init__(self) -> None:
        self._calls = 0

    def encode(self, payload: bytes, context: PayloadContext) -> bytes:
        self._calls += 1
        return b"%06d" % self._calls + payload

    def decode(self, payload: bytes, context: PayloadContext) -> bytes:
        return payload[6:]


async def test_a_start_is_recognised_although_its_payload_is_encrypted() -> None:
    """A lost answer to `start_many` raised "nothing was started", and all of it was."""
    clock = VirtualClock()
    journal = sealed(MemoryJournal(MemoryStore(clock)), Salted())
    start = pending_start(a_run(), b"[]", clock.now(), chosen=False)
    assert start.state is RunState.PENDING
    await journal.write(0, [StartMany((start,))])
    assert await journal.judge(StartMany((start,))) == LANDED


async def test_virtual_time_moves_however_short_the_wait() -> None:
    """A wait for the last bit of a second was over at once, and asked for again: for ever."""
    clock = VirtualClock()
    clock.move_to(1_000_000.1)
    before, due = clock.monotonic(), []
    clock.call_later(1e-12, lambda: due.append(clock.monotonic()))
    deadline = clock.next_deadline()
    assert deadline is not None
    assert deadline > before
