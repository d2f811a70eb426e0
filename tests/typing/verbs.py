"""What the verbs look like to a type checker. Lines marked E must be errors, in mypy and in pyright; no others."""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal, assert_type
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

import continuum
import continuum.rest
from continuum import (
    FIRE_TIME,
    Children,
    HistoryEvent,
    Instance,
    Overlap,
    Page,
    Preflight,
    Readiness,
    Run,
    RunHandle,
    Schedule,
    ScheduleHandle,
    ScheduleState,
    Trouble,
    WorkflowVersion,
    children,
    workflow,
)


class Order(BaseModel):
    id: str = ""


class Receipt(BaseModel): ...


@workflow
async def fulfil(order: Order) -> Receipt:
    return Receipt()


@workflow
async def two(i: int, n: int = 3) -> int:
    return i + n


@workflow
async def keyword_only(i: int, *, n: int) -> int:
    return i + n


@workflow
async def dated(moment: datetime) -> datetime:
    return moment


@workflow
async def nothing() -> str:
    return ""


async def main() -> None:
    order = Order()
    assert_type(await continuum.start(fulfil, order, instance="a"), RunHandle[Receipt])
    assert_type(await continuum.start(two, 1, instance="a", run_id=UUID(int=1)), RunHandle[int])
    assert_type(await continuum.start(two, 1, 2, idempotency_key="k", namespace="eu"), RunHandle[int])
    assert_type(
        await continuum.start(nothing, attributes={"a": 1}, start_at=datetime(2026, 1, 1, tzinfo=UTC)), RunHandle[str]
    )
    assert_type(await continuum.start(keyword_only.bound(1, n=2), instance="a"), RunHandle[int])

    await continuum.start(fulfil, 3)  # type: ignore[arg-type]  # E
    await continuum.start(fulfil)  # type: ignore[arg-type, call-arg]  # E
    await continuum.start(fulfil, order, order)  # type: ignore[arg-type, call-arg]  # E
    await continuum.start(fulfil, order=order)  # type: ignore[call-overload]  # E
    await continuum.start(keyword_only, 1)  # type: ignore[arg-type]  # E
    await continuum.start(two, 1, instnce="a")  # type: ignore[call-overload]  # E
    await continuum.start(two, 1, start_at="tomorrow")  # type: ignore[call-overload]  # E

    assert_type(await continuum.start_many(fulfil, [order, order]), list[RunHandle[Receipt]])
    assert_type(await continuum.start_many([two.bound(1, 2)]), list[RunHandle[int]])
    await continuum.start_many(fulfil, [1])  # type: ignore[arg-type]  # E

    assert_type(await continuum.await_run("x", fulfil, timeout=5), Receipt)
    assert_type(await continuum.await_run("x"), object)
    assert_type(await continuum.signal("x", "go", order, delivery_id="d"), Literal["delivered", "duplicate"])
    assert_type(await continuum.cancel("x"), Literal["cancelled", "requested"])
    assert_type(await continuum.get_run("x"), Run)
    assert_type(await continuum.list_runs(workflow=fulfil, limit=5), Page[Run])
    assert_type(await continuum.history("x"), list[HistoryEvent])
    assert_type(await continuum.set_attributes("x", {"tier": 4, "tags": ["a"], "gone": None}, instance="a"), None)
    assert_type(continuum.set_attributes(tier=4, tags=["a"], gone=None), None)
    continuum.set_attributes(tier={"nested": 1})  # type: ignore[call-overload]  # E
    await continuum.set_attributes("x", {"tier": object()})  # type: ignore[dict-item]  # E
    assert_type(continuum.readiness(instance="a"), Readiness)
    await continuum.await_run("x", 5)  # type: ignore[call-overload]  # E
    await continuum.signal("x")  # type: ignore[call-arg]  # E
    await continuum.get_run(5)  # type: ignore[arg-type]  # E

    async with AsyncSession() as session:
        hosted = await continuum.start(fulfil, order, instance="a", session=session)
        assert_type(hosted, RunHandle[Receipt])
        assert_type(hosted.pending_commit, bool)
        assert_type(await continuum.start(two.bound(1), session=await session.connection()), RunHandle[int])
        assert_type(await continuum.start_many(fulfil, [order], session=session), list[RunHandle[Receipt]])
        assert_type(await continuum.signal("x", "go", session=session), Literal["delivered", "duplicate"])
        assert_type(await hosted.signal("go", session=session), Literal["delivered", "duplicate"])
        assert_type(await continuum.cancel("x", session=session), Literal["cancelled", "requested"])
        assert_type(await hosted.cancel(session=session), Literal["cancelled", "requested"])
    await continuum.start(two, 1, session=Session())  # type: ignore[call-overload]  # E
    await continuum.signal("x", "go", session="s")  # type: ignore[arg-type]  # E
    await hosted.cancel(session=Session())  # type: ignore[arg-type]  # E

    other = continuum.instance("b")
    assert_type(other, Instance)
    assert_type(await other.start(two, 1, run_id="x"), RunHandle[int])
    assert_type(await other.start(two.bound(1)), RunHandle[int])
    await other.start(two, "x")  # type: ignore[arg-type]  # E


async def hosting(one: Children, two: Children) -> None:
    both = one + two
    assert_type(both, Children)
    async with both, one:
        pass
    async with continuum.lifespan(*one, *two):
        pass
    children(name=5)  # type: ignore[arg-type]  # E


async def change() -> None:
    assert_type(await continuum.versions(), tuple[WorkflowVersion, ...])
    assert_type(await continuum.instance("b").preflight(workflow=fulfil, sample=3), Preflight)
    assert_type((await continuum.preflight(instance="b", workflow="orders.fulfil")).troubles, tuple[Trouble, ...])
    await continuum.preflight(sample="3")  # type: ignore[arg-type]  # E
    await continuum.preflight(workflow=3)  # type: ignore[arg-type]  # E


async def schedules() -> None:
    order = Order()
    handle = await continuum.schedule(fulfil, order, cron="0 8 * * MON-FRI", timezone="Europe/Berlin", instance="a")
    assert_type(handle, ScheduleHandle[Receipt])
    assert_type(await continuum.schedule(two, 1, every=timedelta(hours=1), overlap="skip"), ScheduleHandle[int])
    assert_type(await continuum.schedule(two, 1, 2, every=60, overlap=Overlap.ALLOW, id="x"), ScheduleHandle[int])
    assert_type(await continuum.schedule(keyword_only.bound(1, n=2), every=60), ScheduleHandle[int])
    assert_type(await continuum.schedule(dated, FIRE_TIME, start_at=FIRE_TIME, catch_up=0), ScheduleHandle[datetime])
    assert_type(await handle.trigger(), RunHandle[Receipt])
    assert_type(await handle.backfill(FIRE_TIME, FIRE_TIME), list[RunHandle[Receipt]])
    assert_type(await handle.pause(), Schedule)
    assert_type((await handle.describe()).upcoming(3), list[datetime])
    assert_type(await continuum.list_schedules(state=ScheduleState.FAILED), Page[Schedule])
    assert_type(await continuum.trigger_schedule("x"), RunHandle[Any])
    assert_type(await continuum.instance("b").schedule(two, 1, every=60), ScheduleHandle[int])

    await continuum.schedule(fulfil, 3, every=60)  # type: ignore[arg-type]  # E
    await continuum.schedule(fulfil, every=60)  # type: ignore[arg-type, call-arg]  # E
    await continuum.schedule(dated, "today", every=60)  # type: ignore[arg-type]  # E
    await continuum.schedule(two, 1, evry=60)  # type: ignore[call-overload]  # E
    await continuum.schedule(two, 1, every="60")  # type: ignore[call-overload]  # E
    await continuum.schedule(two, 1, every=60, overlap="replace")  # type: ignore[call-overload]  # E
    await continuum.schedule(keyword_only, 1, every=60)  # type: ignore[arg-type]  # E
    await continuum.pause_schedule(handle)  # type: ignore[arg-type]  # E


async def over_rest(client: continuum.rest.Client, order: Order) -> None:
    assert_type(await client.start(fulfil, order), RunHandle[Receipt])
    assert_type(await client.start("fulfil", {"order": {}}), RunHandle[object])
    assert_type(await client.start_many(fulfil, [order]), list[RunHandle[Receipt]])
    assert_type(await client.start_many([two.bound(1, 2)]), list[RunHandle[int]])
    assert_type(await client.start_many("fulfil", [{"order": {}}]), list[RunHandle[object]])
    assert_type(client.handle("x", fulfil), RunHandle[Receipt])
    assert_type(client.handle("x"), RunHandle[object])
    assert_type(await client.await_run("x", fulfil), Receipt)
    await client.start_many(fulfil, [1])  # type: ignore[arg-type]  # E
    await client.handle("x", fulfil).result(timeout="soon")  # type: ignore[arg-type]  # E
