"""Children, and what runs say to each other as they end: in the commit of the one, in the inbox of the other."""

import pytest
from msgspec.structs import replace

from continuum.journal.port import Journal
from continuum.model.events import PENDING, EventType
from continuum.model.messages import Message, MessageKind
from continuum.model.runs import NewChild, RunRow
from continuum.model.states import ACTIVE, TERMINAL, RunState
from continuum.model.writes import LANDED, REFUSED, Post
from tests.journal.backends import Harness, InboxRow
from tests.journal.builders import (
    AT,
    MINE,
    OTHER,
    OWNER,
    WORKFLOW,
    Lease,
    a_cancel,
    a_commit,
    a_run,
    a_signal,
    a_start,
    an_ending,
    an_unleased_start,
    completed,
    is_about,
    timer_started,
)
from tests.journal.families import (
    TAKEN,
    a_child,
    asking,
    cancelling_run,
    child_of,
    child_started,
    news,
    next_generation,
    telling,
)
from tests.journal.steps import claim, die, land, post, run_in, started_run, sweep, write

KINDS = {
    RunState.COMPLETED: MessageKind.CHILD_COMPLETED,
    RunState.FAILED: MessageKind.CHILD_FAILED,
    RunState.CANCELLED: MessageKind.CHILD_CANCELLED,
}


async def a_parent(journal: Journal) -> Lease:
    return await started_run(journal, a_start(a_run(namespace="tenant", attributes={"customer": "c1"})))


async def heard(harness: Harness, run_id: str) -> list[tuple[MessageKind, str | None, bytes | None]]:
    return [(row.kind, row.name, row.payload) for row in await harness.inbox(run_id)]


# --- children begin ---------------------------------------------------------------------------------------------------


async def test_a_child_is_pending_and_inherits_from_its_parent(harness: Harness, journal: Journal) -> None:
    parent = await a_parent(journal)
    child = a_child(parent.run_id)
    await land(journal, asking(parent, child))
    row, above = await journal.run(child.run_id), await journal.run(parent.run_id)
    assert row is not None
    assert above is not None
    now = await journal.now()
    assert is_about(row.wake_at, now), "it is due at once"
    assert is_about(row.created_at, now)
    assert row == RunRow(
        run_id=child.run_id,
        workflow=WORKFLOW,
        version=1,
        namespace="tenant",
        state=RunState.PENDING,
        generation=1,
        last_seq=1,
        lease_owner=None,
        lease_token=0,
        wake_at=row.wake_at,
        created_at=row.created_at,
        attributes={"customer": "c1"},
        fingerprint=child.fingerprint,
        retention_seconds=60.0,
        trace_context=above.trace_context,
        parent_id=parent.run_id,
        depth=1,
    )
    (first,) = await harness.events(child.run_id)
    event = first.event
    assert (first.generation, first.token, event.seq) == (1, 0, 1)
    assert (event.type, event.name, event.payload, event.key) == (
        EventType.STARTED,
        WORKFLOW,
        child.arguments,
        PENDING,
    )
    assert event.at == AT


async def test_a_first_turn_has_children_too(harness: Harness, journal: Journal) -> None:
    run = a_run()
    child = a_child(run.run_id)
    await land(journal, replace(a_start(run, child_started(child)), children=(child,)))
    assert (await journal.claim_runs(OTHER, workflows=MINE, limit=10)).runs[0].run_id == child.run_id


async def test_a_run_that_ended_in_its_first_turn_leaves_its_children(harness: Harness, journal: Journal) -> None:
    run = a_run()
    child = a_child(run.run_id)
    start = a_start(run, child_started(child), completed(), state=RunState.COMPLETED)
    await land(journal, replace(start, children=(child,)))
    assert await claim(journal) == [child.run_id]


async def test_the_attributes_that_a_child_inherits_are_those_of_that_moment(
    harness: Harness, journal: Journal
) -> None:
    parent = await a_parent(journal)
    child = a_child(parent.run_id)
    await land(journal, asking(parent, child))
    from_parent = (await harness.run_row(child.run_id)).attributes
    row = await harness.run_row(parent.run_id)
    assert from_parent == row.attributes
    assert from_parent is not row.attributes, "a change to the one is no change to the other"


async def test_where_the_parents_commit_is_refused_there_is_no_child(harness: Harness, journal: Journal) -> None:
    parent = await a_parent(journal)
    stale = replace(parent, token=7)
    before = await harness.dump()
    assert await write(journal, asking(stale, a_child(parent.run_id))) == REFUSED
    assert await harness.dump() == before


async def test_a_commit_with_children_that_is_sent_again_has_them_once(harness: Harness, journal: Journal) -> None:
    parent = await a_parent(journal)
    commit = asking(parent, a_child(parent.run_id))
    await land(journal, commit)
    before = await harness.dump()
    assert await journal.judge(commit) == LANDED
    assert await write(journal, commit) == REFUSED
    assert await harness.dump() == before


async def test_many_children_of_many_parents_in_one_batch(harness: Harness, journal: Journal) -> None:
    parents = [await a_parent(journal) for _ in range(3)]
    families = {
        parent.run_id: [a_child(parent.run_id, f"{n}", command_id=n) for n in range(1, 4)] for parent in parents
    }
    refused = replace(parents[1], base_seq=9)
    batch = [asking(lease, *families[lease.run_id]) for lease in (parents[0], refused, parents[2])]
    assert list(await journal.write(0, batch)) == [LANDED, REFUSED, LANDED]
    born = {child.run_id for place in (0, 2) for child in families[parents[place].run_id]}
    assert set(await claim(journal)) == born


# --- somebody has the id already --------------------------------------------------------------------------------------


async def stranger(journal: Journal, child: NewChild, kind: str) -> None:
    """Let somebody else have the child's run id."""
    if kind == "a root":
        await land(journal, an_unleased_start(a_run(child.run_id), chosen=True))
        return
    if kind == "another parent's":
        await land(journal, asking(await a_parent(journal), child))


@pytest.mark.parametrize("kind", ["a root", "another parent's"])
async def test_a_parent_hears_that_a_stranger_has_its_childs_run_id(
    harness: Harness, journal: Journal, kind: str
) -> None:
    parent = await a_parent(journal)
    child = a_child(parent.run_id)
    await stranger(journal, child, kind)
    before = (await harness.run_row(child.run_id), await harness.events(child.run_id))
    await land(journal, asking(parent, child))
    assert await heard(harness, parent.run_id) == [(MessageKind.CHILD_FAILED, child.run_id, TAKEN)]
    assert (await harness.run_row(child.run_id), await harness.events(child.run_id)) == before


@pytest.mark.parametrize("change", ["input", "workflow"])
async def test_a_child_that_was_something_else_in_an_earlier_generation_is_taken(
    harness: Harness, journal: Journal, change: str
) -> None:
    parent = await a_parent(journal)
    first = a_child(parent.run_id)
    await land(journal, asking(parent, first))
    parent = await next_generation(journal, parent.after(1))
    other = a_child(parent.run_id, arguments=b'{"n":2}') if change == "input" else replace(first, workflow="other")
    await land(journal, asking(parent, other))
    assert await heard(harness, parent.run_id) == [(MessageKind.CHILD_FAILED, other.run_id, TAKEN)]


# --- the same child, asked for by a later generation ------------------------------------------------------------------


async def test_a_child_that_goes_on_is_simply_there_for_a_later_generation(harness: Harness, journal: Journal) -> None:
    parent = await a_parent(journal)
    child = a_child(parent.run_id)
    lease = await child_of(journal, parent, child)
    before = (await harness.run_row(child.run_id), await harness.events(child.run_id))
    again = await next_generation(journal, parent.after(1))
    await land(journal, asking(again, child))
    assert (await harness.run_row(child.run_id), await harness.events(child.run_id)) == before
    assert await harness.inbox() == []
    await land(journal, telling(an_ending(lease), news(parent.run_id, child.run_id)))
    assert len(await harness.inbox(parent.run_id)) == 1


@pytest.mark.parametrize("state", sorted(TERMINAL))
async def test_a_child_that_has_ended_tells_a_later_generation_once_more(
    harness: Harness, journal: Journal, state: RunState
) -> None:
    parent = await a_parent(journal)
    child = a_child(parent.run_id)
    lease = await child_of(journal, parent, child)
    ending = an_ending(lease, state)
    await land(journal, ending)
    again = await next_generation(journal, parent.after(1))
    await land(journal, asking(again, child))
    expected = (KINDS[state], child.run_id, ending.events[-1].payload)
    assert await heard(harness, parent.run_id) == [expected]


async def test_every_generation_that_asks_is_told_under_an_id_of_its_own(harness: Harness, journal: Journal) -> None:
    # In the same moment, by the same command: whoever has read the one must not take the other for the same.
    parent = await a_parent(journal)
    child = a_child(parent.run_id)
    await land(journal, an_ending(await child_of(journal, parent, child)))
    ids = set()
    lease = parent.after(1)
    for _ in range(3):
        lease = await next_generation(journal, lease)
        await land(journal, asking(lease, child))
        (told,) = await harness.inbox(parent.run_id)
        ids.add(told.message_id)
        said = Message(told.message_id, told.run_id, told.kind)
        await land(journal, a_commit(lease.after(1), timer_started(2), read=(said,)))
        lease = lease.after(2)
    assert len(ids) == 3


# --- endings are told -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(ACTIVE - {RunState.CANCELLING}))
async def test_a_childs_ending_stands_in_the_inbox_of_a_parent_that_goes_on(
    harness: Harness, journal: Journal, state: RunState
) -> None:
    parent, lease = await run_in(journal, state), await started_run(journal)
    await land(journal, telling(an_ending(lease), news(parent, lease.run_id)))
    assert await heard(harness, parent) == [(MessageKind.CHILD_COMPLETED, lease.run_id, b'"done"')]


@pytest.mark.parametrize("state", sorted(TERMINAL))
async def test_a_parent_that_has_ended_is_told_nothing(harness: Harness, journal: Journal, state: RunState) -> None:
    parent, lease = await run_in(journal, state), await started_run(journal)
    await land(journal, telling(an_ending(lease), news(parent, lease.run_id)))
    await land(journal, telling(an_ending(await started_run(journal)), news(a_run().run_id, lease.run_id)))
    assert await harness.inbox() == []


async def test_a_message_that_stands_in_the_inbox_is_not_put_there_twice(harness: Harness, journal: Journal) -> None:
    parent, lease = await started_run(journal), await started_run(journal)
    message = news(parent.run_id, lease.run_id)
    await land(journal, telling(a_commit(lease, timer_started()), message))
    await land(journal, telling(an_ending(lease.after(1)), message))
    assert len(await harness.inbox()) == 1


async def test_what_a_refused_ending_would_have_told_nobody_hears(harness: Harness, journal: Journal) -> None:
    parent = await a_parent(journal)
    child = a_child(parent.run_id)
    lease = await child_of(journal, parent, child)
    before = await harness.dump()
    stale = replace(lease, token=7)
    ending = telling(an_ending(stale), news(parent.run_id, child.run_id), cascade=MessageKind.CANCEL)
    assert await write(journal, ending) == REFUSED
    assert await harness.dump() == before


async def test_parent_and_child_that_end_in_one_batch_leave_no_message(harness: Harness, journal: Journal) -> None:
    parent = await a_parent(journal)
    child = a_child(parent.run_id)
    lease = await child_of(journal, parent, child)
    both = [an_ending(parent.after(1)), telling(an_ending(lease), news(parent.run_id, child.run_id))]
    for batch in (both, both[::-1]):
        verdicts = list(await journal.write(0, batch))
        assert verdicts in ([LANDED, LANDED], [REFUSED, REFUSED])
    await sweep(journal)
    assert await harness.inbox() == []


# --- cancels cascade --------------------------------------------------------------------------------------------------


async def family(journal: Journal, parent: Lease) -> dict[RunState, str]:
    """Ask for one child per state; return them."""
    states = (RunState.PENDING, RunState.RUNNING, RunState.SUSPENDED, RunState.BLOCKED, *sorted(TERMINAL))
    children = {state: a_child(parent.run_id, state, command_id=n) for n, state in enumerate(states, start=1)}
    await land(journal, asking(parent, *children.values()))
    for state, child in children.items():
        if state is RunState.PENDING:
            continue
        (taken,) = (await journal.claim_runs(OTHER, workflows=MINE, limit=1, run_ids=[child.run_id])).runs
        lease = Lease(taken.run_id, owner=OTHER, token=taken.token, base_seq=taken.last_seq)
        if state.has_ended:
            await land(journal, an_ending(lease, state))
        elif state is not RunState.RUNNING:
            await land(journal, a_commit(lease, state=state, releases=True))
    return {state: child.run_id for state, child in children.items()}


def cancels(rows: list[InboxRow], kind: MessageKind) -> list[str]:
    return sorted(row.run_id for row in rows if row.kind is kind)


@pytest.mark.parametrize("kind", [MessageKind.CANCEL, MessageKind.COMPENSATE])
async def test_a_cancelled_run_cancels_its_active_children_and_nobody_else(
    harness: Harness, journal: Journal, kind: MessageKind
) -> None:
    parent, stranger = await a_parent(journal), await a_parent(journal)
    children = await family(journal, parent)
    await child_of(journal, stranger, a_child(stranger.run_id))
    await land(journal, telling(an_ending(parent.after(len(children)), RunState.CANCELLED), cascade=kind))
    active = sorted(run_id for state, run_id in children.items() if not state.has_ended)
    rows = await harness.inbox()
    assert cancels(rows, kind) == active
    assert len(rows) == len(active)


async def test_a_child_that_is_being_cancelled_is_not_cancelled_twice(harness: Harness, journal: Journal) -> None:
    parent = await a_parent(journal)
    child = a_child(parent.run_id)
    await child_of(journal, parent, child)
    await post(journal, a_cancel(child.run_id))
    cascade = an_ending(parent.after(1), RunState.CANCELLED)
    await land(journal, telling(cascade, cascade=MessageKind.CANCEL))
    assert cancels(await harness.inbox(), MessageKind.CANCEL) == [child.run_id]


async def test_a_cancel_reaches_children_of_several_parents_in_one_batch(harness: Harness, journal: Journal) -> None:
    parents = [await a_parent(journal) for _ in range(2)]
    children = [a_child(parent.run_id) for parent in parents]
    for parent, child in zip(parents, children, strict=True):
        await land(journal, asking(parent, child))
    endings = [an_ending(parent.after(1), RunState.CANCELLED) for parent in parents]
    kinds = (MessageKind.CANCEL, MessageKind.COMPENSATE)
    batch = [telling(ending, cascade=kind) for ending, kind in zip(endings, kinds, strict=True)]
    assert list(await journal.write(0, batch)) == [LANDED, LANDED]
    for kind, child in zip(kinds, children, strict=True):
        assert [row.kind for row in await harness.inbox(child.run_id)] == [kind]


async def test_the_active_children_of_runs_are_listed_with_where_they_live(journal: Journal) -> None:
    parent = await a_parent(journal)
    resting, living = (a_child(parent.run_id, key, command_id=n) for n, key in enumerate(("rests", "lives"), start=1))
    over = a_child(parent.run_id, "over", command_id=3)
    await land(journal, asking(parent, resting, living, over))
    await journal.claim_runs(OWNER, workflows=MINE, limit=1, run_ids=[living.run_id])
    (taken,) = (await journal.claim_runs(OTHER, workflows=MINE, limit=1, run_ids=[over.run_id])).runs
    await land(journal, an_ending(Lease(over.run_id, owner=OTHER, token=taken.token, base_seq=1)))
    url = next(owner.advertise_url for owner in await journal.owners() if owner.owner == OWNER)
    expected = sorted([(resting.run_id, None, None), (living.run_id, OWNER, url)])
    assert sorted(await journal.active_children([parent.run_id])) == expected


# --- a cancel that compensates ----------------------------------------------------------------------------------------


async def undo(journal: Journal, run_id: str) -> None:
    request = Message(a_signal(run_id).message_id, run_id, MessageKind.COMPENSATE)
    await post(journal, request)


@pytest.mark.parametrize("state", [RunState.PENDING, RunState.SUSPENDED])
async def test_a_cancel_that_compensates_is_for_whoever_has_the_code(journal: Journal, state: RunState) -> None:
    run_id = await run_in(journal, state)
    await undo(journal, run_id)
    assert await claim(journal, workflows=[("another", 1), (WORKFLOW, 2)]) == []
    assert (await journal.claim_runs(OTHER, workflows=[("another", 1)], limit=10, run_ids=[run_id])).runs == ()
    assert (await journal.evidence()).runs
    assert await claim(journal) == [run_id]


async def test_a_cancel_that_compensates_does_not_wake_what_is_blocked(journal: Journal) -> None:
    run_id = await run_in(journal, RunState.BLOCKED)
    await undo(journal, run_id)
    assert await claim(journal) == []
    assert (await journal.claim_runs(OTHER, workflows=MINE, limit=10, run_ids=[run_id])).runs == ()
    await post(journal, a_cancel(run_id))
    assert await claim(journal, workflows=[("another", 1)]) == [run_id], "a plain cancel needs no code"


async def test_what_undoes_its_debts_is_evidence_by_itself(harness: Harness, journal: Journal) -> None:
    lease = await cancelling_run(journal, await started_run(journal))
    await land(journal, a_commit(lease, state=RunState.CANCELLING, releases=True))
    assert await claim(journal, workflows=[("another", 1)]) == []
    assert (await journal.evidence()).runs
    assert await claim(journal) == [lease.run_id]
    assert (await harness.run_row(lease.run_id)).state is RunState.CANCELLING, "it does not run again"


async def test_what_undoes_its_debts_is_swept_as_what_runs(harness: Harness, journal: Journal) -> None:
    lease = await cancelling_run(journal, await started_run(journal))
    await die(journal)
    assert (await sweep(journal)).runs == (lease.run_id,)
    row = await harness.run_row(lease.run_id)
    assert (row.state, row.lease_owner, row.crashes) == (RunState.CANCELLING, None, 1)
    assert row.lease_token > lease.token


async def test_what_dies_again_and_again_while_it_undoes_is_blocked(harness: Harness, journal: Journal) -> None:
    lease = await cancelling_run(journal, await started_run(journal))
    await die(journal)
    assert (await sweep(journal, crashes_max=1)).blocked == (lease.run_id,)
    assert (await harness.run_row(lease.run_id)).state is RunState.BLOCKED


async def test_what_undoes_its_debts_may_write(harness: Harness, journal: Journal) -> None:
    lease = await cancelling_run(journal, await started_run(journal))
    await land(journal, a_commit(lease, timer_started()))
    await land(journal, an_ending(lease.after(1), RunState.CANCELLED))
    assert (await harness.run_row(lease.run_id)).state is RunState.CANCELLED


async def test_a_signal_to_what_undoes_its_debts_is_still_taken(journal: Journal) -> None:
    lease = await cancelling_run(journal, await started_run(journal))
    await post(journal, a_signal(lease.run_id))


# --- retention --------------------------------------------------------------------------------------------------------


async def test_a_child_is_kept_for_as_long_as_its_parent_goes_on(harness: Harness, journal: Journal) -> None:
    parent = await a_parent(journal)
    child = a_child(parent.run_id)
    await land(journal, an_ending(await child_of(journal, parent, child)))
    await harness.age(3600.0)
    assert list(await journal.prune(limit=10)) == []
    await land(journal, an_ending(parent.after(1)))
    assert list(await journal.prune(limit=10)) == [child.run_id]
    await harness.age(3600.0)
    assert list(await journal.prune(limit=10)) == [parent.run_id]


async def test_a_child_outlives_a_parent_that_was_pruned(harness: Harness, journal: Journal) -> None:
    parent = await a_parent(journal)
    child = a_child(parent.run_id)
    lease = await child_of(journal, parent, child)
    await land(journal, an_ending(parent.after(1)))
    await harness.age(3600.0)
    assert list(await journal.prune(limit=10)) == [parent.run_id]
    await land(journal, telling(an_ending(lease), news(parent.run_id, child.run_id)))
    assert await harness.inbox() == []


async def test_a_post_to_a_child_is_a_post_to_any_run(journal: Journal) -> None:
    parent = await a_parent(journal)
    child = a_child(parent.run_id)
    await land(journal, asking(parent, child))
    await post(journal, a_signal(child.run_id))
    assert await claim(journal) == [child.run_id]
    (loaded,) = await journal.load_runs([child.run_id])
    assert [message.kind for message in loaded.messages] == [MessageKind.SIGNAL]
    assert (loaded.row.parent_id, loaded.row.depth) == (parent.run_id, 1)
    assert await write(journal, Post(a_signal(a_child(parent.run_id, "nobody").run_id))) != LANDED
