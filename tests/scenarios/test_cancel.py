"""Cancelling: one verb, wherever the run is."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

import continuum
from continuum import RunCancelled, RunNotActive, RunNotFound, activity, activity_context, workflow
from continuum.composition.instance import Instance
from tests.support.eventually import eventually
from tests.support.hosting import Place, crash, evict, instance_of, wiring_of

NOBODY = "00000000-0000-4000-8000-000000000000"
told: list[str] = []
leave = threading.Event()


@pytest.fixture(autouse=True)
def _begin_afresh() -> None:
    told.clear()
    leave.clear()


@activity(timeout=None)
async def works() -> None:
    told.append("began")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        told.append("told")
        raise


@activity(timeout=None)
def works_in_a_thread() -> None:
    context = activity_context()
    told.append("began")
    while not context.cancelled and not leave.wait(0.005):
        pass
    told.append("told" if context.cancelled else "left")


@workflow(allow=("module-state",))
async def parked() -> None:
    try:
        await continuum.wait_signal("never")
    finally:
        told.append("finally")


@workflow
async def working(kind: str) -> None:
    await (works() if kind == "async" else works_in_a_thread())


@workflow
async def broken() -> None:
    await asyncio.sleep(0)
    raise AttributeError("a bug")


@workflow
async def short() -> int:
    return 1


async def cancelled(app: Instance, run_id: str) -> None:
    with pytest.raises(RunCancelled) as caught:
        await app.await_run(run_id, timeout=15)
    assert caught.value.run_id == run_id
    run = await app.get_run(run_id)
    assert (run.state, run.ended_at is not None) == ("cancelled", True)
    assert (await app.history(run_id))[-1].type == "cancelled"


async def test_a_run_that_lives_here_is_cancelled_at_once(app: Instance) -> None:
    run = await app.start(parked)
    assert await run.cancel() == "cancelled"
    await cancelled(app, run.run_id)
    assert run.run_id not in wiring_of(app).registry


async def test_no_workflow_code_runs_and_nothing_that_it_tries_has_an_effect(app: Instance) -> None:
    run = await app.start(parked)
    before = len(await app.history(run.run_id))
    await run.cancel()
    assert len(await app.history(run.run_id)) == before + 1


# P39, P40
async def test_a_run_that_nobody_holds_is_cancelled(place: Place) -> None:
    async with place.node() as app:
        run = await app.start(parked)
        await evict(app, run.run_id, waits_for="never")
        assert await run.cancel() == "cancelled"
        await cancelled(app, run.run_id)


async def test_a_run_that_is_not_due_yet_is_cancelled(app: Instance) -> None:
    run = await app.start(short, start_at=datetime.now(UTC) + timedelta(days=1))
    assert (await run.status()).state == "pending"
    assert await run.cancel() == "cancelled"
    await cancelled(app, run.run_id)


async def test_a_blocked_run_is_cancelled(app: Instance) -> None:
    run = await app.start(broken)
    with pytest.raises(continuum.RunBlocked):
        await run.result(timeout=15)
    assert await run.cancel() == "cancelled"
    await cancelled(app, run.run_id)


@pytest.mark.parametrize("kind", ["async", "def"])
async def test_a_running_activity_is_told(app: Instance, place: Place, kind: str) -> None:
    run = await app.start(working, kind)
    await eventually(lambda: told == ["began"])
    assert await run.cancel() == "cancelled"
    await eventually(lambda: told == ["began", "told"])
    await cancelled(app, run.run_id)
    assert await place.count("tasks") == 0
    await eventually(lambda: wiring_of(app).attempts._taken_in_all == 0)


async def test_an_activity_that_runs_on_another_node_is_told(place: Place) -> None:
    async with (
        place.node(activity_supervisor=False) as host,
        place.node(run_supervisor=False, lease_ttl=0.6) as worker,
    ):
        run = await host.start(working, "async")
        await eventually(lambda: told == ["began"])
        assert wiring_of(worker).attempts.running == 1
        assert await run.cancel() == "cancelled"
        await eventually(lambda: told == ["began", "told"])  # by its next heartbeat


async def test_a_client_cancels_without_any_worker(place: Place) -> None:
    worker = place.another()
    await worker.start()
    run = await instance_of(worker).start(parked)
    await worker.stop()
    async with place.node(client_only=True) as client:
        pending = await client.start(short)
        assert await client.cancel(run.run_id) == "cancelled"
        assert await client.cancel(pending.run_id) == "cancelled"
        await cancelled(client, run.run_id)
        await cancelled(client, pending.run_id)


async def test_a_client_cancels_what_a_worker_holds(place: Place) -> None:
    async with place.node() as app, place.node(client_only=True) as client:
        run = await app.start(parked)
        assert await client.cancel(run.run_id) == "cancelled"
        await cancelled(client, run.run_id)
        await eventually(lambda: run.run_id not in wiring_of(app).registry)


# P34
async def test_a_cancel_that_nobody_can_honour_yet_is_recorded_and_honoured_later(place: Place) -> None:
    silent = place.another()
    await silent.start()
    run = await instance_of(silent).start(working, "async")
    await eventually(lambda: told == ["began"])
    await wiring_of(instance_of(silent)).components["signal_router"].stop()  # it is out of reach
    async with place.node(client_only=True) as client:
        assert await client.cancel(run.run_id) == "requested"
        assert await client.cancel(run.run_id) == "requested"
    await crash(silent)
    async with place.node() as other:
        await cancelled(other, run.run_id)
    assert told.count("began") == 1


async def test_ended_and_unknown_runs_cannot_be_cancelled(app: Instance) -> None:
    run = await app.start(short)
    await run.result(timeout=15)
    with pytest.raises(RunNotActive):
        await run.cancel()
    with pytest.raises(RunNotFound):
        await app.cancel(NOBODY)
    gone = await app.start(parked)
    await gone.cancel()
    with pytest.raises(RunNotActive):
        await gone.cancel()


async def test_many_cancels_at_once_end_a_run_once(app: Instance) -> None:
    run = await app.start(parked)
    answers = await asyncio.gather(*[run.cancel() for _ in range(8)], return_exceptions=True)
    assert "cancelled" in answers
    assert all(answer == "cancelled" or isinstance(answer, RunNotActive) for answer in answers)
    assert [event.type for event in await app.history(run.run_id)].count("cancelled") == 1


# P41
async def test_an_error_called_cancelled_is_a_failure(app: Instance) -> None:
    run = await app.start(fails_as_cancelled)
    with pytest.raises(continuum.RunFailed):
        await run.result(timeout=15)
    assert (await run.status()).state == "failed"


@workflow
async def fails_as_cancelled() -> None:
    raise ValueError("cancelled")


async def test_signals_after_a_cancel_are_refused(app: Instance) -> None:
    run = await app.start(parked)
    await run.cancel()
    with pytest.raises(RunNotActive):
        await run.signal("never", 1)
