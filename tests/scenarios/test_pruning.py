"""Retention: ended runs go when their time has passed, with all that belongs to them, and nothing else goes."""

from datetime import timedelta

import continuum
from continuum import RunNotFound, activity, workflow
from continuum.composition.instance import Instance
from tests.support.eventually import eventually
from tests.support.hosting import Place, wiring_of


@activity
async def add(a: int, b: int) -> int:
    return a + b


@workflow(retention=timedelta(0))
async def forgotten(how: str) -> int:
    await add(1, 2)
    if how == "fails":
        raise ValueError("fails")
    if how == "waits":
        await continuum.wait_signal("go")
    return 1


@workflow(retention=timedelta(days=30))
async def remembered() -> int:
    return await add(1, 2)


@workflow
async def kept() -> int:
    return await add(1, 2)


# P88
async def test_every_kind_of_end_is_forgotten_when_its_time_has_passed(place: Place, app: Instance) -> None:
    completed, failed, cancelled = [await app.start(forgotten, how) for how in ("completes", "fails", "waits")]
    await cancelled.signal("other", 1, delivery_id="d")
    await cancelled.cancel()
    for run in (completed, failed, cancelled):
        await eventually(lambda run=run: _is_gone(app, run.run_id))  # type: ignore[misc]
    for table in ("runs", "events", "inbox", "tasks", "snapshots"):
        assert await place.count(table) == 0, table


async def _is_gone(app: Instance, run_id: str) -> bool:
    try:
        await app.get_run(run_id)
    except RunNotFound:
        return True
    return False


async def test_nothing_else_is_forgotten(place: Place) -> None:
    async with place.node(pruner={"interval": 60.0, "batch": 2}) as app:
        ended = [await app.start(flow) for flow in (remembered, kept)]
        for run in ended:
            assert await run.result(timeout=15) == 3
        active = await app.start(forgotten, "waits")
        old = [await app.start(forgotten, "completes") for _ in range(5)]
        for run in old:
            await run.result(timeout=15)
        pruner = wiring_of(app).components["pruner"]
        passes = [await pruner.once() for _ in range(3)]  # type: ignore[attr-defined]
        assert passes == [True, True, False]
        listed = {run.run_id for run in (await app.list_runs()).items}
        assert listed == {run.run_id for run in (*ended, active)}
        assert len(await app.history(ended[0].run_id)) == 4
        await active.signal("go")
        assert await active.result(timeout=15) == 1


async def test_a_key_is_free_again_once_its_run_is_forgotten(place: Place, app: Instance) -> None:
    first = await app.start(forgotten, "completes", idempotency_key="k")
    await eventually(lambda: _is_gone(app, first.run_id))
    again = await app.start(forgotten, "completes", idempotency_key="k")
    assert (again.existing, again.run_id != first.run_id) == (False, True)
