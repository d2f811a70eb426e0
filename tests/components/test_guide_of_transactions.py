"""What the guide on transactions says of `session=` and of plain SQL is so."""

import importlib
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import continuum
from continuum import RunBlocked, RunCancelled, SignalInvalid
from continuum.definitions.catalog import scoped_catalog
from continuum.journal.sql import migrate
from tests.support.eventually import eventually
from tests.support.hosting import QUICK, instance_of, wiring_of

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "transactions.md").read_text()
VERBS, SQL = GUIDE[GUIDE.index("## Verbs in your transaction") :].split("## From SQL alone")
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def sql(engine: AsyncEngine, what: str) -> str:
    """Return one of the guide's statements."""
    (found,) = re.findall(rf"```sql\n-- {NAMES[engine.dialect.name]}: {what}\n(.*?)```", SQL, re.DOTALL)
    return str(found)


async def run_sql(engine: AsyncEngine, statement: str) -> int:
    """Execute a statement as anybody with a plain driver would; return how many rows it touched."""
    async with engine.begin() as connection:
        return (await connection.exec_driver_sql(statement)).rowcount


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/shop.db"
    database: str = request.getfixturevalue("postgres_database")
    return database


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url)
    await migrate(engine)
    yield engine
    await engine.dispose()


@pytest.fixture
def guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The guide's Python as a module."""
    path = tmp_path / "guide_of_transactions.py"
    path.write_text("\n".join(re.findall(r"```python\n(.*?)```", VERBS, re.DOTALL)))
    monkeypatch.syspath_prepend(tmp_path)
    with scoped_catalog():
        yield importlib.import_module(path.stem)
    del sys.modules[path.stem]


async def test_an_order_and_its_run_exist_together(guide: Any, engine: AsyncEngine) -> None:
    guide.engine = engine
    async with engine.begin() as connection:
        await connection.run_sync(guide.Base.metadata.create_all)
    shop = continuum.children(name="shop", engine=engine, **QUICK)
    async with shop:
        run = await guide.place("o-17")
        await guide.pay("o-17", 4200, "invoice-17")
        assert await run.result(timeout=15) == "o-17: 4200"
        with pytest.raises(Exception, match=r"UNIQUE|unique"):
            await guide.place("o-17")
        assert len((await continuum.list_runs(instance="shop")).items) == 1
    shop.forget()


async def test_an_activity_books_in_its_transaction(guide: Any, engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(guide.Base.metadata.create_all)
    shop = continuum.children(name="shop", engine=engine, **QUICK)
    async with shop:
        runs = [await continuum.start(guide.ship, "o-17", instance="shop") for _ in range(2)]
        assert sorted([await run.result(timeout=15) for run in runs]) == ["parcel 1", "parcel 2"]
    shop.forget()


async def test_sql_alone_starts_and_signals(guide: Any, engine: AsyncEngine) -> None:
    # Only a notice can be in time on PostgreSQL: nothing is polled while the test lasts.
    asleep = {"dispatcher": {"interval": 3600.0}, "signal_router": {"catch_up": 3600.0}}
    is_postgres = engine.dialect.name == "postgresql"
    shop = continuum.children(name="shop", engine=engine, **(QUICK | (asleep if is_postgres else {})))
    await run_sql(engine, "CREATE TABLE shop_orders (id text PRIMARY KEY)")
    for statement in re.split(r"(?<=\$\$;)\n", sql(engine, "start")):
        await run_sql(engine, statement)
    async with shop:
        router: Any = wiring_of(instance_of(shop)).components["signal_router"]
        await eventually(lambda: router.is_listening or not is_postgres)
        await run_sql(engine, "INSERT INTO shop_orders VALUES ('o-17')")
        run = await continuum.start(guide.fulfil, "o-17", idempotency_key="o-17", instance="shop")
        assert run.existing
        assert [
            one.run_id for one in (await continuum.list_runs(attributes={"order": "o-17"}, instance="shop")).items
        ] == [run.run_id]
        await eventually(lambda: run.run_id in wiring_of(instance_of(shop)).registry)
        assert [await run_sql(engine, sql(engine, "signal")) for _ in range(2)] == [1, 0]
        assert await run.result(timeout=15) == "o-17: 4200"
        assert await run_sql(engine, sql(engine, "signal")) == 0  # it has ended
        assert await continuum.signal(run.run_id, "paid", 1, delivery_id="invoice-17", instance="shop") == "duplicate"
    shop.forget()


async def test_what_nobody_checks_is_found_out_where_it_is_read(guide: Any, engine: AsyncEngine) -> None:
    shop = continuum.children(name="shop", engine=engine, **QUICK)
    await run_sql(engine, "CREATE TABLE shop_orders (id text PRIMARY KEY)")
    statements = sql(engine, "start").replace("object('order', NEW.id)", "object('odrer', NEW.id)")
    for statement in re.split(r"(?<=\$\$;)\n", statements):
        await run_sql(engine, statement)
    async with shop:
        await run_sql(engine, "INSERT INTO shop_orders VALUES ('o-1')")
        (wrong,) = (await continuum.list_runs(instance="shop")).items
        with pytest.raises(RunBlocked):
            await continuum.await_run(wrong.run_id, guide.fulfil, instance="shop", timeout=15)
        cancel = sql(engine, "signal").replace("'signal', 'paid'", "'cancel', NULL").replace("'o-17'", "'o-1'")
        await run_sql(engine, cancel)
        with pytest.raises(RunCancelled):
            await continuum.await_run(wrong.run_id, guide.fulfil, instance="shop", timeout=15, wait_blocked=True)

        run = await continuum.start(guide.fulfil, "o-17", idempotency_key="o-17", instance="shop")
        await run_sql(engine, sql(engine, "signal").replace("4200", '"much"'))
        with pytest.raises(continuum.RunFailed) as caught:
            await run.result(timeout=15)
        assert caught.value.type.endswith(SignalInvalid.__name__)
    shop.forget()
