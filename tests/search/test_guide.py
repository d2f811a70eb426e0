"""What *Search* shows runs, and what it says of the command line is so."""

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from continuum.cli.app import app
from continuum.definitions.catalog import scoped_catalog

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "search.md").read_text()


@pytest.fixture
def guide() -> Iterator[Any]:
    """A module made of every Python block, in order."""
    module = types.ModuleType("guide")
    sys.modules["guide"] = module
    with scoped_catalog():
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)):
            exec(compile(block, f"search.md block {number}", "exec"), module.__dict__)
        yield module
    del sys.modules["guide"]


async def test_the_blocks_of_the_guide_run(guide: Any) -> None:
    assert await guide.main() == [f"parcel of o-{n} to Berlin" for n in (1, 2, 3)]


def test_the_commands_of_the_guide_exist() -> None:
    runs: Any = get_command(app).commands["runs"]  # type: ignore[attr-defined]
    shown = re.findall(r"^continuum runs (\w+)(.*)$", GUIDE, re.MULTILINE)
    assert [name for name, _ in shown] == ["list", "show", "signal", "cancel"]
    for name, rest in shown:
        options = {option for parameter in runs.commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options
