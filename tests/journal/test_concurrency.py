"""Two nodes at the same moment, where the database lets them be: every race has one winner and no half-done loser."""

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence

import pytest

from continuum.errors import JournalUnavailable
from continuum.journal.port import Contended, Journal
from continuum.journal.sql.lines import Line
from continuum.journal.sql.opening import dialect_of
from continuum.journal.sql.statements.book import Book
from continuum.model.states import RunState
from continuum.model.tasks import TaskKey
from continuum.model.writes import LANDED, REFUSED, Duplicate, Post, Posted, Verdict, Write
from tests.journal.backends import Harness
from tests.journal.builders import (
    ACTIVITY,
    MINE,
    OTHER,
    OWNER,
    Lease,
    a_cancel,
    a_commit,
    a_finish,
    a_run,
    a_signal,
    a_start,
    a_task,
    an_ending,
    answered,
    scheduled,
    timer_started,
)
from tests.journal.sql import SqlHarness
from tests.journal.steps import attempt_elsewhere, die, land, run_in, started_run, sweep

ROUNDS = 5


pytestmark = pytest.mark.parametrize("open_harness", ["sqlite", "postgres"], indirect=True)  # memory: one at a time


@pytest.fixture
async def nodes(harness: Harness, journal: Journal) -> AsyncIterator[Sequence[Journal]]:
    """Eight journals on one database."""
    others = [await harness.another() for _ in range(7)]
    yield [journal, *others]
    for other in others:
        await other.close()


async def put(journal: Journal, write: Write, *, lane: int = 0) -> Verdict:
    """Write, again if somebody's lock was in the way: what the group committer does."""
    while True:
        try:
            (verdict,) = await journal.write(lane, [write])
            return verdict
        except Contended:
            continue


async def test_eight_starts_with_one_key_make_one_run(nodes: Sequence[Journal]) -> None:
    for number in range(ROUNDS):
        starts = [a_start(a_run(key=f"order-{number}"), scheduled(), tasks=(a_task(),)) for _ in nodes]
        verdicts = await asyncio.gather(*(put(node, start, lane=1) for node, start in zip(nodes, starts, strict=True)))
        assert sorted(map(str, verdicts)) == sorted(map(str, [LANDED] + [REFUSED] * 7))
        winner = starts[verdicts.index(LANDED)].run_id
        rows = [await node.run_by_key("default", MINE[0][0], f"order-{number}") for node in nodes]
        assert {row.run_id for row in rows if row is not None} == {winner}


async def test_eight_starts_with_one_run_id_make_one_run(harness: Harness, nodes: Sequence[Journal]) -> None:
    run = a_run()
    starts = [a_start(run, scheduled(), tasks=(a_task(),), chosen=True) for _ in nodes]
    verdicts = await asyncio.gather(*(put(node, start, lane=1) for node, start in zip(nodes, starts, strict=True)))
    assert verdicts.count(LANDED) == 1
    assert len(await harness.events(run.run_id)) == 2


async def test_no_run_is_claimed_twice(nodes: Sequence[Journal]) -> None:
    run_ids = {await run_in(nodes[0], RunState.RUNNING) for _ in range(40)}
    claims: list[str] = []

    async def claim_all(node: Journal, owner: str) -> None:
        idle = 0
        while idle < 3:  # rows that another claim has locked are passed over and may be free again
            found = (await node.claim_runs(owner, workflows=MINE, limit=3)).runs
            claims.extend(claim.run_id for claim in found)
            idle = 0 if found else idle + 1

    await asyncio.gather(*(claim_all(node, OWNER if place % 2 else OTHER) for place, node in enumerate(nodes)))
    assert sorted(claims) == sorted(run_ids)


async def test_no_task_is_claimed_twice(nodes: Sequence[Journal]) -> None:
    for _ in range(40):
        await started_run(nodes[0], a_start(None, scheduled(), tasks=(a_task(),)))
    claimed: list[TaskKey] = []

    async def claim_all(node: Journal, owner: str) -> None:
        idle = 0
        while idle < 3:
            found = await node.claim_tasks(owner, activities=[ACTIVITY], slots={}, default_slots=3)
            claimed.extend(task.attempt.key for task in found)
            idle = 0 if found else idle + 1

    await asyncio.gather(*(claim_all(node, OWNER if place % 2 else OTHER) for place, node in enumerate(nodes)))
    assert len(claimed) == len(set(claimed)) == 40


async def test_of_commits_at_one_position_one_lands(harness: Harness, nodes: Sequence[Journal]) -> None:
    for _ in range(ROUNDS):
        lease = await started_run(nodes[0])
        commits = [a_commit(lease, timer_started(number)) for number in range(len(nodes))]
        verdicts = await asyncio.gather(*(put(node, commit) for node, commit in zip(nodes, commits, strict=True)))
        assert verdicts.count(LANDED) == 1
        assert verdicts.count(REFUSED) == 7
        rows = await harness.events(lease.run_id)
        assert [row.event.command_id for row in rows] == [None, verdicts.index(LANDED)]


async def test_one_delivery_sent_eight_times_is_one_message(harness: Harness, nodes: Sequence[Journal]) -> None:
    for number in range(ROUNDS):
        lease = await started_run(nodes[0])
        posts = [Post(a_signal(lease.run_id, delivery_id=f"evt_{number}")) for _ in nodes]
        verdicts = await asyncio.gather(*(put(node, post, lane=1) for node, post in zip(nodes, posts, strict=True)))
        assert sum(isinstance(verdict, Posted) for verdict in verdicts) == 1
        assert verdicts.count(Duplicate()) == 7
        assert len(await harness.inbox(lease.run_id)) == 1


async def test_one_message_sent_eight_times_is_one_message(harness: Harness, nodes: Sequence[Journal]) -> None:
    lease = await started_run(nodes[0])
    post = Post(a_signal(lease.run_id))
    verdicts = await asyncio.gather(*(put(node, post) for node in nodes))
    assert all(isinstance(verdict, Posted) for verdict in verdicts)
    assert len(await harness.inbox(lease.run_id)) == 1


async def test_eight_cancels_are_one(harness: Harness, nodes: Sequence[Journal]) -> None:
    lease = await started_run(nodes[0])
    verdicts = await asyncio.gather(*(put(node, Post(a_cancel(lease.run_id))) for node in nodes))
    assert all(isinstance(verdict, Posted) for verdict in verdicts)
    assert len(await harness.inbox(lease.run_id)) == 1


async def test_an_attempt_that_finishes_eight_times_finishes_once(harness: Harness, nodes: Sequence[Journal]) -> None:
    for _ in range(ROUNDS):
        lease, attempt = await attempt_elsewhere(nodes[0])
        verdicts = await asyncio.gather(*(put(node, a_finish(attempt)) for node in nodes))
        assert sum(isinstance(verdict, Posted) for verdict in verdicts) == 1
        assert verdicts.count(REFUSED) == 7
        assert len(await harness.inbox(lease.run_id)) == 1


async def test_a_result_and_the_end_of_its_run_leave_no_task_and_no_wait(
    harness: Harness, nodes: Sequence[Journal]
) -> None:
    for _ in range(ROUNDS):
        lease, attempt = await attempt_elsewhere(nodes[0])
        ended, finished = await asyncio.gather(put(nodes[1], an_ending(lease)), put(nodes[2], a_finish(attempt)))
        assert ended == LANDED
        assert isinstance(finished, Posted) or finished == REFUSED
        assert await harness.tasks(lease.run_id) == []
        await sweep(nodes[0])  # a message that came in beside the end is late, and forgotten
        assert await harness.inbox(lease.run_id) == []


async def test_sweeps_side_by_side_count_each_crash_once(harness: Harness, nodes: Sequence[Journal]) -> None:
    leases = [await started_run(nodes[0], a_start(None, scheduled(), tasks=(a_task(leased=True),))) for _ in range(20)]
    await die(nodes[0], OWNER)
    swept = await asyncio.gather(*(sweep(node) for node in nodes))
    freed = [run_id for one in swept for run_id in one.runs]
    assert sorted(freed) == sorted(lease.run_id for lease in leases)
    await sweep(nodes[0])
    rows = [await harness.run_row(lease.run_id) for lease in leases]
    assert {(row.lease_owner, row.lease_token, row.crashes) for row in rows} == {(None, 2, 1)}
    assert {(row.lease_owner, row.attempt) for row in await harness.tasks()} == {(None, 2)}


async def test_a_sweep_and_the_commits_of_a_zombie_end_in_one_order_or_the_other(
    harness: Harness, nodes: Sequence[Journal]
) -> None:
    leases = [await started_run(nodes[0], a_start(None, scheduled(), tasks=(a_task(leased=True),))) for _ in range(20)]
    await die(nodes[0], OWNER)

    async def commit(lease: Lease, node: Journal) -> Verdict:
        return await put(node, a_commit(lease, answered(), resolved=(1,)))

    *verdicts, _ = await asyncio.gather(
        *(commit(lease, nodes[1 + place % 6]) for place, lease in enumerate(leases)), sweep(nodes[7])
    )
    await sweep(nodes[0])
    for lease, verdict in zip(leases, verdicts, strict=True):
        row, tasks = await harness.run_row(lease.run_id), await harness.tasks(lease.run_id)
        assert (row.lease_owner, row.lease_token) == (None, 2)
        assert row.last_seq == (3 if verdict == LANDED else 2)
        assert len(tasks) == (0 if verdict == LANDED else 1)


async def test_batches_of_the_same_runs_in_opposite_order_never_deadlock(nodes: Sequence[Journal]) -> None:
    leases = [await started_run(nodes[0]) for _ in range(30)]

    async def batch(node: Journal, order: list[Lease]) -> list[Verdict]:
        commits = [a_commit(lease, timer_started()) for lease in order]
        while True:
            try:
                return list(await node.write(0, commits))
            except Contended:
                continue

    forwards, backwards = await asyncio.gather(batch(nodes[0], leases), batch(nodes[1], leases[::-1]))
    for one, other in zip(forwards, backwards[::-1], strict=True):
        assert {one, other} == {LANDED, REFUSED}


async def test_a_claim_by_a_stranger_never_hits_a_run_between_start_and_lease(nodes: Sequence[Journal]) -> None:
    is_over = False

    async def starts() -> None:
        nonlocal is_over
        for _ in range(30):
            await land(nodes[0], a_start())
        is_over = True

    async def claims() -> int:
        count = 0
        while not is_over:
            count += len((await nodes[1].claim_runs(OTHER, workflows=MINE, limit=10)).runs)
        return count

    assert (await asyncio.gather(starts(), claims()))[1] == 0


ENDLESS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"


async def go_on_for_ever(line: Line) -> None:
    async with line.transaction() as talk:
        await talk.say("UPDATE continuum_instances SET name = name")
        await talk.say(ENDLESS)


async def test_a_transaction_that_is_given_up_in_mid_statement_leaves_no_lock_behind(
    harness: SqlHarness, journal: Journal
) -> None:
    """Not even while the statement waits to be collected: with it, SQLite keeps a closed connection and its lock."""
    dialect = dialect_of(harness.engine)
    line = Line(harness.engine, Book(dialect), lock_timeout_seconds=1.0, answer_timeout_seconds=0.3)
    gc.disable()
    try:
        with pytest.raises(JournalUnavailable):
            await go_on_for_ever(line)
        assert await put(journal, a_start()) == LANDED
    finally:
        gc.enable()
    await line.close()
