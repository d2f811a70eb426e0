"""How much there is, as dashboards show it."""

from datetime import timedelta

from msgspec.structs import replace

from continuum.journal.port import Journal
from continuum.model.census import Census, QueueDepth, RunCount
from continuum.model.states import RunState
from continuum.model.writes import RetryTask
from tests.journal.backends import Harness
from tests.journal.builders import (
    ACTIVITY,
    OTHER,
    a_block,
    a_commit,
    a_run,
    a_start,
    a_task,
    an_ending,
    an_unleased_start,
    scheduled,
)
from tests.journal.steps import land, started_run


async def test_nothing_is_counted_in_an_empty_journal(journal: Journal) -> None:
    assert await journal.census(limit=10) == Census()


async def test_open_runs_are_counted_by_state_and_by_what_they_wait_for(harness: Harness, journal: Journal) -> None:
    now = await journal.now()
    await land(journal, a_start(a_run()))
    await land(journal, an_unleased_start(a_run()))
    await land(journal, an_unleased_start(a_run()))
    for wake_at in (None, now + timedelta(hours=1), now + timedelta(hours=2)):
        await land(journal, replace(a_start(a_run()), state=RunState.SUSPENDED, wake_at=wake_at))
    await land(journal, a_block(await started_run(journal)))
    await land(journal, an_ending(await started_run(journal)))

    counted = (await journal.census(limit=100)).runs
    assert counted == (
        RunCount(RunState.BLOCKED, "", 1),
        RunCount(RunState.PENDING, "", 2),
        RunCount(RunState.RUNNING, "", 1),
        RunCount(RunState.SUSPENDED, "message", 1),
        RunCount(RunState.SUSPENDED, "timer", 2),
    )
    bounded = (await journal.census(limit=2)).runs
    assert sum(one.runs for one in bounded if one.state is not RunState.BLOCKED) == 2, "no more is looked at"
    assert RunCount(RunState.BLOCKED, "", 1) in bounded, "blocked runs are not lost among the others"


async def test_free_tasks_are_counted_by_queue_with_the_age_of_the_oldest(harness: Harness, journal: Journal) -> None:
    for age in (30.0, 10.0):
        lease = await started_run(journal)
        task = a_task(1, seq=lease.base_seq + 1, queue="gpu")
        await land(journal, a_commit(lease, scheduled(1), tasks=(task,)))
        await harness.age(age)
    lease = await started_run(journal)
    taken = a_task(1, seq=lease.base_seq + 1, queue="mail", leased=True)
    await land(journal, a_commit(lease, scheduled(1), tasks=(taken,)))

    (gpu,) = (await journal.census(limit=100)).queues
    assert (gpu.queue, gpu.due, gpu.delayed) == ("gpu", 2, 0), "what is leased does not wait"
    assert 40 <= gpu.oldest_age_seconds < 70

    (one,) = await journal.claim_tasks(OTHER, activities=[ACTIVITY], slots={"gpu": 1}, default_slots=0)
    await land(journal, RetryTask(one.attempt, 600.0))
    (gpu,) = (await journal.census(limit=100)).queues
    assert gpu == QueueDepth("gpu", 1, 1, gpu.oldest_age_seconds), "a retry that waits for its time is not due"
