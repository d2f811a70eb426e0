"""Messages: accepted once, refused clearly, read in order, remembered when a delivery id asks for it."""

import pytest
from msgspec.structs import replace

from continuum.journal.port import Journal
from continuum.model.messages import Message, MessageKind
from continuum.model.states import RunState
from continuum.model.writes import LANDED, Duplicate, Over, Post, Posted, Unknown, Write
from tests.journal.backends import Harness
from tests.journal.builders import (
    ENDINGS,
    OTHER,
    OWNER,
    URL,
    a_cancel,
    a_commit,
    a_run,
    a_signal,
    a_start,
    an_ending,
    is_about,
    signal_received,
)
from tests.journal.steps import die, land, post, run_in, started_run, write


async def test_a_message_to_a_run_that_lives_somewhere_says_whom_to_nudge(journal: Journal) -> None:
    here, there = await started_run(journal), await started_run(journal, a_start(owner=OTHER))
    assert await write(journal, Post(a_signal(here.run_id))) == Posted(OWNER, URL)
    assert await write(journal, Post(a_signal(there.run_id))) == Posted(OTHER, None)


@pytest.mark.parametrize("state", [RunState.PENDING, RunState.RUNNING, RunState.SUSPENDED, RunState.BLOCKED])
async def test_a_message_to_an_unleased_run_is_accepted_and_nudges_nobody(journal: Journal, state: RunState) -> None:
    assert await write(journal, Post(a_signal(await run_in(journal, state)))) == Posted()


async def test_a_message_to_a_run_of_a_dead_owner_is_accepted(journal: Journal) -> None:
    lease = await started_run(journal)
    await die(journal, OWNER)
    assert await write(journal, Post(a_signal(lease.run_id))) == Posted(OWNER, None)


async def test_every_field_of_a_message_comes_back_with_the_databases_time(journal: Journal) -> None:
    lease = await started_run(journal)
    sent = Message(
        message_id=a_signal(lease.run_id).message_id,
        run_id=lease.run_id,
        kind=MessageKind.ACTIVITY_FAILED,
        name="payments.chargé",
        payload=b'\x00\xff"',
        generation=1,
        command_id=2**31 - 1,
        format=7,
    )
    await post(journal, sent)
    (loaded,) = await journal.load_runs([lease.run_id])
    (message,) = loaded.messages
    assert is_about(message.at, await journal.now())
    assert message == replace(sent, at=message.at)


async def test_a_message_to_no_run_is_unknown(harness: Harness, journal: Journal) -> None:
    assert await write(journal, Post(a_signal(a_run().run_id))) == Unknown()
    assert await harness.inbox() == []


@pytest.mark.parametrize("state", list(ENDINGS))
async def test_a_message_to_an_ended_run_is_refused(harness: Harness, journal: Journal, state: RunState) -> None:
    run_id = await run_in(journal, state)
    assert await write(journal, Post(a_signal(run_id))) == Over()
    assert await write(journal, Post(a_signal(run_id, delivery_id="evt_1"))) == Over()
    assert await write(journal, Post(a_cancel(run_id))) == Over()
    assert await harness.inbox() == []


async def test_posting_a_message_twice_is_posting_it_once(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    message = await post(journal, a_signal(lease.run_id))
    assert await write(journal, Post(message)) == Posted(OWNER, URL)
    assert len(await harness.inbox()) == 1


async def test_posting_a_delivery_twice_under_its_own_message_id_is_no_duplicate(
    harness: Harness, journal: Journal
) -> None:
    lease = await started_run(journal)
    message = await post(journal, a_signal(lease.run_id, delivery_id="evt_1"))
    assert await write(journal, Post(message)) == Posted(OWNER, URL)
    assert len(await harness.inbox()) == 1


async def test_messages_without_a_delivery_id_are_never_taken_for_each_other(
    harness: Harness, journal: Journal
) -> None:
    lease = await started_run(journal)
    for _ in range(3):
        await post(journal, a_signal(lease.run_id))
    assert len(await harness.inbox()) == 3


async def test_a_delivery_id_is_accepted_once_per_run_and_name(harness: Harness, journal: Journal) -> None:
    lease, other = await started_run(journal), await started_run(journal)
    await post(journal, a_signal(lease.run_id, delivery_id="evt_1"))
    assert await write(journal, Post(a_signal(lease.run_id, delivery_id="evt_1", payload=b"2"))) == Duplicate()
    await post(journal, a_signal(lease.run_id, delivery_id="evt_1", name="payment"))
    await post(journal, a_signal(lease.run_id, delivery_id="evt_2"))
    await post(journal, a_signal(other.run_id, delivery_id="evt_1"))
    assert len(await harness.inbox()) == 4


async def test_a_delivery_id_is_remembered_after_the_message_was_read(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    webhook = await post(journal, a_signal(lease.run_id, delivery_id="evt_1"))
    await land(journal, a_commit(lease, signal_received(webhook), read=(webhook,)))
    assert await write(journal, Post(a_signal(lease.run_id, delivery_id="evt_1"))) == Duplicate()
    assert len(await harness.inbox()) == 1


@pytest.mark.parametrize("is_read", [True, False])
async def test_after_the_end_a_retried_delivery_is_a_duplicate_and_a_new_one_too_late(
    journal: Journal, is_read: bool
) -> None:
    lease = await started_run(journal)
    webhook = await post(journal, a_signal(lease.run_id, delivery_id="evt_1"))
    if is_read:
        await land(journal, a_commit(lease, signal_received(webhook), read=(webhook,)))
        lease = lease.after(1)
    await land(journal, an_ending(lease))
    assert await write(journal, Post(a_signal(lease.run_id, delivery_id="evt_1"))) == Duplicate()
    assert await write(journal, Post(a_signal(lease.run_id, delivery_id="evt_2"))) == Over()


async def test_two_deliveries_in_one_batch_are_one_message(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    batch = [Post(a_signal(lease.run_id, delivery_id="evt_1")) for _ in range(2)]
    verdicts = await journal.write(1, batch)
    assert sorted(map(str, verdicts)) == sorted(map(str, [Posted(OWNER, URL), Duplicate()]))
    assert len(await harness.inbox()) == 1


async def test_a_second_unread_cancel_succeeds_and_is_not_stored(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    await post(journal, a_cancel(lease.run_id))
    assert await write(journal, Post(a_cancel(lease.run_id))) == Posted(OWNER, URL)
    assert [row.kind for row in await harness.inbox()] == [MessageKind.CANCEL]


async def test_a_cancel_that_was_read_does_not_stand_in_the_way_of_the_next(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    first = await post(journal, a_cancel(lease.run_id))
    await land(journal, a_commit(lease, read=(first,)))
    second = await post(journal, a_cancel(lease.run_id))
    assert [row.message_id for row in await harness.inbox()] == [second.message_id]


async def test_messages_are_read_in_the_order_in_which_they_were_posted(journal: Journal) -> None:
    lease = await started_run(journal)
    # Ids that sort the other way round: the order is that of arrival, never that of ids.
    ids = sorted((a_signal(lease.run_id).message_id for _ in range(5)), reverse=True)
    for message_id in ids:
        await post(journal, a_signal(lease.run_id, message_id=message_id))
    (loaded,) = await journal.load_runs([lease.run_id])
    assert [message.message_id for message in loaded.messages] == ids
    assert [message.message_id for message in await journal.unread(OWNER, limit=10)] == ids


async def test_the_backstop_scan_sees_unread_messages_of_ones_own_runs_oldest_first(journal: Journal) -> None:
    mine, also_mine = await started_run(journal), await started_run(journal)
    theirs = await started_run(journal, a_start(owner=OTHER))
    first = await post(journal, a_signal(also_mine.run_id))
    await post(journal, a_signal(theirs.run_id))
    read = await post(journal, a_signal(mine.run_id, delivery_id="evt_1"))
    last = await post(journal, a_signal(mine.run_id))
    await land(journal, a_commit(mine, signal_received(read), read=(read,)))
    found = await journal.unread(OWNER, limit=10)
    assert [message.message_id for message in found] == [first.message_id, last.message_id]
    assert [message.message_id for message in await journal.unread(OWNER, limit=1)] == [first.message_id]


async def test_the_backstop_scan_has_no_cursor(journal: Journal) -> None:
    lease = await started_run(journal)
    message = await post(journal, a_signal(lease.run_id))
    for _ in range(2):
        assert [found.message_id for found in await journal.unread(OWNER, limit=10)] == [message.message_id]


async def test_posts_and_commits_of_one_run_may_share_a_batch(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    read = await post(journal, a_signal(lease.run_id))
    new = a_signal(lease.run_id)
    batch: list[Write] = [a_commit(lease, signal_received(read), read=(read,)), Post(new)]
    assert await journal.write(0, batch) == [LANDED, Posted(OWNER, URL)]
    assert [row.message_id for row in await harness.inbox()] == [new.message_id]
