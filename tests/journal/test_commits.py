"""A commit lands whole behind its five-part fence, or changes nothing; its neighbours do not notice."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from continuum.journal.port import BadData, Journal
from continuum.model.events import Event, EventType
from continuum.model.states import RunState
from continuum.model.tasks import TaskKey
from continuum.model.writes import LANDED, REFUSED, Post, Posted, Write
from tests.journal.backends import Harness
from tests.journal.builders import (
    AT,
    ENDINGS,
    OTHER,
    OWNER,
    URL,
    Lease,
    a_block,
    a_commit,
    a_release,
    a_run,
    a_signal,
    a_start,
    a_task,
    an_ending,
    an_event,
    answered,
    completed,
    is_about,
    scheduled,
    signal_received,
    timer_started,
)
from tests.journal.steps import (
    attempt_elsewhere,
    claim,
    die,
    land,
    later,
    post,
    run_with_task,
    started_run,
    sweep,
    write,
)

# --- landing ----------------------------------------------------------------------------------------------------------


async def test_a_commit_appends_its_events_under_its_writers_token(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, a_commit(lease, timer_started(1), scheduled(2)))
    await land(journal, a_commit(lease.after(2), answered(2)))
    rows = await harness.events(lease.run_id)
    assert [(row.event.seq, row.token) for row in rows] == [(1, 1), (2, 1), (3, 1), (4, 1)]
    assert (await harness.run_row(lease.run_id)).last_seq == 4


async def test_every_field_of_an_event_comes_back(journal: Journal) -> None:
    lease = await started_run(journal)
    event = Event(
        seq=2,
        type=EventType.ACTIVITY_COMPLETED,
        at=datetime(2031, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        command_id=2**31 - 1,
        message_id=a_signal(lease.run_id).message_id,
        name="payments.chargé",
        payload=b'\x00\xff"',
        key="order-1/ü",
        format=7,
    )
    await land(journal, replace(a_commit(lease, answered()), events=(event,)))
    assert (await journal.history(lease.run_id))[-1] == event


async def test_a_commit_leaves_state_and_deadline_alone_unless_it_names_a_state(
    harness: Harness, journal: Journal
) -> None:
    wake_at = await later(journal, 60.0)
    lease = await started_run(journal, a_start(None, state=RunState.SUSPENDED, wake_at=wake_at))
    await land(journal, a_commit(lease, timer_started()))
    row = await harness.run_row(lease.run_id)
    assert (row.state, row.wake_at) == (RunState.SUSPENDED, wake_at)


async def test_a_commit_that_names_a_state_writes_state_and_deadline(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    wake_at = await later(journal, 60.0)
    await land(journal, a_commit(lease, timer_started(), state=RunState.SUSPENDED, wake_at=wake_at))
    parked = await harness.run_row(lease.run_id)
    assert (parked.state, parked.wake_at, parked.lease_owner) == (RunState.SUSPENDED, wake_at, OWNER)
    await land(journal, a_commit(lease.after(1), state=RunState.RUNNING))
    woken = await harness.run_row(lease.run_id)
    assert (woken.state, woken.wake_at, woken.last_seq) == (RunState.RUNNING, None, 2)


async def test_a_commit_may_count_its_deadline_on_the_databases_clock(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, a_commit(lease, state=RunState.SUSPENDED, backoff_seconds=300.0))
    assert is_about((await harness.run_row(lease.run_id)).wake_at, await later(journal, 300.0))


async def test_only_a_commit_with_events_forgets_the_crashes(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    await die(journal, OWNER)
    await sweep(journal)
    await claim(journal, OTHER)
    lease = Lease(lease.run_id, owner=OTHER, token=3)
    await land(journal, a_commit(lease, state=RunState.RUNNING))
    assert (await harness.run_row(lease.run_id)).crashes == 1
    await land(journal, a_commit(lease, timer_started()))
    assert (await harness.run_row(lease.run_id)).crashes == 0


async def test_new_tasks_are_leased_to_the_committer_or_free(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    tasks = (a_task(1, seq=2, leased=True), a_task(2, seq=3, queue="gpu", priority=9))
    await land(journal, a_commit(lease, scheduled(1), scheduled(2), tasks=tasks))
    mine, free = await harness.tasks(lease.run_id)
    assert (mine.key, mine.lease_owner, mine.attempt) == (TaskKey(lease.run_id, 1, 1), OWNER, 1)
    assert (free.lease_owner, free.queue, free.priority, free.attempt) == (None, "gpu", 9, 1)
    assert is_about(free.available_at, await journal.now())


async def test_resolving_a_command_deletes_its_task_whoever_holds_it(harness: Harness, journal: Journal) -> None:
    lease, _ = await attempt_elsewhere(journal)
    await land(journal, a_commit(lease, scheduled(2), tasks=(a_task(2, seq=3),)))
    await land(journal, a_commit(lease.after(1), answered(1), resolved=(1,)))
    assert [row.key.command_id for row in await harness.tasks(lease.run_id)] == [2]


async def test_resolving_touches_no_other_run(harness: Harness, journal: Journal) -> None:
    lease, other = await run_with_task(journal), await run_with_task(journal)
    await land(journal, a_commit(lease, answered(1), resolved=(1,)))
    assert [row.key.run_id for row in await harness.tasks()] == [other.run_id]


async def test_read_messages_go_unless_a_delivery_id_must_be_remembered(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    plain = await post(journal, a_signal(lease.run_id))
    webhook = await post(journal, a_signal(lease.run_id, delivery_id="evt_1"))
    unread = await post(journal, a_signal(lease.run_id))
    await land(journal, a_commit(lease, signal_received(plain), signal_received(webhook), read=(plain, webhook)))
    rows = await harness.inbox(lease.run_id)
    assert [(row.message_id, row.is_read, row.payload) for row in rows] == [
        (webhook.message_id, True, None),
        (unread.message_id, False, unread.payload),
    ]
    (loaded,) = await journal.load_runs([lease.run_id])
    assert [message.message_id for message in loaded.messages] == [unread.message_id]


async def test_reading_what_is_not_there_is_harmless(journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, a_commit(lease, read=(a_signal(lease.run_id), a_signal(lease.run_id, delivery_id="evt_1"))))


# --- giving the lease back --------------------------------------------------------------------------------------------


async def test_a_release_gives_the_lease_back_under_a_new_token(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    wake_at = await later(journal, 60.0)
    await land(journal, a_release(lease, wake_at=wake_at))
    row = await harness.run_row(lease.run_id)
    assert (row.lease_owner, row.lease_token, row.state, row.wake_at) == (None, 2, RunState.SUSPENDED, wake_at)
    assert await write(journal, a_commit(lease, timer_started())) == REFUSED


async def test_a_release_may_ride_on_a_turns_commit(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, a_commit(lease, timer_started(), state=RunState.SUSPENDED, releases=True))
    row = await harness.run_row(lease.run_id)
    assert (row.lease_owner, row.lease_token, row.last_seq) == (None, 2, 2)


async def test_a_release_may_leave_the_state_as_it_is(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, a_commit(lease, releases=True))
    row = await harness.run_row(lease.run_id)
    assert (row.lease_owner, row.lease_token, row.state) == (None, 2, RunState.RUNNING)


async def test_a_block_keeps_the_reason_and_backs_off(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, a_block(lease, reason="expected charge, found refund", backoff_seconds=60.0))
    row = await harness.run_row(lease.run_id)
    assert (row.state, row.reason) == (RunState.BLOCKED, "expected charge, found refund")
    assert (row.lease_owner, row.lease_token, row.last_seq) == (None, 2, 1)
    assert is_about(row.wake_at, await later(journal, 60.0))
    assert await claim(journal) == []


# --- endings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(ENDINGS))
async def test_an_ending_clears_the_lease_and_sets_the_retention(
    harness: Harness, journal: Journal, state: RunState
) -> None:
    lease = await started_run(journal, a_start(None, state=RunState.SUSPENDED, wake_at=await later(journal, 5.0)))
    await land(journal, an_ending(lease, state))
    row = await harness.run_row(lease.run_id)
    assert (row.state, row.lease_owner, row.lease_token, row.wake_at) == (state, None, 2, None)
    assert is_about(row.ended_at, await journal.now())
    assert is_about(row.retention_until, await later(journal, 60.0))


async def test_a_run_that_is_kept_for_ever_gets_no_retention(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal, a_start(a_run(retention_seconds=None)))
    await land(journal, an_ending(lease))
    assert (await harness.run_row(lease.run_id)).retention_until is None


async def test_an_ending_deletes_all_tasks_of_the_run_and_no_others(harness: Harness, journal: Journal) -> None:
    lease, _ = await attempt_elsewhere(journal)
    await land(journal, a_commit(lease, scheduled(2), tasks=(a_task(2, seq=3),)))
    other = await run_with_task(journal)
    await land(journal, an_ending(lease.after(1)))
    assert [row.key.run_id for row in await harness.tasks()] == [other.run_id]


async def test_an_ending_clears_the_inbox_but_for_tombstones(harness: Harness, journal: Journal) -> None:
    lease, other = await started_run(journal), await started_run(journal)
    await post(journal, a_signal(lease.run_id))
    webhook = await post(journal, a_signal(lease.run_id, delivery_id="evt_1"))
    kept = await post(journal, a_signal(other.run_id))
    await land(journal, an_ending(lease))
    rows = await harness.inbox()
    assert sorted((row.message_id, row.is_read, row.payload) for row in rows) == sorted(
        [(webhook.message_id, True, None), (kept.message_id, False, kept.payload)]
    )


@pytest.mark.parametrize("state", list(ENDINGS))
async def test_what_has_ended_never_ends_again(harness: Harness, journal: Journal, state: RunState) -> None:
    lease = await started_run(journal)
    await land(journal, an_ending(lease))
    before = await harness.dump()
    for late in (an_ending(lease, state), an_ending(replace(lease.after(1), token=2), state), a_block(lease)):
        assert await write(journal, late) == REFUSED
    assert await harness.dump() == before


# --- the fence --------------------------------------------------------------------------------------------------------

STALE: dict[str, Callable[[Lease], Lease]] = {
    "owner": lambda lease: replace(lease, owner=OTHER),
    "lower token": lambda lease: replace(lease, token=lease.token - 1),
    "higher token": lambda lease: replace(lease, token=lease.token + 1),
    "generation": lambda lease: replace(lease, generation=2),
    "lower base_seq": lambda lease: replace(lease, base_seq=lease.base_seq - 1),
    "higher base_seq": lambda lease: replace(lease, base_seq=lease.base_seq + 1),
    "run": lambda lease: replace(lease, run_id=a_run().run_id),
}


@pytest.mark.parametrize("part", list(STALE))
@pytest.mark.parametrize("shape", ["turn", "ending", "release", "block"])
async def test_each_part_of_the_fence_holds_and_nothing_of_the_commit_takes_effect(
    harness: Harness, journal: Journal, part: str, shape: str
) -> None:
    lease = await run_with_task(journal)
    await land(journal, a_commit(lease, answered(1), scheduled(2), tasks=(a_task(2, seq=4),)))
    lease = lease.after(2)
    message = await post(journal, a_signal(lease.run_id))
    webhook = await post(journal, a_signal(lease.run_id, delivery_id="evt_1"))
    before = await harness.dump()
    stale = STALE[part](lease)
    commit = {
        "turn": a_commit(
            stale,
            signal_received(message),
            scheduled(3),
            tasks=(a_task(3, seq=6),),
            resolved=(2,),
            read=(message, webhook),
            state=RunState.SUSPENDED,
        ),
        "ending": an_ending(stale),
        "release": a_release(stale),
        "block": a_block(stale),
    }[shape]
    assert await write(journal, commit) == REFUSED
    assert await harness.dump() == before


@pytest.mark.parametrize("state", [RunState.PENDING, RunState.BLOCKED])
async def test_a_run_that_is_not_writable_refuses_even_its_owner(
    harness: Harness, journal: Journal, state: RunState
) -> None:
    lease = await started_run(journal, a_start(None, state=state))
    before = await harness.dump()
    assert await write(journal, a_commit(lease, timer_started())) == REFUSED
    assert await harness.dump() == before


async def test_who_lost_the_lease_writes_nothing_over_who_took_it(harness: Harness, journal: Journal) -> None:
    zombie = await started_run(journal)
    await die(journal, OWNER)
    await sweep(journal)
    (taken,) = (await journal.claim_runs(OTHER, workflows=[("orders.fulfil", 1)], limit=1)).runs
    holder = Lease(taken.run_id, owner=OTHER, token=taken.token)
    assert await write(journal, a_commit(zombie, timer_started(1))) == REFUSED
    await land(journal, a_commit(holder, timer_started(2)))
    assert await write(journal, a_commit(zombie.after(1), timer_started(3))) == REFUSED
    rows = await harness.events(zombie.run_id)
    assert [(row.event.command_id, row.token) for row in rows] == [(None, 1), (2, 3)]


async def test_the_same_commit_sent_again_is_refused(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    commit = a_commit(lease, scheduled(1), tasks=(a_task(),))
    await land(journal, commit)
    before = await harness.dump()
    assert await write(journal, commit) == REFUSED
    assert await harness.dump() == before


async def test_who_is_refused_is_refused_alone(harness: Harness, journal: Journal) -> None:
    leases = [await run_with_task(journal) for _ in range(5)]
    batch = [
        a_commit(replace(lease, token=9) if place in {1, 3} else lease, answered(), resolved=(1,))
        for place, lease in enumerate(leases)
    ]
    assert await journal.write(0, batch) == [LANDED, REFUSED, LANDED, REFUSED, LANDED]
    assert [(await harness.run_row(lease.run_id)).last_seq for lease in leases] == [3, 2, 3, 2, 3]
    assert sorted(row.key.run_id for row in await harness.tasks()) == sorted([leases[1].run_id, leases[3].run_id])


async def test_verdicts_come_in_the_order_of_the_batch_whatever_is_in_it(journal: Journal) -> None:
    lease, parked = await started_run(journal), await started_run(journal)
    stale = a_commit(replace(parked, token=7), timer_started())
    batch: list[Write] = [Post(a_signal(parked.run_id)), a_commit(lease, timer_started()), stale, a_start()]
    assert await journal.write(0, batch) == [Posted(OWNER, URL), LANDED, REFUSED, LANDED]


# --- what no journal takes --------------------------------------------------------------------------------------------

EFFECTS = [
    EventType.ACTIVITY_SCHEDULED,
    EventType.ACTIVITY_COMPLETED,
    EventType.ACTIVITY_FAILED,
    EventType.TIMER_STARTED,
    EventType.TIMER_FIRED,
    EventType.SIDE_EFFECT_RECORDED,
]


@pytest.mark.parametrize("type", EFFECTS)
async def test_an_effect_without_a_command_id_is_bad_data_and_its_whole_batch_waits(
    harness: Harness, journal: Journal, type: EventType
) -> None:
    innocent, guilty = await run_with_task(journal), await started_run(journal)
    before = await harness.dump()
    batch = [a_commit(innocent, completed(), state=RunState.COMPLETED), a_commit(guilty, an_event(type))]
    with pytest.raises(BadData):
        await journal.write(0, batch)
    with pytest.raises(BadData):
        await journal.write(0, [a_start(None, an_event(type))])
    assert await harness.dump() == before


async def test_a_run_that_occurs_twice_in_a_batch_is_a_bug_that_never_reaches_the_tables(
    harness: Harness, journal: Journal
) -> None:
    lease, other = await started_run(journal), await started_run(journal)
    before = await harness.dump()
    batch = [a_commit(lease, timer_started(1)), a_commit(other, timer_started(1)), a_commit(lease, timer_started(2))]
    with pytest.raises(AssertionError, match="twice"):
        await journal.write(0, batch)
    assert await harness.dump() == before


async def test_an_event_that_does_not_stand_where_it_says_is_bad_data(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    before = await harness.dump()
    commit = a_commit(lease, timer_started(1), timer_started(2))
    for events in (commit.events[1:], commit.events[::-1], (*commit.events, commit.events[-1])):
        with pytest.raises(BadData):
            await journal.write(0, [replace(commit, events=events)])
    assert await harness.dump() == before


async def test_events_of_a_turn_keep_its_time_not_the_databases(journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, a_commit(lease, timer_started()))
    assert {event.at for event in await journal.history(lease.run_id)} == {AT}
