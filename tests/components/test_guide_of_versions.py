"""What the guide on versions shows runs, and what it says is so."""

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from continuum import Drift
from continuum.client.preflight import Kind
from continuum.definitions.catalog import catalog, scoped_catalog
from continuum.runtime import ledger, recovery
from continuum.telemetry import EVENTS
from continuum.testing import History, assert_replays, environment, replay

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "versions.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
FIRST, VERSIONS, PATCHED, SETTLED, LOOK, MOVED = range(6)


@pytest.fixture
def guide() -> Iterator[Any]:
    """A module into which blocks are written, one deploy after the other."""
    module = types.ModuleType("guide_of_versions")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def deploy(module: Any, *numbers: int) -> None:
    for number in numbers:
        exec(compile(BLOCKS[number], f"versions.md block {number}", "exec"), module.__dict__)


async def a_run(guide: Any) -> History:
    """Start a run of what is deployed, and let it wait for its signal."""
    async with environment() as env:
        run = await guide.continuum.start(guide.fulfil, "o-1")
        await env.advance(1)
        history = await env.history(run)
        assert isinstance(history, History)
        return history


def test_there_are_the_blocks_that_are_tried() -> None:
    assert len(BLOCKS) == MOVED + 1


async def test_a_new_version_leaves_old_runs_to_the_old_code(guide: Any) -> None:
    with scoped_catalog():
        deploy(guide, FIRST)
        old = await a_run(guide)
    with scoped_catalog():
        deploy(guide, VERSIONS)
        assert (await a_run(guide)).run.version == 2
        assert_replays(guide.fulfil_1, old)
        with pytest.raises(Drift, match="insure"):
            replay(guide.fulfil, old)


async def test_a_patch_serves_both_and_goes_when_only_new_runs_are_left(guide: Any) -> None:
    with scoped_catalog():
        deploy(guide, FIRST)
        old = await a_run(guide)
        deploy(guide, PATCHED)
        new = await a_run(guide)
        assert "patched" in [event.type for event in new]
        assert_replays(guide.fulfil, old)
        assert_replays(guide.fulfil, new)
        deploy(guide, SETTLED)
        assert_replays(guide.fulfil, new)
        with pytest.raises(Drift, match="insure"):
            replay(guide.fulfil, old)


async def test_a_moved_workflow_is_found_by_its_old_name(guide: Any) -> None:
    with scoped_catalog():
        deploy(guide, FIRST)
        old = await a_run(guide)
    with scoped_catalog():
        deploy(guide, FIRST)
        catalog()._workflows.pop(("shop.fulfil", 1))
        deploy(guide, MOVED)
        assert_replays(catalog().workflow("shop.fulfil", 1), old)


async def test_a_preflight_in_code_says_whether_all_would_go_on(guide: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with scoped_catalog():
        deploy(guide, FIRST, LOOK)
        async with environment() as env:
            await guide.continuum.start(guide.fulfil, "o-1")
            await env.advance(1)
            assert await guide.would_all_go_on()
            deploy(guide, SETTLED)
            assert not await guide.would_all_go_on()
    assert capsys.readouterr().out.startswith("drift shop.fulfil 1 versions.md block 3:")


def test_names_and_numbers_are_those_of_the_code() -> None:
    text = " ".join(GUIDE.split())
    assert set(re.findall(r"^\| `([a-z]+)` \|", GUIDE, re.MULTILINE)) == set(get_args(Kind))
    assert set(re.findall(r"`(runs?\.[a-z]+)`", GUIDE)) <= set(EVENTS)
    assert (ledger.BLOCKED_BACKOFF_SHARE, ledger.BLOCKED_BACKOFF_SECONDS, ledger.BLOCKED_BACKOFF_MAX_SECONDS) == (
        0.1,
        10.0,
        300.0,
    )
    assert "a tenth of the time" in text
    assert "at least ten seconds, at most five minutes" in text
    assert (recovery.CRASHES_MAX, recovery.CRASH_BACKOFF_SECONDS) == (5, 60.0)
    assert "died five times in a row" in text
    assert "for a minute at a time" in text
