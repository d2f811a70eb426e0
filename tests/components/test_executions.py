"""Executions: what happens to a run that lives here while the world goes on without it."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

import continuum
from continuum import activity, telemetry, workflow
from tests.support.stage import Stage, settled


@activity
async def add(a: int, b: int) -> int:
    return a + b


@workflow
async def waits() -> int:
    first = await add(1, 1)
    continuum.log("WARNING", "waiting", first=first)
    return first + await continuum.wait_signal("go", int)


@workflow
async def naps() -> str:
    await asyncio.sleep(10)
    return "woken"


def steal(stage: Stage, run_id: str) -> None:
    row = stage.store.runs[run_id]
    stage.store.put_run(replace(row, lease_owner=None, lease_token=row.lease_token + 1))


# P3
async def test_a_run_that_is_claimed_here_while_it_lives_here_goes_on_under_the_new_token(stage: Stage) -> None:
    node, client = await stage.still(), await stage.still(client_only=True)
    run = await node.instance.start(waits)
    await settled()
    steal(stage, run.run_id)
    await client.instance.signal(run.run_id, "go", 5)
    await node.parts.dispatcher.claim([run.run_id])
    await settled()
    assert await run.result() == 7
    types = [event.type for event in await node.instance.history(run.run_id)]
    assert types == ["started", "activity_scheduled", "activity_completed", "signal_received", "completed"]


async def test_a_signal_that_a_stolen_lease_refuses_is_not_lost(stage: Stage) -> None:
    node, other = await stage.still(), await stage.still()
    run = await node.instance.start(waits)
    await settled()
    steal(stage, run.run_id)
    assert await run.signal("go", 5) == "delivered"  # accepted by the execution, refused by the journal, posted
    await settled()
    assert not node.holds(run.run_id)
    await other.once("dispatcher")
    assert await other.instance.await_run(run.run_id) == 7


async def test_a_commit_that_a_stolen_lease_refuses_begins_nothing(stage: Stage) -> None:
    node = await stage.still()
    run = await node.instance.start(naps_then_adds)
    await settled()
    steal(stage, run.run_id)
    await run.signal("go")
    await settled()
    assert [event.type for event in await node.instance.history(run.run_id)] == ["started"]
    assert (node.parts.attempts._taken_in_all, node.holds(run.run_id)) == (0, False)


@workflow
async def naps_then_adds() -> int:
    await continuum.wait_signal("go")
    return await add(1, 1)


async def test_a_lease_that_is_still_ours_after_a_refusal_is_given_back(stage: Stage) -> None:
    """An older ambiguity, or a bug: the journal is right, and the run starts over from it."""
    node = await stage.still()
    run = await node.instance.start(waits)
    await settled()
    row = stage.store.runs[run.run_id]
    stage.store.put_run(replace(row, last_seq=row.last_seq + 1))  # the disk knows more than memory
    assert await run.signal("go", 5) == "delivered"
    await settled()
    freed = stage.store.runs[run.run_id]
    assert (freed.lease_owner, freed.lease_token, freed.state) == (None, row.lease_token + 1, "running")


# P14
async def test_two_nodes_that_see_the_same_deadline_fire_it_once(stage: Stage) -> None:
    first, second = await stage.node(has_pollers=True), await stage.node(has_pollers=True)
    run = await first.instance.start(naps)
    execution = first.parts.registry.get(run.run_id)
    assert execution is not None
    execution.evict()
    await stage.move(15)
    types = [event.type for event in await second.instance.history(run.run_id)]
    assert types == ["started", "timer_started", "timer_fired", "completed"]


# P57
async def test_what_a_workflow_logs_is_said_once_however_often_it_is_replayed(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    node = await stage.still()
    with caplog.at_level(logging.INFO, logger="continuum.workflow"):
        run = await node.instance.start(waits)
        await settled()
        for _ in range(3):
            execution = node.parts.registry.get(run.run_id)
            assert execution is not None
            assert execution.evict()
            await settled()
            await node.instance.signal(run.run_id, "other")
            await node.once("dispatcher")
        await run.signal("go", 1)
        assert await run.result() == 3
    said = [record for record in caplog.records if record.name == "continuum.workflow"]
    assert [(record.message, record.levelname) for record in said] == [("waiting", "WARNING")]
    assert vars(said[0])["fields"] == {"first": 2}
    assert vars(said[0])["run_id"] == run.run_id


async def test_an_owner_that_is_lost_between_a_call_and_its_first_turn_costs_nothing(stage: Stage) -> None:
    node = await stage.still()
    starting = asyncio.create_task(node.instance.start(waits))
    while not len(node.parts.registry):  # the very moment, and no later one
        await asyncio.sleep(0)
    node.parts.membership.lost()
    run = await starting
    await settled()
    await node.once("heartbeater")
    for part in ("recovery", "dispatcher"):
        await node.once(part)
    await run.signal("go", 1)
    await node.once("dispatcher")
    assert await run.result() == 3


async def test_an_owner_that_is_lost_between_a_claim_and_its_first_turn_costs_nothing(stage: Stage) -> None:
    client, node = await stage.still(client_only=True), await stage.still()
    run = await client.instance.start(waits)
    owner: Any = node.owner
    claiming = asyncio.create_task(node.parts.dispatcher.once())
    while not len(node.parts.registry):  # the very moment, and no later one
        await asyncio.sleep(0)
    node.parts.membership.lost()
    await claiming
    await settled()
    assert not node.holds(run.run_id)
    await node.parts.journal.retire(owner)
    await node.once("heartbeater")
    for part in ("recovery", "dispatcher"):
        await node.once(part)
    await node.instance.signal(run.run_id, "go", 1)
    assert await node.instance.await_run(run.run_id) == 3


async def test_what_a_workflow_logged_is_said_too_if_its_commit_lands_after_the_lease_was_given_up(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    node = await stage.still()
    journal: Any = node.parts.journal
    answer, really = asyncio.Event(), journal.write

    async def answers_late(*args: Any) -> Any:
        verdicts = await really(*args)
        await answer.wait()
        return verdicts

    with caplog.at_level(logging.INFO, logger="continuum.workflow"):
        journal.write = answers_late
        starting, owner = asyncio.create_task(node.instance.start(logs_at_once)), node.owner
        await settled()
        node.parts.membership.lost()
        answer.set()
        run = await starting
        await journal.retire(owner)
        await node.once("heartbeater")
        for part in ("recovery", "dispatcher"):
            await node.once(part)
        await node.instance.signal(run.run_id, "go", 1)
        await node.once("dispatcher")
        assert await run.result() == 1
    said = [record.message for record in caplog.records if record.name == "continuum.workflow"]
    assert said == ["begun"], "replay is silent: who did not hear it then would never hear it"


@workflow
async def logs_at_once() -> int:
    continuum.log("INFO", "begun")
    return await continuum.wait_signal("go", int)


@pytest.fixture
def leases() -> Iterator[list[tuple[str, object]]]:
    """What is told of leases, with their tokens."""
    told: list[tuple[str, object]] = []

    def note(event: telemetry.TelemetryEvent) -> None:
        told.append((event.name, event.metadata["token"]))

    telemetry.attach(note, ["lease.acquired", "lease.lost", "lease.released"])
    yield told
    telemetry.detach(note)


async def test_a_lease_that_is_lost_while_it_is_in_doubt_is_told_once(
    stage: Stage, leases: list[tuple[str, object]]
) -> None:
    node = await stage.still()
    run = await node.instance.start(waits)
    await settled()
    steal(stage, run.run_id)
    journal: Any = node.parts.journal
    asked, really = asyncio.Event(), journal.run

    async def slow(run_id: str) -> Any:
        await asked.wait()
        return await really(run_id)

    journal.run = slow
    signalling = asyncio.create_task(run.signal("go", 5))  # refused: it is asked why
    await settled()
    node.parts.membership.lost()
    asked.set()
    await settled()
    await signalling
    assert leases == [("lease.acquired", 1), ("lease.lost", 1)]


async def test_a_lease_that_was_lost_without_our_knowing_is_told_when_the_run_is_ours_again(
    stage: Stage, leases: list[tuple[str, object]]
) -> None:
    node, client = await stage.still(), await stage.still(client_only=True)
    run = await node.instance.start(waits)
    await settled()
    steal(stage, run.run_id)
    await client.instance.signal(run.run_id, "go", 5)
    await node.parts.dispatcher.claim([run.run_id])
    await settled()
    assert leases == [("lease.acquired", 1), ("lease.lost", 1), ("lease.acquired", 3)]
