"""Nodes that die: what they held is swept, and a crash consumes an attempt."""

import asyncio
from typing import Any

import continuum
from continuum import ActivityFailed, Retry, activity, activity_context, workflow
from tests.support.eventually import eventually
from tests.support.hosting import Place, crash, instance_of, wiring_of

began: list[int] = []
open_gate = asyncio.Event


@activity(timeout=None, retry=Retry(max_attempts=2))
async def kills_its_node(deaths: int) -> int:
    attempt = activity_context().attempt
    began.append(attempt)
    if attempt <= deaths:
        await asyncio.Event().wait()
    return attempt


@activity
async def one() -> int:
    return 1


@workflow
async def dangerous(deaths: int) -> list[Any]:
    before = await one()
    try:
        return [before, await kills_its_node(deaths)]
    except ActivityFailed as error:
        return [before, error.type, error.attempts]


@workflow
async def patient() -> str:
    return await continuum.wait_signal("go", str)


# P9, P11
async def test_a_crash_consumes_an_attempt_and_the_next_node_goes_on(place: Place) -> None:
    began.clear()
    first, second = place.another(), place.another(node="other")
    await first.start()
    run = await instance_of(first).start(dangerous, 1)
    await eventually(lambda: began == [1])
    await second.start()
    await crash(first)
    assert await instance_of(second).await_run(run.run_id, timeout=15) == [1, 2]
    assert began == [1, 2]
    await second.stop()


# P11
async def test_an_activity_that_kills_every_node_runs_out_of_attempts(place: Place) -> None:
    began.clear()
    nodes = [place.another(node=f"n{number}") for number in range(3)]
    await nodes[0].start()
    run = await instance_of(nodes[0]).start(dangerous, 9)
    await eventually(lambda: began == [1])
    await nodes[1].start()
    await crash(nodes[0])
    await eventually(lambda: began == [1, 2])
    await nodes[2].start()
    await crash(nodes[1])
    before, kind, attempts = await instance_of(nodes[2]).await_run(run.run_id, dangerous, timeout=15)
    assert (before, attempts, began) == (1, 2, [1, 2])
    assert "attempts_exhausted" in kind
    await nodes[2].stop()


async def test_a_parked_run_survives_its_node_and_hears_its_signal_on_another(place: Place) -> None:
    first, second = place.another(), place.another()
    await first.start()
    run = await instance_of(first).start(patient)
    await crash(first)
    async with second:
        await instance_of(second).signal(run.run_id, "go", "on")
        assert await instance_of(second).await_run(run.run_id, timeout=15) == "on"
        row = await wiring_of(instance_of(second)).journal.run(run.run_id)
        assert row is not None
        assert row.crashes == 0  # it was parked, so it is not what took the node down


# P17
async def test_what_a_living_node_holds_is_nobody_elses(place: Place) -> None:
    began.clear()
    async with place.node() as first:
        parked, busy = await first.start(patient), await first.start(dangerous, 1)
        await eventually(lambda: began == [1])
        async with place.node() as second:
            parts = wiring_of(second)
            for _ in range(3):
                await parts.components["recovery"].once()  # type: ignore[attr-defined]
                await parts.dispatcher.once()
                await parts.dispatcher.claim([parked.run_id, busy.run_id])
                await parts.components["activity_dispatcher"].once()  # type: ignore[attr-defined]
            assert len(parts.registry) == 0
        assert began == [1]
        assert len(wiring_of(first).registry) == 2
        await busy.cancel()


async def test_a_node_that_was_declared_dead_comes_back_under_a_new_name(place: Place) -> None:
    async with place.node(heartbeater={"interval": 0.05}) as app:
        run = await app.start(patient)
        parts = wiring_of(app)
        before = parts.node.owner
        assert before is not None
        await parts.journal.retire(before)
        after = await eventually(lambda: parts.node.owner if parts.node.owner not in (None, before) else None)
        assert after != before
        assert (await run.signal("go", "again")) == "delivered"
        assert await run.result(timeout=15) == "again"


async def test_the_lease_of_a_silent_node_ends_by_itself(place: Place) -> None:
    """The whole way of a death: no renewals, the row expires, somebody buries it, sweeps, claims."""
    dead = place.another(heartbeater=False, lease_ttl=0.6)
    await dead.start()
    run = await instance_of(dead).start(patient)
    async with place.node(lease_ttl=0.6) as other:
        journal = wiring_of(other).journal

        async def is_swept() -> bool:
            row = await journal.run(run.run_id)
            return row is not None and row.lease_owner is None

        await eventually(is_swept)
        # The node whose lease ended is refused, finds out, and loses nothing that it has accepted.
        assert await run.signal("go", "late") == "delivered"
        assert await other.await_run(run.run_id, timeout=15) == "late"
        assert [event.type for event in await other.history(run.run_id)].count("signal_received") == 1
    await dead.stop()
