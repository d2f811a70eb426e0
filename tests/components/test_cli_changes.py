"""`continuum versions` and `continuum preflight` on a real database, beside a host or without one."""

import asyncio
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from continuum.cli import main
from continuum.definitions.catalog import scoped_catalog
from tests.support.eventually import eventually
from tests.support.hosting import evict

Command = Callable[..., tuple[int, str, str]]

BEFORE = """
import os
import continuum
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

@continuum.activity(name="cli.add")
async def add(a: int, b: int) -> int:
    return a + b

@continuum.workflow(name="cli.flow", version=1)
async def flow(n: int) -> int:
    total = await add(n, 1)
    total = await add(total, 2)
    return total + await continuum.wait_signal("go", int)

class Codec:
    def encode(self, payload, context):
        return payload[::-1]

    def decode(self, payload, context):
        return payload[::-1]

codec = Codec()

def orders():
    engine = create_async_engine(os.environ["SHOP_URL"], poolclass=NullPool)
    return continuum.children(name="orders", engine=engine, payload_codec=codec, migrations="upgrade", node="web-1")

if "SHOP_URL" in os.environ:
    children = orders()
"""
PATCHED = BEFORE.replace(
    "    total = await add(total, 2)\n",
    "    total = await add(total, 2 if not continuum.patched('three instead') else 3)\n",
)
DRIFTED = BEFORE.replace("await add(total, 2)", "await add(total, 3)")
BROKEN = BEFORE + "\nraise RuntimeError('this module cannot be imported')\n"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Call the command line in this process, which forgets the code afterwards; returns exit code, stdout and stderr."""
    monkeypatch.delenv("CONTINUUM_DATABASE_URL", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["continuum", *arguments])
        monkeypatch.setattr(sys, "path", [*sys.path])
        sys.modules.pop("shop_flows", None)
        importlib.invalidate_caches()
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


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The working directory holds the code; what it defines is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with scoped_catalog():
        yield
    sys.modules.pop("shop_flows", None)


def write(code: str) -> None:
    (Path.cwd() / "shop_flows.py").write_text(code)


def load() -> Any:
    sys.modules.pop("shop_flows", None)
    importlib.invalidate_caches()
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module("shop_flows")
    finally:
        sys.path.remove(str(Path.cwd()))


async def _hosted(url: str, monkeypatch: pytest.MonkeyPatch, runs: int) -> None:
    """Run the host until its runs wait for their signal."""
    with monkeypatch.context() as patch, scoped_catalog():
        patch.setenv("SHOP_URL", url)
        shop = load()
        async with shop.children:
            app = shop.children.instance
            for number in range(runs):
                run = await app.start(shop.flow, number)
                await evict(app, run.run_id, waits_for="go")
        shop.children.forget()


@pytest.fixture
def host(url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the host with some code, until it leaves runs behind that wait for a signal."""

    def hosted(code: str, *, runs: int) -> None:
        write(code)
        asyncio.run(_hosted(url, monkeypatch, runs))

    return hosted


SEALED = ("--codec", "shop_flows:codec")


# --- preflight --------------------------------------------------------------------------------------------------------


def test_code_that_fits_exits_with_0(command: Command, host: Callable[..., None], url: str) -> None:
    host(BEFORE, runs=2)
    code, out, err = command("preflight", "shop_flows", "--url", url, *SEALED)
    assert (code, err) == (0, "")
    assert out == "2 open runs, 10 events: 2 clean, 0 in trouble.\n"


def test_drift_exits_with_1_and_names_the_line_the_event_and_the_runs(
    command: Command, host: Callable[..., None], url: str
) -> None:
    host(BEFORE, runs=2)
    write(DRIFTED)
    code, out, err = command("preflight", "shop_flows", "--url", url, *SEALED)
    assert (code, err) == (1, "")
    line = DRIFTED.splitlines().index("    total = await add(total, 3)") + 1
    assert f"drift  cli.flow v1  2 runs  shop_flows.py:{line} in flow" in out
    assert "event 4: expected activity_scheduled cli.add (command 2)" in out
    assert "found    activity_scheduled cli.add (command 2), with another b" in out
    assert "Deploy code that fits" in out


def test_json_is_one_object(command: Command, host: Callable[..., None], url: str) -> None:
    host(BEFORE, runs=3)
    write(DRIFTED)
    code, out, _ = command("preflight", "shop_flows", "--url", url, *SEALED, "--sample", "2", "--json")
    found = json.loads(out)
    assert code == 1
    assert (found["is_clean"], found["open_runs"], found["runs"]) == (False, 3, 2)
    (trouble,) = found["troubles"]
    assert (trouble["kind"], trouble["workflow"], trouble["version"], trouble["runs"]) == ("drift", "cli.flow", 1, 2)
    assert (trouble["seq"], len(trouble["examples"])) == (4, 2)


def test_a_named_instance_brings_its_database_along(
    command: Command, host: Callable[..., None], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(BEFORE, runs=1)
    monkeypatch.setenv("SHOP_URL", url)
    code, out, err = command("preflight", "shop_flows:children")
    assert (code, err) == (0, "")
    assert "1 clean" in out
    sys.modules["shop_flows"].children.forget()
    code, _, err = command("preflight", "shop_flows:children", "--url", url)
    assert code == 2
    assert "leave --url" in err
    sys.modules["shop_flows"].children.forget()
    code, _, err = command("preflight", "shop_flows:flow")
    assert code == 2
    assert "name what continuum.children(...) returned" in err
    sys.modules["shop_flows"].children.forget()


def test_one_workflow_alone(command: Command, host: Callable[..., None], url: str) -> None:
    host(BEFORE, runs=1)
    write(DRIFTED)
    assert command("preflight", "shop_flows", "--url", url, *SEALED, "--workflow", "another")[0] == 0
    assert command("preflight", "shop_flows", "--url", url, *SEALED, "--workflow", "cli.flow")[0] == 1


def test_without_the_codec_histories_are_unreadable(command: Command, host: Callable[..., None], url: str) -> None:
    host(BEFORE, runs=1)
    code, out, _ = command("preflight", "shop_flows", "--url", url)
    assert code == 1
    assert "stuck  cli.flow v1  1 run\n" in out


def test_what_cannot_be_looked_at_exits_with_2(command: Command, url: str, tmp_path: Path) -> None:
    write(BEFORE)
    code, _, err = command("preflight", "shop_flows", "--url", f"sqlite+aiosqlite:///{tmp_path / 'none.db'}")
    assert code == 2
    assert "there is no file" in err
    code, _, err = command("preflight", "no_such_module", "--url", url)
    assert code == 2
    assert "no_such_module cannot be imported" in err
    code, _, err = command("preflight", "shop_flows")
    assert code == 2
    assert "which database?" in err
    write(BROKEN)
    code, _, err = command("preflight", "shop_flows", "--url", url)
    assert code == 2
    assert "this module cannot be imported" in err
    assert command("preflight")[0] == 2


def test_a_database_without_runs_is_clean_and_is_not_claimed(command: Command, url: str) -> None:
    write(BEFORE)
    assert command("migrate", "--url", url)[0] == 0
    assert command("preflight", "shop_flows", "--url", url)[:2] == (
        0,
        "0 open runs, 0 events: 0 clean, 0 in trouble.\n",
    )
    assert asyncio.run(_count(url, "continuum_instances")) == 0


async def _count(url: str, table: str) -> int:
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())
    finally:
        await engine.dispose()


# --- versions ---------------------------------------------------------------------------------------------------------


def test_runs_that_no_living_node_can_run_are_told(command: Command, host: Callable[..., None], url: str) -> None:
    host(BEFORE, runs=2)
    code, out, err = command("versions", "--url", url)
    assert (code, err) == (0, "")
    assert "2 suspended" in out
    assert "cli.flow v1: no living node carries it, and 2 open runs wait for one that does" in out
    (told,) = json.loads(command("versions", "--url", url, "--json")[1])
    assert told == {
        "workflow": "cli.flow",
        "version": 1,
        "open_runs": {"suspended": 2},
        "nodes": [],
        "is_stranded": True,
        "is_removable": False,
        "patches": [],
    }


def test_patches_are_exact_with_the_code_and_a_guess_without(
    command: Command, host: Callable[..., None], url: str
) -> None:
    host(BEFORE, runs=2)
    host(PATCHED, runs=1)
    assert "three instead: 1 take it, up to 2 may need the old way" in command("versions", "--url", url)[1]
    exact = command("versions", "shop_flows", "--url", url, *SEALED)[1]
    assert "three instead: 1 take it, 2 need the old way" in exact


def test_who_carries_what_is_shown_while_it_lives(command: Command, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(BEFORE)

    async def shown() -> str:
        with monkeypatch.context() as patch:
            patch.setenv("SHOP_URL", url)
            shop = load()
        async with shop.children:
            app = shop.children.instance

            async def is_told() -> bool:
                return any(one.workflow == "cli.flow" and one.nodes == ("web-1",) for one in await app.versions())

            await eventually(is_told)
            # Another process, as far as the database can tell: a thread with a loop of its own.
            return (await asyncio.get_running_loop().run_in_executor(None, command, "versions", "--url", url))[1]

    out = asyncio.run(shown())
    line = next(line for line in out.splitlines() if line.startswith("cli.flow"))
    assert line.split() == ["cli.flow", "1", "none", "web-1"]


def test_nothing_is_said_of_nothing(command: Command, url: str) -> None:
    assert command("migrate", "--url", url)[0] == 0
    assert command("versions", "--url", url) == (0, "No open runs, and no living nodes.\n", "")
