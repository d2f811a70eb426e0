"""What an instance is: a runtime of its own, by its name, beside others in the process."""

import inspect
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import continuum
from continuum import InstanceNotRegistered, activity, children, workflow
from continuum.composition.building import instances
from continuum.composition.options import PARTS
from continuum.journal.sql import SqlJournal
from continuum.model.writes import Landed, Refused
from tests.journal.builders import AT, Lease, a_commit, a_run, a_start, an_owner
from tests.support.hosting import QUICK, instance_of, wiring_of


@activity
async def whose() -> str:
    return continuum.activity_context().instance


@workflow
async def telling(word: str) -> str:
    return f"{await whose()} {word} {await continuum.wait_signal('go', str)}"


@pytest.fixture(autouse=True)
def _names() -> Iterator[None]:
    before = dict(instances._by_name)
    instances._by_name.clear()
    yield
    instances._by_name.clear()
    instances._by_name.update(before)


@pytest.fixture
def engine(database_file: Path) -> AsyncEngine:
    return create_async_engine(f"sqlite+aiosqlite:///{database_file}")


# --- the default instance ---------------------------------------------------------------------------------------------


async def test_verbs_mean_the_default_instance_unless_they_are_told_another(engine: AsyncEngine) -> None:
    async with continuum.application() as default, children(name="billing", engine=engine, **QUICK):
        run = await continuum.start(telling, "hello")
        await continuum.signal(run.run_id, "go", "on")
        assert await continuum.await_run(run.run_id, telling, timeout=15) == "continuum hello on"
        assert (await continuum.get_run(run.run_id)).run_id == run.run_id
        other = await continuum.start(telling, "hello", instance="billing")
        assert [one.run_id for one in (await continuum.list_runs()).items] == [run.run_id]
        assert [one.run_id for one in (await continuum.list_runs(instance="billing")).items] == [other.run_id]
        assert await continuum.cancel(other.run_id, instance="billing") == "cancelled"
        assert default is continuum.instance("continuum")
    await engine.dispose()


async def test_without_a_database_the_default_instance_lives_in_memory_and_touches_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CONTINUUM_DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    async with continuum.application() as default:
        run = await continuum.start(telling, "hello")
        await run.signal("go", "on")
        assert await run.result(timeout=15) == "continuum hello on"
        assert type(wiring_of(default).journal).__name__ == "MemoryJournal"
    assert list(tmp_path.iterdir()) == []
    async with continuum.application():  # nothing of it is left
        assert (await continuum.list_runs()).items == ()


# --- what children() gives --------------------------------------------------------------------------------------------


def test_there_is_one_child_for_each_part_named_under_the_instance(engine: AsyncEngine) -> None:
    made = children(name="billing", engine=engine)
    assert [child.name for child in made] == ["billing.journal", *(f"billing.{part.name}" for part in PARTS)]
    parts = {
        "pubsub", "registry", "run_supervisor", "activity_supervisor", "heartbeater", "dispatcher",
        "activity_dispatcher", "recovery", "snapshotter", "timer_wheel", "signal_router",
    }  # fmt: skip
    assert parts <= {part.name for part in PARTS}


async def test_no_part_of_an_instance_is_shared_with_another(
    engine: AsyncEngine, sqlite_template: Path, tmp_path: Path
) -> None:
    other = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    both = [
        children(name="orders", engine=engine, **QUICK),
        children(name="billing", engine=other, migrations="upgrade", **QUICK),
    ]
    async with continuum.lifespan(*both, on_sigterm=False):
        orders, billing = (wiring_of(instance_of(one)) for one in both)
        for part in PARTS:
            assert orders.components[part.name] is not billing.components[part.name]
        for name in ("journal", "committer", "node", "pulse", "wakes", "client"):
            assert getattr(orders, name) is not getattr(billing, name)
    await engine.dispose()
    await other.dispose()


@pytest.mark.parametrize("part", [part for part in PARTS if part.options], ids=lambda part: part.name)
async def test_each_child_takes_options_of_its_own(engine: AsyncEngine, part: Any) -> None:
    option = part.options[0]
    chosen = {"queues": {"slow": 1}, "secret": "s", "client": None}.get(option.name, 7)
    options: dict[str, Any] = {part.name: {option.name: chosen}}
    made = children(name="billing", engine=engine, **options)
    assert instance_of(made).settings.part(part.name)[option.name] == option.check(option.name, chosen)
    untouched = children(name="orders", engine=engine)
    assert instance_of(untouched).settings.part(part.name)[option.name] == option.default


# --- calling into a named instance ------------------------------------------------------------------------------------

ID = str(uuid4())
VERBS: dict[str, tuple[Any, ...]] = {
    "start": (telling, "x"), "start_many": (telling, ["x"]), "signal": (ID, "go"), "cancel": (ID,),
    "await_run": (ID,), "get_run": (ID,), "list_runs": (), "history": (ID,), "set_attributes": (ID, {}),
    "schedule": (telling, "x"), "get_schedule": ("s",), "list_schedules": (), "pause_schedule": ("s",),
    "resume_schedule": ("s",), "trigger_schedule": ("s",), "delete_schedule": ("s",),
    "backfill_schedule": ("s", AT, AT), "versions": (), "preflight": (), "drain": (), "readiness": (),
}  # fmt: skip


def test_no_verb_is_forgotten_here() -> None:
    takes_instance = {
        name
        for name in continuum.__all__
        if inspect.isfunction(verb := getattr(continuum, name)) and "instance" in inspect.signature(verb).parameters
    }
    assert takes_instance | {"set_attributes"} == set(VERBS)  # which is overloaded: it takes names of attributes, too


@pytest.mark.parametrize("verb", VERBS)
async def test_an_unknown_name_is_answered_with_those_that_are_known(engine: AsyncEngine, verb: str) -> None:
    for name in ("orders", "billing"):
        children(name=name, engine=engine)
    options: dict[str, Any] = {"schedule": {"every": 60}}.get(verb, {})

    async def call() -> None:
        answer = getattr(continuum, verb)(*VERBS[verb], instance="nobody", **options)
        if inspect.isawaitable(answer):
            await answer

    with pytest.raises(
        InstanceNotRegistered, match=r"'nobody'; `children\(name='nobody'.* Registered: billing, orders"
    ):
        await call()


async def test_a_signals_payload_is_positional_and_its_options_are_not() -> None:
    async with continuum.application():
        run = await continuum.start(telling, "hello")
        for wrong in ({"payload": "on"}, {"name": "go"}):
            with pytest.raises(TypeError):
                await continuum.signal(run.run_id, "go", **wrong)  # type: ignore[arg-type]
        await continuum.signal(run.run_id, "go", "on")  # in third place stands the payload, and nothing else
        assert await run.result(timeout=15) == "continuum hello on"


# --- isolation --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def twins(postgres_database: str) -> AsyncIterator[tuple[SqlJournal, SqlJournal]]:
    """The journals of two instances in two schemas of one database, each with an owner."""
    engine = create_async_engine(postgres_database)
    journals = []
    for name in ("orders", "billing"):
        await continuum.migrate(engine, schema=name)
        journal = SqlJournal(engine, schema=name)
        await journal.open(name)
        await journal.register(an_owner(f"node/{name}/boot/1"), ttl_seconds=30)
        journals.append(journal)
    yield journals[0], journals[1]
    for journal in journals:
        await journal.close()
    await engine.dispose()


async def test_a_write_of_one_instance_never_passes_for_anothers(twins: tuple[SqlJournal, SqlJournal]) -> None:
    """The same run, token and position in both: it is the owner, with the instance's name in it, that differs."""
    orders, billing = twins
    run = a_run()
    leases = {}
    for name, journal in (("orders", orders), ("billing", billing)):
        lease = Lease(run.run_id, owner=f"node/{name}/boot/1")
        leases[name] = lease
        (verdict,) = await journal.write(0, [a_start(run, owner=lease.owner)])
        assert isinstance(verdict, Landed)
    (stray,) = await billing.write(0, [a_commit(leases["orders"])])
    assert isinstance(stray, Refused)
    (own,) = await billing.write(0, [a_commit(leases["billing"])])
    assert isinstance(own, Landed)
    row = await orders.run(run.run_id)
    assert row is not None
    assert row.last_seq == 1


async def test_owners_are_named_for_node_instance_and_boot(engine: AsyncEngine) -> None:
    async with children(name="billing", engine=engine, node="n1"):
        async with engine.connect() as connection:
            rows = (await connection.exec_driver_sql("SELECT owner, instance, node FROM continuum_owners")).all()
        (row,) = rows
        assert (row.owner.split("/")[:2], row.instance, row.node) == (["n1", "billing"], "billing", "n1")
        assert len(row.owner.split("/")) == 4
    await engine.dispose()
