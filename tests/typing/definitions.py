"""What writing workflows looks like to a type checker. Lines marked E must be errors, in mypy and in pyright; no others.

`type: ignore` on those lines keeps `mypy` and `pyright` quiet when they are run on this folder by hand;
tests/unit/test_typing.py takes it away.
"""

import asyncio
from collections.abc import Callable
from datetime import date, datetime, timedelta
from random import Random
from typing import Any, Literal, assert_type
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

import continuum
from continuum import Activity, Call, Retry, RunHandle, Workflow, activity, workflow


class Order(BaseModel):
    id: str = ""


class Charge(BaseModel):
    id: str = ""


class CardDeclined(Exception):
    pass


# --- decorators -------------------------------------------------------------------------------------------------------


@activity
async def validate(order: Order) -> Order:
    return order


@activity()
def resize(image: bytes, *, width: int = 3) -> bytes:
    return image[:width]


def by_order(order_id: str, cents: int) -> str:
    return order_id


@activity(
    name="payments.charge",
    retry=Retry(max_attempts=5, initial=timedelta(seconds=1), non_retryable=(CardDeclined, "x.Error")),
    timeout=timedelta(seconds=30),
    heartbeat_timeout=None,
    queue="default",
    priority=0,
    idempotency_key=by_order,  # a lambda works too, but pyright in strict mode wants its parameters typed
)
async def charge(order_id: str, cents: int) -> Charge:
    return Charge(id=f"{order_id} {cents}")


@activity
def notify() -> None: ...


@workflow
async def two(i: int, n: int = 3) -> int:
    return i + n


@workflow(
    name="orders.express",
    version=2,
    retention=timedelta(days=30),
    aliases=("old",),
    fails_on=(ValueError,),
    signals={"go": int},
)
async def express(order: Order, *, fast: bool) -> Charge:
    return Charge(id=order.id if fast else "")


assert_type(notify, Activity[[], None])


@activity(transactional=True)
async def book(session: AsyncSession, order: Order) -> int:
    return 1 if session.is_active else 0


@activity
async def unbook(places: int) -> None: ...


@activity(transactional=True, isolation_level="SERIALIZABLE", serialization_retries=9, retry=Retry(), compensate=unbook)
async def reserve(session: AsyncSession, order_id: str, *, places: int = 1) -> int:
    return places


class OurSession(AsyncSession):
    pass


@activity(transactional=True)
async def book_with_ours(ours: OurSession, order_id: str) -> str:
    return order_id if ours.is_active else ""


@activity(transactional=True)  # type: ignore[type-var]  # E
async def no_session(order: Order) -> int:
    return 1


@activity(transactional=True)  # type: ignore[arg-type]  # E
def in_a_thread(session: AsyncSession, order: Order) -> int:
    return 1


@activity(transactional=True, isolation_level="CHAOS")  # type: ignore[call-overload, untyped-decorator]  # E
async def no_such_level(session: AsyncSession) -> int:
    return 1


@activity(isolation_level="SERIALIZABLE")  # type: ignore[call-overload, untyped-decorator]  # E
async def not_transactional(order: Order) -> int:
    return 1


@workflow  # type: ignore[arg-type]  # E
def blocking(i: int) -> int:
    return i


@activity(timeout="30 s")  # type: ignore[call-overload, untyped-decorator]  # E
async def wrong_option(i: int) -> int:
    return i


@activity(tmeout=30)  # type: ignore[call-overload, untyped-decorator]  # E
async def misspelt(i: int) -> int:
    return i


@workflow(version="2")  # type: ignore[call-overload, untyped-decorator]  # E
async def wrong_version(i: int) -> int:
    return i


# --- in a workflow ----------------------------------------------------------------------------------------------------


@workflow
async def fulfil(order: Order) -> Charge:
    assert_type(await validate(order), Order)
    assert_type(await resize(b"", width=5), bytes)
    assert_type(await notify(), None)
    paid = await charge.options(timeout=10, idempotency_key=None, retry=Retry(max_attempts=1))(order.id, 5)
    assert_type(paid, Charge)
    assert_type(await charge.options(queue="slow").options(timeout=None)("x", cents=1), Charge)

    await validate("order")  # type: ignore[arg-type]  # E
    await charge(order.id)  # type: ignore[call-arg]  # E
    await charge(order.id, 5, 6)  # type: ignore[call-arg]  # E
    await resize(b"", 5)  # type: ignore[call-arg]  # E
    await charge.options(timeout=10)("x", "many")  # type: ignore[arg-type]  # E
    await charge.options(name="other")("x", 1)  # type: ignore[call-arg]  # E
    charge.options(priority="high")  # type: ignore[arg-type]  # E

    assert_type(await book(order), int)
    assert_type(await reserve("x", places=2), int)
    assert_type(await reserve.options(isolation_level=None, serialization_retries=0)("x"), int)
    assert_type(await book_with_ours("x"), str)
    await book(1, order)  # type: ignore[call-arg, arg-type]  # E
    await reserve("x", places="two")  # type: ignore[arg-type]  # E
    await reserve.options(isolation_level="none")("x")  # type: ignore[arg-type]  # E
    assert_type(book.bound(order), Call[int])

    a, b = await asyncio.gather(validate(order), charge("x", 1))
    assert_type(a, Order)
    assert_type(b, Charge)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(charge("x", 1))
    assert_type(task.result(), Charge)
    assert_type(await asyncio.create_task(validate(order)), Order)
    assert_type(await asyncio.wait_for(charge("x", 1), 5), Charge)
    for earliest in asyncio.as_completed([charge("x", 1), charge("y", 2)]):
        assert_type(await earliest, Charge)
    assert_type(await asyncio.shield(asyncio.create_task(validate(order))), Order)

    assert_type(await continuum.wait_signal("go", int, timeout=timedelta(hours=24)), int)
    assert_type(await continuum.wait_signal("go", int | None), int | None)
    assert_type(await continuum.wait_signal("go", Literal["a", "b"]), Literal["a", "b"])
    assert_type(await continuum.wait_signal("go", list[Order]), list[Order])
    assert_type(await continuum.wait_signal("go"), object)
    await continuum.wait_signal("go", int, 5)  # type: ignore[call-overload]  # E
    await continuum.wait_signal("go", int, timeout="5")  # type: ignore[call-overload]  # E
    verdict: str = await continuum.wait_signal("go", int)  # type: ignore[arg-type]  # E
    assert verdict

    assert_type(await continuum.side_effect(lambda: 5), int)
    assert_type(continuum.now(), datetime)
    assert_type(continuum.today(), date)
    assert_type(continuum.uuid4(), UUID)
    assert_type(continuum.random(), Random)
    assert_type(continuum.in_workflow(), bool)
    assert_type(continuum.info().run_id, str)
    continuum.log("INFO", "paid", cents=5)
    return paid


# --- captured calls, handles ------------------------------------------------------------------------------------------

assert_type(two.bound(1), Call[int])
assert_type(express.bound(Order(), fast=True), Call[Charge])
assert_type(charge.bound("x", 1), Call[Charge])
assert_type(fulfil.handle("x"), RunHandle[Charge])

two.bound("x")  # type: ignore[arg-type]  # E
express.bound(Order())  # type: ignore[call-arg]  # E
charge.bound(1, 1)  # type: ignore[arg-type]  # E


def takes_any_workflow(flow: Workflow[..., int]) -> None: ...


takes_any_workflow(two)
takes_any_workflow(fulfil)  # type: ignore[arg-type]  # E


async def unit_tests() -> None:
    assert_type(await charge.fn("x", 1), Any)
    assert_type(await two.fn(1), int)
    assert_type(await charge("x", 1), Charge)
    assert_type(await notify(), None)
    handle = fulfil.handle("x")
    assert_type(await handle.result(timeout=5), Charge)
    assert_type(await handle.signal("go", 1, delivery_id="d"), Literal["delivered", "duplicate"])
    assert_type(await handle.cancel(), Literal["cancelled", "requested"])
    await handle.result(5)  # type: ignore[call-arg]  # E
    wrong: str = await handle.result()  # type: ignore[assignment]  # E
    assert wrong


not_a_decorator: Callable[[int], int] = charge  # type: ignore[assignment]  # E
