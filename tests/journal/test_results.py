"""Results under idempotency keys: written with what journals the success or not at all, and independent of the run."""

import pytest
from msgspec.structs import replace

from continuum.ids import uuid7
from continuum.journal.port import Journal
from continuum.model.results import ActivityResult, ResultKey
from continuum.model.states import RunState
from continuum.model.writes import LANDED, REFUSED, Posted
from tests.journal.backends import Harness
from tests.journal.builders import ACTIVITY, OTHER, Lease, a_commit, a_finish, a_run, a_start, answered, cancelled
from tests.journal.steps import attempt_elsewhere, land, run_with_task, started_run, write


def a_key(key: str = "order-1", *, namespace: str = "default", activity: str = ACTIVITY) -> ResultKey:
    return ResultKey(namespace, activity, key)


def a_success(lease: Lease, key: ResultKey | None = None, *, payload: bytes = b'"paid"') -> ActivityResult:
    return ActivityResult(key or a_key(), lease.run_id, b'{"order":"order-1"}', payload)


async def known(journal: Journal, *keys: ResultKey) -> list[ActivityResult]:
    return list(await journal.results(keys or [a_key()]))


async def test_a_commit_that_lands_remembers_its_results(journal: Journal) -> None:
    lease = await run_with_task(journal)
    success = a_success(lease, payload=b"\x00\xff any bytes")
    await land(journal, replace(a_commit(lease, answered(), resolved=(1,)), results=(success,)))
    assert await known(journal) == [success]


async def test_a_commit_that_is_refused_remembers_nothing(journal: Journal) -> None:
    lease, fine = await run_with_task(journal), await run_with_task(journal)
    stale = replace(a_commit(replace(lease, token=7), answered()), results=(a_success(lease),))
    other = replace(a_commit(fine, answered()), results=(a_success(fine, a_key("order-2")),))
    assert list(await journal.write(0, [stale, other])) == [REFUSED, LANDED]
    assert await known(journal, a_key(), a_key("order-2")) == [a_success(fine, a_key("order-2"))]


async def test_a_commit_without_events_may_bring_results(journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, replace(a_commit(lease), results=(a_success(lease),)))
    assert await known(journal) == [a_success(lease)]


async def test_a_final_commit_remembers_too(journal: Journal) -> None:
    lease = await started_run(journal)
    await land(journal, replace(a_commit(lease, cancelled(), state=RunState.CANCELLED), results=(a_success(lease),)))
    assert await known(journal) == [a_success(lease)]


async def test_a_finish_remembers_with_the_message_or_not_at_all(journal: Journal) -> None:
    lease, attempt = await attempt_elsewhere(journal)
    finish = replace(a_finish(attempt), result=a_success(lease))
    superseded = replace(finish, attempt=replace(attempt, attempt=2))
    assert await write(journal, superseded) == REFUSED
    assert await known(journal) == []
    assert isinstance(await write(journal, finish), Posted)
    assert await known(journal) == [a_success(lease)]
    assert await write(journal, replace(finish, result=a_success(lease, payload=b'"twice"'))) == REFUSED
    assert await known(journal) == [a_success(lease)]


async def test_the_first_result_under_a_key_stands(journal: Journal) -> None:
    first, second, third = [await started_run(journal) for _ in range(3)]
    for lease in (first, second):
        await land(journal, replace(a_commit(lease), results=(a_success(lease, payload=lease.run_id.encode()),)))
    assert await known(journal) == [a_success(first, payload=first.run_id.encode())]
    both = [replace(a_commit(lease), results=(a_success(lease, a_key("k")),)) for lease in (second, third)]
    assert list(await journal.write(0, both)) == [LANDED, LANDED]
    (stands,) = await known(journal, a_key("k"))
    assert stands.run_id in {second.run_id, third.run_id}


async def test_a_key_counts_per_namespace_and_activity(journal: Journal) -> None:
    lease = await started_run(journal)
    keys = [a_key(), a_key("order-2"), a_key(namespace="eu"), a_key(activity="refund"), a_key("ü/'\"\\ {}")]
    results = tuple(a_success(lease, key, payload=str(n).encode()) for n, key in enumerate(keys))
    await land(journal, replace(a_commit(lease), results=results))
    assert sorted(await known(journal, *keys, *keys), key=lambda result: result.payload) == list(results)
    assert await known(journal, a_key("order-3"), a_key(namespace="us")) == []
    assert list(await journal.results([])) == []


async def test_results_stand_beside_everything_else_of_a_batch(journal: Journal) -> None:
    lease, attempt = await attempt_elsewhere(journal)
    other, start = await run_with_task(journal), a_start()
    verdicts = await journal.write(
        0,
        [
            start,
            replace(a_finish(attempt), result=a_success(lease, a_key("a"))),
            replace(a_commit(other, answered(), resolved=(1,)), results=(a_success(other, a_key("b")),)),
        ],
    )
    assert [isinstance(verdict, Posted) or verdict == LANDED for verdict in verdicts] == [True, True, True]
    assert {result.key.key for result in await known(journal, a_key("a"), a_key("b"))} == {"a", "b"}


# P69
async def test_results_outlive_their_run(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal, a_start(a_run(retention_seconds=0.0), owner=OTHER))
    end = a_commit(lease, cancelled(), state=RunState.CANCELLED)
    await land(journal, replace(end, results=(a_success(lease),)))
    await harness.age(60.0)
    assert list(await journal.prune(limit=10)) == [lease.run_id]
    assert await known(journal) == [a_success(lease)]


async def test_results_are_forgotten_by_their_own_age(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    for n in range(5):
        await land(journal, replace(a_commit(lease), results=(a_success(lease, a_key(f"old-{n}")),)))
    await harness.age(100.0)
    await land(journal, replace(a_commit(lease), results=(a_success(lease, a_key("new")),)))
    assert await journal.prune_results(age_seconds=500.0, limit=10) == 0
    assert [await journal.prune_results(age_seconds=50.0, limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert await known(journal, a_key("new"), a_key("old-0")) == [a_success(lease, a_key("new"))]


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
async def test_results_of_every_size(journal: Journal, size: int) -> None:
    lease = await started_run(journal)
    success = a_success(lease, a_key(uuid7()), payload=b"x" * size)
    await land(journal, replace(a_commit(lease), results=(success,)))
    assert await known(journal, success.key) == [success]
