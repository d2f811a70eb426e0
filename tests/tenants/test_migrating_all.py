"""`alembic -x tenant=…` and `continuum migrate --all-tenants`: every tenant gets its turn, whatever others come to."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.config import main as alembic
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from continuum import ConfigurationError, SchemaTaken, children, tenants
from continuum.journal.port import Contended
from continuum.journal.sql import head, migrate, rename, revision_of
from continuum.journal.sql.dialects.sqlite import SQLITE
from tests.support.postgres import connect
from tests.tenants.conftest import Command
from tests.tenants.projects import ROOT


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in an empty folder, with nothing configured."""
    for variable in [name for name in os.environ if name.startswith("CONTINUUM_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sqlite(name: str) -> str:
    return f"sqlite+aiosqlite:///{name}.db"


def written(folder: Path, **entries: str | dict[str, str]) -> None:
    """Write tenants into the folder's pyproject.toml."""
    lines = [f"{name} = {_toml(entry)}" for name, entry in entries.items()]
    (folder / "pyproject.toml").write_text("\n".join(["[tool.continuum.tenants]", *lines]))


def _toml(entry: str | dict[str, str]) -> str:
    if isinstance(entry, str):
        return json.dumps(entry)
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in entry.items()) + " }"


def revisions() -> dict[str, str | None]:
    """Return at which revision each configured tenant is."""

    async def ask() -> dict[str, str | None]:
        found = {}
        for one in tenants.configured().values():
            found[one.name] = await revision_of(create_async_engine(one.url, poolclass=NullPool), schema=one.schema)
        return found

    return asyncio.run(ask())


# --- alembic ----------------------------------------------------------------------------------------------------------


def upgraded(*arguments: str) -> None:
    alembic(["-c", str(ROOT / "alembic.ini"), *arguments, "upgrade", "head"])


def test_alembic_upgrades_one_tenant_of_the_file_and_of_the_environment(
    folder: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(folder, billing={"url": postgres_database, "schema": "billing"}, orders=sqlite("orders"))
    monkeypatch.setenv("CONTINUUM_TENANTS__shipping", sqlite("shipping"))
    upgraded("-x", "tenant=billing")
    assert revisions() == {"billing": head(), "orders": None, "shipping": None}
    upgraded("-x", "tenant=shipping")
    assert revisions() == {"billing": head(), "orders": None, "shipping": head()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-x", "tenant=nobody"], "no tenant is named 'nobody'. Known: orders"),
        (["-x", "tenant=orders", "-x", "url=sqlite+aiosqlite:///x.db"], "leave -x url= and -x schema= out"),
        (["-x", "tenant=orders", "-x", "schema=s"], "leave -x url= and -x schema= out"),
        (["-x", "tennant=orders"], "-x tennant=… is not known here; there are: url, schema, tenant"),
    ],
)
def test_alembic_is_told_what_is_wrong_with_a_tenant(folder: Path, arguments: list[str], said: str) -> None:
    written(folder, orders=sqlite("orders"))
    with pytest.raises(SystemExit) as refused:
        upgraded(*arguments)
    assert said in str(refused.value)
    assert not list(folder.glob("*.db"))


# --- continuum migrate --all-tenants ----------------------------------------------------------------------------------


@pytest.fixture
def mixed(folder: Path, postgres_database: str) -> Path:
    """Two that can be upgraded, one that is, and two that cannot be reached."""
    written(
        folder,
        billing={"url": postgres_database, "schema": "billing"},
        gone=f"postgresql+asyncpg://nobody:secret@/nothing?host={folder}",
        orders=sqlite("orders"),
        done=sqlite("done"),
        wrong="mysql://me@db/app",
    )
    asyncio.run(migrate(create_async_engine(sqlite("done"), poolclass=NullPool)))
    return folder


def test_one_that_fails_keeps_nobody_from_being_upgraded(command: Command, mixed: Path) -> None:
    code, out, err = command("migrate", "--all-tenants", "--jobs", "1")
    assert code == 1
    lines = {line.split()[0]: " ".join(line.split()) for line in out.splitlines()}
    assert lines["billing"].endswith(f"- {head()} upgraded")
    assert "schema 'billing' of postgresql+asyncpg://" in lines["billing"]
    assert lines["orders"] == f"orders {sqlite('orders')} - {head()} upgraded"
    assert lines["done"] == f"done {sqlite('done')} {head()} {head()} up to date"
    assert "\ngone: cannot connect to" in out
    assert lines["wrong:"].startswith("wrong: mysql cannot hold a journal")
    assert lines["2"] == f"2 failed, 2 upgraded, 1 up to date; the newest revision is {head()}."
    assert "secret" not in out + err


def test_a_check_changes_nothing_and_says_who_is_behind(command: Command, mixed: Path) -> None:
    code, out, _ = command("migrate", "--all-tenants", "--check", "--json")
    told = json.loads(out)
    assert (code, told["head"]) == (1, head())
    states = {one["tenant"]: (one["before"], one["state"]) for one in told["tenants"]}
    assert states == {
        "billing": (None, "behind"),
        "done": (head(), "up to date"),
        "gone": (None, "failed"),
        "orders": (None, "behind"),
        "wrong": (None, "failed"),
    }
    assert not (mixed / "orders.db").exists()
    assert "\n    continuum migrate --all-tenants\n" in command("migrate", "--all-tenants", "--check")[1]
    written(mixed, done=sqlite("done"))
    assert command("migrate", "--all-tenants", "--check")[0] == 0


def test_whoever_watches_sees_a_bar(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(folder, a=sqlite("a"), b=sqlite("b"))
    monkeypatch.setenv("FORCE_COLOR", "1")  # as if it were a terminal
    code, _, err = command("migrate", "--all-tenants", "--jobs", "1")
    assert code == 0
    assert "asking" in err
    assert "upgrading" in err
    assert "2/2" in err


def test_a_script_per_tenant_makes_its_tables(command: Command, folder: Path, postgres_database: str) -> None:
    written(folder, billing={"url": postgres_database, "schema": "billing"}, orders=sqlite("orders"))
    code, out, _ = command("migrate", "--all-tenants", "--sql", "--into", "scripts")
    assert (code, out) == (0, "scripts/billing.sql\nscripts/orders.sql\n")
    sqlite3.connect("orders.db").executescript((folder / "scripts" / "orders.sql").read_text())

    async def perform() -> None:
        connection = await connect(postgres_database)
        await connection.execute((folder / "scripts" / "billing.sql").read_text())
        await connection.close()

    asyncio.run(perform())
    assert revisions() == {"billing": head(), "orders": head()}
    printed = command("migrate", "--all-tenants", "--sql")[1]
    for name in ("billing", "orders"):
        script = (folder / "scripts" / f"{name}.sql").read_text()
        assert f"-- tenant {name}: " in printed
        assert script.strip() in printed


def test_two_processes_may_upgrade_the_same_ten_tenants(folder: Path, postgres_database: str) -> None:
    five = range(5)
    schemas: dict[str, Any] = {f"p{n}": {"url": postgres_database, "schema": f"t{n}"} for n in five}
    written(folder, **schemas, **{f"s{n}": sqlite(f"s{n}") for n in five})
    arguments = [sys.executable, "-m", "continuum.cli", "migrate", "--all-tenants", "--json", "--jobs"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen([*arguments, jobs], stdout=subprocess.PIPE, text=True, env=environment) for jobs in ("2", "1")
    ]
    told = [json.loads(process.communicate()[0]) for process in both]
    for one in (outcome for answer in told for outcome in answer["tenants"]):
        assert one["error"] is None, one["error"]
        assert one["after"] == head()
    assert [process.returncode for process in both] == [0, 0]
    assert set(revisions().values()) == {head()}


async def test_who_asks_waits_while_another_process_makes_the_first_tables(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is not in WAL yet, and somebody who writes to it."""
    other = sqlite3.connect("app.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE begun (id integer)")
    fault = SQLITE.fault
    met: list[Any] = []

    def met_with(error: BaseException, *, pure: bool) -> Any:
        if not met:
            other.execute("COMMIT")
        met.append(fault(error, pure=pure))
        return met[-1]

    monkeypatch.setattr(type(SQLITE), "fault", lambda _, error, pure: met_with(error, pure=pure))
    assert await revision_of(create_async_engine(sqlite("app"), poolclass=NullPool)) is None
    assert [type(one) for one in met] == [Contended]
    other.close()


def test_a_tenant_is_migrated_by_its_name_alone(command: Command, folder: Path) -> None:
    written(folder, orders=sqlite("orders"), billing=sqlite("billing"))
    code, out, _ = command("migrate", "--tenant", "orders")
    assert (code, out.splitlines()[-1]) == (0, f"{sqlite('orders')} is at revision {head()}.")
    assert not (folder / "billing.db").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--all-tenants"], "there are no tenants: write [tool.continuum.tenants] into pyproject.toml"),
        (["--tenant", "nobody"], "no tenant is named 'nobody'"),
        (["--all-tenants", "--url", "sqlite+aiosqlite:///x.db"], "exclude each other"),
        (["--all-tenants", "--schema", "s"], "exclude each other"),
        (["--all-tenants", "--check", "--sql"], "exclude each other"),
        (["--all-tenants", "--rename", "a", "b"], "--all-tenants goes alone"),
        (["--all-tenants", "--into", "x"], "--into with --sql"),
        (["--all-tenants", "--sql", "--json"], "--json without"),
        (["--url", "sqlite+aiosqlite:///x.db", "--json"], "are for --all-tenants"),
    ],
)
def test_options_that_do_not_go_together_are_refused(command: Command, arguments: list[str], said: str) -> None:
    code, out, err = command("migrate", *arguments)
    assert (code, out) == (1, "")
    assert said in err


# --- renaming ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def used(request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of a database whose tables belong to the instance "old"."""
    url = sqlite("app") if request.param == "sqlite" else str(request.getfixturevalue("postgres_database"))

    async def use() -> None:
        engine = create_async_engine(url, poolclass=NullPool)
        made = children(name="old", engine=engine, migrations="upgrade")
        async with made:
            pass
        made.forget()

    asyncio.run(use())
    return url


def test_tables_may_be_given_to_a_new_name(command: Command, used: str) -> None:
    async def open_as(name: str) -> None:
        made = children(name=name, engine=create_async_engine(used, poolclass=NullPool))
        try:
            async with made:
                pass
        finally:
            made.forget()

    with pytest.raises(SchemaTaken, match="continuum migrate --rename old new"):
        asyncio.run(open_as("new"))
    code, _, err = command("migrate", "--url", used, "--rename", "new", "newer")
    assert (code, "these tables belong to the instance 'old', not to 'new'" in err) == (1, True)
    assert "1 to 64" in command("migrate", "--url", used, "--rename", "old", "a b")[2]
    code, out, _ = command("migrate", "--url", used, "--rename", "old", "new")
    assert (code, out) == (0, f"{make_url(used).render_as_string()} belongs to the instance 'new' now.\n")
    asyncio.run(open_as("new"))
    with pytest.raises(SchemaTaken):
        asyncio.run(open_as("old"))


async def test_tables_of_a_process_that_lives_keep_their_name(used: str) -> None:
    engine = create_async_engine(used, poolclass=NullPool)
    made = children(name="old", engine=engine, node="n1")
    async with made:
        with pytest.raises(ConfigurationError, match="'old' runs on n1: stop it first"):
            await rename(engine, "old", "new")
    made.forget()
    await rename(engine, "old", "new")
