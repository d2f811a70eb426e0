"""What the guides *Your first workflow* and *Activities, retries, idempotency* show runs, and what they say is so."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import continuum
from continuum import Retry
from continuum.definitions.catalog import scoped_catalog
from continuum.model.tasks import TaskOptions
from continuum.testing import environment
from tests.unit.definitions.snippets import module_of

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"


def module(name: str) -> Any:
    text = (GUIDES / f"{name}.md").read_text()
    return module_of("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), name.replace("-", "_"))


@pytest.fixture
def first() -> Iterator[Any]:
    with scoped_catalog():
        yield module("first-workflow")


@pytest.fixture
def activities() -> Iterator[Any]:
    with scoped_catalog():
        yield module("activities")


async def test_the_first_workflow_runs_on_a_file_and_is_there_when_it_is_looked_for(
    first: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert await first.main() in ("suspended", "running", "pending")
    run_id = capsys.readouterr().out.split()[1]
    assert (await first.look(run_id))[:2] == ["started", "activity_scheduled"]


async def test_the_tests_of_the_first_guide_pass(first: Any) -> None:
    await first.test_who_does_not_confirm_is_given_up_after_three_days()
    await first.test_who_confirms_is_asked_after_a_day()


async def test_an_activity_is_retried_and_charged_once(activities: Any) -> None:
    async with environment() as env:
        began = env.now
        assert await (await continuum.start(activities.pay, "o-1", 500)).result() == "charge-o-1"
        assert 2.6 <= (env.now - began).total_seconds() <= 3.4
        assert await (await continuum.start(activities.pay, "o-2", 500_000)).result() == "declined after 3 attempts"
    assert activities.CALLS == ["attempt 1", "attempt 2", "attempt 3"] * 2
    assert list(activities.CHARGES.values()) == [500]


async def test_an_activity_can_say_more(activities: Any) -> None:
    async with environment() as env:
        began = env.now
        assert await (await continuum.start(activities.order, "lamp")).result() == "one lamp"
        assert (env.now - began).total_seconds() == pytest.approx(600, abs=1)
        assert await (await continuum.start(activities.order, "unicorn")).result() == (
            "ActivityError: {'item': 'unicorn'}"
        )


async def test_a_key_of_your_own_is_for_all_runs(activities: Any) -> None:
    async with environment():
        for _ in range(2):
            assert await (await continuum.start(activities.bill, "o-1")).result() == "invoice of o-1"
    assert activities.CALLS == ["invoice o-1"]


async def test_the_long_one_beats(activities: Any) -> None:
    async with environment():
        assert await (await continuum.start(activities.import_all, "x")).result() == 1_000


def test_the_defaults_are_those_of_the_table() -> None:
    text = (GUIDES / "activities.md").read_text()
    retry, options = Retry(), TaskOptions()
    assert (retry.max_attempts, retry.initial, retry.backoff, retry.max_delay, retry.jitter) == (3, 1, 2, 60, 0.1)
    assert "3 attempts, 1 s, × 2, at most 60 s, jitter ± 0.1" in text
    assert (options.timeout_seconds, options.queue, options.priority) == (300, "default", 0)
    assert "| `timeout` | 5 minutes |" in text
