"""Continuing commits: one generation ends and the next one opens, under the same lease, in one write."""

from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from msgspec.structs import replace

from continuum.journal.port import Journal
from continuum.model.events import EventType
from continuum.model.messages import MessageKind
from continuum.model.packing import pack_history
from continuum.model.states import RunState
from continuum.model.writes import LANDED, REFUSED, Commit, Duplicate, Post
from tests.journal.backends import Harness
from tests.journal.builders import (
    ACTIVITY,
    MINE,
    OTHER,
    OWNER,
    Lease,
    a_commit,
    a_finish,
    a_run,
    a_signal,
    a_start,
    a_task,
    an_attempt,
    an_ending,
    scheduled,
    signal_received,
    timer_started,
)
from tests.journal.families import a_child, asking, child_of, continuing, news, next_generation, reopened, telling
from tests.journal.steps import attempt_elsewhere, claim, die, land, post, run_with_task, started_run, sweep, write


async def stolen(journal: Journal, lease: Lease) -> Lease:
    """Let OTHER take a run over; return its lease."""
    await die(journal, OWNER)
    await sweep(journal)
    (taken,) = (await journal.claim_runs(OTHER, workflows=MINE, limit=1, run_ids=[lease.run_id])).runs
    return Lease(taken.run_id, owner=OTHER, token=taken.token, base_seq=taken.last_seq, generation=taken.generation)


# --- what it changes --------------------------------------------------------------------------------------------------


async def test_the_next_generation_has_a_history_of_its_own(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    signal = a_signal(lease.run_id)
    commit = continuing(lease, signal_received(signal), version=2)
    await land(journal, commit)
    assert commit.continues is not None
    row = await harness.run_row(lease.run_id)
    assert (row.generation, row.version, row.last_seq) == (2, 2, 2)
    assert tuple(await journal.history(lease.run_id)) == commit.continues.events
    older = await journal.history(lease.run_id, generation=1)
    assert [event.type for event in older] == [EventType.STARTED, EventType.CONTINUED]
    assert {(one.generation, one.token) for one in await harness.events(lease.run_id)} == {(1, 1), (2, 1)}
    (loaded,) = await journal.load_runs([lease.run_id])
    assert loaded.history == commit.continues.events


async def test_a_continued_run_is_the_same_run(harness: Harness, journal: Journal) -> None:
    parent = await started_run(journal)
    run = a_run(key="order-1", attributes={"customer": "c1"}, namespace="tenant")
    lease = await started_run(journal, a_start(run))
    before = await journal.run(lease.run_id)
    assert before is not None
    await next_generation(journal, lease)
    after = await journal.run(lease.run_id)
    assert after == replace(before, generation=2, last_seq=1, state=RunState.RUNNING, wake_at=None)
    assert (after.lease_owner, after.lease_token) == (OWNER, 1), "the lease stays"

    child = await child_of(journal, parent, a_child(parent.run_id))
    await next_generation(journal, child)
    again = await journal.run(child.run_id)
    assert again is not None
    assert (again.generation, again.parent_id, again.depth) == (2, parent.run_id, 1)


async def test_a_parked_run_that_continues_runs(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    wake_at = await journal.now() + timedelta(seconds=3600)
    await land(journal, a_commit(lease, timer_started(), state=RunState.SUSPENDED, wake_at=wake_at))
    await next_generation(journal, lease.after(1))
    row = await harness.run_row(lease.run_id)
    assert (row.state, row.wake_at) == (RunState.RUNNING, None)
    await die(journal)
    await sweep(journal)
    assert await claim(journal) == [lease.run_id], "nobody has run its first turn yet, and that is evidence"


async def test_a_continuing_commit_forgives_crashes(harness: Harness, journal: Journal) -> None:
    lease = await stolen(journal, await started_run(journal))
    assert (await harness.run_row(lease.run_id)).crashes == 1
    await next_generation(journal, lease)
    assert (await harness.run_row(lease.run_id)).crashes == 0


async def test_tasks_do_not_outlive_their_generation(harness: Harness, journal: Journal) -> None:
    lease, attempt = await attempt_elsewhere(journal)
    neighbour = await run_with_task(journal)
    await next_generation(journal, lease)
    assert [task.key.run_id for task in await harness.tasks()] == [neighbour.run_id]
    assert await write(journal, a_finish(attempt)) == REFUSED, "what it did is nobody's answer any more"
    assert await harness.inbox() == []


async def test_a_task_of_the_new_generation_is_not_the_old_one_of_the_same_command(
    harness: Harness, journal: Journal
) -> None:
    lease, attempt = await attempt_elsewhere(journal)
    lease = await next_generation(journal, lease)
    await land(journal, a_commit(lease, scheduled(), tasks=(a_task(),)))
    (task,) = await harness.tasks()
    assert task.key.generation == 2
    assert await write(journal, a_finish(attempt)) == REFUSED
    (claimed,) = await journal.claim_tasks(OTHER, activities=[ACTIVITY], slots={}, default_slots=10)
    assert claimed.attempt.key.generation == 2
    await write(journal, a_finish(claimed.attempt))
    (row,) = await harness.inbox(lease.run_id)
    assert (row.kind, row.generation) == (MessageKind.ACTIVITY_COMPLETED, 2)


async def test_a_task_of_an_older_generation_that_comes_to_light_is_swept(harness: Harness, journal: Journal) -> None:
    lease = await next_generation(journal, await started_run(journal))
    await harness.plant_task(an_attempt(lease.run_id))
    await sweep(journal)
    assert await harness.tasks() == []
    assert await harness.inbox() == []


async def test_what_nobody_has_read_is_still_there(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    taken, waiting = await post(journal, a_signal(lease.run_id)), await post(journal, a_signal(lease.run_id))
    webhook = await post(journal, a_signal(lease.run_id, delivery_id="evt_1"))
    await land(journal, continuing(lease, signal_received(taken), read=(taken, webhook)))
    (loaded,) = await journal.load_runs([lease.run_id])
    assert [message.message_id for message in loaded.messages] == [waiting.message_id]
    assert await write(journal, Post(a_signal(lease.run_id, delivery_id="evt_1"))) == Duplicate()


async def test_children_stay_with_the_run(harness: Harness, journal: Journal) -> None:
    parent = await started_run(journal)
    child = a_child(parent.run_id)
    lease = await child_of(journal, parent, child)
    parent = await next_generation(journal, parent.after(1))
    await land(journal, telling(an_ending(lease), news(parent.run_id, child.run_id)))
    (told,) = await harness.inbox(parent.run_id)
    assert (told.name, told.generation) == (child.run_id, None), "it is for whichever generation asks"


async def test_a_commit_that_continues_may_have_children(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    child = a_child(lease.run_id)
    await land(journal, replace(continuing(lease), children=(child,)))
    assert await claim(journal) == [child.run_id]


async def test_a_cancel_reaches_the_children_of_every_generation(harness: Harness, journal: Journal) -> None:
    parent = await started_run(journal)
    first = a_child(parent.run_id, "first")
    await land(journal, asking(parent, first))
    parent = await next_generation(journal, parent.after(1))
    second = a_child(parent.run_id, "second")
    await land(journal, asking(parent, second))
    ending = an_ending(parent.after(1), RunState.CANCELLED)
    await land(journal, telling(ending, cascade=MessageKind.CANCEL))
    assert {row.run_id for row in await harness.inbox()} == {first.run_id, second.run_id}


async def test_continued_runs_and_others_travel_in_one_batch(harness: Harness, journal: Journal) -> None:
    leases = [await started_run(journal) for _ in range(4)]
    batch = [
        continuing(leases[0], signal_received(a_signal(leases[0].run_id))),
        a_commit(leases[1], timer_started()),
        continuing(replace(leases[2], token=7)),
        continuing(leases[3]),
    ]
    assert list(await journal.write(0, batch)) == [LANDED, LANDED, REFUSED, LANDED]
    rows = [await harness.run_row(lease.run_id) for lease in leases]
    assert [(row.generation, row.last_seq) for row in rows] == [(2, 2), (1, 2), (1, 1), (2, 1)]
    for row in rows:
        assert len(await journal.history(row.run_id)) == row.last_seq


# --- its fence --------------------------------------------------------------------------------------------------------


async def test_a_commit_of_the_old_generation_never_writes(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    await next_generation(journal, lease)
    before = await harness.dump()
    # last_seq is where it was: without the generation the fence would open again
    assert (await harness.run_row(lease.run_id)).last_seq == lease.base_seq
    assert await write(journal, a_commit(lease, timer_started())) == REFUSED
    assert await write(journal, continuing(lease)) == REFUSED
    assert await harness.dump() == before


async def test_a_refused_continuation_changes_nothing(harness: Harness, journal: Journal) -> None:
    lease = await run_with_task(journal)
    message = await post(journal, a_signal(lease.run_id))
    before = await harness.dump()
    assert await write(journal, continuing(replace(lease, token=7), read=(message,))) == REFUSED
    assert await harness.dump() == before


async def test_generations_follow_each_other_under_one_token(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    for _ in range(4):
        lease = await next_generation(journal, lease)
        await land(journal, a_commit(lease, timer_started()))
        lease = lease.after(1)
    await land(journal, an_ending(lease))
    row = await harness.run_row(lease.run_id)
    assert (row.generation, row.last_seq, row.state) == (5, 3, RunState.COMPLETED)


# --- lost answers -----------------------------------------------------------------------------------------------------

SHAPES: dict[str, Callable[[Lease], Commit]] = {
    "bare": continuing,
    "with a signal": lambda lease: continuing(lease, signal_received(a_signal(lease.run_id))),
    "with a child": lambda lease: replace(continuing(lease), children=(a_child(lease.run_id),)),
}


@pytest.mark.parametrize("shape", list(SHAPES))
async def test_a_continuation_that_arrived_has_landed(harness: Harness, journal: Journal, shape: str) -> None:
    lease = await started_run(journal)
    commit = SHAPES[shape](lease)
    await land(journal, commit)
    before = await harness.dump()
    assert await journal.judge(commit) == LANDED
    assert await write(journal, commit) == REFUSED, "sent again it writes nothing"
    assert await journal.judge(commit) == LANDED
    assert await harness.dump() == before


@pytest.mark.parametrize("shape", list(SHAPES))
async def test_a_continuation_that_did_not_arrive_is_to_be_sent_again(
    harness: Harness, journal: Journal, shape: str
) -> None:
    commit = SHAPES[shape](await started_run(journal))
    before = await harness.dump()
    assert await journal.judge(commit) is None
    assert await harness.dump() == before
    await land(journal, commit)


async def test_a_continuation_has_landed_however_many_generations_others_have_added(journal: Journal) -> None:
    commit = continuing(await started_run(journal))
    await land(journal, commit)
    heir = await stolen(journal, reopened(Lease(commit.run_id), commit))
    for _ in range(2):
        heir = await next_generation(journal, heir)
    assert await journal.judge(commit) == LANDED


async def test_somebody_elses_continuation_is_not_ours(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    ours = continuing(lease)
    theirs = continuing(await stolen(journal, lease))
    await land(journal, theirs)
    assert await journal.judge(ours) == REFUSED
    assert await journal.judge(theirs) == LANDED


async def test_a_continuation_whose_lease_is_lost_is_over(journal: Journal) -> None:
    lease = await started_run(journal)
    commit = continuing(lease)
    await stolen(journal, lease)
    assert await journal.judge(commit) == REFUSED


async def test_a_turn_of_the_next_generation_is_judged_by_its_own_history(journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, a_commit(lease, timer_started()))  # the same seq stands in the older generation
    lease = await next_generation(journal, lease.after(1))
    commit = a_commit(lease, timer_started())
    assert await journal.judge(commit) is None
    await land(journal, commit)
    assert await journal.judge(commit) == LANDED


# --- retention --------------------------------------------------------------------------------------------------------


async def lived(journal: Journal, ages: tuple[float, ...], *, retention_seconds: float | None = 60.0) -> Lease:
    """Start a run whose generations ended so many seconds ago."""
    lease = await started_run(journal, a_start(a_run(retention_seconds=retention_seconds)))
    for seconds in ages:
        history = await journal.history(lease.run_id)
        blob = pack_history(tuple(history))
        await journal.save_snapshot(lease.run_id, generation=lease.generation, seq=len(history), blob=blob)
        commit = continuing(lease, at=await journal.now() - timedelta(seconds=seconds))
        await land(journal, commit)
        lease = reopened(lease, commit)
    return lease


async def generations(harness: Harness, lease: Lease) -> set[int]:
    return {row.generation for row in await harness.events(lease.run_id)}


async def test_generations_go_when_their_retention_has_passed(harness: Harness, journal: Journal) -> None:
    lease = await lived(journal, (90.0, 70.0, 50.0))
    assert await journal.prune_generations(limit=10) == 2
    assert await generations(harness, lease) == {3, 4}
    assert await journal.history(lease.run_id, generation=1) == []
    (loaded,) = await journal.load_runs([lease.run_id])
    assert loaded.history == tuple(await journal.history(lease.run_id))
    assert await journal.prune_generations(limit=10) == 0
    await land(journal, a_commit(lease, timer_started()))


async def test_generations_of_a_run_that_is_kept_for_ever_stay(harness: Harness, journal: Journal) -> None:
    lease = await lived(journal, (10 * 365 * 86_400.0,), retention_seconds=None)
    assert await journal.prune_generations(limit=10) == 0
    assert await generations(harness, lease) == {1, 2}


async def test_a_run_that_never_continued_has_no_generation_to_go(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, an_ending(lease))
    assert await journal.prune_generations(limit=10) == 0
    assert len(await journal.history(lease.run_id)) == 2


async def test_pruning_generations_stops_at_its_limit(harness: Harness, journal: Journal) -> None:
    lease = await lived(journal, (90.0, 80.0, 70.0))
    assert await journal.prune_generations(limit=2) == 2
    assert await journal.prune_generations(limit=2) == 1
    assert await generations(harness, lease) == {4}


async def test_a_run_is_pruned_with_all_its_generations(harness: Harness, journal: Journal) -> None:
    lease = await lived(journal, (10.0, 5.0))
    await land(journal, an_ending(lease))
    await harness.age(70.0)
    assert list(await journal.prune(limit=10)) == [lease.run_id]
    assert await harness.events(lease.run_id) == []


# --- reading through them -----------------------------------------------------------------------------------------------


async def test_a_history_is_read_on_from_any_place_through_its_generations(journal: Journal) -> None:
    lease = await started_run(journal)
    other = await started_run(journal)
    places = [(1, 1)]
    for generation in (1, 2, 3):
        for command_id in range(1, 11):  # past 9, where text order would differ
            await land(journal, a_commit(lease, timer_started(command_id)))
            lease = lease.after(1)
            places.append((generation, lease.base_seq))
        if generation < 3:
            places.append((generation, lease.base_seq + 1))
            lease = await next_generation(journal, lease)
            places += [(generation + 1, seq) for seq in range(1, lease.base_seq + 1)]

    async def behind(generation: int, seq: int, limit: int = 100) -> list[tuple[int, int]]:
        found = await journal.events_after(lease.run_id, generation=generation, seq=seq, limit=limit)
        return [(one, event.seq) for one, event in found]

    assert await behind(1, 0) == places
    for place, limit in (
        ((1, 0), 5),
        ((1, 5), 10),
        ((1, 99), 3),
        ((2, 0), 1),
        ((2, 11), 4),
        ((3, 5), 100),
        ((3, 99), 9),
    ):
        assert await behind(*place, limit) == [one for one in places if one > place][:limit]
    (first, *_), whole = (
        await journal.events_after(lease.run_id, generation=2, seq=0, limit=2),
        await journal.history(lease.run_id, generation=2),
    )
    assert first == (2, whole[0])
    assert list(await journal.events_after(str(uuid4()), generation=1, seq=0, limit=5)) == []
    assert len(await journal.events_after(other.run_id, generation=1, seq=0, limit=5)) == 1
