"""Retention: what has ended goes when its time has passed, with every row; what is active or kept for ever stays."""

from continuum.journal.port import Journal
from continuum.model.packing import pack_history
from continuum.model.states import RunState
from continuum.model.writes import Post, Unknown
from tests.journal.backends import Harness
from tests.journal.builders import (
    a_commit,
    a_run,
    a_signal,
    a_start,
    an_ending,
    completed,
    signal_received,
    timer_started,
)
from tests.journal.steps import land, post, run_in, started_run, write


async def ended(journal: Journal, *, retention_seconds: float | None = 60.0, key: str | None = None) -> str:
    lease = await started_run(journal, a_start(a_run(retention_seconds=retention_seconds, key=key)))
    await land(journal, an_ending(lease))
    return lease.run_id


async def test_a_run_is_kept_until_its_retention_has_passed(harness: Harness, journal: Journal) -> None:
    run_id = await ended(journal)
    await harness.age(50.0)
    assert list(await journal.prune(limit=10)) == []
    await harness.age(20.0)
    assert list(await journal.prune(limit=10)) == [run_id]
    assert list(await journal.prune(limit=10)) == []


async def test_a_pruned_run_leaves_no_row_behind(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    webhook = await post(journal, a_signal(lease.run_id, delivery_id="evt_1"))
    await land(journal, a_commit(lease, signal_received(webhook), read=(webhook,)))
    assert await journal.save_snapshot(lease.run_id, generation=1, seq=2, blob=b"{}")
    await land(journal, an_ending(lease.after(1)))
    await harness.plant(a_signal(lease.run_id))
    await harness.age(70.0)
    assert list(await journal.prune(limit=10)) == [lease.run_id]
    assert await journal.run(lease.run_id) is None
    assert (await harness.events(lease.run_id), await harness.inbox(), await harness.tasks()) == ([], [], [])
    assert await write(journal, Post(a_signal(lease.run_id, delivery_id="evt_1"))) == Unknown()


async def test_pruning_leaves_the_rows_of_other_runs(harness: Harness, journal: Journal) -> None:
    other = await started_run(journal)
    await land(journal, a_commit(other, timer_started()))
    await post(journal, a_signal(other.run_id, delivery_id="evt_1"))
    await ended(journal)
    await harness.age(70.0)
    await journal.prune(limit=10)
    assert len(await harness.events(other.run_id)) == 2
    assert len(await harness.inbox(other.run_id)) == 1


async def test_a_run_that_is_kept_for_ever_is_never_pruned(harness: Harness, journal: Journal) -> None:
    run_id = await ended(journal, retention_seconds=None)
    await harness.age(10 * 365 * 86_400.0)
    assert list(await journal.prune(limit=10)) == []
    assert await journal.run(run_id) is not None


async def test_what_has_not_ended_is_never_pruned(harness: Harness, journal: Journal) -> None:
    states = [RunState.PENDING, RunState.RUNNING, RunState.SUSPENDED, RunState.BLOCKED]
    run_ids = [await run_in(journal, state) for state in states]
    await harness.age(10 * 365 * 86_400.0)
    assert list(await journal.prune(limit=10)) == []
    assert [(await harness.run_row(run_id)).state for run_id in run_ids] == states


async def test_a_start_that_ended_at_once_is_pruned_like_any_other(harness: Harness, journal: Journal) -> None:
    start = a_start(None, completed(), state=RunState.COMPLETED)
    await land(journal, start)
    await harness.age(70.0)
    assert list(await journal.prune(limit=10)) == [start.run_id]


async def test_pruning_stops_at_its_limit_and_goes_on_the_next_time(harness: Harness, journal: Journal) -> None:
    run_ids = {await ended(journal) for _ in range(5)}
    await harness.age(70.0)
    first, second = await journal.prune(limit=3), await journal.prune(limit=3)
    assert (len(first), len(second)) == (3, 2)
    assert {*first, *second} == run_ids


async def test_a_start_key_counts_for_as_long_as_its_run_is_kept(harness: Harness, journal: Journal) -> None:
    await ended(journal, key="order-1")
    await harness.age(70.0)
    await journal.prune(limit=10)
    await land(journal, a_start(a_run(key="order-1")))


async def test_a_run_is_loaded_the_same_with_a_snapshot_as_without(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, a_commit(lease, *(timer_started(number) for number in range(1, 10))))
    history = await journal.history(lease.run_id)
    assert await journal.save_snapshot(lease.run_id, generation=1, seq=6, blob=pack_history(history[:6]))
    await land(journal, a_commit(lease.after(9), timer_started(10)))
    (loaded,) = await journal.load_runs([lease.run_id])
    assert loaded.history == tuple(await journal.history(lease.run_id))
    assert (loaded.snapshot_seq, len(loaded.history)) == (6, 11)


async def test_a_snapshot_that_cannot_be_read_is_as_good_as_none(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    await journal.save_snapshot(lease.run_id, generation=1, seq=1, blob=b"from a newer version")
    (loaded,) = await journal.load_runs([lease.run_id])
    assert (loaded.snapshot_seq, loaded.history) == (0, tuple(await journal.history(lease.run_id)))


async def test_a_newer_snapshot_replaces_an_older_and_never_the_other_way(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, a_commit(lease, *(timer_started(number) for number in range(1, 10))))
    assert await journal.save_snapshot(lease.run_id, generation=1, seq=3, blob=b"3")
    assert await journal.save_snapshot(lease.run_id, generation=1, seq=5, blob=b"5")
    assert not await journal.save_snapshot(lease.run_id, generation=1, seq=4, blob=b"4")
