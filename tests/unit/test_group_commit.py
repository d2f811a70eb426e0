"""The group committer on a journal that fails as told: nobody is lost, nobody lands twice, neighbours do not notice."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from random import Random

import pytest
from msgspec.structs import replace

from continuum import telemetry
from continuum.clock import Cancellable, VirtualClock
from continuum.errors import JournalUnavailable
from continuum.journal.group import GroupCommitter
from continuum.journal.group.committer import TOGETHER_MAX
from continuum.journal.memory import MemoryJournal, MemoryStore
from continuum.journal.port import Ambiguous, BadData, Contended
from continuum.model.events import EventType
from continuum.model.states import RunState
from continuum.model.writes import (
    LANDED,
    REFUSED,
    Commit,
    Duplicate,
    FreeTask,
    Post,
    Posted,
    RetryTask,
    Start,
    StartMany,
    Unwritable,
    Verdict,
    Write,
)
from continuum.telemetry import Emitter, TelemetryEvent
from tests.journal.builders import (
    ACTIVITY,
    MINE,
    OTHER,
    OWNER,
    TTL,
    Lease,
    a_commit,
    a_finish,
    a_release,
    a_run,
    a_signal,
    a_start,
    a_task,
    an_event,
    an_owner,
    an_unleased_start,
    scheduled,
    timer_started,
)
from tests.journal.steps import started_run

Answer = Callable[[Callable[[], Awaitable[Sequence[Verdict]]]], Awaitable[Sequence[Verdict]]]


class HastyClock(VirtualClock):
    """Virtual time that jumps to whatever is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.move_to(self.monotonic() + seconds)
        await asyncio.sleep(0)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Cancellable:
        self.pauses.append(seconds)
        planned = super().call_later(seconds, callback)
        asyncio.get_running_loop().call_soon(self.move_to, self.monotonic() + seconds)
        return planned


class ScriptedJournal:
    """Passes on to a memory journal; `script` says what happens instead, call by call."""

    def __init__(self, store: MemoryStore) -> None:
        self.inner = MemoryJournal(store)
        self.batches: list[tuple[int, tuple[Write, ...]]] = []
        self.script: deque[Answer] = deque()
        self.judge_errors: deque[Exception] = deque()
        self.judged: list[Write] = []
        self.rule: Callable[[Sequence[Write]], None] = lambda batch: None

    async def write(self, lane: int, batch: Sequence[Write]) -> Sequence[Verdict]:
        self.batches.append((lane, tuple(batch)))

        async def go_on() -> Sequence[Verdict]:
            self.rule(batch)
            return await self.inner.write(lane, batch)

        return await (self.script.popleft()(go_on) if self.script else go_on())

    async def judge(self, write: Write) -> Verdict | None:
        self.judged.append(write)
        if self.judge_errors:
            raise self.judge_errors.popleft()
        return await self.inner.judge(write)

    def sizes(self, lane: int = 0) -> list[int]:
        return [len(batch) for of, batch in self.batches if of == lane]


def raising(error: Exception) -> Answer:
    """Nothing happens."""

    async def answer(_go_on: object) -> Sequence[Verdict]:
        raise error

    return answer


async def lost_after(go_on: Callable[[], Awaitable[Sequence[Verdict]]]) -> Sequence[Verdict]:
    """The batch lands and the answer is lost."""
    await go_on()
    raise Ambiguous("the connection ended")


lost_before = raising(Ambiguous("the connection ended"))


def held_until(gate: asyncio.Event) -> Answer:
    async def answer(go_on: Callable[[], Awaitable[Sequence[Verdict]]]) -> Sequence[Verdict]:
        await gate.wait()
        return await go_on()

    return answer


@pytest.fixture
def clock() -> HastyClock:
    return HastyClock()


@pytest.fixture
async def journal(clock: HastyClock) -> ScriptedJournal:
    journal = ScriptedJournal(MemoryStore(clock))
    for owner in (OWNER, OTHER):
        await journal.inner.register(an_owner(owner), ttl_seconds=TTL)
    return journal


def committer_on(journal: ScriptedJournal, clock: HastyClock, **options: int) -> GroupCommitter:
    emit = Emitter(instance="continuum", node="node-1")
    return GroupCommitter(journal=journal, clock=clock, draw=Random(1), emit=emit, **options)


@pytest.fixture
async def committer(journal: ScriptedJournal, clock: HastyClock) -> AsyncIterator[GroupCommitter]:
    committer = committer_on(journal, clock)
    yield committer
    async with asyncio.timeout(5):
        await committer.close()
    assert committer.in_flight == 0


async def settle(committer: GroupCommitter, *writes: Write) -> list[Verdict]:
    """Submit at once, wait for all."""
    async with asyncio.timeout(5):
        return list(await asyncio.gather(*(committer.put(write) for write in writes)))


async def until(claim: Callable[[], object]) -> None:
    """Let the loop go round until something is so."""
    for _ in range(1_000):
        if claim():
            return
        await asyncio.sleep(0)
    pytest.fail("it never became so")


async def some_turns(journal: ScriptedJournal, count: int) -> list[Commit]:
    return [a_commit(await started_run(journal.inner), timer_started()) for _ in range(count)]


def commits_of(journal: ScriptedJournal, run_id: str) -> list[int | None]:
    """Which commands stand in a history."""
    return [stored.event.command_id for stored in journal.inner._store.events[run_id, 1]][1:]


def poisoned(commit: Commit) -> Commit:
    return replace(commit, events=(replace(an_event(EventType.TIMER_FIRED), seq=commit.base_seq + 1),))


# --- batches ----------------------------------------------------------------------------------------------------------


async def test_what_is_submitted_together_travels_together(journal: ScriptedJournal, committer: GroupCommitter) -> None:
    turns = await some_turns(journal, TOGETHER_MAX)
    assert await settle(committer, *turns) == [LANDED] * TOGETHER_MAX
    assert journal.batches == [(0, tuple(sorted(turns, key=lambda turn: turn.run_id)))]


async def test_submit_settles_later_and_never_at_once(journal: ScriptedJournal, committer: GroupCommitter) -> None:
    verdicts: list[Verdict] = []
    committer.submit(a_start(), verdicts.append)
    assert (verdicts, journal.batches, committer.in_flight) == ([], [], 1)
    await settle(committer, a_start())
    assert (verdicts, committer.in_flight) == ([LANDED], 0)


async def test_while_one_batch_is_on_the_wire_the_next_gathers(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    gate = asyncio.Event()
    journal.script.append(held_until(gate))
    first = asyncio.create_task(settle(committer, a_start()))
    await until(lambda: journal.batches)
    rest = [asyncio.create_task(settle(committer, a_start())) for _ in range(5)]
    await until(lambda: committer.in_flight == 6)
    assert journal.sizes() == [1]
    gate.set()
    await asyncio.gather(first, *rest)
    assert journal.sizes() == [1, 5]


@pytest.mark.parametrize(("waiting", "at_the_time"), [(5, [4, 5]), (1, [4])])
async def test_what_waits_is_sent_before_the_last_answers_are_told_unless_it_is_little(
    waiting: int, at_the_time: list[int], journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    gate = asyncio.Event()
    told: list[list[int]] = []
    journal.script.append(held_until(gate))
    for _ in range(4):
        committer.submit(a_start(), lambda _verdict: told.append(journal.sizes()))
    await until(lambda: journal.batches)
    rest = [asyncio.create_task(settle(committer, a_start())) for _ in range(waiting)]
    await until(lambda: committer.in_flight == 4 + waiting)
    gate.set()
    await asyncio.gather(*rest)
    assert told == [at_the_time] * 4


async def test_of_many_who_come_at_once_one_half_goes_first(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    await settle(committer, *(a_start() for _ in range(41)))
    assert journal.sizes() == [21, 20]


async def test_a_journal_with_one_writer_takes_all_at_once(journal: ScriptedJournal, clock: HastyClock) -> None:
    committer = committer_on(journal, clock, lanes=1)
    await settle(committer, *(a_start() for _ in range(41)))
    assert journal.sizes() == [41]
    await committer.close()


async def test_callers_who_write_again_and_again_come_to_travel_in_two_groups_of_a_size(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    gate = asyncio.Event()
    journal.script.append(held_until(gate))

    async def calling() -> None:
        for _ in range(6):
            await settle(committer, a_start())

    first = asyncio.create_task(calling())
    await until(lambda: journal.batches)
    others = [asyncio.create_task(calling()) for _ in range(39)]
    await until(lambda: committer.in_flight == 40)
    gate.set()
    await asyncio.gather(first, *others)
    assert journal.sizes()[:2] == [1, 20]
    assert set(journal.sizes()[2:10]) <= {19, 20, 21}


async def test_a_batch_has_a_bound(journal: ScriptedJournal, clock: HastyClock) -> None:
    committer = committer_on(journal, clock, batch_max=10)
    await settle(committer, *(a_start() for _ in range(25)))
    assert journal.sizes() == [10, 10, 5]
    await committer.close()


async def test_no_run_has_two_commits_in_one_batch_and_they_keep_their_order(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    lease = await started_run(journal.inner)
    turns = [a_commit(replace(lease, base_seq=seq), timer_started(seq)) for seq in (1, 2, 3)]
    other = (await some_turns(journal, 1))[0]
    assert await settle(committer, *turns, other) == [LANDED] * 4
    for _, batch in journal.batches:
        assert len({write.run_id for write in batch if isinstance(write, Commit)}) == len(batch)
    assert commits_of(journal, lease.run_id) == [1, 2, 3]


async def test_messages_of_one_run_share_a_batch_with_its_commit(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    lease = await started_run(journal.inner)
    posts: list[Write] = [Post(a_signal(lease.run_id)) for _ in range(3)]
    verdicts = await settle(committer, a_commit(lease, timer_started()), *posts)
    assert verdicts == [LANDED, *[Posted(OWNER)] * 3]
    assert journal.sizes() == [4]


async def test_many_starts_at_once_travel_alone(journal: ScriptedJournal, committer: GroupCommitter) -> None:
    many = [StartMany(tuple(an_unleased_start() for _ in range(3))) for _ in range(2)]
    writes: list[Write] = [a_start(), many[0], many[1], a_start(), a_start()]
    assert await settle(committer, *writes) == [LANDED] * 5
    assert journal.sizes() == [1, 1, 1, 2]


@pytest.mark.parametrize("answer", [lost_before, lost_after])
async def test_many_starts_whose_answer_was_lost_exist_once(
    journal: ScriptedJournal, committer: GroupCommitter, answer: Answer
) -> None:
    many = StartMany(tuple(an_unleased_start() for _ in range(3)))
    journal.script.append(answer)
    assert await settle(committer, many) == [LANDED]
    assert len(await journal.inner.load_runs([start.run_id for start in many.starts])) == 3


async def test_who_is_refused_is_refused_alone(journal: ScriptedJournal, committer: GroupCommitter) -> None:
    turns = await some_turns(journal, 3)
    turns[1] = replace(turns[1], token=9)
    assert await settle(committer, *turns) == [LANDED, REFUSED, LANDED]


# --- lanes ------------------------------------------------------------------------------------------------------------


async def test_what_can_wait_for_somebodys_transaction_travels_apart_sorted_by_key(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    run_id = (await started_run(journal.inner)).run_id
    keyed = [a_start(a_run(key=key)) for key in ("b", "c", "a")]
    apart: list[Write] = [Post(a_signal(run_id, delivery_id="evt_1")), a_start(chosen=True)]
    plain: list[Write] = [a_start(), Post(a_signal(run_id)), an_unleased_start()]
    await settle(committer, *keyed, *apart, *plain)
    batches = dict(journal.batches)
    assert set(batches[0]) == set(plain)
    assert set(batches[1]) == {*keyed, *apart}
    keys = [write.run.idempotency_key for write in batches[1] if isinstance(write, Start) and not write.chosen]
    assert keys == ["a", "b", "c"]


async def test_a_hanging_keyed_start_does_not_stop_anybody_else(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    gate = asyncio.Event()
    journal.script.append(held_until(gate))
    stuck = asyncio.create_task(settle(committer, a_start(a_run(key="order-1"))))
    await until(lambda: journal.batches)
    assert journal.sizes(lane=1) == [1]
    for turn in await some_turns(journal, 3):
        assert await settle(committer, turn) == [LANDED]
    assert not stuck.done()
    gate.set()
    assert await stuck == [LANDED]


async def test_a_journal_with_one_lane_gets_everything_in_it(journal: ScriptedJournal, clock: HastyClock) -> None:
    committer = committer_on(journal, clock, lanes=1)
    await settle(committer, a_start(), a_start(a_run(key="order-1")))
    assert journal.sizes(lane=0) == [2]
    await committer.close()


# --- contention -------------------------------------------------------------------------------------------------------


async def test_contention_is_tried_again_and_then_in_halves(
    journal: ScriptedJournal, committer: GroupCommitter, clock: HastyClock
) -> None:
    turns = await some_turns(journal, 4)
    journal.script.extend([raising(Contended("locked")), raising(Contended("locked"))])
    assert await settle(committer, *turns) == [LANDED] * 4
    assert journal.sizes() == [4, 4, 2, 2]
    assert len(clock.pauses) == 1


async def test_who_is_locked_out_alone_is_tried_until_it_lands_while_the_others_go_past(
    journal: ScriptedJournal, committer: GroupCommitter, clock: HastyClock
) -> None:
    turns = await some_turns(journal, 8)
    locked, tries = turns[3], 0
    landed: list[Write] = []

    def rule(batch: Sequence[Write]) -> None:
        nonlocal tries
        if locked in batch and tries < 40:
            tries += 1
            raise Contended("locked")
        landed.extend(batch)

    journal.rule = rule
    assert await settle(committer, *turns) == [LANDED] * 8
    assert landed[-1] is locked
    assert tries == 40
    assert max(clock.pauses) <= 1.0


async def test_a_long_lock_on_one_does_not_keep_new_writes_waiting(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    locked, *others = await some_turns(journal, 5)
    is_locked = True

    def rule(batch: Sequence[Write]) -> None:
        if is_locked and locked in batch:
            raise Contended("locked")

    journal.rule = rule
    waiting = asyncio.create_task(settle(committer, locked))
    for other in others:
        assert await settle(committer, other) == [LANDED]
    assert not waiting.done()
    is_locked = False
    assert await waiting == [LANDED]


async def test_a_commit_never_overtakes_the_one_of_its_run_that_is_locked_out(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    lease = await started_run(journal.inner)
    first, second = a_commit(lease, timer_started(1)), a_commit(lease.after(1), timer_started(2))
    journal.script.extend([raising(Contended("locked"))] * 5)
    assert await settle(committer, first, second) == [LANDED, LANDED]
    assert commits_of(journal, lease.run_id) == [1, 2]


# --- bad data ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 4, 8])
async def test_poison_fails_alone(journal: ScriptedJournal, committer: GroupCommitter, place: int) -> None:
    turns = await some_turns(journal, 9)
    turns[place] = poisoned(turns[place])
    verdicts = await settle(committer, *turns)
    (bad,) = [verdict for verdict in verdicts if verdict != LANDED]
    assert verdicts.index(bad) == place
    assert isinstance(bad, Unwritable)
    assert isinstance(bad.error, BadData)


async def test_two_poisons_are_both_found(journal: ScriptedJournal, committer: GroupCommitter) -> None:
    turns = [poisoned(turn) if place in {2, 3} else turn for place, turn in enumerate(await some_turns(journal, 7))]
    verdicts = await settle(committer, *turns)
    assert [isinstance(verdict, Unwritable) for verdict in verdicts] == [place in {2, 3} for place in range(7)]


# --- lost answers -----------------------------------------------------------------------------------------------------


async def test_what_landed_before_the_answer_was_lost_lands_once(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    turns = await some_turns(journal, 3)
    start = a_start()
    journal.script.append(lost_after)
    assert await settle(committer, *turns, start) == [LANDED] * 4
    assert journal.sizes() == [4]
    assert [commits_of(journal, turn.run_id) for turn in turns] == [[1]] * 3


async def test_what_did_not_arrive_is_written_identically_again(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    turns = await some_turns(journal, 3)
    journal.script.append(lost_before)
    assert await settle(committer, *turns) == [LANDED] * 3
    (_, first), (_, second) = journal.batches
    assert len(first) == 3
    assert all(sent is again for sent, again in zip(first, second, strict=True))


async def test_only_what_did_not_arrive_is_sent_again(journal: ScriptedJournal, committer: GroupCommitter) -> None:
    turns = sorted(await some_turns(journal, 3), key=lambda turn: turn.run_id)
    await journal.inner.write(0, [turns[1]])  # as if the database had taken one of them
    journal.script.append(lost_before)
    assert await settle(committer, *turns) == [LANDED] * 3
    assert journal.batches[1] == (0, (turns[0], turns[2]))


async def test_nothing_joins_what_was_sent_before(journal: ScriptedJournal, committer: GroupCommitter) -> None:
    early, late = await some_turns(journal, 2)
    journal.script.append(lost_before)
    journal.judge_errors.extend(Ambiguous("still away") for _ in range(3))
    first = asyncio.create_task(settle(committer, early))
    await until(lambda: journal.judged)
    assert await settle(committer, late) == [LANDED]
    assert await first == [LANDED]
    assert [batch for _, batch in journal.batches] == [(early,), (early,), (late,)]


async def test_a_lease_that_was_lost_meanwhile_is_a_refusal(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    (turn,) = await some_turns(journal, 1)

    async def stolen(_go_on: object) -> Sequence[Verdict]:
        await journal.inner.retire(OWNER)
        await journal.inner.sweep(crashes_max=5, backoff_seconds=1.0, task_backoff_seconds=1.0)
        (taken,) = (await journal.inner.claim_runs(OTHER, workflows=MINE, limit=1)).runs
        heir = Lease(taken.run_id, owner=OTHER, token=taken.token)
        assert await journal.inner.write(0, [a_commit(heir, timer_started(7))]) == [LANDED]
        raise Ambiguous("the connection ended")

    journal.script.append(stolen)
    assert await settle(committer, turn) == [REFUSED]
    assert commits_of(journal, turn.run_id) == [7]


async def test_a_refusal_of_the_second_sending_is_judged_once_more(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    (turn,) = await some_turns(journal, 1)

    async def first_lands_late(go_on: Callable[[], Awaitable[Sequence[Verdict]]]) -> Sequence[Verdict]:
        await journal.inner.write(0, [turn])  # still under way in its backend when it was judged
        return await go_on()

    journal.script.extend([lost_before, first_lands_late])
    assert await settle(committer, turn) == [LANDED]
    assert len(journal.judged) == 2
    assert commits_of(journal, turn.run_id) == [1]


async def test_an_outage_is_sat_out_with_growing_pauses(
    journal: ScriptedJournal, committer: GroupCommitter, clock: HastyClock
) -> None:
    (turn,) = await some_turns(journal, 1)
    journal.script.append(lost_before)
    journal.judge_errors.extend(JournalUnavailable("away") for _ in range(10))
    journal.script.extend([lost_before] * 4)
    assert await settle(committer, turn) == [LANDED]
    assert commits_of(journal, turn.run_id) == [1]
    assert 0.025 <= min(clock.pauses) <= 0.05
    assert 0.5 <= max(clock.pauses) <= 1.0


async def test_what_was_never_sent_is_sent_when_the_database_is_back(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    turns = await some_turns(journal, 2)
    journal.script.extend([raising(JournalUnavailable("refused"))] * 5)
    assert await settle(committer, *turns) == [LANDED, LANDED]
    assert journal.sizes() == [2] * 6
    assert journal.judged == []


async def test_a_release_whose_answer_was_lost_is_over(journal: ScriptedJournal, committer: GroupCommitter) -> None:
    lease = await started_run(journal.inner)
    journal.script.append(lost_after)
    assert await settle(committer, a_release(lease)) == [LANDED]
    assert journal.sizes() == [1]


@pytest.mark.parametrize("answer", [lost_before, lost_after])
async def test_a_message_whose_answer_was_lost_is_posted_once(
    journal: ScriptedJournal, committer: GroupCommitter, answer: Answer
) -> None:
    lease = await started_run(journal.inner)
    for post in (Post(a_signal(lease.run_id)), Post(a_signal(lease.run_id, delivery_id="evt_1"))):
        journal.script.append(answer)
        assert await settle(committer, post) == [Posted(OWNER)]
    assert len(await journal.inner.unread(OWNER, limit=9)) == 2
    assert await settle(committer, Post(a_signal(lease.run_id, delivery_id="evt_1"))) == [Duplicate()]


@pytest.mark.parametrize("answer", [lost_before, lost_after])
@pytest.mark.parametrize("kind", ["finish", "retry", "free"])
async def test_a_tasks_end_whose_answer_was_lost_is_no_refusal(
    journal: ScriptedJournal, committer: GroupCommitter, answer: Answer, kind: str
) -> None:
    await started_run(journal.inner, a_start(None, scheduled(), tasks=(a_task(),)))
    (task,) = await journal.inner.claim_tasks(OTHER, activities=[ACTIVITY], slots={}, default_slots=1)
    writes: dict[str, Write] = {
        "finish": a_finish(task.attempt),
        "retry": RetryTask(task.attempt, 1.0),
        "free": FreeTask(task.attempt),
    }
    journal.script.append(answer)
    (verdict,) = await settle(committer, writes[kind])
    assert verdict in {LANDED, Posted(OWNER)}
    assert len(await journal.inner.unread(OWNER, limit=9)) == (kind == "finish")


async def test_a_keyed_start_that_lost_its_answer_and_its_key_is_refused(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    start = a_start(a_run(key="order-1"))

    async def key_is_taken(_go_on: object) -> Sequence[Verdict]:
        assert await journal.inner.write(1, [a_start(a_run(key="order-1"), owner=OTHER)]) == [LANDED]
        raise Ambiguous("the connection ended")

    journal.script.append(key_is_taken)
    assert await settle(committer, start) == [REFUSED]


async def test_poison_among_what_is_sent_again_still_fails_alone(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    turns = await some_turns(journal, 3)
    turns[1] = poisoned(turns[1])
    journal.script.append(lost_before)
    verdicts = await settle(committer, *turns)
    assert [isinstance(verdict, Unwritable) for verdict in verdicts] == [False, True, False]


# --- callers ----------------------------------------------------------------------------------------------------------


async def test_who_stops_waiting_does_not_take_the_write_back(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    gate = asyncio.Event()
    journal.script.append(held_until(gate))
    (turn,) = await some_turns(journal, 1)
    caller = asyncio.create_task(committer.put(turn))
    await until(lambda: journal.batches)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    gate.set()
    await settle(committer, a_start())
    assert commits_of(journal, turn.run_id) == [1]


@pytest.mark.parametrize("stays", [True, False])
async def test_who_is_to_be_told_hears_before_the_caller_goes_on_or_without_him(
    stays: bool, journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    heard: list[str] = []
    gate = asyncio.Event()
    journal.script.append(held_until(gate))
    caller = asyncio.create_task(committer.put(a_start(), lambda _verdict: heard.append("told")))
    caller.add_done_callback(lambda _: heard.append("caller"))
    await until(lambda: journal.batches)
    if not stays:
        caller.cancel()
        await until(lambda: heard)
    gate.set()
    await until(lambda: len(heard) == 2)
    assert heard == (["told", "caller"] if stays else ["caller", "told"])


async def test_a_full_queue_holds_callers_back_in_order(journal: ScriptedJournal, clock: HastyClock) -> None:
    committer = committer_on(journal, clock, queue_max=2, batch_max=2)
    gate = asyncio.Event()
    journal.script.append(held_until(gate))
    starts = [a_start() for _ in range(9)]
    callers = [asyncio.create_task(committer.put(start)) for start in starts]
    await until(lambda: committer.in_flight == 4)  # two on the wire, two in the queue
    for _ in range(10):
        await asyncio.sleep(0)
    assert committer.in_flight == 4
    callers[6].cancel()  # one that still waits for room
    gate.set()
    async with asyncio.timeout(5):
        await asyncio.wait(callers)
    sent = [write for _, batch in journal.batches for write in batch]
    assert {*sent} == {start for start in starts if start is not starts[6]}
    places = [
        next(place for place, (_, batch) in enumerate(journal.batches) if start in batch)
        for start in starts
        if start in sent
    ]
    assert places == sorted(places)
    await committer.close()


async def test_a_callback_that_fails_disturbs_nobody(
    journal: ScriptedJournal, committer: GroupCommitter, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_verdict: Verdict) -> None:
        raise ZeroDivisionError

    committer.submit(a_start(), broken)
    assert await settle(committer, a_start(), a_start()) == [LANDED, LANDED]
    assert "a callback failed" in caplog.text


async def test_a_bug_in_the_journal_is_told_to_its_batch_and_does_not_end_the_lane(
    journal: ScriptedJournal, committer: GroupCommitter, caplog: pytest.LogCaptureFixture
) -> None:
    async def too_few(_go_on: object) -> Sequence[Verdict]:
        return []

    for answer in (raising(ZeroDivisionError()), too_few):
        journal.script.append(answer)
        (verdict,) = await settle(committer, a_start())
        assert isinstance(verdict, Unwritable)
    journal.script.append(lost_before)
    journal.judge_errors.append(ZeroDivisionError())
    (verdict,) = await settle(committer, a_start())
    assert isinstance(verdict, Unwritable)
    assert await settle(committer, a_start()) == [LANDED]
    assert caplog.text.count("ZeroDivisionError") >= 2


@pytest.mark.parametrize("lands_first", [False, True])
async def test_a_bug_that_one_write_meets_does_not_touch_its_neighbours(
    journal: ScriptedJournal, committer: GroupCommitter, lands_first: bool
) -> None:
    turns = await some_turns(journal, 5)
    if lands_first:

        async def fails_late(go_on: Callable[[], Awaitable[Sequence[Verdict]]]) -> Sequence[Verdict]:
            await journal.inner.write(0, [turn for turn in turns if turn is not turns[2]])
            return await go_on()

        journal.script.append(fails_late)

    def rule(batch: Sequence[Write]) -> None:
        if turns[2] in batch:
            raise UnicodeError("surrogates not allowed")

    journal.rule = rule
    verdicts = await settle(committer, *turns)
    assert isinstance(verdicts.pop(2), Unwritable)
    assert verdicts == [LANDED] * 4


async def test_settling_may_submit_more_without_starving_the_loop(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    lease = await started_run(journal.inner)
    count = 0

    def again(verdict: Verdict) -> None:
        nonlocal count
        count += 1
        if count < 100:
            committer.submit(a_commit(replace(lease, base_seq=count + 1), timer_started(count + 1)), again)

    committer.submit(a_commit(lease, timer_started(1)), again)
    await until(lambda: count)
    assert count < 10
    await until(lambda: count == 100)


# --- closing ----------------------------------------------------------------------------------------------------------


async def test_closing_writes_what_is_queued_and_takes_nothing_more(
    journal: ScriptedJournal, clock: HastyClock
) -> None:
    committer = committer_on(journal, clock, batch_max=3)
    verdicts: list[Verdict] = []
    for turn in await some_turns(journal, 7):
        committer.submit(turn, verdicts.append)
    journal.script.append(raising(Contended("locked")))
    await committer.close()
    assert verdicts == [LANDED] * 7
    with pytest.raises(JournalUnavailable):
        committer.submit(a_start(), verdicts.append)
    with pytest.raises(JournalUnavailable):
        await committer.put(a_start())
    await committer.close()


async def test_closing_without_having_written_is_at_once(journal: ScriptedJournal, clock: HastyClock) -> None:
    await committer_on(journal, clock).close()


async def test_room_that_was_asked_for_and_not_used_is_the_next_ones(
    journal: ScriptedJournal, clock: HastyClock
) -> None:
    committer = committer_on(journal, clock, queue_max=1, batch_max=1)
    gate = asyncio.Event()
    journal.script.append(held_until(gate))
    callers = [asyncio.create_task(committer.put(a_start())) for _ in range(2)]
    await until(lambda: committer.in_flight == 2)
    idlers = [asyncio.create_task(committer.room()) for _ in range(3)]
    late = asyncio.create_task(committer.put(a_start()))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(idler.done() for idler in idlers)
    gate.set()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*callers, *idlers, late) == [LANDED, LANDED, None, None, None, LANDED]
    await committer.close()


async def test_a_place_that_was_given_to_a_caller_who_has_just_gone_is_the_next_ones(
    journal: ScriptedJournal, clock: HastyClock
) -> None:
    committer = committer_on(journal, clock, queue_max=1, batch_max=1)
    gate = asyncio.Event()

    async def goes(go_on: Callable[[], Awaitable[Sequence[Verdict]]]) -> Sequence[Verdict]:
        callers[2].cancel()  # its place has just been offered, and it has not run since
        return await go_on()

    journal.script.extend([held_until(gate), goes])
    callers = [asyncio.create_task(committer.put(a_start())) for _ in range(5)]
    await until(lambda: committer.in_flight == 2)
    gate.set()
    async with asyncio.timeout(5):
        await asyncio.wait(callers)
    assert [caller.cancelled() for caller in callers] == [False, False, True, False, False]
    await committer.close()


async def test_who_waits_for_room_when_it_closes_is_told(journal: ScriptedJournal, clock: HastyClock) -> None:
    committer = committer_on(journal, clock, queue_max=1, batch_max=1)
    gate = asyncio.Event()
    journal.script.append(held_until(gate))
    callers = [asyncio.create_task(committer.put(a_start())) for _ in range(4)]
    await until(lambda: committer.in_flight == 2)
    closing = asyncio.create_task(committer.close())
    await asyncio.sleep(0)
    gate.set()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    await closing
    assert answers[:2] == [LANDED, LANDED]
    assert [type(answer) for answer in answers[2:]] == [JournalUnavailable] * 2


async def test_closing_may_be_given_up_and_then_everybody_is_told(journal: ScriptedJournal, clock: HastyClock) -> None:
    committer = committer_on(journal, clock, batch_max=1)
    journal.script.append(held_until(asyncio.Event()))
    callers = [asyncio.create_task(committer.put(a_start())) for _ in range(3)]
    await until(lambda: journal.batches)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await committer.close()
    verdicts = await asyncio.gather(*callers)
    assert all(isinstance(verdict, Unwritable) for verdict in verdicts)
    assert all(isinstance(verdict.error, JournalUnavailable) for verdict in verdicts if isinstance(verdict, Unwritable))
    assert committer.in_flight == 0


# --- telling ----------------------------------------------------------------------------------------------------------


async def test_each_batch_and_each_trouble_is_told(journal: ScriptedJournal, committer: GroupCommitter) -> None:
    events: list[TelemetryEvent] = []
    telemetry.attach(events.append)
    try:
        journal.script.extend([raising(Contended("locked")), raising(Contended("locked")), lost_before])
        await settle(committer, a_start(), a_start())
    finally:
        telemetry.detach(events.append)
    assert [event.name for event in events] == [
        "commit.contended",
        "commit.contended",
        "commit.split",
        "commit.ambiguous",
        "commit.flushed",
        "commit.flushed",
    ]
    flushed = events[-1]
    assert flushed.measurements["writes"] == 1
    assert flushed.measurements["duration_seconds"] >= 0
    assert (flushed.metadata["lane"], flushed.metadata["instance"]) == (0, "continuum")


async def test_silence_counts_from_the_moment_when_an_answer_was_owed(
    journal: ScriptedJournal, committer: GroupCommitter, clock: HastyClock
) -> None:
    await settle(committer, a_start())
    clock.move_to(1_000.0)
    gate = asyncio.Event()
    journal.script.append(held_until(gate))
    waiting = asyncio.create_task(settle(committer, a_start()))
    await until(lambda: journal.sizes() == [1, 1])
    assert committer.last_answer == 1_000.0
    clock.move_to(1_030.0)
    await settle(committer, a_start(a_run(key="order-1")))  # the other lane's answers say nothing of this one
    journal.script.append(held_until(gate))
    also_waiting = asyncio.create_task(settle(committer, a_start(a_run(key="order-2"))))
    await until(lambda: committer.in_flight == 2)
    assert committer.last_answer == 1_000.0
    gate.set()
    await waiting
    await also_waiting
    assert committer.last_answer == 1_030.0


async def test_a_final_commit_whose_answer_was_lost_is_known_by_its_event(
    journal: ScriptedJournal, committer: GroupCommitter
) -> None:
    lease = await started_run(journal.inner)
    journal.script.append(lost_after)
    ending = a_commit(lease, an_event(EventType.COMPLETED, payload=b"1"), state=RunState.COMPLETED)
    assert await settle(committer, ending) == [LANDED]
