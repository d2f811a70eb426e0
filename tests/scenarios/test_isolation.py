"""Two instances in one process: two databases, two worlds."""

import asyncio
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

import continuum
from continuum import RunNotFound, activity, telemetry, workflow
from tests.support.hosting import QUICK, Place, instance_of, wiring_of


@workflow
async def parked() -> list[str]:
    return [await whereami(), await continuum.wait_signal("go", str), continuum.info().instance]


@activity
async def whereami() -> str:
    return continuum.activity_context().instance


@activity
async def starts_another(instance: str | None) -> str:
    run = await continuum.start(parked, instance=instance)
    await run.signal("go", "from an activity")
    return run.run_id


@workflow
async def starting(instance: str | None) -> str:
    return await starts_another(instance)


@pytest.fixture
def other_database(sqlite_template: Path, tmp_path: Path) -> str:
    shutil.copy(sqlite_template, tmp_path / "other.db")
    return f"sqlite+aiosqlite:///{tmp_path / 'other.db'}"


async def test_two_instances_are_two_worlds(place: Place, other_database: str) -> None:
    engine = create_async_engine(other_database)
    orders = place.children(name="orders")
    billing = continuum.children(name="billing", engine=engine, **{**QUICK, "activity_dispatcher": False})
    heard: list[tuple[str, Any]] = []

    def note(event: telemetry.TelemetryEvent) -> None:
        heard.append((event.metadata["instance"], event.metadata.get("run_id")))

    telemetry.attach(note)
    try:
        async with continuum.lifespan(*orders, *billing):
            await _tell_two_worlds_apart()
    finally:
        telemetry.detach(note)
        await engine.dispose()
        orders.forget()
        billing.forget()
    assert {instance for instance, _ in heard} == {"orders", "billing"}


async def _tell_two_worlds_apart() -> None:
    chosen = str(uuid4())
    runs = {
        name: await continuum.start(parked, instance=name, run_id=chosen, idempotency_key="same")
        for name in ("orders", "billing")
    }
    only = await continuum.start(parked, instance="orders")
    with pytest.raises(RunNotFound):
        await continuum.get_run(only.run_id, instance="billing")
    with pytest.raises(RunNotFound):
        await continuum.signal(only.run_id, "go", "x", instance="billing")
    with pytest.raises(RunNotFound):
        await continuum.cancel(only.run_id, instance="billing")
    assert {run.run_id for run in (await continuum.list_runs(instance="billing")).items} == {chosen}

    await runs["orders"].signal("go", "to orders", delivery_id="d")
    assert await runs["orders"].result(timeout=15) == ["orders", "to orders", "orders"]
    assert (await continuum.get_run(chosen, instance="billing")).state == "suspended"
    assert await runs["billing"].signal("go", "to billing", delivery_id="d") == "delivered"
    assert await runs["billing"].result(timeout=15) == ["billing", "to billing", "billing"]
    owners = {name: wiring_of(continuum.instance(name)).node.owner for name in ("orders", "billing")}
    assert all(owner is not None and f"/{name}/" in owner for name, owner in owners.items())

    # In an activity, no name means the instance that performs it.
    inner = await (await continuum.start(starting, None, instance="billing")).result(timeout=15)
    assert (await continuum.await_run(inner, parked, instance="billing", timeout=15))[0] == "billing"
    across = await (await continuum.start(starting, "orders", instance="billing")).result(timeout=15)
    assert (await continuum.await_run(across, parked, instance="orders", timeout=15))[0] == "orders"


async def test_stopping_one_leaves_the_other_alone(place: Place, other_database: str) -> None:
    engine = create_async_engine(other_database)
    orders, billing = place.children(name="orders"), continuum.children(name="billing", engine=engine, **QUICK)
    await orders.start()
    await billing.start()
    mine, other = await instance_of(orders).start(parked), await instance_of(billing).start(parked)
    await orders.stop()
    await other.signal("go", "on")
    assert await other.result(timeout=15) == ["billing", "on", "billing"]
    await orders.start()
    await mine.signal("go", "again")
    assert await mine.result(timeout=15) == ["orders", "again", "orders"]
    await asyncio.gather(orders.stop(), billing.stop())
    await engine.dispose()
    orders.forget()
    billing.forget()
