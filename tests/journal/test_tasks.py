"""Tasks: claimed by urgency within their slots; every write of an attempt is fenced by its owner and its number."""

import pytest
from msgspec.structs import replace

from continuum.codec import PayloadContext
from continuum.journal.port import Journal
from continuum.journal.sealing import SealedJournal
from continuum.model.messages import MessageKind
from continuum.model.states import RunState
from continuum.model.tasks import Attempt, Beat, ClaimedTask, TaskKey
from continuum.model.writes import LANDED, REFUSED, FreeTask, Posted, RetryTask, Write
from tests.journal.backends import Harness
from tests.journal.builders import (
    ACTIVITY,
    ENDINGS,
    OTHER,
    OWNER,
    URL,
    a_commit,
    a_finish,
    a_run,
    a_start,
    a_task,
    an_attempt,
    an_ending,
    answered,
    is_about,
    scheduled,
)
from tests.journal.steps import (
    attempt_elsewhere,
    claim,
    die,
    land,
    later,
    run_in,
    run_with_task,
    started_run,
    sweep,
    write,
)


async def claim_tasks(
    journal: Journal, owner: str = OTHER, *, slots: dict[str, int] | None = None, default_slots: int = 100
) -> list[ClaimedTask]:
    return list(await journal.claim_tasks(owner, activities=[ACTIVITY], slots=slots or {}, default_slots=default_slots))


# --- claiming ---------------------------------------------------------------------------------------------------------


async def test_a_claimed_task_comes_with_all_that_an_attempt_needs(harness: Harness, journal: Journal) -> None:
    task = a_task(7, seq=2, queue="gpu", priority=3, max_attempts=5)
    run = a_run(namespace="eu")
    start = a_start(run, scheduled(7, payload=b'["order-1",100]', key="order-1"), tasks=(task,))
    await land(journal, start)
    claimed = await claim_tasks(journal)
    due = claimed[0].available_at
    assert due is not None
    assert abs((await journal.now() - due).total_seconds()) < 60
    assert claimed == [
        ClaimedTask(
            attempt=Attempt(TaskKey(start.run_id, 1, 7), OTHER, 1),
            workflow=start.run.workflow,
            version=start.run.version,
            namespace="eu",
            activity=ACTIVITY,
            arguments=b'["order-1",100]',
            options=task.options,
            idempotency_key="order-1",
            trace_context=run.trace_context,
            available_at=due,
        )
    ]
    (row,) = await harness.tasks()
    assert (row.lease_owner, row.attempt) == (OTHER, 1)
    assert await claim_tasks(journal) == []


async def test_a_task_that_is_leased_at_birth_is_nobody_elses(journal: Journal) -> None:
    await run_with_task(journal, leased=True)
    assert await claim_tasks(journal) == []


async def test_an_owner_without_a_row_claims_no_tasks(journal: Journal) -> None:
    await run_with_task(journal, leased=False)
    await die(journal, OWNER)
    assert await claim_tasks(journal, OWNER) == []
    assert len(await claim_tasks(journal, OTHER)) == 1


async def test_a_node_claims_only_activities_that_it_knows(journal: Journal) -> None:
    await run_with_task(journal, leased=False)
    assert list(await journal.claim_tasks(OTHER, activities=["mail.send"], slots={}, default_slots=9)) == []
    assert list(await journal.claim_tasks(OTHER, activities=[], slots={}, default_slots=9)) == []


async def test_the_most_urgent_tasks_are_claimed_first_and_then_the_oldest(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    for command_id, priority in ((1, 0), (2, 5), (3, 0), (4, 5)):
        task = a_task(command_id, seq=lease.base_seq + 1, priority=priority)
        await land(journal, a_commit(lease, scheduled(command_id), tasks=(task,)))
        lease = lease.after(1)
        await harness.age(1.0)
    claimed = [(await claim_tasks(journal, default_slots=1))[0].attempt.key.command_id for _ in range(4)]
    assert claimed == [2, 4, 1, 3]


async def test_a_named_queue_takes_no_more_than_its_slots(journal: Journal) -> None:
    queues = ["gpu"] * 3 + ["mail"] * 3 + ["default"] * 3
    tasks = tuple(a_task(number, seq=number + 1, queue=queue) for number, queue in enumerate(queues, start=1))
    events = tuple(scheduled(number) for number in range(1, len(queues) + 1))
    await land(journal, a_start(None, *events, tasks=tasks))
    first = await claim_tasks(journal, slots={"gpu": 1, "mail": 0}, default_slots=10)
    assert sorted(task.options.queue for task in first) == ["default", "default", "default", "gpu"]
    second = await claim_tasks(journal, slots={"gpu": 5, "mail": 2}, default_slots=10)
    assert sorted(task.options.queue for task in second) == ["gpu", "gpu", "mail", "mail"]


async def test_queues_without_slots_of_their_own_share_the_rest(journal: Journal) -> None:
    tasks = tuple(a_task(number, seq=number + 1, queue=f"queue-{number}") for number in range(1, 6))
    await land(journal, a_start(None, *(scheduled(number) for number in range(1, 6)), tasks=tasks))
    assert len(await claim_tasks(journal, default_slots=3)) == 3
    assert await claim_tasks(journal, default_slots=0) == []
    assert len(await claim_tasks(journal, default_slots=3)) == 2


async def test_the_next_task_is_known_before_it_is_due(journal: Journal) -> None:
    assert await journal.next_task_at([ACTIVITY]) is None
    _, attempt = await attempt_elsewhere(journal)
    assert await journal.next_task_at([ACTIVITY]) is None
    await land(journal, RetryTask(attempt, 60.0))
    assert is_about(await journal.next_task_at([ACTIVITY]), await later(journal, 60.0))
    await run_with_task(journal, leased=False)
    assert is_about(await journal.next_task_at([ACTIVITY]), await journal.now())
    assert await journal.next_task_at(["mail.send"]) is None
    assert await journal.next_task_at([]) is None


# --- what an attempt writes -------------------------------------------------------------------------------------------


async def test_finishing_ends_the_task_and_posts_its_result(harness: Harness, journal: Journal) -> None:
    lease, attempt = await attempt_elsewhere(journal)
    finish = a_finish(attempt)
    assert await write(journal, finish) == Posted(OWNER, URL)
    assert await harness.tasks() == []
    (row,) = await harness.inbox(lease.run_id)
    assert (row.message_id, row.kind, row.payload) == (
        finish.message.message_id,
        MessageKind.ACTIVITY_COMPLETED,
        finish.message.payload,
    )
    assert (row.generation, row.command_id, row.is_read) == (1, 1, False)


async def test_finishing_twice_finishes_once(harness: Harness, journal: Journal) -> None:
    _, attempt = await attempt_elsewhere(journal)
    await write(journal, a_finish(attempt))
    before = await harness.dump()
    assert await write(journal, a_finish(attempt)) == REFUSED
    assert await harness.dump() == before


async def test_a_retry_consumes_an_attempt_and_waits(harness: Harness, journal: Journal) -> None:
    lease, attempt = await attempt_elsewhere(journal)
    await land(journal, RetryTask(attempt, 60.0))
    (row,) = await harness.tasks()
    assert (row.lease_owner, row.attempt) == (None, 2)
    assert is_about(row.available_at, await later(journal, 60.0))
    assert await claim_tasks(journal) == []
    await harness.age(61.0)
    (claimed,) = await claim_tasks(journal, OWNER)
    assert claimed.attempt == an_attempt(lease.run_id, owner=OWNER, attempt=2)


async def test_an_attempt_that_never_began_is_freed_as_it_was(harness: Harness, journal: Journal) -> None:
    lease, attempt = await attempt_elsewhere(journal)
    await land(journal, FreeTask(attempt))
    (row,) = await harness.tasks()
    assert (row.lease_owner, row.attempt) == (None, 1)
    (claimed,) = await claim_tasks(journal, OWNER)
    assert claimed.attempt == an_attempt(lease.run_id, owner=OWNER)


async def test_heartbeat_details_reach_the_next_attempt(journal: Journal) -> None:
    _, attempt = await attempt_elsewhere(journal)
    for details in (b"10", b"20"):
        assert list(await journal.heartbeat_tasks([Beat(attempt, details)])) == [attempt]
    await land(journal, RetryTask(attempt, 0.0))
    (claimed,) = await claim_tasks(journal, OWNER)
    assert claimed.details == b"20"


async def test_a_heartbeat_that_cannot_be_sealed_stops_no_heart(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    class Picky:
        def encode(self, payload: bytes, _context: PayloadContext) -> bytes:
            if payload == b"odd":
                raise KeyError("no key for this")
            return payload

        def decode(self, payload: bytes, _context: PayloadContext) -> bytes:
            return payload

    sealed = SealedJournal(journal, Picky())
    (_, odd), (_, even) = await attempt_elsewhere(journal), await attempt_elsewhere(journal)
    await sealed.heartbeat_tasks([Beat(odd, b"10")])
    assert set(await sealed.heartbeat_tasks([Beat(odd, b"odd", ACTIVITY), Beat(even, b"20")])) == {odd, even}
    for attempt in (odd, even):
        await land(journal, RetryTask(attempt, 0.0))
    told = {task.attempt.key: task.details for task in await claim_tasks(sealed, OWNER)}
    assert told == {odd.key: b"10", even.key: b"20"}, "what was said before is kept"
    assert f"cannot seal the heartbeat of activity {ACTIVITY}" in caplog.text


async def test_a_heartbeat_answers_which_attempts_still_run(harness: Harness, journal: Journal) -> None:
    _, mine = await attempt_elsewhere(journal)
    _, gone = await attempt_elsewhere(journal)
    ended, over = await attempt_elsewhere(journal)
    await write(journal, a_finish(gone))
    await land(journal, an_ending(ended))
    beats = [Beat(attempt, b"1") for attempt in (mine, gone, over, replace(mine, owner=OWNER))]
    assert list(await journal.heartbeat_tasks(beats)) == [mine]
    assert list(await journal.heartbeat_tasks([])) == []
    assert [row.details for row in await harness.tasks()] == [b"1"]


STRANGERS = ("an earlier attempt", "another owner", "another generation")


def stranger(attempt: Attempt, kind: str) -> Attempt:
    return {
        "an earlier attempt": replace(attempt, attempt=attempt.attempt - 1),
        "another owner": replace(attempt, owner=OWNER),
        "another generation": replace(attempt, key=replace(attempt.key, generation=2)),
    }[kind]


@pytest.mark.parametrize("kind", STRANGERS)
async def test_who_is_not_this_attempt_changes_nothing(harness: Harness, journal: Journal, kind: str) -> None:
    _, first = await attempt_elsewhere(journal)
    await land(journal, RetryTask(first, 0.0))
    ((current),) = (task.attempt for task in await claim_tasks(journal))  # the same owner once more
    zombie = stranger(current, kind)
    before = await harness.dump()
    writes: list[Write] = [a_finish(zombie), RetryTask(zombie, 0.0), FreeTask(zombie)]
    for late in writes:
        assert await write(journal, late) == REFUSED
    assert list(await journal.heartbeat_tasks([Beat(zombie, b"late")])) == []
    assert await harness.dump() == before
    assert isinstance(await write(journal, a_finish(current)), Posted)


@pytest.mark.parametrize("state", list(ENDINGS))
async def test_nothing_is_written_for_a_run_that_is_over(harness: Harness, journal: Journal, state: RunState) -> None:
    lease, attempt = await attempt_elsewhere(journal)
    await land(journal, an_ending(lease, state))
    before = await harness.dump()
    writes: list[Write] = [a_finish(attempt), RetryTask(attempt, 0.0), FreeTask(attempt)]
    for late in writes:
        assert await write(journal, late) == REFUSED
    assert await harness.dump() == before


@pytest.mark.parametrize("what", ["a run that is over", "another generation", "no run"])
async def test_a_result_for_what_is_not_active_is_refused_though_its_task_is_there(
    harness: Harness, journal: Journal, what: str
) -> None:
    ended, active = await run_in(journal, RunState.FAILED), await run_in(journal, RunState.SUSPENDED)
    key = {
        "a run that is over": TaskKey(ended, 1, 1),
        "another generation": TaskKey(active, 2, 1),
        "no run": TaskKey(a_run().run_id, 1, 1),
    }[what]
    attempt = Attempt(key, OTHER, 1)
    await harness.plant_task(attempt)
    before = await harness.dump()
    assert await write(journal, a_finish(attempt)) == REFUSED
    assert await harness.dump() == before


async def test_a_result_for_a_command_that_is_resolved_is_dropped(harness: Harness, journal: Journal) -> None:
    lease, attempt = await attempt_elsewhere(journal)
    await land(journal, a_commit(lease, answered(), resolved=(1,)))
    assert await write(journal, a_finish(attempt)) == REFUSED
    assert await harness.inbox() == []


async def test_an_attempt_may_finish_for_a_run_that_changed_hands(harness: Harness, journal: Journal) -> None:
    lease, attempt = await attempt_elsewhere(journal)
    await die(journal, OWNER)
    await sweep(journal)
    assert await write(journal, a_finish(attempt)) == Posted()
    assert await claim(journal) == [lease.run_id]


async def test_many_task_writes_of_many_runs_share_a_batch(harness: Harness, journal: Journal) -> None:
    attempts = [(await attempt_elsewhere(journal))[1] for _ in range(6)]
    batch: list[Write] = [a_finish(attempts[0]), RetryTask(attempts[1], 0.0), FreeTask(attempts[2])]
    batch += [a_finish(replace(attempts[3], attempt=9)), RetryTask(replace(attempts[4], owner=OWNER), 0.0)]
    verdicts = await journal.write(0, batch)
    assert verdicts == [Posted(OWNER, URL), LANDED, LANDED, REFUSED, REFUSED]
    rows = {row.key: (row.lease_owner, row.attempt) for row in await harness.tasks()}
    assert rows == {
        attempts[1].key: (None, 2),
        attempts[2].key: (None, 1),
        attempts[3].key: (OTHER, 1),
        attempts[4].key: (OTHER, 1),
        attempts[5].key: (OTHER, 1),
    }
