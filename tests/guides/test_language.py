"""What the guides on the workflow language show runs, and does what they say."""

import re
import sys
import types
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import continuum
import continuum.testing
from continuum.definitions.catalog import scoped_catalog
from continuum.testing import Environment

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"


@contextmanager
def module_of(guide: str) -> Iterator[Any]:
    """Return a module made of every Python block of a guide, in order."""
    module = types.ModuleType(f"guide_of_{guide.removesuffix('.md').replace('-', '_')}")
    sys.modules[module.__name__] = module
    text = (GUIDES / guide).read_text()
    with scoped_catalog():
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
            exec(compile(block, f"{guide} block {number}", "exec"), module.__dict__)
        yield module
    del sys.modules[module.__name__]


@pytest.fixture
async def env() -> AsyncIterator[Environment]:
    async with continuum.testing.environment() as environment:
        yield environment


class Told:
    """Activities that say what they were called with."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, label: str) -> Callable[..., None]:
        def told(*args: object) -> None:
            self.calls.append(" ".join([label, *map(str, args)]))

        return told


async def test_sagas() -> None:
    with module_of("sagas.md") as guide:
        told = Told()
        fakes = {guide.cancel_flight: told("flight"), guide.cancel_hotel: told("hotel")}
        async with continuum.testing.environment(activities=fakes):
            run = await continuum.start(guide.trip, "Rome")
            with pytest.raises(continuum.RunFailed, match="declined"):
                await run.result()
            assert told.calls == ["hotel hotel-Rome", "flight flight-Rome"]
            careful = await continuum.start(guide.careful_trip, "Oslo")
            assert await careful.result() == []
            assert told.calls[2:] == ["hotel hotel-Oslo", "flight flight-Oslo"]


async def test_children() -> None:
    with module_of("children.md") as guide:
        async with continuum.testing.environment():
            run = await continuum.start(guide.album, ["a", "b"])
            assert await run.result() == ["small-a", "small-b"]


async def test_long_running() -> None:
    with module_of("long-running.md") as guide:
        told = Told()
        async with continuum.testing.environment(activities={guide.bill: told("bill")}, auto=False) as env:
            run = await continuum.start(guide.subscription, "c1")
            for _ in range(3):
                await env.advance(timedelta(days=30))
            await run.signal("cancelled")
            assert await run.result() == 4
            assert told.calls == ["bill c1 1", "bill c1 2", "bill c1 3"]
            waiting = await continuum.start(guide.approval, "holiday")
            await env.advance(timedelta(days=7))
            assert await waiting.result() == "holiday: nobody answered"
            granted = await continuum.start(guide.approval, "holiday")
            await granted.signal("decision", True)
            assert await granted.result() == "holiday: granted"


@pytest.mark.parametrize("guide", ["sagas.md", "children.md", "long-running.md"])
def test_what_the_guides_name_is_there(guide: str) -> None:
    names = set(re.findall(r"`?continuum\.([a-z_]+)\(", (GUIDES / guide).read_text()))
    assert names <= set(continuum.__all__), names - set(continuum.__all__)
