"""The sweep is a level, not an edge: whatever an owner without a row holds is freed, by whichever pass comes next."""

import pytest
from msgspec.structs import replace

from continuum.journal.port import Journal, Swept
from continuum.model.failure import Failure
from continuum.model.messages import MessageKind
from continuum.model.states import RunState
from continuum.model.tasks import TaskKey
from continuum.model.writes import LANDED, REFUSED, Duplicate, Post
from tests.journal.backends import Harness
from tests.journal.builders import (
    MINE,
    OTHER,
    OWNER,
    TTL,
    Lease,
    a_commit,
    a_finish,
    a_run,
    a_signal,
    a_start,
    a_task,
    an_attempt,
    an_ending,
    an_owner,
    answered,
    is_about,
    scheduled,
    timer_started,
)
from tests.journal.steps import (
    attempt_elsewhere,
    claim,
    die,
    land,
    later,
    post,
    run_in,
    run_with_task,
    started_run,
    sweep,
    write,
)


async def test_a_dead_owners_runs_are_freed_under_a_new_token(harness: Harness, journal: Journal) -> None:
    wake_at = await later(journal, 60.0)
    busy = await started_run(journal)
    parked = await started_run(journal, a_start(None, state=RunState.SUSPENDED, wake_at=wake_at))
    await die(journal, OWNER)
    swept = await sweep(journal)
    assert sorted(swept.runs) == sorted([busy.run_id, parked.run_id])
    row = await harness.run_row(busy.run_id)
    assert (row.lease_owner, row.lease_token, row.state, row.crashes) == (None, 2, RunState.RUNNING, 1)
    row = await harness.run_row(parked.run_id)
    assert (row.lease_owner, row.lease_token, row.state, row.crashes) == (None, 2, RunState.SUSPENDED, 0)
    assert row.wake_at == wake_at
    assert await claim(journal) == [busy.run_id]


async def test_a_late_owner_keeps_its_leases_until_it_is_declared_dead(harness: Harness, journal: Journal) -> None:
    lease = await run_with_task(journal)
    await harness.age(10 * TTL)
    before = await harness.dump()
    assert await sweep(journal) == Swept()
    assert await harness.dump() == before
    await land(journal, a_commit(lease, answered()))


async def test_sweeping_again_finds_nothing(harness: Harness, journal: Journal) -> None:
    await run_with_task(journal)
    await die(journal, OWNER)
    assert await sweep(journal) != Swept()
    before = await harness.dump()
    assert await sweep(journal) == Swept()
    assert await harness.dump() == before


async def test_a_swept_owner_writes_nothing_any_more(journal: Journal) -> None:
    lease = await run_with_task(journal)
    await die(journal, OWNER)
    await sweep(journal)
    assert await write(journal, a_commit(lease, answered())) == REFUSED
    assert await write(journal, an_ending(lease)) == REFUSED
    assert await write(journal, a_finish(an_attempt(lease.run_id))) == REFUSED


async def test_only_the_dead_are_swept(harness: Harness, journal: Journal) -> None:
    theirs = await run_with_task(journal, owner=OTHER)
    await die(journal, OWNER)
    await sweep(journal)
    row = await harness.run_row(theirs.run_id)
    assert (row.lease_owner, row.lease_token) == (OTHER, 1)
    assert [row.lease_owner for row in await harness.tasks()] == [OTHER]


async def test_what_a_paused_owner_leases_after_it_was_swept_is_swept_by_the_next_pass(
    harness: Harness, journal: Journal
) -> None:
    await die(journal, OWNER)
    assert await sweep(journal) == Swept()
    late = await run_with_task(journal, owner=OWNER)  # it wakes up and starts a run in the dead owner's name
    swept = await sweep(journal)
    assert (swept.runs, swept.tasks) == ((late.run_id,), (an_attempt(late.run_id),))
    assert (await harness.run_row(late.run_id)).lease_owner is None
    assert (await journal.held(OWNER)).runs == {}


async def test_tasks_born_under_a_token_that_was_not_bumped_yet_are_swept_too(
    harness: Harness, journal: Journal
) -> None:
    lease = await started_run(journal)
    await die(journal, OWNER)
    await land(journal, a_commit(lease, scheduled(), tasks=(a_task(leased=True),)))
    swept = await sweep(journal)
    assert (swept.runs, swept.tasks) == ((lease.run_id,), (an_attempt(lease.run_id),))
    assert [row.lease_owner for row in await harness.tasks()] == [None]


async def test_a_crash_consumes_an_attempt_and_backs_off(harness: Harness, journal: Journal) -> None:
    lease, attempt = await attempt_elsewhere(journal)
    await die(journal, OTHER)
    assert await sweep(journal) == Swept(tasks=(attempt,))
    (row,) = await harness.tasks()
    assert (row.lease_owner, row.attempt) == (None, 2)
    assert is_about(row.available_at, await later(journal, 5.0), seconds=4.0)
    assert (await harness.run_row(lease.run_id)).lease_owner == OWNER
    assert await write(journal, a_finish(attempt)) == REFUSED


async def test_a_crash_of_the_last_attempt_fails_the_activity_without_running_it_again(
    harness: Harness, journal: Journal
) -> None:
    lease, attempt = await attempt_elsewhere(journal, max_attempts=1)
    await die(journal, OTHER)
    assert await sweep(journal) == Swept(exhausted=(attempt,))
    assert await harness.tasks() == []
    (row,) = await harness.inbox(lease.run_id)
    assert (row.kind, row.generation, row.command_id) == (MessageKind.ACTIVITY_FAILED, 1, 1)
    assert (row.delivery_id, row.is_read) == (None, False)
    assert row.payload is not None
    failure = Failure.decode(row.payload)
    assert (failure.type, failure.attempts) == ("attempts_exhausted", 1)


async def test_every_crash_counts_until_none_is_left(harness: Harness, journal: Journal) -> None:
    lease = await run_with_task(journal, max_attempts=3, leased=False)
    owner = OTHER
    for attempt in (1, 2, 3):
        await harness.age(10.0)
        await journal.claim_tasks(owner, activities=["payments.charge"], slots={}, default_slots=1)
        assert [row.attempt for row in await harness.tasks()] == [attempt]
        await die(journal, owner)
        await sweep(journal)
        owner = f"node-2/continuum/boot-2/{attempt + 1}"
        await journal.register(an_owner(owner), ttl_seconds=TTL)
    assert await harness.tasks() == []
    assert [row.kind for row in await harness.inbox(lease.run_id)] == [MessageKind.ACTIVITY_FAILED]


async def test_a_run_that_kills_every_process_is_blocked_with_a_back_off(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    await die(journal, OWNER)
    assert await sweep(journal, crashes_max=2) == Swept(runs=(lease.run_id,))
    assert await claim(journal, OTHER) == [lease.run_id]
    await die(journal, OTHER)
    assert await sweep(journal, crashes_max=2) == Swept(blocked=(lease.run_id,))
    row = await harness.run_row(lease.run_id)
    assert (row.state, row.lease_owner, row.lease_token, row.crashes) == (RunState.BLOCKED, None, 4, 2)
    assert row.reason
    assert is_about(row.wake_at, await later(journal, 60.0))
    third = "node-3/continuum/boot-3/1"
    await journal.register(an_owner(third), ttl_seconds=TTL)
    assert await claim(journal, third) == []
    await harness.age(61.0)
    assert await claim(journal, third) == [lease.run_id]


async def test_a_parked_run_never_counts_a_crash(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal, a_start(None, state=RunState.SUSPENDED))
    await die(journal, OWNER)
    swept = await sweep(journal, crashes_max=1)
    assert (swept.runs, swept.blocked) == ((lease.run_id,), ())
    assert (await harness.run_row(lease.run_id)).crashes == 0


async def test_a_result_in_the_inbox_survives_both_sweeps(harness: Harness, journal: Journal) -> None:
    lease, attempt = await attempt_elsewhere(journal)
    await write(journal, a_finish(attempt))
    for owner in (OWNER, OTHER):
        await die(journal, owner)
    assert await sweep(journal) == Swept(runs=(lease.run_id,))
    assert [row.command_id for row in await harness.inbox(lease.run_id)] == [1]


async def test_more_runs_than_one_statement_takes_are_all_swept(harness: Harness, journal: Journal) -> None:
    starts = [a_start() for _ in range(1_100)]
    for place in range(0, len(starts), 500):
        assert set(await journal.write(0, starts[place : place + 500])) == {LANDED}
    await die(journal, OWNER)
    assert len((await sweep(journal)).runs) == 1_100
    assert dict((await journal.held(OWNER)).runs) == {}


# --- what belongs to nobody -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED])
async def test_late_messages_of_ended_runs_are_deleted_but_delivery_ids_kept(
    harness: Harness, journal: Journal, state: RunState
) -> None:
    run_id = await run_in(journal, state)
    late, webhook = a_signal(run_id), a_signal(run_id, delivery_id="evt_1")
    await harness.plant(late)
    await harness.plant(webhook)
    await sweep(journal)
    assert [row.message_id for row in await harness.inbox()] == [webhook.message_id]
    assert await write(journal, Post(a_signal(run_id, delivery_id="evt_1"))) == Duplicate()


async def test_messages_of_runs_that_do_not_exist_are_deleted(harness: Harness, journal: Journal) -> None:
    await harness.plant(a_signal(a_run().run_id))
    await sweep(journal)
    assert await harness.inbox() == []


async def test_messages_of_runs_that_live_are_left_alone(harness: Harness, journal: Journal) -> None:
    states = (RunState.PENDING, RunState.RUNNING, RunState.SUSPENDED, RunState.BLOCKED)
    messages = [await post(journal, a_signal(await run_in(journal, state))) for state in states]
    await sweep(journal)
    assert [row.message_id for row in await harness.inbox()] == [message.message_id for message in messages]


@pytest.mark.parametrize("owner", [OWNER, "node-9/continuum/gone/1"])
async def test_tasks_that_belong_to_no_active_generation_are_deleted_whoever_holds_them(
    harness: Harness, journal: Journal, owner: str
) -> None:
    ended, active = await run_in(journal, RunState.COMPLETED), await run_in(journal, RunState.SUSPENDED)
    await harness.plant_task(an_attempt(ended, owner=owner))
    await harness.plant_task(an_attempt(a_run().run_id, owner=owner))
    await harness.plant_task(replace(an_attempt(active, owner=owner), key=TaskKey(active, 2, 1)))
    assert await sweep(journal) == Swept()
    assert await harness.tasks() == []
    assert await harness.inbox() == []


async def test_a_taken_over_run_goes_on_where_its_history_ends(journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, a_commit(lease, timer_started()))
    await die(journal, OWNER)
    await sweep(journal)
    (taken,) = (await journal.claim_runs(OTHER, workflows=MINE, limit=1)).runs
    heir = Lease(taken.run_id, owner=OTHER, token=taken.token, base_seq=taken.last_seq)
    assert heir.base_seq == 2
    await land(journal, a_commit(heir, timer_started(2)))
    assert [event.command_id for event in await journal.history(lease.run_id)] == [None, 1, 2]
