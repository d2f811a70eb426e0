"""`children()`, `application()`, `lifespan()`: names, options, order, and errors that say what to do."""

import asyncio
import inspect
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import continuum
from continuum import (
    Children,
    ConfigurationError,
    InstanceNotRegistered,
    InstanceNotStarted,
    SchemaNotReady,
    SchemaTaken,
    WrongEventLoop,
    activity,
    children,
    telemetry,
    workflow,
)
from continuum.composition.building import instances
from continuum.composition.options import INSTANCE, PARTS, settings_of
from continuum.journal.port import Contended
from continuum.runtime.component import Component
from tests.support.eventually import eventually
from tests.support.hosting import instance_of, wiring_of


@workflow
async def double(n: int) -> int:
    return 2 * n


@activity
async def one() -> int:
    return 1


@activity
async def never_ends() -> None:
    await asyncio.Event().wait()


@workflow
async def waits_long() -> None:
    await never_ends()


@pytest.fixture(autouse=True)
def _names() -> Iterator[None]:
    """Begin without any name, and leave those that were there as they were."""
    before = dict(instances._by_name)
    instances._by_name.clear()
    yield
    instances._by_name.clear()
    instances._by_name.update(before)


@pytest.fixture
async def other_engine(migrated_sqlite: Path, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    path = tmp_path / "other.db"
    path.write_bytes(migrated_sqlite.read_bytes())
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    yield engine
    await engine.dispose()


# --- names ------------------------------------------------------------------------------------------------------------


def test_the_default_name_is_the_applications_own(engine: AsyncEngine) -> None:
    made = children(name="continuum", engine=engine)
    assert made == []
    assert isinstance(made, Children)
    with pytest.raises(InstanceNotRegistered):
        continuum.instance("continuum")


def test_a_name_is_known_as_soon_as_its_children_are_made(engine: AsyncEngine) -> None:
    made = children(name="orders", engine=engine)
    assert continuum.instance("orders") is made.instance
    assert [component.name for component in made][:3] == ["orders.journal", "orders.pubsub", "orders.registry"]
    assert all(isinstance(component, Component) for component in made)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "é", "a/b", None, 7])
def test_a_name_must_be_plain(engine: AsyncEngine, name: Any) -> None:
    with pytest.raises(ConfigurationError, match="1 to 64"):
        children(name=name, engine=engine)


def test_a_stopped_name_is_replaced(engine: AsyncEngine) -> None:
    first = children(name="orders", engine=engine)
    second = children(name="orders", engine=engine)
    assert continuum.instance("orders") is second.instance
    first.forget()  # not its name any more
    assert continuum.instance("orders") is second.instance
    second.forget()
    with pytest.raises(InstanceNotRegistered, match=r"children\(name='orders'"):
        continuum.instance("orders")


async def test_a_running_name_is_not_replaced(engine: AsyncEngine) -> None:
    async with children(name="orders", engine=engine) as running:
        with pytest.raises(ConfigurationError, match="running"):
            children(name="orders", engine=engine)
        assert continuum.instance("orders") is running.instance
    children(name="orders", engine=engine)


async def test_what_was_replaced_cannot_be_entered_beside_its_successor(engine: AsyncEngine) -> None:
    first = children(name="orders", engine=engine)
    async with children(name="orders", engine=engine):
        with pytest.raises(ConfigurationError, match="replaced"):
            await first.start()


async def test_verbs_name_unknown_and_stopped_instances(engine: AsyncEngine) -> None:
    children(name="orders", engine=engine)
    with pytest.raises(InstanceNotRegistered, match="orders"):  # it lists those that there are
        await continuum.start(double, 1, instance="nobody")
    with pytest.raises(InstanceNotRegistered, match="application"):
        await continuum.start(double, 1)
    with pytest.raises(InstanceNotStarted, match="enter its children"):
        await continuum.start(double, 1, instance="orders")
    assert continuum.readiness(instance="orders").state == "not_started"


# --- entering ---------------------------------------------------------------------------------------------------------


async def test_lists_add_up_and_are_entered_in_order(engine: AsyncEngine, other_engine: AsyncEngine) -> None:
    orders, billing = children(name="orders", engine=engine), children(name="billing", engine=other_engine)
    both = orders + billing
    assert isinstance(both, Children)
    assert [component.name for component in both] == [component.name for component in (*orders, *billing)]
    plain: list[Any] = orders + ["not a component"]  # noqa: RUF005  # the sum is what is meant
    assert plain[-1] == "not a component"
    async with both:
        for name in ("orders", "billing"):
            run = await continuum.start(double, 2, instance=name)
            assert await run.result(timeout=15) == 4
    assert continuum.readiness(instance="orders").state == "not_started"


async def test_a_lifespan_enters_each_element(engine: AsyncEngine) -> None:
    async with continuum.lifespan(*children(name="orders", engine=engine)):
        assert continuum.readiness(instance="orders").state == "ready"
    assert continuum.readiness(instance="orders").state == "not_started"


async def test_elements_may_be_entered_one_by_one_and_twice(engine: AsyncEngine) -> None:
    made = children(name="orders", engine=engine)
    async with AsyncExitStack() as stack:
        for component in made:
            await stack.enter_async_context(component)
            await component.start()  # a second start is harmless
        run = await continuum.start(double, 2, instance="orders")
        assert await run.result(timeout=15) == 4
    for component in made:
        await component.stop()  # so is a second stop
    assert continuum.readiness(instance="orders").state == "not_started"


async def test_nothing_stands_without_the_journal(engine: AsyncEngine) -> None:
    for component in children(name="orders", engine=engine)[1:]:
        with pytest.raises(ConfigurationError, match=r"orders\.journal.*in order"):
            await component.start()


async def test_an_instance_may_be_left_and_entered_again(engine: AsyncEngine) -> None:
    made = children(name="orders", engine=engine)
    ids = []
    for _ in range(3):
        async with made:
            ids.append((await continuum.start(double, 1, instance="orders")).run_id)
            assert len((await continuum.list_runs(instance="orders")).items) == len(ids)


def test_an_instance_may_be_entered_again_on_another_loop(sqlite_url: str) -> None:
    engine = create_async_engine(sqlite_url)
    made = children(name="orders", engine=engine)

    async def visit() -> int:
        async with made:
            run = await continuum.start(double, 4, instance="orders")
            result = await run.result(timeout=15)
        await engine.dispose()
        return result

    assert [asyncio.run(visit()) for _ in range(2)] == [8, 8]


async def test_what_has_started_is_stopped_when_a_later_part_fails(engine: AsyncEngine, tmp_path: Path) -> None:
    empty = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}")
    fine, broken = children(name="fine", engine=engine), children(name="broken", engine=empty)
    with pytest.raises(SchemaNotReady):
        await (fine + broken).start()
    assert continuum.readiness(instance="fine").state == "not_started"
    async with fine:  # it can be entered as if nothing had been
        assert continuum.readiness(instance="fine").state == "ready"
    await empty.dispose()


async def test_a_failed_opening_leaves_no_task_and_no_connection(engine: AsyncEngine) -> None:
    made = children(name="orders", engine=engine)
    instance = instance_of(made)
    world = instance._world
    before = asyncio.all_tasks()

    def broken() -> Any:
        raise RuntimeError("no world")

    instance._world = broken
    with pytest.raises(RuntimeError, match="no world"):
        await made.start()
    assert asyncio.all_tasks() == before
    instance._world = world
    async with made:
        assert continuum.readiness(instance="orders").state == "ready"


async def test_a_lock_that_others_hold_delays_a_beginning_and_an_end_and_fails_neither(engine: AsyncEngine) -> None:
    left: list[str] = []

    def note(event: telemetry.TelemetryEvent) -> None:
        left.append(event.name)

    telemetry.attach(note, ["instance.left_leases"])
    made = children(name="orders", engine=engine)
    instance = instance_of(made)
    make = instance._make_journal
    refusals: list[str] = []

    def contended(really: Any) -> Any:
        async def first_refused(*args: Any, **kwargs: Any) -> Any:
            if len(refusals) % 3 < 2:
                refusals.append(really.__name__)
                raise Contended("locked")
            refusals.append(really.__name__)
            return await really(*args, **kwargs)

        return first_refused

    def journal() -> Any:
        made: Any = make()
        made.register, made.retire = contended(made.register), contended(made.retire)
        return made

    instance._make_journal = journal
    async with made:
        assert continuum.readiness(instance="orders").state == "ready"
    telemetry.detach(note)
    assert (refusals, left) == (["register"] * 3 + ["retire"] * 3, [])


async def test_every_part_is_stopped_though_one_fails_to(engine: AsyncEngine) -> None:
    made = children(name="orders", engine=engine)
    await made.start()
    part = wiring_of(instance_of(made)).components["snapshotter"]
    stop = part.stop

    async def failing() -> None:
        await stop()
        raise RuntimeError("would not stop")

    part.stop = failing  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="would not stop"):
        await made.stop()
    assert continuum.readiness(instance="orders").state == "not_started"


async def test_every_part_is_stopped_though_the_stop_is_cancelled_on_its_way(engine: AsyncEngine) -> None:
    made = children(name="orders", engine=engine)
    await made.start()
    part = wiring_of(instance_of(made)).components["snapshotter"]
    stop = part.stop

    async def cancelled() -> None:
        await stop()
        raise asyncio.CancelledError

    part.stop = cancelled  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await made.stop()
    assert continuum.readiness(instance="orders").state == "not_started"


async def test_a_stop_that_is_cancelled_while_it_drains_leaves_no_heart_that_beats(engine: AsyncEngine) -> None:
    """Else every lease of an instance that is gone would live as long as its process."""
    before = asyncio.all_tasks()
    made = children(name="orders", engine=engine, drain_timeout=0.5)
    await made.start()
    await continuum.start(waits_long, instance="orders")
    await eventually(lambda: wiring_of(instance_of(made)).attempts.running)
    stopping = asyncio.create_task(made.stop())
    await eventually(lambda: continuum.readiness(instance="orders").state == "draining")
    stopping.cancel()
    await asyncio.wait([stopping])
    assert stopping.cancelled()
    assert continuum.readiness(instance="orders").state == "not_started"
    assert asyncio.all_tasks() - before <= {stopping}
    assert not any(thread.name == "continuum-heartbeat" for thread in threading.enumerate())
    async with engine.connect() as connection:
        assert (await connection.exec_driver_sql("SELECT count(*) FROM continuum_owners")).scalar() == 0


async def test_a_part_that_fails_to_start_is_stopped_and_starts_the_next_time(engine: AsyncEngine) -> None:
    before = asyncio.all_tasks()
    made = children(name="orders", engine=engine)
    (journal, *parts) = made
    part = next(part for part in parts if part.name == "orders.recovery")
    await journal.start()
    running = wiring_of(instance_of(made)).components["recovery"]
    start = running.start

    async def fails_half_way() -> None:
        await start()
        raise RuntimeError("half-way")

    running.start = fails_half_way  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="half-way"):
        await part.start()
    assert not any(task.get_name() == "orders.recovery" for task in asyncio.all_tasks())
    running.start = start  # type: ignore[method-assign]
    await part.start()
    assert any(task.get_name() == "orders.recovery" for task in asyncio.all_tasks())
    await made.stop()
    assert asyncio.all_tasks() == before


async def test_what_failed_is_told_though_the_stop_after_it_fails_as_well(engine: AsyncEngine, tmp_path: Path) -> None:
    empty = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}")
    fine, broken = children(name="fine", engine=engine), children(name="broken", engine=empty)
    stop = fine[-1].stop

    async def failing() -> None:
        await stop()
        raise RuntimeError("would not stop")

    fine[-1].stop = failing  # type: ignore[method-assign]
    with pytest.raises(SchemaNotReady) as caught:
        await (fine + broken).start()
    assert "would not stop" in "".join(caught.value.__notes__)
    assert continuum.readiness(instance="fine").state == "not_started"
    await empty.dispose()


async def test_a_name_is_taken_while_its_instance_starts(sqlite_url: str) -> None:
    held = asyncio.Event()

    async def live() -> str:
        async with continuum.application(sqlite_url):
            await held.wait()
            return continuum.readiness().state

    living = [asyncio.create_task(live()) for _ in range(2)]
    (refused,), (lives,) = await asyncio.wait(living, return_when=asyncio.FIRST_COMPLETED)
    assert isinstance(refused.exception(), ConfigurationError)
    held.set()
    assert await lives == "ready"


async def test_children_that_are_being_started_are_not_started_a_second_time(engine: AsyncEngine) -> None:
    before = asyncio.all_tasks()
    made = children(name="orders", engine=engine)
    first, second = await asyncio.gather(made.start(), made.start(), return_exceptions=True)
    assert (first, type(second)) == (None, ConfigurationError)
    assert continuum.readiness(instance="orders").state == "ready"
    await made.stop()
    assert asyncio.all_tasks() == before


async def test_the_hosts_engine_is_left_as_it_was(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        before = (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar()
    async with children(name="orders", engine=engine):
        await (await continuum.start(double, 1, instance="orders")).result(timeout=15)
    async with engine.connect() as connection:
        assert (await connection.exec_driver_sql("SELECT 1")).scalar() == 1
        assert (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar() in (before, "wal")


async def test_no_task_outlives_its_instance(engine: AsyncEngine) -> None:
    before = asyncio.all_tasks()
    async with children(name="orders", engine=engine):
        await (await continuum.start(double, 1, instance="orders")).result(timeout=15)
    assert asyncio.all_tasks() == before


# --- options ----------------------------------------------------------------------------------------------------------


# P80
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lease_tll": 3}, "lease_ttl"),
        ({"heartbeater": {"interval": 60}}, "must be shorter than lease_ttl (30 s)"),
        ({"lease_ttl": 5, "heartbeater": {"interval": 5}}, "must be shorter than lease_ttl (5 s)"),
        ({"advertise_url": "10.0.0.5:8000/continuum"}, "http://10.0.0.5:8000/continuum"),
        ({"dispacher": True}, "dispatcher"),
        ({"dispatcher": {"intervall": 1}}, "interval, batch"),
        ({"pubsub": {"anything": 1}}, "none"),
        ({"dispatcher": 3}, "True, False or a dict"),
        ({"dispatcher": None}, "True, False or a dict"),
        ({"dispatcher": {"batch": 0}}, "at least 1"),
        ({"dispatcher": {"batch": True}}, "at least 1"),
        ({"dispatcher": {"interval": -1}}, "at least 0"),
        ({"dispatcher": {"interval": float("nan")}}, "finite"),
        ({"dispatcher": {"interval": 0}}, "longer than 0"),
        ({"lease_ttl": "30"}, "seconds or a timedelta"),
        ({"history_max": 0}, "at least 1"),
        ({"payload_max": 1.5}, "at least 1"),
        ({"activity_supervisor": {"queues": {"slow": 0}}}, "slow"),
        ({"activity_supervisor": {"queues": ["slow"]}}, "map queue names"),
        ({"migrations": "maybe"}, '"check", "upgrade" or "off"'),
        ({"client_only": "yes"}, "True or False"),
        ({"guard": True}, '"raise", "warn" or "off"'),
        ({"schema": 7}, "string"),
        ({"node": ""}, "string"),
        ({"workflows": double}, "list"),
        ({"workflows": [one]}, "@workflow"),
        ({"activities": [double]}, "@activity"),
        ({"payload_codec": object()}, "encode"),
        ({"listen_engine": "postgresql://"}, "AsyncEngine"),
    ],
)
def test_a_wrong_option_is_refused_with_what_would_be_right(
    engine: AsyncEngine, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        children(name="orders", engine=engine, **options)
    with pytest.raises(InstanceNotRegistered):  # nothing was registered
        continuum.instance("orders")


def test_every_option_has_a_default_that_its_own_check_accepts() -> None:
    settings = settings_of("x", {})
    for option in INSTANCE:
        assert settings.values[option.name] == option.check(option.name, option.default)
    for part in PARTS:
        for option in part.options:
            if option.default is not None:
                option.check(option.name, option.default)


def test_options_may_be_given_as_timedelta_or_seconds() -> None:
    assert settings_of("x", {"lease_ttl": timedelta(minutes=1)}).values["lease_ttl"] == 60.0
    assert settings_of("x", {"lease_ttl": 60}).values["lease_ttl"] == 60.0


@pytest.mark.parametrize("part", [part.name for part in PARTS])
def test_a_component_that_is_off_is_not_in_the_list(engine: AsyncEngine, part: str) -> None:
    options: dict[str, Any] = {part: False}
    assert f"orders.{part}" not in [component.name for component in children(name="orders", engine=engine, **options)]


def test_a_client_has_no_workers(engine: AsyncEngine) -> None:
    made = children(name="orders", engine=engine, client_only=True)
    assert {"orders.dispatcher", "orders.run_supervisor", "orders.heartbeater"}.isdisjoint(part.name for part in made)


async def test_a_client_leaves_no_owner_row_until_it_needs_one(engine: AsyncEngine) -> None:
    async with children(name="orders", engine=engine, client_only=True) as made:
        assert wiring_of(instance_of(made)).node.owner is None


# --- databases --------------------------------------------------------------------------------------------------------


def test_a_sync_engine_is_refused_with_the_way_out() -> None:
    engine: Any = create_engine("sqlite://")
    with pytest.raises(ConfigurationError, match="create_async_engine"):
        children(name="orders", engine=engine)
    for nothing in (None, "sqlite+aiosqlite://"):
        with pytest.raises(ConfigurationError, match="create_async_engine"):
            children(name="orders", engine=nothing)


async def test_an_unmigrated_database_says_how_to_migrate_it(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(SchemaNotReady, match="migrate"):
        await children(name="orders", engine=engine).start()
    async with children(name="orders", engine=engine, migrations="upgrade"):
        assert await (await continuum.start(double, 1, instance="orders")).result(timeout=15) == 2
    await engine.dispose()


async def test_migrate_is_enough(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}")
    await continuum.migrate(engine)
    await continuum.migrate(engine)
    async with children(name="orders", engine=engine):
        assert continuum.readiness(instance="orders").state == "ready"
    await engine.dispose()


async def test_two_names_on_one_set_of_tables_are_refused(engine: AsyncEngine) -> None:
    async with children(name="orders", engine=engine):
        with pytest.raises(SchemaTaken, match="orders"):
            await children(name="billing", engine=engine).start()
    with pytest.raises(SchemaTaken, match="orders"):  # also when it has stopped
        await children(name="billing", engine=engine).start()


async def test_an_application_that_has_ended_says_how_to_begin_it_again() -> None:
    async with continuum.application():
        run = await continuum.start(double, 1)
    for verb in (continuum.start(double, 1), run.result()):
        with pytest.raises(InstanceNotStarted, match="application"):
            await verb


async def test_application_takes_a_url_an_engine_or_the_environment(
    sqlite_url: str, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target in (sqlite_url, engine):
        async with continuum.application(target) as app:
            assert app is continuum.instance("continuum")
            assert await (await continuum.start(double, 1)).result(timeout=15) == 2
    monkeypatch.setenv("CONTINUUM_DATABASE_URL", sqlite_url)
    async with continuum.application():
        assert len((await continuum.list_runs()).items) == 2
        with pytest.raises(ConfigurationError, match="running"):
            async with continuum.application():
                pass
    for wrong in (7, object()):
        with pytest.raises(ConfigurationError, match="AsyncEngine or a database URL"):
            async with continuum.application(wrong):  # type: ignore[arg-type]
                pass
    with pytest.raises(ConfigurationError, match=r"postgresql\+asyncpg"):
        async with continuum.application("sqlite:///x.db"):
            pass


# --- loops and places -------------------------------------------------------------------------------------------------


async def test_a_verb_on_another_loop_is_refused(engine: AsyncEngine) -> None:
    async with children(name="orders", engine=engine):
        run = await continuum.start(double, 1, instance="orders")

        def elsewhere() -> list[str]:
            async def ask() -> list[str]:
                told = []
                for verb in (
                    continuum.start(double, 1, instance="orders"),
                    continuum.get_run(run.run_id, instance="orders"),
                    run.result(),
                    run.signal("x"),
                    run.cancel(),
                ):
                    with pytest.raises(WrongEventLoop) as caught:
                        await verb
                    told.append(str(caught.value))
                return told

            return asyncio.run(ask())

        told = await asyncio.get_running_loop().run_in_executor(None, elsewhere)
    assert len(told) == 5
    assert all("another event loop" in text for text in told)


def test_every_verb_takes_an_instance() -> None:
    verbs = (
        "start",
        "start_many",
        "signal",
        "cancel",
        "await_run",
        "get_run",
        "list_runs",
        "history",
        "drain",
        "readiness",
    )
    for verb in verbs:
        parameter = inspect.signature(getattr(continuum, verb)).parameters["instance"]
        assert (parameter.kind, parameter.default) == (inspect.Parameter.KEYWORD_ONLY, None), verb


async def test_readiness_names_what_keeps_failing(engine: AsyncEngine) -> None:
    async with children(name="orders", engine=engine) as made:
        part: Any = wiring_of(instance_of(made)).components["recovery"]
        part._crashes = 5
        readiness = continuum.readiness(instance="orders")
        assert (readiness.state, readiness.details) == ("degraded", ("orders.recovery",))
        part._crashes = 0
        assert continuum.readiness(instance="orders").state == "ready"
