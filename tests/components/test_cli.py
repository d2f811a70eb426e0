"""The command line: migrating, its refusals, and the parts of the demo that need no second process."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

import continuum
from continuum.cli import main
from continuum.cli.demo.ledger import Entry, Ledger, read_ledger
from continuum.cli.demo.orders import Order, expected_receipt, the_orders
from continuum.cli.demo.places import Place
from continuum.cli.demo.processes import NodeFailed, Nodes
from continuum.cli.demo.standing import Seen, Standing
from continuum.cli.demo.verify import Evidence, verify
from continuum.client.reading import HistoryEvent
from continuum.journal.sql import head
from continuum.model.states import RunState
from tests.support.postgres import connect

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Call the command line in this process; returns exit code, stdout and stderr."""
    monkeypatch.delenv("CONTINUUM_DATABASE_URL", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["continuum", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), said.out, said.err

    return call


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'app.db'}"


# --- migrate ----------------------------------------------------------------------------------------------------------


def test_the_version_is_printed(command: Command) -> None:
    assert command("--version") == (0, f"continuum {continuum.__version__}\n", "")


def test_a_fresh_sqlite_file_is_migrated_and_then_there_is_nothing_to_do(command: Command, sqlite_url: str) -> None:
    code, out, _ = command("migrate", "--url", sqlite_url)
    assert code == 0
    assert f"{sqlite_url}: no tables → {head()}" in out
    assert "c0001, The tables" in out
    assert f"  {head()}, " in out
    assert f"{sqlite_url} is at revision {head()}.\n" in out
    assert command("migrate", "--url", sqlite_url) == (0, f"{sqlite_url} is at revision {head()}: nothing to do.\n", "")


def test_check_says_what_to_run_and_creates_nothing(command: Command, sqlite_url: str, tmp_path: Path) -> None:
    code, out, err = command("migrate", "--url", sqlite_url, "--check")
    assert (code, out) == (1, "")
    assert f"continuum migrate --url {sqlite_url}" in err
    assert list(tmp_path.iterdir()) == []
    command("migrate", "--url", sqlite_url)
    assert command("migrate", "--url", sqlite_url, "--check")[0] == 0


def test_check_finds_an_empty_database(command: Command, sqlite_url: str, tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "app.db").close()
    code, _, err = command("migrate", "--url", sqlite_url, "--check")
    assert code == 1
    assert f"has no Continuum tables, this version needs revision {head()}" in err


def test_postgres_is_checked_and_migrated(command: Command, postgres_database: str) -> None:
    code, _, err = command("migrate", "--url", postgres_database, "--check")
    assert code == 1
    assert "continuum migrate --url " in err
    assert command("migrate", "--url", postgres_database)[0] == 0
    assert command("migrate", "--url", postgres_database, "--check")[0] == 0


def test_a_schema_of_its_own(command: Command, postgres_database: str) -> None:
    assert command("migrate", "--url", postgres_database, "--schema", "billing")[0] == 0
    assert command("migrate", "--url", postgres_database, "--schema", "billing", "--check")[0] == 0
    code, _, err = command("migrate", "--url", postgres_database, "--schema", "other", "--check")
    assert code == 1
    assert "schema 'other' of" in err
    assert err.rstrip().endswith("--schema other")


def test_the_url_may_come_from_the_environment(
    command: Command, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTINUUM_DATABASE_URL", sqlite_url)
    code, _, err = command("migrate", "--check")
    assert code == 1
    assert err.rstrip().endswith("continuum migrate")
    assert command("migrate")[0] == 0


def test_the_printed_sql_makes_the_tables_on_sqlite(command: Command, sqlite_url: str, tmp_path: Path) -> None:
    code, sql, _ = command("migrate", "--url", sqlite_url, "--sql")
    assert code == 0
    assert list(tmp_path.iterdir()) == []
    database = sqlite3.connect(tmp_path / "app.db")
    database.executescript(sql)
    database.close()
    assert command("migrate", "--url", sqlite_url, "--check")[0] == 0


async def _execute(url: str, sql: str) -> None:
    connection = await connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@pytest.fixture
def execute(postgres_database: str) -> Callable[[str], None]:
    """Run SQL on the fresh database, for a test that is not a coroutine because the command has a loop of its own."""
    return lambda sql: asyncio.run(_execute(postgres_database, sql))


def test_the_printed_sql_makes_the_tables_on_postgres(
    command: Command, postgres_database: str, execute: Callable[[str], None]
) -> None:
    code, sql, _ = command("migrate", "--url", postgres_database, "--schema", "billing", "--sql")
    assert code == 0
    execute(sql)
    assert command("migrate", "--url", postgres_database, "--schema", "billing", "--check")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "set CONTINUUM_DATABASE_URL"),
        (["--url", "nonsense"], "cannot be read"),
        (["--url", "mysql+aiomysql://x/y"], "mysql+aiomysql cannot hold a journal"),
        (["--url", "postgresql://me:secret@h/d"], "write postgresql+asyncpg://me:***@h/d"),
        (["--url", "postgresql+psycopg2://h/d"], "write postgresql+asyncpg://h/d"),
        (["--url", "sqlite:///app.db"], "write sqlite+aiosqlite:///app.db"),
        (["--url", "sqlite+aiosqlite:///"], "in memory"),
        (["--url", "sqlite+aiosqlite:////nowhere/at/all/app.db"], "there is no directory /nowhere/at/all"),
        (["--url", "postgresql+asyncpg://me:secret@127.0.0.1:1/d"], "cannot connect"),
        (["--url", "postgresql+asyncpg://h/d", "--check", "--sql"], "exclude each other"),
    ],
)
def test_a_refusal_says_what_to_do(command: Command, arguments: list[str], expected: str) -> None:
    code, out, err = command("migrate", *arguments)
    assert (code, out) == (1, "")
    assert expected in err
    assert "secret" not in err
    assert "Traceback" not in err


def test_an_unknown_command_is_wrong_usage(command: Command) -> None:
    code, _, err = command("frobnicate")
    assert code == 2
    assert "No such command" in err


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("typer", ["--version"], "cli"),
        ("rich", ["--version"], "cli"),
        ("aiosqlite", ["migrate", "--url", "sqlite+aiosqlite:///app.db"], "sqlite"),
        ("aiosqlite", ["demo", "--once"], "sqlite"),
        ("asyncpg", ["migrate", "--url", "postgresql+asyncpg://h/d"], "postgres"),
    ],
)
def test_a_missing_package_is_answered_with_what_installs_it(
    package: str, arguments: list[str], extra: str, tmp_path: Path
) -> None:
    hidden = f"import sys; sys.modules[{package!r}] = None\nfrom continuum.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", hidden, *arguments],
        check=False,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"pip install 'continuum-durable[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


# --- the demo's verdict -----------------------------------------------------------------------------------------------

KILLED_AT = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def a_seen(order: Order) -> Seen:
    """An order that went as it should, the last event two seconds after the kill."""
    names = ["validate", "charge", "ship", "notify"]
    events = [event(1, "started")]
    for command_id, name in enumerate(names, 1):
        events.append(event(2 * command_id, "activity_scheduled", command_id, f"demo.{name}"))
        events.append(event(2 * command_id + 1, "activity_completed", command_id, f"demo.{name}"))
    events.append(replace(event(10, "completed"), at=KILLED_AT + timedelta(seconds=2)))
    run_id = str(UUID(int=order.number))
    started, ended = KILLED_AT - timedelta(seconds=3), KILLED_AT + timedelta(seconds=2)
    return Seen(order, run_id, RunState.COMPLETED, None, started, ended, tuple(events))


def event(seq: int, type: str, command_id: int | None = None, name: str | None = None) -> HistoryEvent:
    return HistoryEvent(seq, type, KILLED_AT - timedelta(seconds=1), command_id, None, name, None)


def an_evidence() -> Evidence:
    """One order on one node, taken over after two seconds; its charge failed once on purpose, its ship ran twice."""
    run = a_seen(the_orders(1)[0])
    ledger = [entry(run, name) for name in ("validate", "charge", "ship", "notify")]
    ledger += [replace(entry(run, "charge"), fails=True), replace(entry(run, "ship"), attempt=2, node=8)]
    return Evidence(
        count=1,
        standing=Standing((run,)),
        results={run.run_id: expected_receipt(run.order)},
        ledger=ledger,
        killed_pid=7,
        killed_at=KILLED_AT,
        held={run.run_id: 9},
    )


def entry(run: Seen, activity: str) -> Entry:
    return Entry(run.run_id, activity, attempt=1, node=7, fails=False)


def without(evidence: Evidence, *seqs: int) -> Evidence:
    """Take events out of the only history."""
    (run,) = evidence.standing.runs
    events = tuple(event for event in run.events if event.seq not in seqs)
    return replace(evidence, standing=Standing((replace(run, events=events),)))


def test_good_evidence_is_verified_and_counted() -> None:
    report = verify(an_evidence())
    assert report.is_good
    assert report.summary == {
        "orders": 1,
        "verified": 1,
        "killed_pid": 7,
        "takeover_seconds": 2.0,
        "repeats": 1,
        "runs_per_second": 0.2,
    }


def test_a_first_turn_that_carries_the_time_of_the_start_does_not_count_as_the_take_over() -> None:
    good = an_evidence()
    report = verify(replace(good, held=dict.fromkeys(good.held, 1)))
    assert report.takeover_seconds == 2.0


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda good: replace(good, results={}), "it has no result"),
        (
            lambda good: replace(good, results=dict.fromkeys(good.results, OSError("gone"))),
            "it ended with OSError: gone",
        ),
        (lambda good: without(good, 4), "its history has gaps"),
        (lambda good: without(good, 10), "does not end once"),
        (lambda good: without(good, 9), "notify was journaled 0 times"),
        (lambda good: without(good, 8), "commands charge, ship, validate instead of"),
        (lambda good: replace(good, ledger=good.ledger[1:]), "validate never ran"),
    ],
)
def test_every_fault_is_found(spoil: Callable[[Evidence], Evidence], problem: str) -> None:
    report = verify(spoil(an_evidence()))
    assert not report.is_good
    assert report.verified == 0
    assert problem in " ".join(report.orders[0].problems)


def test_an_effect_that_was_journaled_twice_is_found() -> None:
    good = an_evidence()
    (run,) = good.standing.runs
    twice = (*run.events[:-1], event(10, "activity_completed", 4, "demo.notify"), replace(run.events[-1], seq=11))
    report = verify(replace(good, standing=Standing((replace(run, events=twice),))))
    assert report.orders[0].problems == ("notify was journaled 2 times",)


def test_orders_that_are_missing_and_a_take_over_that_never_came_are_found() -> None:
    report = verify(replace(an_evidence(), count=2, held={}))
    assert report.verified == 1
    assert report.takeover_seconds is None
    assert report.problems == (
        "2 orders were to be started, the journal has 1",
        "nobody went on with what the killed node had held",
    )


def test_a_line_that_a_killed_process_did_not_finish_is_no_entry(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.write(run_id="r", activity="ship", attempt=1, fails=False)
    ledger.close()
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write(json.dumps({"run_id": "r"})[:-1])
    assert [(entry.activity, entry.attempt) for entry in read_ledger(tmp_path / "ledger.jsonl")] == [("ship", 1)]


async def test_a_node_that_does_not_come_up_is_reported_with_its_log(tmp_path: Path) -> None:
    place = Place(tmp_path, f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}", "an unmigrated database")
    with pytest.raises(NodeFailed, match=r"(?s)node-1 ended unasked with code 1\..*has no Continuum tables"):
        async with Nodes(("node-1",), place, lambda _name, _facts: None):
            pass
