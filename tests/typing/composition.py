"""What composing workflows looks like to a type checker. Lines marked E must be errors, in mypy and in pyright; no others."""

import asyncio
from typing import Literal, assert_type

from pydantic import BaseModel

import continuum
from continuum import ActivityFailed, ChildHandle, activity, workflow


class Order(BaseModel):
    id: str = ""


class Charge(BaseModel):
    id: str = ""


@activity
async def refund(charge: Charge) -> None: ...


@activity
def refund_slowly(charge: Charge, *, note: str = "") -> bool:
    return bool(note)


@activity(name="composed.charge", compensate=refund, queue="slow")
async def charge(order_id: str, cents: int) -> Charge:
    return Charge(id=f"{order_id} {cents}")


@activity(compensate=refund.bound(Charge()))
async def charge_bound(order_id: str) -> str:
    return order_id


@activity(compensate=refund)  # type: ignore[arg-type]  # E
async def not_a_charge(order_id: str) -> str:
    return order_id


@activity(compensate="refund")  # type: ignore[call-overload, untyped-decorator]  # E
async def compensated_by_name(order_id: str) -> Charge:
    return Charge(id=order_id)


@workflow
async def one(i: int) -> int:
    return i


@workflow
async def two(i: int, n: int = 3) -> int:
    return i + n


@workflow
async def express(order: Order, *, fast: bool) -> Charge:
    return Charge(id=order.id if fast else "")


@workflow
async def fulfil(order: Order, months: int = 0) -> Charge:
    paid = await charge(order.id, 5)
    assert_type(paid, Charge)
    await charge.options(compensate=refund_slowly)(order.id, 5)
    await charge.options(compensate=refund.bound(Charge()))(order.id, 5)
    await charge.options(compensate=None)(order.id, 5)
    await charge_bound.options(compensate=refund)(order.id)  # type: ignore[arg-type]  # E

    assert_type(await continuum.compensate(charge), bool)
    assert_type(await continuum.compensate(charge, paid), bool)
    assert_type(await continuum.compensate_all(parallel=True), list[ActivityFailed])
    async with continuum.saga(parallel=True) as nothing:
        assert_type(nothing, None)

    child = await continuum.start_child(two, 1, 2, id="x")
    assert_type(child, ChildHandle[int])
    assert_type(await child, int)
    assert_type(await child.result(timeout=5), int)
    assert_type(await child.signal("go", 1), Literal["delivered", "duplicate"])
    assert_type(await child.cancel(compensate=True), Literal["cancelled", "requested"])
    assert_type(child.run_id, str)
    assert_type(await asyncio.gather(child.result(), child.result()), tuple[int, int])
    assert_type(await continuum.start_child(express.bound(order, fast=True)), ChildHandle[Charge])
    await continuum.start_child(one, "1")  # type: ignore[arg-type]  # E
    await continuum.start_child(two, 1, 2, key="x")  # type: ignore[call-overload]  # E

    assert_type(continuum.patched("new way"), bool)
    assert_type(await continuum.cancel(child.run_id, compensate=True), Literal["cancelled", "requested"])
    if months:
        continuum.continue_as_new(order, months - 1)
    return paid
