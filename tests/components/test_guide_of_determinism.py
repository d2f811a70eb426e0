"""What the guide on determinism and drift shows runs, and what it says is so."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import continuum
from continuum.definitions.catalog import scoped_catalog
from continuum.definitions.purity.rules import BY_NAME
from continuum.runtime.ledger import BLOCKED_BACKOFF_SECONDS
from continuum.testing import assert_replays, environment, replay
from tests.unit.definitions.snippets import module_of
from tools.print_purity import with_tables

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "determinism.md").read_text()


@pytest.fixture
def guide() -> Iterator[Any]:
    """A module of every Python block, in order; its workflows pass the check that it is about."""
    with scoped_catalog():
        yield module_of("\n".join(re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)), "guide")


async def test_the_quote_of_the_guide_is_the_same_on_every_replay(guide: Any) -> None:
    async with environment() as env:
        run = await continuum.start(guide.quote, "lamp")
        said = await run.result()
        history = await env.history(run)
    assert assert_replays(guide.quote, history).result == said
    number, price, day = re.fullmatch(r"([0-9a-f-]{36}): (\d+) until (.*)", said).groups()  # type: ignore[union-attr]
    assert (len(number), date.fromisoformat(day).year >= 2024) == (36, True)
    assert 80 <= int(price) <= 95


async def test_what_is_allowed_in_the_guide_runs(guide: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with environment():
        assert await (await continuum.start(guide.noisy, "lamp")).result() == 100


async def test_the_guard_says_what_the_guide_says(guide: Any) -> None:
    reason = await guide.what_the_guard_says()
    assert reason.startswith("a workflow's turn reached for the real world, open '/etc/hostname'")
    assert re.search(r"\(guide_\d+\.py:\d+ in rate\)", reason)


async def test_the_drift_of_the_guide_is_told_and_what_fits_again_replays(guide: Any) -> None:
    async with environment() as env:
        run = await continuum.start(guide.quote_of("first"), "lamp")
        await env.settle()
        history = await env.history(run)
    with pytest.raises(continuum.Drift, match="does not fit the history") as caught:
        replay(guide.quote_of("changed"), history)
    assert "guide_" in str(caught.value)
    assert_replays(guide.quote_of("third"), history)


def test_the_tables_are_those_of_the_code() -> None:
    assert with_tables(GUIDE) == GUIDE, "run: python -m tools.print_purity docs/guides/determinism.md"
    assert GUIDE.count("\n| ") > 50


@pytest.mark.parametrize("name", ["time", "random"])
def test_the_error_that_is_shown_is_one_that_is_raised(name: str) -> None:
    assert f"{BY_NAME[name].why}: {BY_NAME[name].hint}" in GUIDE


def test_blocked_runs_are_tried_again_as_often_as_the_guide_says() -> None:
    assert BLOCKED_BACKOFF_SECONDS == 10
    assert "tried again every ten seconds" in GUIDE
