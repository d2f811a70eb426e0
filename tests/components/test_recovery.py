"""Sweeps and audits, pass by pass; claims whose answers were lost."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

import continuum
from continuum import activity, telemetry, workflow
from continuum.journal.port import Ambiguous
from continuum.runtime.recovery import CRASHES_MAX, Recovery
from tests.support.hosting import wiring_of
from tests.support.stage import TTL, Stage, settled


@workflow
async def waits() -> int:
    return await continuum.wait_signal("go", int)


@activity(timeout=None)
async def works() -> int:
    await asyncio.Event().wait()
    return 1


@workflow
async def working() -> int:
    return await works()


@workflow
async def double(n: int) -> int:
    return 2 * n


async def test_what_an_owner_without_a_row_holds_is_freed_and_its_token_moves_on(stage: Stage) -> None:
    first, second = await stage.still(), await stage.still()
    run = await first.instance.start(waits)
    await first.parts.journal.retire(first.owner)
    await second.once("recovery")
    row = stage.store.runs[run.run_id]
    assert (row.lease_owner, row.lease_token, row.crashes, row.state) == (None, 2, 0, "suspended")


# P17
async def test_leases_of_the_living_are_left_alone(stage: Stage) -> None:
    first, second = await stage.still(), await stage.still()
    run = await first.instance.start(waits)
    for _ in range(3):
        await second.once("recovery")
    assert stage.store.runs[run.run_id].lease_owner == first.owner


async def test_the_dead_are_buried_only_by_who_is_sure_of_its_own_clock(stage: Stage) -> None:
    first, second = await stage.still(), await stage.still()
    await stage.move(TTL + 1)  # both were silent
    await second.once("recovery")
    assert set(stage.store.owners) == {first.owner, second.owner}
    for _ in range(3):
        await second.once("heartbeater")
        await stage.move(TTL / 3)
    await second.once("recovery")
    assert set(stage.store.owners) == {second.owner}


# P127, P128
async def test_a_run_that_takes_its_process_down_again_and_again_is_left_alone(stage: Stage) -> None:
    last = await stage.still()
    parked = await last.instance.start(working)
    for crashes in range(1, CRASHES_MAX + 1):
        victim = await stage.still()
        row = stage.store.runs[parked.run_id]
        stage.store.put_run(_held_by(row, victim.owner))
        await victim.parts.journal.retire(victim.owner)
        await last.once("recovery")
        assert stage.store.runs[parked.run_id].crashes == crashes
    row = stage.store.runs[parked.run_id]
    assert row.state == "blocked"
    assert row.wake_at is not None
    assert row.wake_at > stage.clock.now()


def _held_by(row: Any, owner: str) -> Any:
    return replace(row, lease_owner=owner, lease_token=row.lease_token + 1, state=continuum.RunState.RUNNING)


async def test_an_audit_gives_back_what_is_ours_and_unknown_to_us_when_seen_twice(stage: Stage) -> None:
    node = await stage.still()
    recovery: Any = node.parts.components["recovery"]
    run = await node.instance.start(waits)
    execution = node.parts.registry.get(run.run_id)
    assert execution is not None
    await recovery.audit()
    node.parts.registry.remove(run.run_id, execution)  # forgotten, but the lease is kept
    await recovery.audit()
    assert stage.store.runs[run.run_id].lease_owner == node.owner  # it might just be on its way
    await recovery.audit()
    row = stage.store.runs[run.run_id]
    assert (row.lease_owner, row.state) == (None, "running")


async def test_what_is_known_is_never_audited_away(stage: Stage) -> None:
    node = await stage.still()
    recovery: Any = node.parts.components["recovery"]
    run = await node.instance.start(working)
    await settled()
    for _ in range(4):
        await recovery.audit()
        await settled()
    assert stage.store.runs[run.run_id].lease_owner == node.owner
    assert node.parts.attempts.running == 1


# P5
@pytest.mark.parametrize("where", ["claim_runs", "load_runs"])
async def test_a_claim_whose_answer_was_lost_is_found_by_the_next_passes(stage: Stage, where: str) -> None:
    client, node = await stage.still(client_only=True), await stage.still()
    run = await client.instance.start(double, 2)
    journal: Any = node.parts.journal
    really = getattr(journal, where)

    async def lost(*args: Any, **kwargs: Any) -> Any:
        await really(*args, **kwargs)
        raise Ambiguous("the answer was lost")

    setattr(journal, where, lost)
    with pytest.raises(Ambiguous):
        await node.once("dispatcher")
    setattr(journal, where, really)
    assert stage.store.runs[run.run_id].lease_owner == node.owner
    assert not node.holds(run.run_id)
    for _ in range(2):
        await node.once("recovery")
    await node.once("dispatcher")
    assert await run.result() == 4


# P70
async def test_a_task_claim_whose_answer_was_lost_is_found_too(stage: Stage) -> None:
    host, worker = await stage.still(activity_supervisor=False), await stage.still()
    run = await host.instance.start(working)
    journal: Any = worker.parts.journal
    really = journal.claim_tasks

    async def lost(*args: Any, **kwargs: Any) -> Any:
        await really(*args, **kwargs)
        raise Ambiguous("the answer was lost")

    journal.claim_tasks = lost
    with pytest.raises(Ambiguous):
        await worker.once("activity_dispatcher")
    journal.claim_tasks = really
    for _ in range(2):
        await worker.once("recovery")
    await worker.once("activity_dispatcher")
    assert worker.parts.attempts.running == 1
    (task,) = stage.store.tasks[run.run_id].values()
    assert task.attempt == 1  # nothing was tried, nothing was consumed


async def test_what_was_done_is_told(stage: Stage) -> None:
    heard: list[telemetry.TelemetryEvent] = []
    first, second = await stage.still(), await stage.still()
    await first.instance.start(working)
    await first.instance.start(waits)
    await settled()
    await first.parts.journal.retire(first.owner)
    telemetry.attach(heard.append, ["recovery.swept"])
    await second.once("recovery")
    await second.once("recovery")
    telemetry.detach(heard.append)
    (event,) = heard
    assert event.measurements == {"runs": 2, "tasks": 1, "exhausted": 0, "blocked": 0}
    assert isinstance(wiring_of(second.instance).components["recovery"], Recovery)
