"""What the guide on schedules shows runs, and what it says is so."""

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from continuum.client import scheduling
from continuum.composition.options import PARTS
from continuum.definitions.catalog import scoped_catalog
from continuum.model import firing
from continuum.model.schedules import Overlap
from continuum.telemetry import EVENTS
from continuum.testing import environment

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "schedules.md").read_text()


@pytest.fixture
def guide() -> Iterator[Any]:
    """A module made of every Python block, in order."""
    module = types.ModuleType("guide_of_schedules")
    sys.modules[module.__name__] = module
    with scoped_catalog():
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)):
            exec(compile(block, f"schedules.md block {number}", "exec"), module.__dict__)
        yield module
    del sys.modules[module.__name__]


async def test_what_is_declared_can_be_operated(guide: Any, capsys: pytest.CaptureFixture[str]) -> None:
    async with environment():
        await guide.declare()
        await guide.declare()
        await guide.operate()
    assert capsys.readouterr().out.startswith("active 2026-01-01 07:00:00+00:00 0 [")


async def test_the_days_of_the_change_are_as_the_guide_says(guide: Any) -> None:
    async with environment():
        assert await guide.around_the_change() == guide.AROUND_THE_CHANGE


async def test_a_month_has_as_many_runs_as_working_days(guide: Any) -> None:
    assert await guide.a_month_in_a_moment() == 22


def test_names_and_numbers_are_those_of_the_code() -> None:
    text = " ".join(GUIDE.split())
    assert all(f'`"{overlap.value}"`' in GUIDE for overlap in Overlap)
    assert set(re.findall(r"`(schedule\.[a-z]+)`", GUIDE)) <= set(EVENTS)
    options = {
        option.name: option.default for part in PARTS if part.name == "schedule_runner" for option in part.options
    }
    assert (options["attempts"], options["backoff"], firing.BACKOFF_MAX_SECONDS) == (12, 5.0, 300.0)
    assert "after 5, 10, 20, … up to 300 seconds" in text
    assert "After twelve attempts" in text
    assert (scheduling.CATCH_UP.days, firing.ON_TIME_SECONDS, scheduling.BACKFILL_MAX) == (1, 10.0, 1_000)
    assert "more than ten seconds late" in text
