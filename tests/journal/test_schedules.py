"""Schedules: fenced by their revision, found when they are due, moved on together with the runs that they start."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from sqlalchemy import text

from continuum.ids import uuid7
from continuum.journal.port import BadData, DueSchedules, Firing, Journal
from continuum.model.schedules import Definition, Overlap, Progress, ScheduleRow, ScheduleState
from continuum.model.states import RunState
from continuum.model.timing import Cron, Every, Once
from tests.journal.backends import Harness
from tests.journal.builders import WORKFLOW, a_run, an_unleased_start
from tests.journal.sql import SqlHarness
from tests.journal.steps import later, run_in, started_run

GRACE = 5.0


def a_definition(schedule_id: str = "nightly", **options: object) -> Definition:
    known = {"workflow": WORKFLOW, "timing": Cron("0 8 * * MON-FRI", "Europe/Berlin"), "input": b'{"n":1}'}
    return Definition(schedule_id=schedule_id, **{**known, **options})  # type: ignore[arg-type]


async def due_in(journal: Journal, seconds: float, **progress: object) -> Progress:
    at = await later(journal, seconds)
    return Progress(**{"next_at": at, "wake_at": at, **progress})  # type: ignore[arg-type]


async def defined(
    journal: Journal,
    schedule_id: str = "nightly",
    *,
    seconds: float = 0.0,
    workflow: str = WORKFLOW,
    **progress: object,
) -> ScheduleRow:
    """Make a schedule that is due in so many seconds."""
    definition = a_definition(schedule_id, workflow=workflow)
    assert await journal.define_schedule(definition, await due_in(journal, seconds), revision=None)
    if progress:
        (landed,) = await journal.fire([Firing(schedule_id, 1, await due_in(journal, seconds, **progress))])
        assert landed
    return await read(journal, schedule_id)


async def read(journal: Journal, schedule_id: str = "nightly") -> ScheduleRow:
    row = await journal.schedule(schedule_id)
    assert row is not None
    return row


async def due(journal: Journal, *, workflow: str = WORKFLOW, limit: int = 10) -> DueSchedules:
    return await journal.due_schedules(workflows=[workflow], grace_seconds=GRACE, limit=limit)


async def due_ids(journal: Journal, *, workflow: str = WORKFLOW, limit: int = 10) -> list[str]:
    return [row.definition.schedule_id for row in (await due(journal, workflow=workflow, limit=limit)).rows]


# --- defining ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "definition",
    [
        a_definition(),
        a_definition(timing=Every(90_000_000, datetime(2026, 1, 1, tzinfo=UTC)), overlap=Overlap.BUFFER_ONE),
        a_definition(timing=Once(datetime(2027, 1, 1, 12, 30, 0, 123_456, tzinfo=UTC)), namespace="eu"),
        a_definition(catch_up_seconds=0.125, attributes={"team": {"name": "ä"}, "n": [1, None]}, input=b"\x00\xff"),
    ],
)
async def test_a_schedule_is_read_as_it_was_defined(journal: Journal, definition: Definition) -> None:
    progress = await due_in(journal, 60.0)
    assert await journal.define_schedule(definition, progress, revision=None)
    row = await read(journal)
    assert (row.definition, row.progress, row.revision, row.last_state) == (definition, progress, 1, None)


async def test_a_schedule_that_is_there_is_not_inserted_again(journal: Journal) -> None:
    row = await defined(journal)
    assert not await journal.define_schedule(a_definition(input=b"{}"), Progress(), revision=None)
    assert await read(journal) == row


async def test_a_definition_changes_behind_the_revision_that_was_seen(journal: Journal) -> None:
    row = await defined(journal)
    new = a_definition(timing=Every(60_000_000), overlap=Overlap.ALLOW, attributes={"a": 1}, workflow="other")
    progress = await due_in(journal, 60.0, attempts=2, reason="was")
    assert not await journal.define_schedule(new, progress, revision=row.revision + 1)
    assert await read(journal) == row
    assert await journal.define_schedule(new, progress, revision=row.revision)
    assert await read(journal) == ScheduleRow(new, progress, row.revision + 1, row.created_at)


async def test_what_is_not_there_can_be_neither_changed_nor_deleted(journal: Journal) -> None:
    assert await journal.schedule("nightly") is None
    assert not await journal.define_schedule(a_definition(), Progress(), revision=1)
    assert not await journal.delete_schedule("nightly")
    assert list(await journal.fire([Firing("nightly", 1, Progress())])) == [False]


async def test_a_deleted_schedule_is_gone_and_its_runs_are_not(journal: Journal) -> None:
    row = await defined(journal)
    start = an_unleased_start(chosen=True)
    await journal.fire([Firing("nightly", row.revision, row.progress, (start,))])
    assert await journal.delete_schedule("nightly")
    assert await journal.schedule("nightly") is None
    assert await journal.run(start.run_id) is not None


async def test_schedules_are_listed_by_id_in_pages_and_by_state(journal: Journal) -> None:
    for schedule_id in ("c", "a", "b"):
        await defined(journal, schedule_id, seconds=60.0)
    row = await read(journal, "b")
    await journal.fire([Firing("b", row.revision, replace(row.progress, state=ScheduleState.PAUSED))])

    async def ids(state: ScheduleState | None, limit: int, after: str | None) -> list[str]:
        rows = await journal.list_schedules(state=state, limit=limit, after=after)
        return [row.definition.schedule_id for row in rows]

    assert await ids(None, 2, None) == ["a", "b"]
    assert await ids(None, 2, "b") == ["c"]
    assert await ids(ScheduleState.ACTIVE, 10, None) == ["a", "c"]
    assert await ids(ScheduleState.PAUSED, 10, "a") == ["b"]


# --- finding what is due ----------------------------------------------------------------------------------------------


async def test_a_schedule_is_due_when_its_time_has_come(harness: Harness, journal: Journal) -> None:
    row = await defined(journal, seconds=60.0)
    before = await due(journal)
    assert (before.rows, before.upcoming, (await journal.evidence()).schedules) == ((), row.progress.wake_at, False)
    await harness.age(61.0)
    after = await due(journal)
    assert [found.definition for found in after.rows] == [row.definition]
    assert (after.upcoming, (await journal.evidence()).schedules) == (None, True)
    assert abs(after.now - await journal.now()) < timedelta(seconds=10)


@pytest.mark.parametrize("state", [ScheduleState.PAUSED, ScheduleState.FAILED, ScheduleState.ENDED])
async def test_only_active_schedules_are_ever_due(journal: Journal, state: ScheduleState) -> None:
    await defined(journal, seconds=-60.0, state=state)
    found = await due(journal)
    assert (found.rows, found.upcoming, (await journal.evidence()).schedules) == ((), None, False)


async def test_what_rests_until_it_is_called_is_not_due(journal: Journal) -> None:
    await defined(journal, seconds=-60.0, wake_at=None)
    found = await due(journal)
    assert (found.rows, found.upcoming, (await journal.evidence()).schedules) == ((), None, False)


async def test_the_longest_due_come_first(journal: Journal) -> None:
    for schedule_id, seconds in (("a", -10.0), ("b", -30.0), ("c", -20.0), ("d", 60.0)):
        await defined(journal, schedule_id, seconds=seconds)
    assert await due_ids(journal, limit=2) == ["b", "c"]
    assert await due_ids(journal) == ["b", "c", "a"]


async def test_schedules_of_unknown_workflows_are_left_to_others_for_a_while(
    harness: Harness, journal: Journal
) -> None:
    row = await defined(journal, seconds=-1.0)
    found = await due(journal, workflow="another")
    assert row.progress.wake_at is not None
    assert (found.rows, found.upcoming) == ((), row.progress.wake_at + timedelta(seconds=GRACE))
    assert (await journal.evidence()).schedules
    await harness.age(GRACE)
    assert await due_ids(journal, workflow="another") == ["nightly"]


async def test_the_next_time_is_that_of_the_earliest_schedule(journal: Journal) -> None:
    await defined(journal, "soon", seconds=60.0)
    await defined(journal, "sooner", seconds=57.0, workflow="another")
    soon, sooner = await read(journal, "soon"), await read(journal, "sooner")
    assert (await due(journal)).upcoming == soon.progress.wake_at
    assert (await due(journal, workflow="another")).upcoming == sooner.progress.wake_at


@pytest.mark.parametrize("state", RunState)
async def test_a_schedule_knows_how_its_last_run_stands(journal: Journal, state: RunState) -> None:
    run_id = await run_in(journal, state)
    await defined(journal, seconds=-1.0, last_run_id=run_id)
    (found,) = (await due(journal)).rows
    assert (found.last_state, (await read(journal)).last_state) == (state, state)


@pytest.mark.parametrize("state", RunState)
async def test_a_put_off_run_is_due_when_the_last_one_has_ended(journal: Journal, state: RunState) -> None:
    run_id = await run_in(journal, state)
    await defined(journal, seconds=3600.0, last_run_id=run_id, buffered_at=await later(journal, -1.0))
    assert await due_ids(journal) == (["nightly"] if state.has_ended else [])
    assert (await journal.evidence()).schedules == state.has_ended
    assert await due_ids(journal, workflow="another") == []


async def test_a_put_off_run_whose_start_failed_waits_for_its_next_attempt(journal: Journal) -> None:
    at = await later(journal, -1.0)
    await defined(journal, seconds=3600.0, buffered_at=at, attempts=1)
    assert (await due_ids(journal), (await journal.evidence()).schedules) == ([], False)


# --- firing -----------------------------------------------------------------------------------------------------------


async def test_a_schedule_moves_on_together_with_its_runs(journal: Journal) -> None:
    row = await defined(journal)
    starts = tuple(an_unleased_start(a_run(attributes={"continuum.schedule": "nightly"}), chosen=True) for _ in "ab")
    progress = await due_in(
        journal,
        3600.0,
        last_at=row.progress.next_at,
        last_run_id=starts[1].run_id,
        buffered_at=row.progress.next_at,
        attempts=1,
        reason='"no code", \\ it said',
        fired=2,
        skipped=3,
        missed=4,
    )
    assert list(await journal.fire([Firing("nightly", row.revision, progress, starts)])) == [True]
    moved = await read(journal)
    assert (moved.progress, moved.revision, moved.last_state) == (progress, row.revision + 1, RunState.PENDING)
    for start in starts:
        run = await journal.run(start.run_id)
        assert run is not None
        assert (run.state, run.lease_owner, run.attributes) == (RunState.PENDING, None, start.run.attributes)
        assert list(await journal.history(start.run_id)) == list(start.events)


async def test_who_is_refused_starts_nothing_and_holds_nobody_up(journal: Journal) -> None:
    first, second = await defined(journal, "first"), await defined(journal, "second")
    fired, refused = an_unleased_start(chosen=True), an_unleased_start(chosen=True)
    progress = await due_in(journal, 3600.0)
    landed = await journal.fire(
        [
            Firing("second", second.revision - 1, progress, (refused,)),
            Firing("first", first.revision, progress, (fired,)),
        ]
    )
    assert list(landed) == [False, True]
    assert (await journal.run(refused.run_id), await read(journal, "second")) == (None, second)
    assert await journal.run(fired.run_id) is not None


async def test_a_run_that_exists_is_left_as_it_is_and_the_schedule_moves_on(harness: Harness, journal: Journal) -> None:
    row, lease = await defined(journal), await started_run(journal)
    before = await harness.run_row(lease.run_id)
    start = an_unleased_start(a_run(lease.run_id, attributes={"a": 1}), chosen=True)
    assert list(await journal.fire([Firing("nightly", row.revision, row.progress, (start,))])) == [True]
    assert await harness.run_row(lease.run_id) == before
    assert len(await harness.events(lease.run_id)) == 1


async def test_a_run_that_no_database_takes_undoes_its_batch(journal: Journal) -> None:
    good, bad = await defined(journal, "good"), await defined(journal, "bad")
    fine = an_unleased_start(chosen=True)
    broken = replace(fine, run=a_run(), events=(replace(fine.events[0], seq=7),))
    with pytest.raises(BadData):
        await journal.fire(
            [
                Firing("good", good.revision, good.progress, (fine,)),
                Firing("bad", bad.revision, bad.progress, (broken,)),
            ]
        )
    assert (await read(journal, "good"), await read(journal, "bad")) == (good, bad)
    assert await journal.run(fine.run_id) is None


async def test_of_many_nodes_that_fire_at_once_one_succeeds(harness: Harness, journal: Journal) -> None:
    row = await defined(journal)
    nodes = [journal, *[await harness.another() for _ in range(3)]]
    progress = await due_in(journal, 3600.0)
    starts = [an_unleased_start(a_run(uuid7()), chosen=True) for _ in nodes]
    verdicts = await asyncio.gather(
        *(
            node.fire([Firing("nightly", row.revision, progress, (start,))])
            for node, start in zip(nodes, starts, strict=True)
        )
    )
    assert sorted(landed for (landed,) in verdicts) == [False, False, False, True]
    exists = [await journal.run(start.run_id) is not None for start in starts]
    assert exists == [landed for (landed,) in verdicts]
    for node in nodes[1:]:
        await node.close()


async def test_a_fired_run_is_claimed_like_any_other(journal: Journal) -> None:
    row = await defined(journal)
    start = an_unleased_start(chosen=True)
    await journal.fire([Firing("nightly", row.revision, row.progress, (start,))])
    assert (await journal.evidence()).runs


async def test_what_another_node_moves_on_at_this_moment_is_passed_over(harness: Harness, journal: Journal) -> None:
    await defined(journal, "held", seconds=-2.0)
    await defined(journal, "free", seconds=-1.0)
    if not isinstance(harness, SqlHarness) or not harness.is_postgres:
        assert await due_ids(journal) == ["held", "free"]  # there, nothing happens at the same moment
        return
    async with harness.engine.begin() as elsewhere:
        await elsewhere.execute(text("UPDATE continuum_schedules SET revision = revision + 1 WHERE id = 'held'"))
        assert await due_ids(journal) == ["free"]
    assert await due_ids(journal) == ["held", "free"]
