"""Every Python block of the README runs; the first and the last are tests of their own."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from continuum.composition.building import instances
from continuum.definitions.catalog import scoped_catalog

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def run_block(number: int, module: types.ModuleType) -> None:
    """Execute one block in a module, as if it had been imported."""
    exec(compile(BLOCKS[number], f"{README.name} block {number}", "exec"), module.__dict__)


@pytest.fixture
def readme() -> Any:
    """A module made of the README's first block."""
    module = types.ModuleType("readme")
    sys.modules["readme"] = module
    with scoped_catalog():
        run_block(0, module)
        yield module
    del sys.modules["readme"]


async def test_the_workflow_of_the_readme_runs(readme: Any) -> None:
    assert await readme.main() in {"suspended", "running"}


async def test_the_test_of_the_readme_passes(readme: Any) -> None:
    run_block(2, readme)
    await readme.test_it_takes_a_day_and_an_hour()


def test_the_host_of_the_readme_is_made_without_touching_its_databases(readme: Any) -> None:
    pytest.importorskip("fastapi", reason="the extra `fastapi` is not installed")
    run_block(1, readme)
    assert {"billing", "orders"} <= set(instances.names)
    assert [part.name for part in readme.orders][:2] == ["orders.journal", "orders.pubsub"]
    readme.orders.forget()
    readme.billing.forget()


def test_there_is_nothing_else_to_run() -> None:
    assert len(BLOCKS) == 3
