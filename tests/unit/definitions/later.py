"""Annotations that name what is defined further down, written as strings by the future import."""

from __future__ import annotations

from pydantic import BaseModel

from continuum.definitions.activity import activity
from continuum.definitions.workflow import workflow


@activity
async def price(order: Order) -> Receipt:
    return Receipt(cents=len(order.items))


@workflow
async def buy(order: Order, note: str = "none") -> Receipt:
    return await price(order)


class Order(BaseModel):
    items: list[Item]  # not known either when Order is made


class Item(BaseModel):
    name: str


class Receipt(BaseModel):
    cents: int
