"""`continuum schedules` on a real database, beside a host that may be running."""

import asyncio
import importlib
import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import continuum
from continuum.cli import main
from continuum.composition.instance import Instance
from continuum.definitions.catalog import scoped_catalog

Command = Callable[..., tuple[int, str, str]]
CODE = """
import continuum

@continuum.workflow(name="cli.report")
async def report(team: str) -> str:
    return team
"""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Call the command line in this process; returns exit code, stdout and stderr."""
    monkeypatch.delenv("CONTINUUM_DATABASE_URL", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["continuum", "schedules", *arguments])
        monkeypatch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), said.out, said.err

    return call


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_database"))
    return f"sqlite+aiosqlite:///{tmp_path / 'app.db'}"


def hosted(url: str, name: str, use: Callable[[Instance], Coroutine[Any, Any, object]]) -> None:
    """Use an instance of the host, in a loop of its own."""

    async def run() -> None:
        engine = create_async_engine(url, poolclass=NullPool)
        if name == "continuum":
            async with continuum.application(engine, migrations="upgrade") as instance:
                await use(instance)
        else:
            made = continuum.children(name=name, engine=engine, migrations="upgrade")
            async with made:
                assert made.instance is not None
                await use(made.instance)
            made.forget()
        await engine.dispose()

    asyncio.run(run())


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The host's module, which is where the command is called."""
    (tmp_path / "reports_of_cli.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with scoped_catalog():
        yield importlib.import_module("reports_of_cli")
    sys.modules.pop("reports_of_cli", None)


@pytest.fixture(params=["continuum", "billing"])
def name(request: pytest.FixtureRequest) -> str:
    """What the host calls its instance; the command need not be told."""
    return str(request.param)


@pytest.fixture
def declared(name: str, url: str, code: Any) -> str:
    """A database of a host that has declared two schedules and is down."""

    async def declare(instance: Instance) -> None:
        await instance.schedule(code.report, "a", cron="0 8 * * MON-FRI", timezone="Europe/Berlin", id="weekdays")
        await instance.schedule(code.report, "b", start_at=datetime(2999, 1, 1, tzinfo=UTC), id="late")

    hosted(url, name, declare)
    return url


def test_schedules_are_listed_for_people_and_for_programs(command: Command, declared: str) -> None:
    exit_code, out, _ = command("list", "--url", declared)
    assert exit_code == 0
    assert "0 8 * * MON-FRI (Europe/Berlin)" in out
    assert "once" in out
    exit_code, out, _ = command("list", "--url", declared, "--json")
    objects = [json.loads(line) for line in out.splitlines()]
    assert [one["schedule_id"] for one in objects] == ["late", "weekdays"]
    assert objects[0] == {
        "schedule_id": "late",
        "workflow": "cli.report",
        "state": "active",
        "cron": None,
        "every": None,
        "start_at": "2999-01-01T00:00:00Z",
        "timezone": "UTC",
        "overlap": "skip",
        "catch_up": 86400.0,
        "namespace": "default",
        "attributes": {},
        "next_at": "2999-01-01T00:00:00Z",
        "last_at": None,
        "last_run_id": None,
        "fired": 0,
        "skipped": 0,
        "missed": 0,
        "attempts": 0,
        "reason": None,
        "created_at": objects[0]["created_at"],
    }


def test_a_schedule_is_paused_shown_resumed_and_deleted(command: Command, declared: str) -> None:
    assert command("pause", "weekdays", "--url", declared) == (0, "weekdays is paused.\n", "")
    assert json.loads(command("show", "weekdays", "--url", declared, "--json")[1])["state"] == "paused"
    assert command("list", "--state", "paused", "--url", declared, "--json")[1].count("\n") == 1
    assert command("resume", "weekdays", "--url", declared) == (0, "weekdays is active.\n", "")
    shown = command("show", "weekdays", "--url", declared)[1]
    assert len(json.loads(command("show", "weekdays", "--url", declared, "--json")[1])["upcoming"]) == 5
    assert "cron         0 8 * * MON-FRI\n" in shown
    assert command("delete", "weekdays", "--url", declared) == (0, "weekdays is deleted.\n", "")
    exit_code, out, err = command("show", "weekdays", "--url", declared)
    assert (exit_code, out) == (1, "")
    assert "there is no schedule 'weekdays'" in err


def test_a_trigger_starts_a_run_that_the_host_performs(command: Command, declared: str, name: str) -> None:
    exit_code, out, _ = command("trigger", "weekdays", "--import", "reports_of_cli", "--url", declared)
    assert exit_code == 0
    results: list[object] = []

    async def wait(instance: Instance) -> None:
        results.append(await instance.await_run(out.strip(), timeout=15))

    hosted(declared, name, wait)
    assert results == ["a"]


def test_what_cannot_be_done_is_said(command: Command, url: str, tmp_path: Path) -> None:
    nowhere = f"sqlite+aiosqlite:///{tmp_path / 'nothing.db'}"
    exit_code, _, err = command("list", "--url", nowhere)
    assert (exit_code, "there is no file" in err) == (1, True)
    assert not (tmp_path / "nothing.db").exists()
    exit_code, _, err = command("list")
    assert (exit_code, "which database?" in err) == (1, True)


def test_a_module_that_is_not_there_is_named(command: Command, declared: str) -> None:
    exit_code, _, err = command("trigger", "weekdays", "--import", "no_such_module", "--url", declared)
    assert (exit_code, "--import no_such_module" in err) == (1, True)


def test_a_database_without_schedules_says_so(command: Command, url: str, code: Any) -> None:
    async def nothing(instance: Instance) -> None:
        assert (await instance.list_schedules()).items == ()

    hosted(url, "billing", nothing)
    assert command("list", "--url", url) == (0, "No schedules.\n", "")
    exit_code, _, err = command("list", "--state", "asleep", "--url", url)
    assert (exit_code, "'asleep' is no state" in err) == (1, True)
