"""Which runs a claim takes: unleased ones with evidence, and only those; and how they are loaded and given back."""

from collections.abc import Awaitable, Callable

import pytest

from continuum.journal.port import Journal
from continuum.model.messages import MessageKind
from continuum.model.states import RunState
from continuum.model.writes import REFUSED
from tests.journal.backends import Harness
from tests.journal.builders import (
    ENDINGS,
    MINE,
    OTHER,
    OWNER,
    TTL,
    Lease,
    a_block,
    a_cancel,
    a_commit,
    a_release,
    a_run,
    a_signal,
    a_start,
    an_attempt,
    an_unleased_start,
    is_about,
    scheduled,
    signal_received,
    started,
    timer_started,
)
from tests.journal.steps import claim, die, land, later, post, run_in, run_with_task, started_run, write

NOTHING, SIGNAL, CANCEL, DUE = "nothing", "a signal", "a cancel", "its deadline"
UNENDED = (RunState.PENDING, RunState.RUNNING, RunState.SUSPENDED, RunState.BLOCKED)
EVIDENT = {
    (RunState.RUNNING, NOTHING),
    (RunState.RUNNING, SIGNAL),
    (RunState.SUSPENDED, SIGNAL),
    (RunState.PENDING, DUE),
    (RunState.RUNNING, DUE),
    (RunState.SUSPENDED, DUE),
    (RunState.BLOCKED, DUE),
    *((state, CANCEL) for state in UNENDED),
}


async def unleased(harness: Harness, state: RunState, evidence: str) -> str:
    """Make an unleased run in `state`, due or with a message as `evidence` says."""
    journal = harness.journal
    wake_at = await later(journal, 10.0 if evidence == DUE else 3600.0)
    if state is RunState.PENDING:
        start = an_unleased_start(wake_at=wake_at)
        await land(journal, start)
        run_id = start.run_id
    else:
        lease = await started_run(journal)
        await land(journal, a_commit(lease, state=state, wake_at=wake_at, releases=True))
        run_id = lease.run_id
    if evidence == SIGNAL:
        await post(journal, a_signal(run_id))
    if evidence == CANCEL:
        await post(journal, a_cancel(run_id))
    await harness.age(20.0)
    return run_id


@pytest.mark.parametrize("state", UNENDED)
@pytest.mark.parametrize("evidence", [NOTHING, SIGNAL, CANCEL, DUE])
async def test_an_unleased_run_is_claimed_exactly_when_there_is_evidence(
    harness: Harness, journal: Journal, state: RunState, evidence: str
) -> None:
    run_id = await unleased(harness, state, evidence)
    assert await claim(journal) == ([run_id] if (state, evidence) in EVIDENT else [])
    assert await claim(journal) == []


@pytest.mark.parametrize("state", UNENDED)
async def test_evidence_for_a_run_that_is_leased_is_its_owners_business(
    harness: Harness, journal: Journal, state: RunState
) -> None:
    lease = await started_run(journal, a_start(None, state=state, wake_at=await later(journal, 1.0)))
    await post(journal, a_signal(lease.run_id))
    await post(journal, a_cancel(lease.run_id))
    await harness.age(10 * TTL)  # even when the owner is late: only the sweep takes leases away
    assert await claim(journal) == []


@pytest.mark.parametrize("state", list(ENDINGS))
async def test_what_has_ended_is_never_claimed(harness: Harness, journal: Journal, state: RunState) -> None:
    run_id = await run_in(journal, state)
    await harness.plant(a_signal(run_id))
    await harness.plant(a_cancel(run_id))
    await harness.age(10.0)
    assert await claim(journal) == []


async def test_a_message_that_was_read_is_no_evidence(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    webhook = await post(journal, a_signal(lease.run_id, delivery_id="evt_1"))
    await land(
        journal,
        a_commit(lease, signal_received(webhook), read=(webhook,), state=RunState.SUSPENDED, releases=True),
    )
    assert len(await harness.inbox()) == 1
    assert await claim(journal) == []


async def test_a_claim_takes_the_lease_under_a_new_token(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, a_commit(lease, timer_started(), state=RunState.SUSPENDED, releases=True))
    await post(journal, a_signal(lease.run_id))
    claims = await journal.claim_runs(OTHER, workflows=MINE, limit=10)
    (taken,) = claims.runs
    assert (taken.run_id, taken.token, taken.generation, taken.last_seq) == (lease.run_id, 3, 1, 2)
    assert is_about(claims.now, await journal.now())
    row = await harness.run_row(lease.run_id)
    assert (row.lease_owner, row.lease_token, row.state) == (OTHER, 3, RunState.RUNNING)
    await land(journal, a_commit(Lease(lease.run_id, owner=OTHER, token=3, base_seq=2), timer_started(2)))


async def test_a_claim_clears_the_reason_of_a_blocked_run(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, a_block(lease, backoff_seconds=60.0))
    await harness.age(61.0)
    assert await claim(journal) == [lease.run_id]
    row = await harness.run_row(lease.run_id)
    assert (row.state, row.reason) == (RunState.RUNNING, None)


async def test_the_token_grows_with_every_claim_and_every_release(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    tokens = [1]
    for owner in (OTHER, OWNER, OTHER):
        await land(journal, a_release(lease, state=RunState.RUNNING))
        tokens.append((await harness.run_row(lease.run_id)).lease_token)
        (taken,) = (await journal.claim_runs(owner, workflows=MINE, limit=1)).runs
        lease = Lease(lease.run_id, owner=owner, token=taken.token)
        tokens.append(taken.token)
    assert tokens == [1, 2, 3, 4, 5, 6, 7]


async def test_an_owner_without_a_row_claims_nothing(journal: Journal) -> None:
    run_id = await run_in(journal, RunState.RUNNING)
    await die(journal, OWNER)
    assert await claim(journal, OWNER) == []
    assert await claim(journal, OTHER) == [run_id]


async def test_a_node_claims_only_workflows_and_versions_that_it_carries(journal: Journal) -> None:
    for run in (a_run(version=2), a_run(workflow="orders.refund")):
        await land(journal, an_unleased_start(run))
    mine = an_unleased_start()
    await land(journal, mine)
    assert await claim(journal) == [mine.run_id]
    assert await claim(journal, workflows=[]) == []


async def test_a_cancelled_run_is_claimed_by_any_node(journal: Journal) -> None:
    start = an_unleased_start(a_run(workflow="no.longer.there"), wake_at=await later(journal, 600.0))
    await land(journal, start)
    await post(journal, a_cancel(start.run_id))
    assert await claim(journal, workflows=[]) == [start.run_id]


async def test_a_claim_stops_at_its_limit_and_the_next_goes_on(journal: Journal) -> None:
    run_ids = {await run_in(journal, RunState.RUNNING) for _ in range(5)}
    first, second = await claim(journal, limit=3), await claim(journal, limit=3)
    assert (len(first), len(second)) == (3, 2)
    assert {*first, *second} == run_ids
    assert await claim(journal, limit=0) == []


async def test_a_claim_for_nothing_takes_nothing(journal: Journal) -> None:
    await run_in(journal, RunState.RUNNING)
    assert await claim(journal, limit=0) == []


async def test_of_the_runs_that_are_due_the_longest_overdue_comes_first(harness: Harness, journal: Journal) -> None:
    run_ids = []
    for delay in (30.0, 10.0, 20.0):
        start = an_unleased_start(wake_at=await later(journal, delay))
        await land(journal, start)
        run_ids.append(start.run_id)
    await harness.age(60.0)
    claimed = [await claim(journal, limit=1) for _ in range(3)]
    assert claimed == [[run_ids[1]], [run_ids[2]], [run_ids[0]]]


async def test_a_claim_by_id_takes_only_those(journal: Journal) -> None:
    wanted, other = await run_in(journal, RunState.RUNNING), await run_in(journal, RunState.RUNNING)
    idle = await run_in(journal, RunState.SUSPENDED)
    claims = await journal.claim_runs(OTHER, workflows=MINE, limit=10, run_ids=[wanted, idle, a_run().run_id])
    assert [taken.run_id for taken in claims.runs] == [wanted]
    assert (await journal.claim_runs(OTHER, workflows=MINE, limit=10, run_ids=[])).runs == ()
    assert await claim(journal) == [other]


# --- loading ----------------------------------------------------------------------------------------------------------


async def test_a_run_is_loaded_with_its_history_and_its_unread_messages(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, a_commit(lease, timer_started(1), scheduled(2, key="k")))
    await post(journal, a_signal(lease.run_id))
    await post(journal, a_cancel(lease.run_id))
    (loaded,) = await journal.load_runs([lease.run_id])
    assert loaded.row == await harness.run_row(lease.run_id)
    assert loaded.history == tuple(row.event for row in await harness.events(lease.run_id))
    assert [message.kind for message in loaded.messages] == [MessageKind.SIGNAL, MessageKind.CANCEL]
    assert loaded.snapshot_seq == 0


async def test_many_runs_are_loaded_at_once_and_those_that_are_not_there_left_out(journal: Journal) -> None:
    starts = [a_start(None, *(timer_started(n) for n in range(count))) for count in range(4)]
    for start in starts:
        await land(journal, start)
    loaded = await journal.load_runs([*(start.run_id for start in starts), a_run().run_id])
    assert {run.row.run_id: run.history for run in loaded} == {start.run_id: start.events for start in starts}
    assert list(await journal.load_runs([])) == []


# --- giving back ------------------------------------------------------------------------------------------------------


async def test_an_audit_finds_what_is_leased_to_an_owner(journal: Journal) -> None:
    lease = await run_with_task(journal)
    parked = await started_run(journal, a_start(None, state=RunState.SUSPENDED))
    await started_run(journal, a_start(owner=OTHER))
    await run_in(journal, RunState.COMPLETED)
    found = await journal.held(OWNER)
    assert dict(found.runs) == {lease.run_id: 1, parked.run_id: 1}
    assert found.tasks == (an_attempt(lease.run_id),)


async def test_a_released_run_is_claimed_by_the_next_pass(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal, a_start(None, state=RunState.SUSPENDED))
    assert await journal.release_run(lease.run_id, owner=OWNER, token=1, state=RunState.RUNNING)
    row = await harness.run_row(lease.run_id)
    assert (row.lease_owner, row.lease_token, row.state, row.wake_at) == (None, 2, RunState.RUNNING, None)
    assert await claim(journal) == [lease.run_id]


async def test_a_release_without_a_state_leaves_state_and_deadline(harness: Harness, journal: Journal) -> None:
    wake_at = await later(journal, 60.0)
    lease = await started_run(journal, a_start(None, state=RunState.SUSPENDED, wake_at=wake_at))
    assert await journal.release_run(lease.run_id, owner=OWNER, token=1)
    row = await harness.run_row(lease.run_id)
    assert (row.lease_owner, row.state, row.wake_at) == (None, RunState.SUSPENDED, wake_at)


async def test_who_cannot_serve_a_run_releases_it_with_a_back_off(harness: Harness, journal: Journal) -> None:
    run_id = await run_in(journal, RunState.RUNNING)
    (taken,) = (await journal.claim_runs(OTHER, workflows=MINE, limit=1)).runs
    assert await journal.release_run(
        run_id, owner=OTHER, token=taken.token, state=RunState.BLOCKED, backoff_seconds=60.0, reason="unknown version"
    )
    assert (await harness.run_row(run_id)).reason == "unknown version"
    assert await claim(journal) == []
    await harness.age(61.0)
    assert await claim(journal) == [run_id]


async def end(journal: Journal, lease: Lease) -> None:
    await land(journal, a_commit(lease, ENDINGS[RunState.FAILED](), state=RunState.FAILED))


async def lose(journal: Journal, lease: Lease) -> None:
    assert await journal.release_run(lease.run_id, owner=OWNER, token=1, state=RunState.RUNNING)
    await claim(journal, OWNER)  # the same owner again, under a newer token


@pytest.mark.parametrize("change", [end, lose])
async def test_a_release_never_overwrites_newer_authority(
    harness: Harness, journal: Journal, change: Callable[[Journal, Lease], Awaitable[None]]
) -> None:
    lease = await started_run(journal)
    await change(journal, lease)
    before = await harness.dump()
    for owner, token in ((OWNER, 1), (OTHER, 1), (OTHER, 3)):
        assert not await journal.release_run(lease.run_id, owner=owner, token=token, state=RunState.RUNNING)
    assert await harness.dump() == before


async def test_releasing_twice_releases_once(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    assert await journal.release_run(lease.run_id, owner=OWNER, token=1)
    assert not await journal.release_run(lease.run_id, owner=OWNER, token=1)
    assert (await harness.run_row(lease.run_id)).lease_token == 2
    assert await write(journal, a_commit(lease, started())) == REFUSED


# --- looking ahead ----------------------------------------------------------------------------------------------------


async def test_upcoming_lists_unleased_runs_that_become_due_soonest_first(journal: Journal) -> None:
    soon = []
    for delay in (50.0, 20.0, 90.0):
        start = an_unleased_start(wake_at=await later(journal, delay))
        await land(journal, start)
        soon.append((start.run_id, start.wake_at))
    await started_run(journal, a_start(None, state=RunState.SUSPENDED, wake_at=await later(journal, 10.0)))  # leased
    await run_in(journal, RunState.SUSPENDED)  # waits for a message
    await run_in(journal, RunState.PENDING)  # in an hour
    await run_in(journal, RunState.COMPLETED)
    assert list(await journal.upcoming(horizon_seconds=60.0, limit=10)) == [soon[1], soon[0]]
    assert list(await journal.upcoming(horizon_seconds=60.0, limit=1)) == [soon[1]]
