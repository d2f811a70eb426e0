"""What the guides on instances and tenants show runs, and says what is so."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

import continuum
from continuum.cli import fleet
from continuum.composition import late
from continuum.composition.building import instances
from continuum.definitions.catalog import scoped_catalog
from continuum.journal.sql import head
from continuum.runtime.passes import CALLS_MAX
from tests.tenants.test_fifty import BUSY_MAX, FIFTY, IDLE_MAX

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
INSTANCES, TENANTS = (GUIDES / "multi-instance.md").read_text(), (GUIDES / "tenants.md").read_text()


def blocks(text: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def urls(sqlite_template: Path, tmp_path: Path) -> Iterator[list[str]]:
    """Two migrated files, and a server that is not there."""
    before = dict(instances._by_name)
    instances._by_name.clear()
    made = [shutil.copy(sqlite_template, tmp_path / f"{name}.db") for name in ("orders", "billing")]
    with scoped_catalog():
        yield [*(f"sqlite+aiosqlite:///{path}" for path in made), f"postgresql+asyncpg://me@/app?host={tmp_path}"]
    instances._by_name.clear()
    instances._by_name.update(before)


async def test_the_code_on_instances_runs(urls: list[str], tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "guide", "ORDERS_URL": urls[0], "BILLING_URL": urls[1], "AWAY_URL": urls[2]}
    for block in blocks(INSTANCES):
        exec(compile(block, "guide", "exec"), names)
    assert await names["alone"]() == "continuum charged 4200"
    async with names["lifespan"](None):
        assert await names["in_both"](7) == ["orders charged 7", "billing charged 7"]
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'new.db'}")
        assert await names["serve_for_a_while"]("new", engine) == "new charged 1"
        await engine.dispose()
        with pytest.raises(continuum.InstanceNotRegistered):
            continuum.instance("new")
    state, why = await names["starts_without_it"]()
    assert state == "not_started"
    assert why.startswith("cannot connect to")


async def test_the_code_on_tenants_runs(urls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (written,) = blocks(TENANTS, "toml")
    shown = written.replace('{ url = "postgresql+asyncpg://db/shared", schema = "billing" }', json.dumps(urls[1]))
    shown = shown.replace("postgresql+asyncpg://db/orders", urls[0])
    (tmp_path / "pyproject.toml").write_text(shown)
    monkeypatch.chdir(tmp_path)
    hosting, filtering = blocks(TENANTS)
    names: dict[str, Any] = {"__name__": "guide"}
    exec(compile(hosting, "guide", "exec"), names)
    assert await names["serve"]() == {"billing": "ready", "orders": "ready"}
    for engine in names["engines"].values():
        await engine.dispose()
    exec(compile(filtering, "guide", "exec"), names | {"metadata": MetaData()})


def test_the_variables_that_are_shown_name_the_tenants_that_are_shown() -> None:
    exports = dict(re.findall(r"^export (CONTINUUM_TENANTS\S+)=(\S+)$", TENANTS, re.MULTILINE))
    found = continuum.tenants.of_environment(exports)
    assert {name: (one.url, one.schema) for name, one in found.items()} == {
        "orders": ("postgresql+asyncpg://db/orders", None),
        "billing": ("postgresql+asyncpg://db/shared", "billing"),
    }


@pytest.mark.parametrize(
    ("said", "is_so"),
    [
        (f"{IDLE_MAX} at rest (reads, LISTEN, heartbeat), {BUSY_MAX} at work", True),
        (f"are {FIFTY * IDLE_MAX} connections at rest and {FIFTY * BUSY_MAX} at work", True),
        (f"together make {CALLS_MAX} turns at most", True),
        (
            "after a second, then less often, at least every half minute",
            (late.PAUSE_SECONDS, late.PAUSE_MAX_SECONDS) == (1, 30),
        ),
    ],
)
def test_numbers_on_instances_are_those_of_the_code(said: str, is_so: bool) -> None:
    assert said in " ".join(INSTANCES.split())
    assert is_so


def test_what_is_said_of_migrations_is_so() -> None:
    env = (GUIDES.parents[1] / "migrations" / "env.py").read_text()
    assert 'LOCK_TIMEOUT = "5s"' in env
    assert 'TURN_TIMEOUT = "300s"' in env
    assert set(fleet.STYLES) == set(re.search(r"States are (.*?)\.", TENANTS)[1].replace("`", "").split(", "))  # type: ignore[index]
    assert re.search(r'depends_on = "(c\d+)"', TENANTS)[1] <= head()  # type: ignore[index]
