"""What tests see in memory is what happens on a database: the same stories, the same histories, the same refusals."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

import continuum
from continuum import activity, workflow
from continuum.composition.instance import Instance
from continuum.testing import environment
from tests.support.hosting import Place


@activity
async def echo(n: int) -> int:
    return n


@workflow(name="kit.mailbox")
async def mailbox() -> list[Any]:
    early = [await continuum.wait_signal("begin", int)]
    early += [await continuum.wait_signal("b", int), await continuum.wait_signal("a", int)]
    both = await asyncio.gather(continuum.wait_signal("a", int), continuum.wait_signal("a", int))
    return [*early, await echo(5), *both]


@asynccontextmanager
async def in_memory() -> AsyncIterator[Instance]:
    async with environment() as env:
        yield env.instance()


async def a_story(app: Instance) -> tuple[Any, list[Any]]:
    run = await app.start(mailbox)
    for name, payload in (
        ("a", 1),
        ("a", 2),
        ("b", 3),
        ("a", 4),
        ("begin", 0),
    ):  # early, in another order than they are waited for
        assert await run.signal(name, payload) == "delivered"
    result = await run.result(timeout=15)
    return result, [(event.seq, event.type, event.name, event.data) for event in await app.history(run.run_id)]


# P94, P96, P98
async def test_signals_that_come_early_stand_where_they_stand_on_a_database(place: Place) -> None:
    async with place.node() as app:
        result, history = await a_story(app)
    async with in_memory() as app:
        assert await a_story(app) == (result, history)
    assert result == [0, 3, 1, 5, 2, 4]
    assert [seq for seq, *_ in history] == list(range(1, len(history) + 1))


async def refusals(app: Instance) -> list[str]:
    """What is not accepted, by the name of its error."""
    chosen = str(uuid4())
    run = await app.start(mailbox, run_id=chosen)
    heard = []
    for call in (
        lambda: app.start(mailbox, run_id=chosen),  # P97
        lambda: app.signal(str(uuid4()), "a", 1),
        lambda: app.cancel(chosen),
        lambda: app.signal(chosen, "a", 1),  # P95
        lambda: app.cancel(chosen),
        lambda: app.start(mailbox, run_id=chosen),
    ):
        try:
            heard.append(str(await call()))
        except continuum.ContinuumError as error:
            heard.append(type(error).__name__)
    with pytest.raises(continuum.RunCancelled):
        await run.result(timeout=15)
    return heard


# P95, P97
async def test_what_a_database_refuses_is_refused_in_memory(place: Place) -> None:
    async with place.node() as app:
        on_a_database = await refusals(app)
    async with in_memory() as app:
        assert await refusals(app) == on_a_database
    assert on_a_database == ["RunExists", "RunNotFound", "cancelled", "RunNotActive", "RunNotActive", "RunExists"]
