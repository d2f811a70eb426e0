"""A run comes into being once, whole, and leased to who started it."""

import pytest
from msgspec.structs import replace

from continuum.journal.port import BadData, Journal
from continuum.model.events import EventType
from continuum.model.runs import RunRow
from continuum.model.states import RunState
from continuum.model.tasks import TaskKey
from continuum.model.writes import LANDED, REFUSED, StartMany
from tests.journal.backends import Harness
from tests.journal.builders import (
    ENDINGS,
    OTHER,
    OWNER,
    a_run,
    a_start,
    a_task,
    an_event,
    an_unleased_start,
    is_about,
    scheduled,
    started,
)
from tests.journal.steps import claim, land, later, started_run, write


async def test_a_leased_start_inserts_the_whole_row(harness: Harness, journal: Journal) -> None:
    run = a_run(key="order-1", attributes={"customer": "c1", "vip": True})
    start = a_start(run, scheduled())
    await land(journal, start)
    row = await harness.run_row(run.run_id)
    assert row == RunRow(
        run_id=run.run_id,
        workflow=run.workflow,
        version=1,
        namespace="default",
        state=RunState.RUNNING,
        generation=1,
        last_seq=2,
        lease_owner=OWNER,
        lease_token=1,
        wake_at=None,
        created_at=start.events[0].at,  # what `info()` said in the first turn
        attributes={"customer": "c1", "vip": True},
        idempotency_key="order-1",
        fingerprint=b"fingerprint",
        retention_seconds=60.0,
        trace_context=run.trace_context,
    )


async def test_a_leased_starts_events_carry_its_token(harness: Harness, journal: Journal) -> None:
    start = a_start(None, scheduled())
    await land(journal, start)
    rows = await harness.events(start.run_id)
    assert [(row.generation, row.token, row.event) for row in rows] == [(1, 1, event) for event in start.events]


async def test_a_leased_start_may_be_parked_at_once(harness: Harness, journal: Journal) -> None:
    wake_at = await later(journal, 60.0)
    start = a_start(None, state=RunState.SUSPENDED, wake_at=wake_at)
    await land(journal, start)
    row = await harness.run_row(start.run_id)
    assert (row.state, row.wake_at, row.lease_owner) == (RunState.SUSPENDED, wake_at, OWNER)


async def test_nobody_can_claim_a_run_between_its_start_and_its_lease(journal: Journal) -> None:
    await started_run(journal)
    assert await claim(journal, OTHER) == []


async def test_an_unleased_start_is_pending_and_due_now(harness: Harness, journal: Journal) -> None:
    start = an_unleased_start()
    await land(journal, start)
    row = await harness.run_row(start.run_id)
    assert (row.state, row.lease_owner, row.lease_token, row.last_seq) == (RunState.PENDING, None, 0, 1)
    assert is_about(row.wake_at, await journal.now())
    assert [stored.token for stored in await harness.events(start.run_id)] == [0]
    assert await claim(journal) == [start.run_id]


async def test_an_unleased_start_waits_until_it_is_due(harness: Harness, journal: Journal) -> None:
    start = an_unleased_start(wake_at=await later(journal, 600.0))
    await land(journal, start)
    assert await claim(journal) == []
    await harness.age(601.0)
    assert await claim(journal) == [start.run_id]


@pytest.mark.parametrize("state", list(ENDINGS))
async def test_a_start_whose_first_turn_ends_it_is_not_leased(
    harness: Harness, journal: Journal, state: RunState
) -> None:
    start = a_start(None, ENDINGS[state](), state=state)
    await land(journal, start)
    row = await harness.run_row(start.run_id)
    assert (row.state, row.lease_owner, row.wake_at, row.last_seq) == (state, None, None, 2)
    assert is_about(row.ended_at, await journal.now())
    assert is_about(row.retention_until, await later(journal, 60.0))


async def test_a_starts_tasks_are_leased_or_free(harness: Harness, journal: Journal) -> None:
    tasks = (a_task(1, seq=2, leased=True), a_task(2, seq=3, leased=False))
    start = a_start(None, scheduled(1), scheduled(2), tasks=tasks)
    await land(journal, start)
    rows = await harness.tasks(start.run_id)
    assert [(row.key, row.lease_owner, row.attempt) for row in rows] == [
        (TaskKey(start.run_id, 1, 1), OWNER, 1),
        (TaskKey(start.run_id, 1, 2), None, 1),
    ]


async def test_an_existing_run_id_is_refused_and_changes_nothing(harness: Harness, journal: Journal) -> None:
    lease = await started_run(journal)
    before = await harness.dump()
    again = a_start(a_run(lease.run_id), scheduled(), owner=OTHER, tasks=(a_task(),), chosen=True)
    assert await write(journal, again) == REFUSED
    assert await harness.dump() == before


async def test_the_id_of_an_ended_run_is_refused_too(harness: Harness, journal: Journal) -> None:
    start = a_start(None, ENDINGS[RunState.COMPLETED](), state=RunState.COMPLETED)
    await land(journal, start)
    before = await harness.dump()
    assert await write(journal, a_start(a_run(start.run_id), chosen=True)) == REFUSED
    assert await harness.dump() == before


async def test_a_second_start_with_a_key_is_refused_and_changes_nothing(harness: Harness, journal: Journal) -> None:
    first = a_run(key="order-1")
    await land(journal, a_start(first))
    before = await harness.dump()
    second = a_start(a_run(key="order-1"), scheduled(), owner=OTHER, tasks=(a_task(),))
    assert await write(journal, second) == REFUSED
    assert await harness.dump() == before
    winner = await journal.run_by_key("default", first.workflow, "order-1")
    assert winner is not None
    assert (winner.run_id, winner.fingerprint) == (first.run_id, first.fingerprint)


async def test_a_key_counts_per_namespace_and_workflow(journal: Journal) -> None:
    await land(journal, a_start(a_run(key="order-1")))
    await land(journal, a_start(a_run(key="order-1", namespace="eu")))
    await land(journal, a_start(a_run(key="order-1", workflow="orders.refund")))
    assert await write(journal, a_start(a_run(key="order-1", version=2))) == REFUSED


async def test_runs_without_a_key_never_collide(journal: Journal) -> None:
    assert await journal.write(0, [a_start(), a_start(), an_unleased_start()]) == [LANDED, LANDED, LANDED]


async def test_two_starts_with_one_key_in_one_batch_make_one_run(harness: Harness, journal: Journal) -> None:
    starts = [a_start(a_run(key="order-1"), scheduled(), tasks=(a_task(),)) for _ in range(2)]
    verdicts = await journal.write(1, starts)
    assert sorted(map(str, verdicts)) == sorted(map(str, [LANDED, REFUSED]))
    winner = await journal.run_by_key("default", starts[0].run.workflow, "order-1")
    assert winner is not None
    assert winner.run_id == starts[list(verdicts).index(LANDED)].run_id
    loser = starts[list(verdicts).index(REFUSED)].run_id
    assert (await journal.run(loser), await harness.events(loser), await harness.tasks(loser)) == (None, [], [])


async def test_a_refused_start_does_not_disturb_its_neighbours(journal: Journal) -> None:
    await land(journal, a_start(a_run(key="b")))
    batch = [a_start(a_run(key=key)) for key in ("a", "b", "c")]
    assert await journal.write(1, batch) == [LANDED, REFUSED, LANDED]


async def test_a_hundred_starts_in_one_batch_all_stand(harness: Harness, journal: Journal) -> None:
    batch = [a_start(None, scheduled(), tasks=(a_task(),)) for _ in range(100)]
    assert await journal.write(0, batch) == [LANDED] * 100
    loaded = await journal.load_runs([start.run_id for start in batch])
    assert {run.row.run_id: run.history for run in loaded} == {start.run_id: start.events for start in batch}
    assert len(await harness.tasks()) == 100


async def test_many_starts_are_made_together(harness: Harness, journal: Journal) -> None:
    starts = tuple(an_unleased_start() for _ in range(20))
    assert await write(journal, StartMany(starts)) == LANDED
    assert sorted(await claim(journal)) == sorted(start.run_id for start in starts)
    assert [row.event for row in await harness.events(starts[7].run_id)] == list(starts[7].events)


@pytest.mark.parametrize("reason", ["run id", "key", "bad data"])
async def test_of_many_starts_all_are_made_or_none(harness: Harness, journal: Journal, reason: str) -> None:
    await land(journal, a_start(first := a_run(key="order-1")))
    before = await harness.dump()
    bad = {
        "run id": an_unleased_start(a_run(first.run_id)),
        "key": an_unleased_start(a_run(key="order-1")),
        "bad data": replace(an_unleased_start(), events=(replace(an_event(EventType.TIMER_FIRED), seq=1),)),
    }[reason]
    many = StartMany((an_unleased_start(), bad, an_unleased_start()))
    if reason == "bad data":
        with pytest.raises(BadData):
            await write(journal, many)
    else:
        assert await write(journal, many) == REFUSED
    assert await harness.dump() == before


async def test_what_a_caller_does_to_its_attributes_later_is_its_own_affair(journal: Journal) -> None:
    attributes = {"customer": "c1", "tags": ["new"]}
    run = a_run(attributes=attributes)
    await land(journal, a_start(run))
    attributes["customer"] = "c2"
    attributes["tags"].append("vip")  # type: ignore[attr-defined]
    row = await journal.run(run.run_id)
    assert row is not None
    assert row.attributes == {"customer": "c1", "tags": ["new"]}
    row.attributes["customer"] = "c3"  # type: ignore[index]
    again = await journal.run(run.run_id)
    assert again is not None
    assert again.attributes == {"customer": "c1", "tags": ["new"]}


async def test_a_starts_payload_comes_back_byte_for_byte(journal: Journal) -> None:
    payload = bytes(range(256)) * 512 + "…ü🎈".encode()
    start = replace(a_start(), events=(replace(started(payload), seq=1),))
    await land(journal, start)
    (event,) = await journal.history(start.run_id)
    assert event.payload == payload
