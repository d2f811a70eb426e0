"""Races on a real PostgreSQL, held open at their worst moment: one transaction stays open while another statement meets
it, and goes on when that one is seen to wait (or has passed by). The names E1b, E2 … are those of `docs/protocol.md`.

`host` is somebody else's connection: a host's own transaction, another node's, a zombie's.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import Any, TypeAlias, TypeVar

import asyncpg
import pytest
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import create_async_engine

from continuum.ids import uuid7
from continuum.journal.port import Contended
from continuum.journal.sql import SqlJournal
from continuum.model.states import RunState
from continuum.model.writes import (
    LANDED,
    REFUSED,
    Duplicate,
    Over,
    Post,
    Posted,
    RetryTask,
    Unknown,
    Verdict,
    Write,
)
from tests.journal.backends import INSTANCE
from tests.journal.builders import (
    ACTIVITY,
    MINE,
    OTHER,
    OWNER,
    TTL,
    URL,
    Lease,
    a_cancel,
    a_commit,
    a_finish,
    a_run,
    a_signal,
    a_start,
    an_ending,
    an_owner,
    an_unleased_start,
    answered,
    timer_started,
)
from tests.journal.sql import SqlHarness
from tests.journal.steps import attempt_elsewhere, die, land, post, run_in, started_run, sweep, write
from tests.support.postgres import connect

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

PATIENT = 20.0  # seconds: longer than a test holds its transaction open, on the slowest machine
DEADLINE = 10.0


@pytest.fixture
async def harness(migrated_postgres: str) -> AsyncIterator[SqlHarness]:
    engine = create_async_engine(migrated_postgres)
    harness = SqlHarness(engine)
    await harness.wipe()
    yield harness
    await engine.dispose()


@pytest.fixture
async def journal(harness: SqlHarness) -> AsyncIterator[SqlJournal]:
    """A journal that waits for locks as long as a test needs, with two nodes."""
    journal = SqlJournal(harness.engine, lock_timeout_seconds=PATIENT)
    await journal.open(INSTANCE)
    await journal.register(an_owner(OWNER, advertise_url=URL), ttl_seconds=TTL)
    await journal.register(an_owner(OTHER), ttl_seconds=TTL)
    yield journal
    await journal.close()


@pytest.fixture
async def hasty(harness: SqlHarness, journal: SqlJournal) -> AsyncIterator[SqlJournal]:
    """Another node's journal, with the lock timeout that journals have."""
    journal = SqlJournal(harness.engine)
    await journal.open(INSTANCE)
    yield journal
    await journal.close()


@pytest.fixture
async def host(migrated_postgres: str) -> AsyncIterator[Connection]:
    connection = await connect(migrated_postgres)
    yield connection
    await connection.close()


@pytest.fixture
async def watch(migrated_postgres: str) -> AsyncIterator[Connection]:
    connection = await connect(migrated_postgres)
    yield connection
    await connection.close()


async def blocked(watch: Connection, work: Coroutine[Any, Any, T], *, waiters: int = 1) -> "asyncio.Task[T]":
    """Begin some work; return when that many of the database's connections wait for a lock."""
    task = asyncio.create_task(work)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(DEADLINE):
        while await watch.fetchval(waiting) < waiters:
            assert not task.done(), "it did not wait"
            await asyncio.sleep(0.005)
    return task


async def at_once(work: Awaitable[T]) -> T:
    """Await what must not wait for anybody."""
    async with asyncio.timeout(DEADLINE):
        return await work


# --- runs -------------------------------------------------------------------------------------------------------------


async def test_e1b_a_claim_passes_over_what_somebody_else_is_leasing(journal: SqlJournal, host: Connection) -> None:
    taken, free = await run_in(journal, RunState.RUNNING), await run_in(journal, RunState.RUNNING)
    async with host.transaction():
        await host.execute("UPDATE continuum_runs SET lease_owner = $1 WHERE id = $2", OTHER, taken)
        claims = await at_once(journal.claim_runs(OWNER, workflows=MINE, limit=10))
        assert [claim.run_id for claim in claims.runs] == [free]
    assert (await journal.claim_runs(OWNER, workflows=MINE, limit=10)).runs == ()


async def test_e1b_a_sweep_by_owner_ids_steals_from_nobody_who_leases_meanwhile(
    journal: SqlJournal, host: Connection
) -> None:
    """A dead owner's run that a living one has just taken over is no longer the dead one's."""
    leases = [await started_run(journal), await started_run(journal)]
    await die(journal)
    taken, lost = (lease.run_id for lease in leases)
    async with host.transaction():
        await host.execute(
            "UPDATE continuum_runs SET lease_owner = $1, lease_token = lease_token + 1 WHERE id = $2", OTHER, taken
        )
        assert (await at_once(sweep(journal))).runs == (lost,)
    assert (await sweep(journal)).runs == ()
    row = await journal.run(taken)
    assert row is not None
    assert (row.lease_owner, row.lease_token) == (OTHER, 2)


async def test_e2_a_fence_is_looked_at_again_after_a_lock_wait_and_neighbours_land(
    harness: SqlHarness, journal: SqlJournal, host: Connection, watch: Connection
) -> None:
    leases = [await started_run(journal) for _ in range(3)]
    transaction = host.transaction()
    await transaction.start()
    await host.execute(
        "UPDATE continuum_runs SET lease_owner = $1, lease_token = lease_token + 1 WHERE id = $2",
        OTHER,
        leases[1].run_id,
    )
    batch = await blocked(watch, journal.write(0, [a_commit(lease, timer_started()) for lease in leases]))
    await transaction.commit()
    assert await batch == [LANDED, REFUSED, LANDED]
    assert [len(await harness.events(lease.run_id)) for lease in leases] == [2, 1, 2]


async def test_e8b_a_final_commit_is_refused_when_a_commit_it_did_not_know_lands_first(
    journal: SqlJournal, host: Connection, watch: Connection
) -> None:
    """A canceller that claimed, and a commit under the same token that it never read."""
    lease = await started_run(journal)
    transaction = host.transaction()
    await transaction.start()
    await host.execute("UPDATE continuum_runs SET last_seq = last_seq + 1 WHERE id = $1", lease.run_id)
    final = await blocked(watch, write(journal, an_ending(lease, RunState.CANCELLED)))
    await transaction.commit()
    assert await final == REFUSED
    row = await journal.run(lease.run_id)
    assert row is not None
    assert row.state is RunState.RUNNING


async def test_e11_a_run_twice_in_one_batch_never_reaches_the_database(
    harness: SqlHarness, journal: SqlJournal
) -> None:
    lease = await started_run(journal)
    before = await harness.dump()
    with pytest.raises(AssertionError, match="twice"):
        await journal.write(0, [a_commit(lease, timer_started(1)), a_commit(lease.after(1), timer_started(2))])
    assert await harness.dump() == before


async def test_e12_a_sweep_and_a_zombies_batch_never_deadlock(journal: SqlJournal, host: Connection) -> None:
    first, second = await started_run(journal), await started_run(journal)
    await die(journal)
    async with host.transaction():
        await host.execute("UPDATE continuum_runs SET last_seq = 2 WHERE id = $1", second.run_id)
        assert (await at_once(sweep(journal))).runs == (first.run_id,)
        await host.execute("UPDATE continuum_runs SET crashes = 0 WHERE id = $1", first.run_id)
    assert (await sweep(journal)).runs == (second.run_id,)


async def test_l1_two_claims_at_once_share_out_the_runs(journal: SqlJournal, hasty: SqlJournal) -> None:
    runs = {await run_in(journal, RunState.RUNNING) for _ in range(40)}
    claims = await asyncio.gather(
        journal.claim_runs(OWNER, workflows=MINE, limit=20), hasty.claim_runs(OTHER, workflows=MINE, limit=20)
    )
    rest = await journal.claim_runs(OWNER, workflows=MINE, limit=40)
    found = [claim.run_id for some in (*claims, rest) for claim in some.runs]
    assert sorted(found) == sorted(runs)


async def test_l1_an_owner_without_a_row_claims_nothing(journal: SqlJournal) -> None:
    await run_in(journal, RunState.RUNNING)
    assert (await journal.claim_runs("node-9/continuum/boot-9/1", workflows=MINE, limit=10)).runs == ()


# --- starts -----------------------------------------------------------------------------------------------------------


async def test_e5_a_hosts_open_start_holds_up_its_own_key_and_nobody_else(
    journal: SqlJournal, hasty: SqlJournal, host: Connection, watch: Connection
) -> None:
    transaction = host.transaction()
    await transaction.start()
    await insert_run(host, key="order-1")
    same = a_start(a_run(key="order-1"))
    with pytest.raises(Contended):
        await hasty.write(1, [same, a_start(a_run(key="order-2"))])
    waiting = await blocked(watch, journal.write(1, [same]))
    assert await at_once(hasty.write(0, [a_start(), a_start()])) == [LANDED, LANDED]
    await transaction.rollback()
    assert await waiting == [LANDED]


async def test_e5b_a_hosts_open_message_does_not_hide_its_run_from_claims(
    journal: SqlJournal, host: Connection
) -> None:
    run_id = await run_in(journal, RunState.RUNNING)
    async with host.transaction():
        await host.execute(
            "INSERT INTO continuum_inbox (id, run_id, kind, format, at) VALUES ($1, $2, 'signal', 1, now())",
            uuid7(),
            run_id,
        )
        claims = await at_once(journal.claim_runs(OWNER, workflows=MINE, limit=1))
        assert [claim.run_id for claim in claims.runs] == [run_id]


async def test_e7_keyed_starts_in_opposite_order_never_deadlock(
    journal: SqlJournal, harness: SqlHarness, host: Connection, watch: Connection
) -> None:
    other = SqlJournal(harness.engine, lock_timeout_seconds=PATIENT)
    await other.open(INSTANCE)
    forth = [a_start(a_run(key=key)) for key in ("order-1", "order-2")]
    back = [a_start(a_run(key=key)) for key in ("order-2", "order-1")]
    transaction = host.transaction()
    await transaction.start()
    await insert_run(host, key="order-1")
    one = await blocked(watch, journal.write(1, forth))
    two = await blocked(watch, other.write(1, back), waiters=2)
    await transaction.rollback()
    verdicts: list[Verdict] = [*await one, *await two]
    assert verdicts in ([LANDED, LANDED, REFUSED, REFUSED], [REFUSED, REFUSED, LANDED, LANDED])
    await other.close()


async def test_e10_a_start_that_loses_its_key_finds_the_winner(
    journal: SqlJournal, host: Connection, watch: Connection
) -> None:
    transaction = host.transaction()
    await transaction.start()
    winner = await insert_run(host, key="order-1")
    loser = a_start(a_run(key="order-1"))
    losing = await blocked(watch, write(journal, loser))
    await transaction.commit()
    assert await losing == REFUSED
    row = await journal.run_by_key("default", MINE[0][0], "order-1")
    assert row is not None
    assert row.run_id == winner
    assert await journal.judge(loser) == REFUSED


async def insert_run(host: Connection, *, key: str) -> str:
    """Insert a pending run with a start key, as `start(session=…)` does in a host's transaction."""
    run_id = uuid7()
    await host.execute(
        "INSERT INTO continuum_runs (id, workflow, version, namespace, state, generation, last_seq, lease_token, "
        "idempotency_key, created_at) VALUES ($1, $2, 1, 'default', 'pending', 1, 1, 0, $3, now())",
        run_id,
        MINE[0][0],
        key,
    )
    return run_id


# --- messages ---------------------------------------------------------------------------------------------------------


async def test_e3b_a_delivery_that_is_being_read_is_still_known(
    harness: SqlHarness, journal: SqlJournal, host: Connection
) -> None:
    lease = await started_run(journal)
    message = await post(journal, a_signal(lease.run_id, delivery_id="evt_1"))
    transaction = host.transaction()
    await transaction.start()
    await host.execute("UPDATE continuum_inbox SET read_at = now(), payload = NULL WHERE id = $1", message.message_id)
    again = asyncio.create_task(write(journal, Post(a_signal(lease.run_id, delivery_id="evt_1"))))
    await asyncio.wait([again], timeout=0.05)  # whether it waits or not is the database's affair
    await transaction.commit()
    assert await again == Duplicate()
    assert len(await harness.inbox(lease.run_id)) == 1


async def test_e3b_a_delivery_whose_first_sending_is_under_way_is_a_duplicate_once_that_lands(
    harness: SqlHarness, journal: SqlJournal, host: Connection, watch: Connection
) -> None:
    lease = await started_run(journal)
    transaction = host.transaction()
    await transaction.start()
    await host.execute(
        "INSERT INTO continuum_inbox (id, run_id, kind, name, delivery_id, format, at) "
        "VALUES ($1, $2, 'signal', 'fraud_review', 'evt_1', 1, now())",
        uuid7(),
        lease.run_id,
    )
    again = await blocked(watch, write(journal, Post(a_signal(lease.run_id, delivery_id="evt_1"))))
    await transaction.commit()
    assert await again == Duplicate()
    assert len(await harness.inbox(lease.run_id)) == 1


async def test_e4_posting_to_a_run_that_is_ending_waits_for_nobody_and_leaves_nothing(
    harness: SqlHarness, journal: SqlJournal, host: Connection
) -> None:
    lease = await started_run(journal)
    async with host.transaction():
        await host.execute(
            "UPDATE continuum_runs SET state = 'completed', lease_owner = NULL, ended_at = now() WHERE id = $1",
            lease.run_id,
        )
        await host.execute("DELETE FROM continuum_inbox WHERE run_id = $1", lease.run_id)
        assert isinstance(await at_once(write(journal, Post(a_signal(lease.run_id)))), Posted)
    assert len(await harness.inbox(lease.run_id)) == 1
    await sweep(journal)
    assert await harness.inbox(lease.run_id) == []


async def test_p1_one_batch_of_messages_has_every_verdict(journal: SqlJournal) -> None:
    lease, ended = await started_run(journal), await run_in(journal, RunState.COMPLETED)
    await post(journal, a_signal(lease.run_id, delivery_id="evt_1"))
    first = a_signal(lease.run_id)
    messages = [
        first,
        a_signal(lease.run_id, delivery_id="evt_1"),
        a_signal(uuid7()),
        a_signal(ended),
        a_cancel(lease.run_id),
        a_cancel(lease.run_id),
        replace(first),
        a_signal(lease.run_id, delivery_id="evt_2"),
        a_signal(lease.run_id, delivery_id="evt_2"),
    ]
    posted = Posted(OWNER, URL)
    assert await journal.write(1, [Post(message) for message in messages]) == [
        posted,
        Duplicate(),
        Unknown(),
        Over(),
        posted,
        posted,
        posted,
        posted,
        Duplicate(),
    ]
    assert len(await journal.unread(OWNER, limit=100)) == 4


# --- tasks ------------------------------------------------------------------------------------------------------------


async def test_e9_an_activity_that_books_and_a_run_that_ends_come_one_after_the_other(
    harness: SqlHarness, journal: SqlJournal, hasty: SqlJournal, host: Connection, watch: Connection
) -> None:
    """The transactional activity has deleted its task; the final commit deletes the run's tasks."""
    lease, attempt = await attempt_elsewhere(journal)
    bystander = await started_run(journal)
    transaction = host.transaction()
    await transaction.start()
    await host.execute("DELETE FROM continuum_tasks WHERE run_id = $1", attempt.key.run_id)
    with pytest.raises(Contended):
        await hasty.write(0, [an_ending(lease), a_commit(bystander, timer_started())])
    assert await hasty.write(0, [a_commit(bystander, timer_started())]) == [LANDED]
    final = await blocked(watch, write(journal, an_ending(lease)))
    await transaction.commit()
    assert await final == LANDED
    assert await harness.tasks(lease.run_id) == []


async def test_e9_a_run_that_has_ended_leaves_the_activity_no_task_to_book_under(
    journal: SqlJournal, host: Connection, watch: Connection
) -> None:
    lease, attempt = await attempt_elsewhere(journal)
    transaction = host.transaction()
    await transaction.start()
    await end_by_hand(host, lease)
    finish = await blocked(watch, write(journal, a_finish(attempt)))
    await transaction.commit()
    assert await finish == REFUSED


async def test_f1_a_finish_behind_an_ending_is_refused_and_leaves_no_message(
    harness: SqlHarness, journal: SqlJournal, host: Connection, watch: Connection
) -> None:
    lease, attempt = await attempt_elsewhere(journal)
    transaction = host.transaction()
    await transaction.start()
    await end_by_hand(host, lease)
    finish = await blocked(watch, write(journal, a_finish(attempt)))
    await transaction.commit()
    assert await finish == REFUSED
    assert await harness.inbox(lease.run_id) == []


async def test_f1_a_finish_before_an_ending_is_swept_up_after_it(
    harness: SqlHarness, journal: SqlJournal, host: Connection, watch: Connection
) -> None:
    lease, _ = await attempt_elsewhere(journal)
    transaction = host.transaction()
    await transaction.start()
    await host.execute("DELETE FROM continuum_tasks WHERE run_id = $1", lease.run_id)
    await host.execute(
        "INSERT INTO continuum_inbox (id, run_id, kind, generation, command_id, format, at) "
        "VALUES ($1, $2, 'activity_completed', 1, 1, 1, now())",
        uuid7(),
        lease.run_id,
    )
    final = await blocked(watch, write(journal, an_ending(lease)))
    await transaction.commit()
    assert await final == LANDED
    await sweep(journal)
    assert (await harness.inbox(lease.run_id), await harness.tasks(lease.run_id)) == ([], [])


@pytest.mark.parametrize("what", ["a commit that resolves it", "the end of its run", "its finish", "its retry"])
async def test_a_task_that_is_changed_meanwhile_is_looked_at_again(
    harness: SqlHarness, journal: SqlJournal, host: Connection, watch: Connection, what: str
) -> None:
    """A heartbeat is under way on the row that a write is about to delete or to change."""
    lease, attempt = await attempt_elsewhere(journal)
    works: dict[str, Write] = {
        "a commit that resolves it": a_commit(lease, answered(), resolved=(1,)),
        "the end of its run": an_ending(lease),
        "its finish": a_finish(attempt),
        "its retry": RetryTask(attempt, 5.0),
    }
    transaction = host.transaction()
    await transaction.start()
    await host.execute("UPDATE continuum_tasks SET details = 'half', heartbeat_at = now()")
    waiting = await blocked(watch, write(journal, works[what]))
    await transaction.commit()
    assert await waiting in (LANDED, Posted(OWNER, URL))
    remaining = [(row.lease_owner, row.attempt, row.details) for row in await harness.tasks(lease.run_id)]
    assert remaining == ([(None, 2, b"half")] if what == "its retry" else [])


@pytest.mark.parametrize("kept", [False, True])
async def test_a_message_that_is_changed_meanwhile_is_still_read(
    harness: SqlHarness, journal: SqlJournal, host: Connection, watch: Connection, *, kept: bool
) -> None:
    lease = await started_run(journal)
    message = await post(journal, a_signal(lease.run_id, delivery_id="evt_1" if kept else None))
    transaction = host.transaction()
    await transaction.start()
    await host.execute("UPDATE continuum_inbox SET format = 1")
    waiting = await blocked(watch, write(journal, a_commit(lease, timer_started(), read=(message,))))
    await transaction.commit()
    assert await waiting == LANDED
    assert [row.is_read for row in await harness.inbox(lease.run_id)] == ([True] if kept else [])


async def end_by_hand(host: Connection, lease: Lease) -> None:
    """Do what a final commit does to a run and its tasks."""
    await host.execute(
        "UPDATE continuum_runs SET state = 'cancelled', lease_owner = NULL, lease_token = lease_token + 1, "
        "ended_at = now() WHERE id = $1",
        lease.run_id,
    )
    await host.execute("DELETE FROM continuum_tasks WHERE run_id = $1", lease.run_id)


async def test_a_task_claim_passes_over_what_somebody_else_is_claiming(journal: SqlJournal, host: Connection) -> None:
    start = an_unleased_start()
    await land(journal, start)
    _, attempt = await attempt_elsewhere(journal)
    await host.execute("UPDATE continuum_tasks SET lease_owner = NULL")
    async with host.transaction():
        await host.execute("SELECT 1 FROM continuum_tasks FOR UPDATE")
        claim = journal.claim_tasks(OWNER, activities=[ACTIVITY], slots={}, default_slots=5)
        assert await at_once(claim) == []
    (claimed,) = await journal.claim_tasks(OWNER, activities=[ACTIVITY], slots={}, default_slots=5)
    assert claimed.attempt == replace(attempt, owner=OWNER)


# --- owners -----------------------------------------------------------------------------------------------------------


async def test_e6_a_renewal_that_comes_first_saves_the_owner(
    journal: SqlJournal, host: Connection, watch: Connection
) -> None:
    await host.execute("UPDATE continuum_owners SET expires_at = now() - interval '1 second' WHERE owner = $1", OWNER)
    transaction = host.transaction()
    await transaction.start()
    await host.execute("UPDATE continuum_owners SET expires_at = now() + interval '30 s' WHERE owner = $1", OWNER)
    verdict = await blocked(watch, journal.declare_dead())
    await transaction.commit()
    assert await verdict == []


async def test_e6_a_renewal_that_comes_second_finds_everything_lost(
    journal: SqlJournal, host: Connection, watch: Connection
) -> None:
    transaction = host.transaction()
    await transaction.start()
    await host.execute("DELETE FROM continuum_owners WHERE owner = $1", OWNER)
    renewal = await blocked(watch, journal.renew(OWNER, ttl_seconds=TTL))
    await transaction.commit()
    assert await renewal is None


# --- heap-only updates ------------------------------------------------------------------------------------------------


async def test_h1_the_update_of_a_busy_run_touches_no_index(journal: SqlJournal, watch: Connection) -> None:
    leases = [await started_run(journal) for _ in range(20)]
    before = await updates(watch)
    for turn in range(20):
        batch = [a_commit(lease.after(turn), answered(turn)) for lease in leases]
        assert await journal.write(0, batch) == [LANDED] * 20
    updated, hot = await counted(journal, watch, before, at_least=400)
    assert updated == 400
    # None would be, if an index were touched. Nor are those that meet a full page whose dead rows somebody may still
    # see, such as an ANALYZE that happens to run: how many these are is not ours to say.
    assert hot >= 100
    before = await updates(watch)
    parked = [a_commit(lease.after(20), state=RunState.SUSPENDED) for lease in leases]
    assert await journal.write(0, parked) == [LANDED] * 20
    assert await counted(journal, watch, before, at_least=20) == (20, 0)  # why `state` stays out of busy commits


async def updates(watch: Connection) -> tuple[int, int]:
    await watch.execute("SELECT pg_stat_clear_snapshot()")
    row = await watch.fetchrow(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'continuum_runs'"
    )
    assert row is not None
    return row[0], row[1]


async def counted(journal: SqlJournal, watch: Connection, before: tuple[int, int], *, at_least: int) -> tuple[int, int]:
    """Return how many updates, and HOT ones, there have been; backends report theirs with a delay, after a statement."""
    async with asyncio.timeout(DEADLINE):
        while True:
            await journal.write(0, [a_commit(Lease(uuid7()))])  # refused: only lets the backend report
            now = await updates(watch)
            if now[0] - before[0] >= at_least:
                return now[0] - before[0], now[1] - before[1]
            await asyncio.sleep(0.05)
