"""What the guides show runs, and what they say of the API is so."""

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from continuum.composition.building import instances
from continuum.definitions.catalog import scoped_catalog
from continuum.http import problems
from tools.print_openapi import document

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
HOSTING, API = (GUIDES / "fastapi.md").read_text(), (GUIDES / "http.md").read_text()


@pytest.fixture
def guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module made of every Python block of *Hosting in FastAPI*, in order."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("guide")
    sys.modules["guide"] = module
    with scoped_catalog():
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", HOSTING, re.DOTALL)):
            exec(compile(block, f"fastapi.md block {number}", "exec"), module.__dict__)
        yield module
    del sys.modules["guide"]
    module.orders.forget()


async def test_the_host_of_the_guide_runs(guide: Any) -> None:
    assert await guide.main() == "receipt for o-17"
    assert "orders" in instances.names


def test_the_guide_knows_every_problem() -> None:
    kinds = {kind for _, kind in problems.KINDS} | {
        one for one in vars(problems).values() if isinstance(one, problems.Kind)
    }
    table = {
        (int(status), name)
        for status, names in re.findall(r"^\| (\d+) \| (.*) \|$", API, re.MULTILINE)
        for name in re.findall(r"`([a-z-]+)`", names)
    }
    assert {(int(kind.status), kind.name) for kind in kinds} == {row for row in table if row[1] != "payload_max"}


def test_the_guide_knows_every_path() -> None:
    named = set(re.findall(r"\{p\}(/[a-z]+(?:/[a-z{}]+)*)", API)) | {"/health/ready"}
    served = {
        path.removeprefix("/continuum/{instance}").replace("{run_id}", "{id}")
        for path in re.findall(r'"(/continuum/\{instance\}/[^"]*)": \{', document())
    }
    assert served <= named
