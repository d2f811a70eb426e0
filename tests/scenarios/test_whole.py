"""One workflow with everything in it, and what its history says afterwards."""

import asyncio
from datetime import timedelta

import continuum
from continuum import Retry, activity, workflow
from continuum.composition.instance import Instance
from continuum.testing import environment
from tests.support.eventually import eventually
from tests.support.hosting import NAME, Place, wiring_of

failures: dict[str, int] = {}


@activity(retry=Retry(max_attempts=3, initial=0.01))
async def charge(order: str, cents: int) -> str:
    failures[order] = failures.get(order, 0) + 1
    if failures[order] < 2:
        raise ConnectionError("the bank is away")
    return f"charged {cents}"


@activity
def ship(order: str) -> str:
    return f"label-{order}"


@activity
async def notify(order: str) -> str:
    return f"mail-{order}"


@workflow(signals={"fraud_review": bool, "nobody_sends_this": object})
async def fulfil(order: str, cents: int) -> list[str]:
    paid = await charge(order, cents)
    try:
        await continuum.wait_signal("nobody_sends_this", timeout=0.02)
    except TimeoutError:
        paid += " unreviewed"
    if not await continuum.wait_signal("fraud_review", bool, timeout=timedelta(hours=24)):
        raise PermissionError(order)
    await asyncio.sleep(0.02)
    label, mail = await asyncio.gather(ship(order), notify(order))
    token = await continuum.side_effect(lambda: "once")
    continuum.log("INFO", f"{order} is done")
    return [paid, label, mail, token]


WHOLE = ["charged 5 unreviewed", "label-{0}", "mail-{0}", "once"]


async def test_a_workflow_with_everything_ends_with_everything(app: Instance) -> None:
    run = await app.start(fulfil, "o-1", 5)
    assert await run.signal("fraud_review", True) == "delivered"
    assert await run.result(timeout=20) == [part.format("o-1") for part in WHOLE]
    history = await app.history(run.run_id)
    assert [event.seq for event in history] == list(range(1, len(history) + 1))
    assert [event.type for event in history].count("activity_completed") == 3
    assert history[-1].type == "completed"
    assert (await run.status()).state == "completed"


async def test_nothing_of_an_ended_run_is_left_but_its_row_and_history(place: Place, app: Instance) -> None:
    run = await app.start(fulfil, "o-2", 5)
    await run.signal("fraud_review", True, delivery_id="d")
    await run.result(timeout=20)
    assert await place.count("tasks") == 0
    assert len(wiring_of(app).registry) == 0


async def test_a_hundred_at_once_all_end(app: Instance) -> None:
    runs = await asyncio.gather(*[app.start(fulfil, f"h-{n}", 5) for n in range(100)])
    await asyncio.gather(*[run.signal("fraud_review", True) for run in runs])
    results = await asyncio.gather(*[run.result(timeout=30) for run in runs])
    assert results == [[part.format(f"h-{n}") for part in WHOLE] for n in range(100)]


async def test_the_verbs_find_an_instance_by_its_name(app: Instance) -> None:
    run = await continuum.start(fulfil, "o-3", 5, instance=NAME)
    assert await continuum.signal(run.run_id, "fraud_review", False, instance=NAME) == "delivered"
    await eventually(lambda: _has_failed(run.run_id))
    failed = await continuum.get_run(run.run_id, instance=NAME)
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == ("builtins.PermissionError", "o-3")
    listed = await continuum.list_runs(workflow=fulfil, instance=NAME)
    assert [item.run_id for item in listed.items] == [run.run_id]
    assert (await continuum.history(run.run_id, instance=NAME))[-1].type == "failed"


async def _has_failed(run_id: str) -> bool:
    return (await continuum.get_run(run_id, instance=NAME)).state == "failed"


async def test_two_nodes_share_the_work_and_every_run_ends_once(place: Place, app: Instance) -> None:
    async with place.node() as other:
        runs = [await (app, other)[n % 2].start(fulfil, f"t-{n}", 5) for n in range(20)]
        for n, run in enumerate(runs):  # signals come in at the other node
            await (other, app)[n % 2].signal(run.run_id, "fraud_review", True)
        results = await asyncio.gather(*[app.await_run(run.run_id, fulfil, timeout=30) for run in runs])
    assert results == [[part.format(f"t-{n}") for part in WHOLE] for n in range(20)]


async def test_the_default_instance_needs_no_database_and_no_name() -> None:
    async with continuum.application():
        run = await continuum.start(fulfil, "d-1", 5)
        await continuum.signal(run.run_id, "fraud_review", True)
        assert await continuum.await_run(run.run_id, timeout=20) == [part.format("d-1") for part in WHOLE]


async def test_the_testing_environment_runs_it_in_virtual_time() -> None:
    async with environment() as env:
        before = env.now
        run = await continuum.start(fulfil, "v-1", 5)
        await run.signal("fraud_review", True)
        assert await run.result() == [part.format("v-1") for part in WHOLE]
        assert env.now - before < timedelta(seconds=5)
