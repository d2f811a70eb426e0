"""An answer that was lost: what the journal says became of the write, by the token of the event at its position."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from continuum.journal.port import Journal
from continuum.model.events import EventType
from continuum.model.runs import NewRun
from continuum.model.states import RunState
from continuum.model.writes import (
    LANDED,
    REFUSED,
    Commit,
    FreeTask,
    NextGeneration,
    Post,
    Posted,
    RetryTask,
    Start,
    StartMany,
    Write,
)
from tests.journal.backends import Harness
from tests.journal.builders import (
    ENDINGS,
    MINE,
    OTHER,
    OWNER,
    URL,
    Lease,
    a_block,
    a_commit,
    a_finish,
    a_release,
    a_run,
    a_signal,
    a_start,
    a_task,
    an_attempt,
    an_ending,
    an_event,
    an_unleased_start,
    completed,
    scheduled,
    signal_received,
    timer_started,
)
from tests.journal.steps import die, land, started_run, sweep, write

COMMITS: dict[str, Callable[[Lease], Commit]] = {
    "turn": lambda lease: a_commit(lease, scheduled(), tasks=(a_task(),)),
    "turn that parks": lambda lease: a_commit(lease, timer_started(), state=RunState.SUSPENDED),
    "turn that releases": lambda lease: a_commit(lease, timer_started(), state=RunState.SUSPENDED, releases=True),
    "ending": an_ending,
}
WITHOUT_EVENTS: dict[str, Callable[[Lease], Commit]] = {"release": a_release, "block": a_block}


async def stolen(journal: Journal, lease: Lease) -> Lease:
    """Let OTHER take a run over; return its lease."""
    await die(journal, OWNER)
    await sweep(journal)
    (taken,) = (await journal.claim_runs(OTHER, workflows=MINE, limit=1, run_ids=[lease.run_id])).runs
    return Lease(taken.run_id, owner=OTHER, token=taken.token, base_seq=taken.last_seq)


# --- commits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", list(COMMITS))
async def test_a_commit_that_arrived_has_landed(harness: Harness, journal: Journal, shape: str) -> None:
    commit = COMMITS[shape](await started_run(journal))
    await land(journal, commit)
    before = await harness.dump()
    assert await journal.judge(commit) == LANDED
    assert await harness.dump() == before


@pytest.mark.parametrize("shape", [*COMMITS, *WITHOUT_EVENTS])
async def test_a_commit_that_did_not_arrive_is_to_be_sent_again(harness: Harness, journal: Journal, shape: str) -> None:
    commit = {**COMMITS, **WITHOUT_EVENTS}[shape](await started_run(journal))
    before = await harness.dump()
    assert await journal.judge(commit) is None
    assert await harness.dump() == before
    await land(journal, commit)


async def test_a_commit_has_landed_however_far_others_have_come_since(journal: Journal) -> None:
    lease = await started_run(journal)
    commit = a_commit(lease, timer_started(1))
    await land(journal, commit)
    heir = await stolen(journal, lease)
    await land(journal, a_commit(heir, timer_started(2), completed(), state=RunState.COMPLETED))
    assert await journal.judge(commit) == LANDED


async def test_somebody_elses_event_at_the_same_position_is_not_ours(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    lost = a_commit(lease, timer_started(1))
    await land(journal, a_commit(await stolen(journal, lease), timer_started(2)))
    # last_seq stands exactly where our commit would have left it: only the token tells.
    assert (await harness.run_row(lease.run_id)).last_seq == lease.base_seq + len(lost.events)
    assert await journal.judge(lost) == REFUSED
    assert await write(journal, lost) == REFUSED


@pytest.mark.parametrize("shape", [*COMMITS, *WITHOUT_EVENTS])
async def test_a_commit_whose_lease_is_lost_is_over(journal: Journal, shape: str) -> None:
    lease = await started_run(journal)
    commit = {**COMMITS, **WITHOUT_EVENTS}[shape](lease)
    await stolen(journal, lease)
    assert await journal.judge(commit) == REFUSED


async def test_a_run_that_was_freed_but_not_taken_is_lost_too(journal: Journal) -> None:
    lease = await started_run(journal)
    await die(journal, OWNER)
    await sweep(journal)
    assert await journal.judge(a_commit(lease, timer_started())) == REFUSED


@pytest.mark.parametrize("shape", list(WITHOUT_EVENTS))
async def test_a_release_that_arrived_is_over_either_way(journal: Journal, shape: str) -> None:
    commit = WITHOUT_EVENTS[shape](await started_run(journal))
    await land(journal, commit)
    assert await journal.judge(commit) in {LANDED, REFUSED}


async def test_a_commit_without_events_that_keeps_the_lease_may_be_written_twice(
    harness: Harness, journal: Journal
) -> None:
    commit = a_commit(await started_run(journal), state=RunState.SUSPENDED)
    await land(journal, commit)
    assert await journal.judge(commit) is None
    before = await harness.dump()
    await land(journal, commit)
    assert await harness.dump() == before


async def test_a_commit_for_a_run_that_is_not_there_is_over(journal: Journal) -> None:
    commit: Commit = a_commit(Lease(a_run().run_id), timer_started())
    assert await journal.judge(commit) == REFUSED


async def test_an_owner_with_the_same_token_is_still_another(journal: Journal) -> None:
    # After a failover that lost commits two nodes may have been handed the same token.
    lease = await started_run(journal)
    assert await journal.judge(a_commit(replace(lease, owner=OTHER), timer_started())) == REFUSED


# --- starts -----------------------------------------------------------------------------------------------------------

STARTS: dict[str, Callable[[NewRun], Start]] = {
    "leased": lambda run: a_start(run, scheduled(), tasks=(a_task(),), chosen=True),
    "parked": lambda run: a_start(run, state=RunState.SUSPENDED, chosen=True),
    "unleased": lambda run: an_unleased_start(run, chosen=True),
    "ended": lambda run: a_start(run, ENDINGS[RunState.COMPLETED](), state=RunState.COMPLETED, chosen=True),
}


@pytest.mark.parametrize("shape", list(STARTS))
async def test_a_start_that_arrived_has_landed(journal: Journal, shape: str) -> None:
    start = STARTS[shape](a_run(key="order-1"))
    await land(journal, start)
    assert await journal.judge(start) == LANDED


@pytest.mark.parametrize("shape", list(STARTS))
async def test_a_start_that_did_not_arrive_is_to_be_sent_again(journal: Journal, shape: str) -> None:
    start = STARTS[shape](a_run(key="order-1"))
    assert await journal.judge(start) is None
    await land(journal, start)


async def test_a_chosen_run_id_that_somebody_else_took_is_not_ours(journal: Journal) -> None:
    run_id = (await started_run(journal, a_start(owner=OTHER))).run_id
    assert await journal.judge(a_start(a_run(run_id), owner=OWNER, chosen=True)) == REFUSED


async def test_a_start_that_was_swept_meanwhile_is_not_ours_any_more(journal: Journal) -> None:
    start = a_start()
    await stolen(journal, await started_run(journal, start))
    assert await journal.judge(start) == REFUSED


async def test_a_start_whose_key_somebody_else_took_is_refused_when_it_is_sent_again(journal: Journal) -> None:
    await land(journal, a_start(a_run(key="order-1"), owner=OTHER))
    start = a_start(a_run(key="order-1"), owner=OWNER)
    assert await journal.judge(start) in {None, REFUSED}
    assert await write(journal, start) == REFUSED


async def test_many_starts_have_landed_or_are_to_be_sent_again(journal: Journal) -> None:
    many = StartMany(tuple(an_unleased_start() for _ in range(3)))
    assert await journal.judge(many) is None
    await land(journal, many)
    assert await journal.judge(many) == LANDED


# --- the others are sent again with the same ids ----------------------------------------------------------------------


async def test_what_is_harmless_to_repeat_is_not_judged(journal: Journal) -> None:
    lease = await started_run(journal)
    attempt = an_attempt(lease.run_id)
    writes: list[Write] = [Post(a_signal(lease.run_id)), a_finish(attempt), RetryTask(attempt, 1.0), FreeTask(attempt)]
    for one in writes:
        assert await journal.judge(one) is None


async def test_a_message_that_did_not_arrive_is_sent_again(journal: Journal) -> None:
    lease = await started_run(journal)
    assert await journal.judge(Post(a_signal(lease.run_id))) is None


async def test_a_message_that_is_not_read_yet_has_arrived(journal: Journal) -> None:
    lease = await started_run(journal)
    post = Post(a_signal(lease.run_id))
    await write(journal, post)
    assert await journal.judge(post) == Posted(lease.owner, URL)


async def test_a_message_that_was_read_has_arrived_also_when_its_run_has_opened_another_generation(
    journal: Journal,
) -> None:
    lease = await started_run(journal)
    message = a_signal(lease.run_id)
    await write(journal, Post(message))
    read = a_commit(lease, signal_received(message), read=(message,))
    await land(journal, read)
    assert isinstance(await journal.judge(Post(message)), Posted)
    opened = NextGeneration(1, (replace(an_event(EventType.STARTED, payload=b"{}"), seq=1),))
    await land(journal, replace(a_commit(lease.after(1), an_event(EventType.CONTINUED)), continues=opened))
    assert isinstance(await journal.judge(Post(message)), Posted)


async def test_a_continuing_commit_whose_generation_is_pruned_already_has_landed(
    journal: Journal, harness: Harness
) -> None:
    run = a_run(retention_seconds=0.0)
    lease = await started_run(journal, a_start(run))
    opened = NextGeneration(1, (replace(an_event(EventType.STARTED, payload=b"{}"), seq=1),))
    commit = replace(a_commit(lease, an_event(EventType.CONTINUED)), continues=opened)
    await land(journal, commit)
    await harness.age(86_400)
    assert await journal.prune_generations(limit=10) == 1
    assert await journal.judge(commit) == LANDED
    assert await journal.judge(replace(commit, token=commit.token + 1)) == REFUSED
