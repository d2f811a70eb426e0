"""`continuum runs …`: found, shown, signalled and cancelled from a terminal, without the code of the runs."""

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

import continuum
from continuum import activity, workflow
from continuum.definitions.catalog import scoped_catalog
from tests.components.test_cli import Command, command, sqlite_url
from tests.support.eventually import eventually

__all__ = ["command", "sqlite_url"]

NOBODY = "00000000-0000-4000-8000-000000000000"


@activity(name="cli.double")
async def double(n: int) -> int:
    return 2 * n


@workflow(name="cli.waits", signals={"go": int})
async def waits(n: int) -> int:
    return await double(n) + await continuum.wait_signal("go", int)


@workflow(name="cli.fails")
async def fails(n: int) -> int:
    raise ValueError(f"no {n}")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_database"))


class Shop:
    """An instance with runs, which no process carries any more when a command looks at them."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name

    def visit(self, what: Any) -> Any:
        async def visited() -> Any:
            engine = create_async_engine(self.url)
            try:
                if self.name == "continuum":
                    async with continuum.application(engine, migrations="upgrade") as instance:
                        return await what(instance)
                children = continuum.children(name=self.name, engine=engine, migrations="upgrade")
                async with children:
                    result = await what(continuum.instance(self.name))
                children.forget()
                return result
            finally:
                await engine.dispose()

        return asyncio.run(visited())


@pytest.fixture(params=["continuum", "orders"])
def shop(url: str, request: pytest.FixtureRequest) -> tuple[Shop, list[str]]:
    """Two runs that wait, and one that failed."""
    made = Shop(url, request.param)

    async def open_runs(instance: Any) -> list[str]:
        runs = [
            await instance.start(waits, 1, attributes={"customer": "c1", "n": 4}),
            await instance.start(waits, 2, attributes={"customer": "c1", "n": "4"}, namespace="eu"),
            await instance.start(fails, 3, attributes={"customer": "c2"}),
        ]

        async def have_settled() -> bool:
            states = [(await run.status()).state.value for run in runs]
            lengths = [len(await instance.history(run.run_id)) for run in runs[:2]]
            return states[2] == "failed" and lengths == [3, 3]

        await eventually(have_settled)
        return [run.run_id for run in runs]

    return made, made.visit(open_runs)


def test_runs_are_listed_shown_signalled_and_cancelled(command: Command, shop: tuple[Shop, list[str]]) -> None:
    made, (one, two, three) = shop
    with scoped_catalog() as empty:  # a terminal has none of the code
        empty._workflows.clear()

        def called(*arguments: str) -> str:
            code, out, err = command("runs", *arguments, "--url", made.url)
            assert code == 0, err
            return out

        def listed(*filters: str) -> list[str]:
            return [run["run_id"] for run in json.loads(called("list", "--json", *filters))["items"]]

        assert listed() == [three, two, one]
        assert listed("--attribute", "customer=c1", "--attribute", "n=4") == [one]
        assert listed("--attribute", 'n="4"') == [two]
        assert listed("--namespace", "eu") == [two]
        assert listed("--state", "failed") == [three]
        assert listed("--workflow", "cli.waits") == [two, one]
        first = json.loads(called("list", "--limit", "2", "--json"))
        assert listed("--limit", "2", "--cursor", first["next_cursor"]) == [one]
        shown = json.loads(called("show", three, "--json"))
        assert (shown["state"], shown["error"]["type"], shown["error"]["message"]) == (
            "failed",
            "builtins.ValueError",
            "no 3",
        )
        assert [event["type"] for event in shown["events"]] == ["started", "failed"]
        assert called("signal", one, "go", "5", "--delivery-id", "d1") == "delivered\n"
        assert called("signal", one, "go", "5", "--delivery-id", "d1") == "duplicate\n"
        assert called("cancel", two) in {"cancelled\n", "requested\n"}

    async def end(instance: Any) -> Any:
        await eventually(lambda: _has_state(instance, two, "cancelled"))
        return await instance.await_run(one, waits, timeout=20)

    assert made.visit(end) == 7


async def _has_state(instance: Any, run_id: str, state: str) -> bool:
    return bool((await instance.get_run(run_id)).state == state)


def test_tables_are_for_people(command: Command, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    made = Shop(sqlite_url, "continuum")

    async def two_runs(instance: Any) -> list[str]:
        runs = [await instance.start(fails, n, attributes={"n": n, "[bold]": ["x"]}, namespace="eu") for n in range(2)]
        await eventually(lambda: _has_state(instance, runs[1].run_id, "failed"))
        await eventually(lambda: _has_state(instance, runs[0].run_id, "failed"))
        return [run.run_id for run in runs]

    one, two = made.visit(two_runs)
    code, out, _ = command("runs", "list", "--url", sqlite_url, "--limit", "1")
    assert code == 0
    assert all(word in out for word in (two, "cli.fails v1", "failed", "eu", 'n=1 [bold]=["x"]', "more: --cursor "))
    assert one not in out
    code, out, _ = command("runs", "show", two, "--url", sqlite_url)
    assert code == 0
    assert all(word in out for word in (two, "no 1", "started", '{"n": 1}', "builtins.ValueError"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", NOBODY], f"there is no run {NOBODY} in this instance"),
        (["show", "no-id"], "run ids are UUIDs"),
        (["signal", NOBODY, "go"], f"there is no run {NOBODY}"),
        (["signal", NOBODY, "go", "{no json"], "write a text as '\"text\"'"),
        (["signal", NOBODY, "go", '{"amount": NaN}'], "write a text as '\"text\"'"),
        (["cancel", NOBODY], f"there is no run {NOBODY}"),
        (["list", "--attribute", "customer"], "--attribute takes NAME=VALUE"),
        (["list", "--attribute", "a=[1,null]"], "a list holds no None"),
        (["list", "--state", "odd"], "states are pending"),
        (["list", "--limit", "0"], "limit must be"),
        (["list", "--cursor", "x"], "not one that a page of runs gave"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    command: Command, sqlite_url: str, arguments: list[str], says: str
) -> None:
    async def nothing(_instance: Any) -> None:
        return None

    Shop(sqlite_url, "continuum").visit(nothing)
    code, out, err = command("runs", *arguments, "--url", sqlite_url)
    assert (code, out) == (1, "")
    assert err.startswith("continuum: ")
    assert says in err
    assert len(err.splitlines()) == 1


def test_a_database_without_runs_is_not_claimed_by_looking(command: Command, sqlite_url: str) -> None:
    code, _, err = command("runs", "list", "--url", sqlite_url)
    assert (code, "there is no file" in err) == (1, True)
    assert command("migrate", "--url", sqlite_url)[0] == 0
    code, _, err = command("runs", "list", "--url", sqlite_url)
    assert (code, "no instance has used this database yet" in err) == (1, True)

    async def works(instance: Any) -> str:
        return str(instance.name)

    assert Shop(sqlite_url, "orders").visit(works) == "orders"


def test_tables_that_are_not_there_are_told_of(command: Command, postgres_database: str) -> None:
    code, _, err = command("runs", "list", "--url", postgres_database)
    assert (code, "no instance has used this database yet" in err) == (1, True)


# --- serve ------------------------------------------------------------------------------------------------------------


def test_serve_hands_an_application_to_uvicorn(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []
    monkeypatch.setattr("uvicorn.run", lambda *arguments, **options: served.append((arguments, options)))
    code, _, err = command("serve", "service.app:app", "--port", "8001", "--patience", "45")
    assert (code, err) == (0, "")
    ((target,), options) = served[0]
    assert (target, options["port"], options["timeout_graceful_shutdown"]) == ("service.app:app", 8001, 45)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["service.app"], "MODULE:APP"),
        (["service.app:app", "--patience", "nan"], "--patience takes seconds"),
        (["service.app:app", "--patience", "-1"], "--patience takes seconds"),
        (["service.app:app", "--log-level", "loud"], "--log-level takes critical, error"),
    ],
)
def test_serve_says_what_it_takes(command: Command, arguments: list[str], says: str) -> None:
    code, _, err = command("serve", *arguments)
    assert code == 1
    assert says in err
