"""Which code open runs need, and who carries it."""

import pytest
from msgspec.structs import replace

from continuum.journal.port import Journal
from continuum.model.events import Event, EventType
from continuum.model.states import RunState
from continuum.model.versions import Carrier, OpenRun, OpenRuns, PatchMarks
from continuum.model.writes import Landed, NextGeneration, Write
from tests.journal.backends import Harness
from tests.journal.builders import (
    MINE,
    OTHER,
    OWNER,
    TTL,
    WORKFLOW,
    Lease,
    a_block,
    a_commit,
    a_run,
    a_start,
    an_ending,
    an_event,
    an_owner,
    an_unleased_start,
    numbered,
    started,
)
from tests.journal.steps import claim, later, sweep, write

A, B = (WORKFLOW, 1), (WORKFLOW, 2)


def patch(name: str) -> Event:
    return an_event(EventType.PATCHED, name=name)


async def landed(journal: Journal, *writes: Write) -> None:
    for one in writes:
        assert await write(journal, one) == Landed()


async def a_blocked_run(journal: Journal, *, version: int = 1) -> str:
    run = a_run(version=version)
    await landed(journal, a_start(run))
    await landed(journal, a_block(Lease(run.run_id)))
    return run.run_id


async def crash(journal: Journal, run_id: str) -> None:
    """Let the process die that runs a blocked run, until the sweep blocks it."""
    for number in range(5):
        owner = an_owner(f"dying/continuum/boot/{number}")
        await journal.register(owner, ttl_seconds=TTL)
        await claim(journal, owner.owner)
        await journal.retire(owner.owner)
        await sweep(journal)


async def test_a_node_is_known_by_what_it_carries_and_what_it_carries_later(journal: Journal) -> None:
    await journal.carry(OWNER, workflows=[A, B])
    await journal.carry(OTHER, workflows=[A])
    assert await journal.carriers() == [
        Carrier(WORKFLOW, 1, "node-1", OWNER),
        Carrier(WORKFLOW, 1, "node-2", OTHER),
        Carrier(WORKFLOW, 2, "node-1", OWNER),
    ]
    await journal.carry(OWNER, workflows=[B])
    assert await journal.carriers() == [Carrier(WORKFLOW, 1, "node-2", OTHER), Carrier(WORKFLOW, 2, "node-1", OWNER)]
    await journal.carry(OTHER, workflows=[])
    assert await journal.carriers() == [Carrier(WORKFLOW, 2, "node-1", OWNER)]


async def test_a_node_that_is_gone_or_silent_carries_nothing(harness: Harness, journal: Journal) -> None:
    await journal.carry(OWNER, workflows=[A])
    await journal.carry(OTHER, workflows=[A])
    await journal.retire(OWNER)
    assert await journal.carriers() == [Carrier(WORKFLOW, 1, "node-2", OTHER)]
    await harness.age(TTL + 1)
    assert await journal.carriers() == []
    await journal.renew(OTHER, ttl_seconds=TTL)
    assert await journal.carriers() == [Carrier(WORKFLOW, 1, "node-2", OTHER)]


async def test_who_has_no_owner_row_cannot_say_what_it_carries(journal: Journal) -> None:
    await journal.carry("node-9/continuum/boot-9/1", workflows=[A])
    assert await journal.carriers() == []


async def test_what_the_dead_carried_is_forgotten_when_anybody_comes(journal: Journal) -> None:
    await journal.carry(OWNER, workflows=[A, B])
    await journal.retire(OWNER)
    await journal.carry(OTHER, workflows=[A])
    await journal.register(an_owner(OWNER), ttl_seconds=TTL)  # no id comes back; one that did would carry nothing
    assert await journal.carriers() == [Carrier(WORKFLOW, 1, "node-2", OTHER)]


async def test_open_runs_are_counted_by_version_and_state_and_ended_ones_are_not(journal: Journal) -> None:
    running, ended = a_run(), a_run()
    await landed(journal, a_start(running), a_start(ended), an_unleased_start(a_run(version=2)))
    await landed(journal, an_ending(Lease(ended.run_id)))
    await a_blocked_run(journal)
    assert await journal.open_counts() == [
        OpenRuns(WORKFLOW, 1, RunState.BLOCKED, 1),
        OpenRuns(WORKFLOW, 1, RunState.RUNNING, 1),
        OpenRuns(WORKFLOW, 2, RunState.PENDING, 1),
    ]


async def test_patches_are_counted_where_open_runs_take_them(journal: Journal) -> None:
    runs = [a_run(), a_run(), a_run(version=2), a_run()]
    await landed(journal, *(a_start(run, patch("new refund"), patch("twice")) for run in runs[:2]))
    await landed(journal, a_start(runs[2], patch("new refund")), a_start(runs[3]))
    await landed(journal, an_ending(Lease(runs[1].run_id, base_seq=3)))
    assert await journal.patch_marks() == [
        PatchMarks(WORKFLOW, 1, "new refund", 1),
        PatchMarks(WORKFLOW, 1, "twice", 1),
        PatchMarks(WORKFLOW, 2, "new refund", 1),
    ]


async def test_a_patch_of_an_earlier_generation_counts_no_more(journal: Journal) -> None:
    run = a_run()
    await landed(journal, a_start(run, patch("new refund")))
    goes_on = a_commit(Lease(run.run_id, base_seq=2), an_event(EventType.CONTINUED, payload=b"{}"))
    await landed(journal, replace(goes_on, continues=NextGeneration(2, numbered((started(),), 0))))
    assert await journal.patch_marks() == []
    assert await journal.open_counts() == [OpenRuns(WORKFLOW, 2, RunState.RUNNING, 1)]


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_open_runs_are_listed_page_by_page_newest_first(journal: Journal, limit: int) -> None:
    runs = [a_run(version=1 + number % 2) for number in range(5)]
    ended, other = a_run(), a_run(workflow="other")
    await landed(journal, *(a_start(run) for run in (*runs, ended, other)))
    await landed(journal, an_ending(Lease(ended.run_id)))
    seen: list[OpenRun] = []
    before = None
    while page := await journal.open_runs(workflow=WORKFLOW, limit=limit, before=before):
        assert len(page) <= limit
        seen += page
        before = page[-1].created_at, page[-1].run_id
    assert [(run.created_at, run.run_id) for run in seen] == sorted(
        ((run.created_at, run.run_id) for run in seen), reverse=True
    )
    assert {(run.run_id, run.workflow, run.version, run.last_seq) for run in seen} == {
        (run.run_id, WORKFLOW, run.version, 1) for run in runs
    }
    assert len(await journal.open_runs(workflow=None, limit=10, before=None)) == 6


# P16
async def test_blocked_runs_of_these_versions_are_due_at_once_and_others_wait(journal: Journal) -> None:
    mine, foreign = await a_blocked_run(journal), await a_blocked_run(journal, version=2)
    assert await claim(journal, OTHER) == []
    assert await journal.retry_blocked(workflows=MINE, crashes_max=5, limit=10) == [mine]
    assert await journal.retry_blocked(workflows=MINE, crashes_max=5, limit=10) == []
    assert await claim(journal, OTHER, workflows=(A, B)) == [mine]
    assert await journal.retry_blocked(workflows=(A, B), crashes_max=5, limit=10) == [foreign]


async def test_blocked_runs_are_retried_a_page_at_a_time(journal: Journal) -> None:
    blocked = {await a_blocked_run(journal) for _ in range(3)}
    first = await journal.retry_blocked(workflows=MINE, crashes_max=5, limit=2)
    second = await journal.retry_blocked(workflows=MINE, crashes_max=5, limit=2)
    assert (len(first), len(second), {*first, *second}) == (2, 1, blocked)


# P128
async def test_a_run_that_kills_its_processes_waits_whoever_comes(harness: Harness, journal: Journal) -> None:
    run_id = await a_blocked_run(journal)
    await harness.age(61)
    await crash(journal, run_id)
    row = await harness.run_row(run_id)
    assert (row.state, row.crashes) == (RunState.BLOCKED, 5)
    assert await journal.retry_blocked(workflows=MINE, crashes_max=5, limit=10) == []


async def test_a_run_that_waits_for_something_else_is_left_alone(harness: Harness, journal: Journal) -> None:
    run = a_run()
    await landed(journal, an_unleased_start(run, wake_at=await later(journal, 3_600)))
    before = await harness.dump()
    assert await journal.retry_blocked(workflows=MINE, crashes_max=5, limit=10) == []
    assert await harness.dump() == before


async def test_a_look_claims_nothing_and_says_whose_tables_these_are(harness: Harness) -> None:
    looking = await harness.another()
    assert await looking.look() == "continuum"
    await looking.close()
