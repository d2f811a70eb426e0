"""What callers ask: rows, histories, endings, lists; and the notices between processes."""

import asyncio

import pytest

from continuum.journal.port import Journal, RunFilter
from continuum.model.runs import Ending, Standing
from continuum.model.states import RunState
from tests.journal.backends import Harness
from tests.journal.builders import (
    MINE,
    OTHER,
    OWNER,
    Lease,
    a_block,
    a_commit,
    a_run,
    a_start,
    an_ending,
    an_unleased_start,
    cancelled,
    completed,
    failed,
    timer_started,
)
from tests.journal.steps import land, run_in, started_run

# --- one run ----------------------------------------------------------------------------------------------------------


async def test_a_run_is_found_by_id_and_by_key(harness: Harness, journal: Journal) -> None:
    run = a_run(key="order-1", namespace="eu")
    await land(journal, a_start(run))
    row = await harness.run_row(run.run_id)
    assert await journal.run(run.run_id) == row
    assert await journal.run_by_key("eu", run.workflow, "order-1") == row


async def test_what_is_not_there_is_none_or_empty(journal: Journal) -> None:
    nobody = a_run().run_id
    assert await journal.run(nobody) is None
    assert await journal.run_by_key("default", MINE[0][0], "order-1") is None
    assert list(await journal.history(nobody)) == []
    assert list(await journal.endings([nobody])) == []
    assert list(await journal.endings([])) == []


async def test_a_history_is_that_of_one_generation_in_order(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    for command_id in range(1, 12):  # past 9, where text order would differ
        await land(journal, a_commit(lease, timer_started(command_id)))
        lease = lease.after(1)
    assert [event.seq for event in await journal.history(lease.run_id)] == list(range(1, 13))
    assert await journal.history(lease.run_id, generation=1) == await journal.history(lease.run_id)
    assert list(await journal.history(lease.run_id, generation=2)) == []


# --- endings ----------------------------------------------------------------------------------------------------------


async def test_endings_tell_how_runs_ended_and_which_are_blocked(harness: Harness, journal: Journal) -> None:
    done, broken, stopped, stuck = [await started_run(journal) for _ in range(4)]
    await land(journal, a_commit(done, timer_started(), completed(b"[1]"), state=RunState.COMPLETED))
    await land(journal, a_commit(broken, failed(b'{"type":"E","message":"m"}'), state=RunState.FAILED))
    await land(journal, a_commit(stopped, cancelled(), state=RunState.CANCELLED))
    await land(journal, a_block(stuck, reason="drift"))
    active = [await run_in(journal, state) for state in (RunState.PENDING, RunState.RUNNING, RunState.SUSPENDED)]
    asked = [done.run_id, broken.run_id, stopped.run_id, stuck.run_id, *active, a_run().run_id]
    found = {ending.run_id: ending for ending in await journal.endings(asked)}
    assert found == {
        done.run_id: Ending(done.run_id, RunState.COMPLETED, payload=b"[1]"),
        broken.run_id: Ending(broken.run_id, RunState.FAILED, payload=b'{"type":"E","message":"m"}'),
        stopped.run_id: Ending(stopped.run_id, RunState.CANCELLED),
        stuck.run_id: Ending(stuck.run_id, RunState.BLOCKED, reason="drift"),
    }
    held = await started_run(journal)
    await land(journal, a_commit(held, timer_started()))
    standings = list(await journal.standings([*asked, held.run_id]))
    rows = [await harness.run_row(run_id) for run_id in asked[:-1]]
    assert standings == [
        *(Standing(row.run_id, row.state, 1, row.last_seq, None, found.get(row.run_id)) for row in rows),
        Standing(held.run_id, RunState.RUNNING, 1, 2, held.owner, None),
    ]


async def test_a_start_that_ends_at_once_has_an_ending(journal: Journal) -> None:
    start = a_start(None, completed(b"2"), state=RunState.COMPLETED)
    await land(journal, start)
    assert list(await journal.endings([start.run_id])) == [Ending(start.run_id, RunState.COMPLETED, payload=b"2")]


# --- lists ------------------------------------------------------------------------------------------------------------


async def pages(journal: Journal, where: RunFilter, *, limit: int) -> list[str]:
    """Read every page; return the run ids in order."""
    found: list[str] = []
    before = None
    while page := await journal.list_runs(where, limit=limit, before=before):
        assert len(page) <= limit
        assert before is None or all((row.created_at, row.run_id) < before for row in page)
        found += [row.run_id for row in page]
        before = (page[-1].created_at, page[-1].run_id)
    return found


async def test_runs_are_listed_newest_first(harness: Harness, journal: Journal) -> None:
    run_ids = []
    for _ in range(3):
        run_ids.append((await started_run(journal)).run_id)
        await harness.age(1.0)
    rows = await journal.list_runs(RunFilter(), limit=10, before=None)
    assert [row.run_id for row in rows] == run_ids[::-1]
    assert [await harness.run_row(row.run_id) for row in rows] == list(rows)


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_pages_neither_lose_nor_repeat_a_run_created_at_the_same_time(journal: Journal, limit: int) -> None:
    starts = [a_start() for _ in range(7)]
    await journal.write(0, starts)
    found = await pages(journal, RunFilter(), limit=limit)
    assert sorted(found) == sorted(start.run_id for start in starts)


async def test_lists_are_narrowed_by_workflow_state_and_namespace(journal: Journal) -> None:
    refund = an_unleased_start(a_run(workflow="orders.refund", namespace="eu"))
    await land(journal, refund)
    fulfil = await started_run(journal)
    await land(journal, an_ending(await started_run(journal, a_start(a_run(namespace="eu")))))

    async def listed(where: RunFilter) -> list[str]:
        return await pages(journal, where, limit=10)

    assert await listed(RunFilter(workflow="orders.refund")) == [refund.run_id]
    assert await listed(RunFilter(state=RunState.RUNNING)) == [fulfil.run_id]
    assert len(await listed(RunFilter(namespace="eu"))) == 2
    assert await listed(RunFilter(namespace="eu", state=RunState.PENDING)) == [refund.run_id]
    assert await listed(RunFilter(namespace="us")) == []


async def test_attributes_are_matched_with_their_types(journal: Journal) -> None:
    attributes = {"customer": "c1", "amount": 4, "vip": True, "note": None, "ü": "Größe"}
    start = a_start(a_run(attributes=attributes))
    await land(journal, start)
    await land(journal, a_start(a_run(attributes={"customer": "c2", "amount": "4", "vip": 1})))
    await land(journal, a_start())

    async def listed(**wanted: object) -> list[str]:
        return await pages(journal, RunFilter(attributes=wanted), limit=10)

    assert await listed(customer="c1") == [start.run_id]
    assert await listed(amount=4) == [start.run_id]
    assert await listed(vip=True) == [start.run_id]
    assert await listed(customer="c1", amount=4, ü="Größe") == [start.run_id]
    assert await listed(customer="c1", amount=5) == []
    assert await listed(region="eu") == []


# --- notices ----------------------------------------------------------------------------------------------------------


async def test_listening_begins_with_an_empty_item_and_hears_the_other_nodes(
    harness: Harness, journal: Journal
) -> None:
    other = await harness.another()
    if not other.has_notices or other.deafness:
        await other.close()
        return
    async with asyncio.timeout(10):
        heard = aiter(other.listen())
        assert list(await anext(heard)) == []
        await journal.notify(["run:1", "run:2"])
        notices: list[str] = []
        while len(notices) < 2:
            notices += await anext(heard)
        assert notices == ["run:1", "run:2"]
        await other.close()
        assert [notices async for notices in heard] == []


async def test_telling_nobody_is_harmless(journal: Journal) -> None:
    await journal.notify(["run:1"])
    await journal.notify([])


async def test_two_nodes_read_the_same_rows(harness: Harness, journal: Journal) -> None:
    other = await harness.another()
    lease = await started_run(journal)
    assert await other.run(lease.run_id) == await journal.run(lease.run_id)
    theirs = await started_run(other, a_start(owner=OTHER))
    assert (await journal.held(OTHER)).runs == {theirs.run_id: 1}
    assert lease == Lease(lease.run_id, OWNER)
    await other.close()
