"""What a transactional activity writes, its end and its result commit together, once, or nothing of it stays."""

import asyncio
import gc
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import create_engine, event, insert, select, text, update
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

import continuum
from continuum import ActivityFailed, Retry, RunFailed, activity, activity_context, workflow
from continuum.composition.instance import Instance
from continuum.definitions.catalog import scoped_catalog
from continuum.telemetry import TelemetryEvent, attach, detach
from tests.scenarios.conftest import EMPTY
from tests.scenarios.test_payloads import Toy
from tests.support.cutting import CuttingProxy
from tests.support.eventually import eventually
from tests.support.hosting import Place, crash, instance_of, wiring_of
from tests.support.postgres import execute

QUICKLY = Retry(max_attempts=3, initial=0.01)
PATIENTLY = Retry(max_attempts=20, initial=0.01)  # where a slow machine may take an attempt away


class Base(DeclarativeBase):
    """The host's own tables."""


class Account(Base):
    """An account."""

    __tablename__ = "accounts"
    name: Mapped[str] = mapped_column(primary_key=True)
    cents: Mapped[int]


class Entry(Base):
    """A line in the books; nothing in this table would refuse a second one."""

    __tablename__ = "entries"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    label: Mapped[str]
    cents: Mapped[int]


class Bank:
    """The host's side of a place."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def entries(self) -> list[str]:
        """Return the labels of what is booked."""
        async with AsyncSession(self.engine) as session:
            return list((await session.execute(text("SELECT label FROM entries ORDER BY id"))).scalars())

    async def execute(self, statement: str) -> None:
        """Commit one statement."""
        async with self.engine.begin() as connection:
            await connection.execute(text(statement))


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    """Only where there are transactions."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_scenarios"))
    shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "app.db")
    return f"sqlite+aiosqlite:///{tmp_path / 'app.db'}"


@pytest.fixture
async def place(database: str) -> AsyncIterator[Place]:
    """An empty database, and the host's engine: with a pool as small as it may be, and little patience."""
    if database.startswith("postgresql"):
        await execute(database, EMPTY)
    engine = engine_on(database)
    yield Place(engine.dialect.name, engine)
    assert checked_out(engine) == 0, "a connection was not given back"
    await engine.dispose()


def engine_on(url: str, **options: Any) -> AsyncEngine:
    if url.startswith("sqlite"):
        options.setdefault("connect_args", {"timeout": 0.2})
    return create_async_engine(url, **options)


def checked_out(engine: AsyncEngine) -> int:
    pool = engine.sync_engine.pool
    return pool.checkedout() if isinstance(pool, QueuePool) else 0


@pytest.fixture
def heard() -> Iterator[list[TelemetryEvent]]:
    """What is told of attempts."""
    events: list[TelemetryEvent] = []
    attach(events.append, [f"activity.{name}" for name in ATTEMPT_EVENTS])
    yield events
    detach(events.append)


ATTEMPT_EVENTS = ("started", "collided", "completed", "retried", "failed", "cancelled", "fenced")


def names(events: list[TelemetryEvent]) -> list[str]:
    return [event.name.removeprefix("activity.") for event in events]


class Hold:
    """Where a function waits for the test, which waits for it."""

    def __init__(self) -> None:
        self.reached, self.released = asyncio.Event(), asyncio.Event()
        self.times = 0

    async def __call__(self) -> None:
        self.times += 1
        self.reached.set()
        await self.released.wait()


@pytest.fixture
async def bank(place: Place) -> Bank:
    """Fresh tables of the host."""
    assert place.engine is not None
    async with place.engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    return Bank(place.engine)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Forget what a test defines."""
    with scoped_catalog():
        yield


def booking(**options: Any) -> Any:
    """Return a transactional activity that books one entry, and a workflow that calls it: both by the same label."""
    body: Callable[..., Any] | None = options.pop("body", None)

    async def book(session: AsyncSession, label: str) -> str:
        session.add(Entry(label=label, cents=1))
        if body is not None:
            await body(session)
        return f"booked {label}"

    made: Any = activity(transactional=True, **{"retry": QUICKLY, **options})(book)

    @workflow
    async def books(label: str) -> str:
        return str(await made(label))

    return books


async def failure_of(app: Instance, flow: Any, label: str = "x") -> str:
    with pytest.raises(RunFailed) as failed:
        await (await app.start(flow, label)).result(timeout=15)
    return str(failed.value)


# --- what works -------------------------------------------------------------------------------------------------------


async def test_models_core_and_savepoints_commit_with_the_result_in_one_transaction(
    bank: Bank, app: Instance, place: Place
) -> None:
    kept: list[Any] = []

    @activity(transactional=True)
    async def transfer(ours: AsyncSession, label: str, cents: int) -> dict[str, int]:
        assert activity_context().attempt == 1
        account = await ours.get_one(Account, "alice")
        account.cents -= cents
        await ours.execute(update(Account).where(Account.name == "bob").values(cents=Account.cents + cents))
        async with ours.begin_nested():
            await ours.execute(insert(Entry).values(label=label, cents=cents))
        with pytest.raises(IntegrityError):
            async with ours.begin_nested():
                await ours.execute(insert(Account).values(name="bob", cents=0))
        kept.append((ours, account))
        return {row.name: row.cents for row in await ours.execute(select(Account.name, Account.cents))}

    @workflow
    async def pay(label: str) -> dict[str, int]:
        return await transfer(label, cents=30)

    await bank.execute("INSERT INTO accounts VALUES ('alice', 100), ('bob', 0)")
    run = await app.start(pay, "rent")
    assert await run.result(timeout=15) == {"alice": 70, "bob": 30}
    assert await bank.entries() == ["rent"]
    assert [event.type for event in await app.history(run.run_id)] == [
        "started",
        "activity_scheduled",
        "activity_completed",
        "completed",
    ]
    assert (await place.count("inbox"), await place.count("tasks")) == (0, 0)
    session, account = kept[0]
    assert account.cents == 70, "what was loaded is still there"
    with pytest.raises(InvalidRequestError, match="closed"):
        await session.execute(text("SELECT 1"))


async def test_what_it_starts_and_signals_with_its_session_exists_if_it_commits(bank: Bank, app: Instance) -> None:
    @workflow
    async def child(label: str) -> str:
        return f"{label} {await continuum.wait_signal('go', str)}"

    started: list[str] = []

    @activity(transactional=True, retry=QUICKLY)
    async def book(session: AsyncSession, label: str) -> str:
        run = await app.start(child, label, session=session)
        await app.signal(run.run_id, "go", "gone", session=session)
        session.add(Entry(label=label, cents=1))
        started.append(run.run_id)
        if activity_context().attempt == 1:
            raise OSError("not yet")
        return run.run_id

    @workflow
    async def books(label: str) -> str:
        return await book(label)

    run_id = await (await app.start(books, "x")).result(timeout=15)
    assert await app.await_run(run_id, child, timeout=15) == "x gone"
    assert run_id == started[1]
    with pytest.raises(continuum.RunNotFound):
        await app.get_run(started[0])


async def test_it_is_performed_wherever_there_is_room_and_its_result_recorded_under_its_key(
    bank: Bank, place: Place
) -> None:
    books = booking(idempotency_key=lambda label: f"key-{label}")
    sealed = Place(place.kind, place.engine, codec=Toy())
    off: dict[str, Any] = {"activity_supervisor": False, "activity_dispatcher": False}
    async with sealed.node(**off) as mind, sealed.node(run_supervisor=False, dispatcher=False):
        for _ in range(2):
            assert await (await mind.start(books, "secret-1")).result(timeout=15) == "booked secret-1"
        with pytest.raises(RunFailed, match="booked twice"):
            await (await mind.start(booking_that_fails(), "secret-2")).result(timeout=15)
    assert await bank.entries() == ["secret-1"]
    assert await place.count("activity_results") == 1
    assert b"secret-1" not in (await place.everything()).replace(b"key-secret-1", b"")


async def test_of_two_runs_that_book_under_one_key_at_the_same_time_one_does(
    bank: Bank, place: Place, heard: list[TelemetryEvent]
) -> None:
    calls: list[str] = []

    @activity(transactional=True, retry=PATIENTLY, idempotency_key=lambda _label: "invoice-1")
    async def book(session: AsyncSession, label: str) -> str:
        calls.append(activity_context().run_id)
        session.add(Entry(label=label, cents=1))
        await eventually(lambda: len(set(calls)) == 2 or "collided" in names(heard))  # SQLite lets one in at a time
        return activity_context().run_id

    @workflow
    async def books(label: str) -> str:
        return await book(label)

    async with place.node(activity_supervisor={"transactional_concurrency": 2}) as app:
        runs = await app.start_many(books, ["once", "once"])
        results = {await run.result(timeout=15) for run in runs}
    assert len(results) == 1
    assert await bank.entries() == ["once"]
    assert (await place.count("activity_results"), await place.count("tasks")) == (1, 0)


def booking_that_fails() -> Any:
    async def fail(_session: AsyncSession) -> None:
        raise RuntimeError("booked twice")

    return booking(name="books.failing", idempotency_key=lambda label: f"key-{label}", body=fail)


@pytest.mark.parametrize("kind", ["no pool", "autocommit", "own begin", "small pool"])
async def test_it_works_with_a_hosts_engine_as_it_is(bank: Bank, place: Place, database: str, kind: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "no pool": {"poolclass": NullPool},
        "autocommit": {"isolation_level": "AUTOCOMMIT"},
        "small pool": {"pool_size": 1, "max_overflow": 1},
        "own begin": {},
    }
    engine = engine_on(database, **options[kind])
    if kind == "own begin" and place.kind == "sqlite":

        @event.listens_for(engine.sync_engine, "connect")
        def unmanaged(dbapi_connection: Any, _record: Any) -> None:
            dbapi_connection.isolation_level = None

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN")

    async def fail_once(_session: AsyncSession) -> None:
        if activity_context().attempt == 1:
            raise OSError("not yet")

    books = booking(body=fail_once)
    async with Place(place.kind, engine).node() as app:
        results = [(await app.start(books, f"n{n}")).result(timeout=15) for n in range(6)]
        assert await asyncio.gather(*results) == [f"booked n{n}" for n in range(6)]
        async with engine.connect() as connection:  # as it was before
            raw = await connection.get_raw_connection()
            driver = raw.driver_connection
            level = getattr(driver, "isolation_level", "server's")
            managed = kind in {"own begin", "autocommit"} and place.kind == "sqlite"
            assert level == (None if managed else "" if place.kind == "sqlite" else "server's")
    assert sorted(await bank.entries()) == [f"n{n}" for n in range(6)]
    await engine.dispose()


async def test_a_verb_outside_of_its_transaction_is_refused_where_it_would_wait_for_itself(
    bank: Bank, app: Instance, place: Place
) -> None:
    """SQLite has one writer, and the activity is it: the verb would wait until the activity's timeout."""

    @workflow
    async def waits(n: int) -> int:
        return n + await continuum.wait_signal("go", int)

    run = await app.start(waits, 1)
    told: list[str] = []

    async def call_all(_session: AsyncSession) -> None:
        for verb in (
            lambda: app.start(waits, 1),
            lambda: app.start_many(waits, [1]),
            lambda: run.set_attributes({"a": 1}),
            lambda: run.signal("go", 1),
            lambda: app.cancel(run.run_id),
        ):
            try:
                await verb()
            except continuum.NotAllowedHere as error:
                told.append(str(error))
            except continuum.RunNotActive:  # the signal has ended it
                pass
        assert (await app.list_runs(workflow=waits)).items, "it may read"

    assert await (await app.start(booking(body=call_all), "x")).result(timeout=15) == "booked x"
    assert len(told) == (5 if place.kind == "sqlite" else 0)
    assert all("session=" in one for one in told)


# --- what is rolled back ----------------------------------------------------------------------------------------------


async def test_an_attempt_that_fails_leaves_nothing_and_is_retried(
    bank: Bank, app: Instance, heard: list[TelemetryEvent]
) -> None:
    async def fail_twice(session: AsyncSession) -> None:
        await session.flush()
        if activity_context().attempt < 3:
            raise OSError(f"not yet {activity_context().attempt}")

    run = await app.start(booking(body=fail_twice), "third")
    assert await run.result(timeout=15) == "booked third"
    assert await bank.entries() == ["third"]
    assert names(heard) == ["started", "retried"] * 2 + ["started", "completed"]


async def test_a_result_that_cannot_be_journaled_books_nothing(bank: Bank, app: Instance) -> None:
    @activity(transactional=True)
    async def book(session: AsyncSession) -> int:
        session.add(Entry(label="x", cents=1))
        return "no number"  # type: ignore[return-value]

    @workflow
    async def books(_label: str) -> int:
        return await book()

    assert "does not fit" in await failure_of(app, books)
    assert await bank.entries() == []


async def ends_it(session: AsyncSession, how: str) -> None:
    match how:
        case "commit" | "rollback" | "close" | "reset" | "invalidate":
            await getattr(session, how)()
        case "begin":
            async with session.begin():
                pass
        case "async with":
            async with session:
                pass
        case "run_sync":
            await session.run_sync(lambda sync: sync.commit())
        case "connection":
            await (await session.connection()).commit()
        case "transaction":
            transaction = session.get_transaction()
            assert transaction is not None
            await transaction.commit()
        case "SQL" | "END" | "ABORT":
            await session.execute(text(f"/* done */ {'Commit' if how == 'SQL' else how}"))
        case "BEGIN":
            await (await session.connection()).exec_driver_sql("-- once more\n begin")
        case "ROLLBACK":
            await session.execute(text("  rollback work"))
        case _:
            raise ValueError(how)


ENDS = ["commit", "rollback", "close", "reset", "invalidate", "begin", "async with", "run_sync"]


@pytest.mark.parametrize("is_swallowed", [False, True])
async def test_the_transaction_is_not_the_activitys_to_end(bank: Bank, app: Instance, is_swallowed: bool) -> None:
    @activity(transactional=True, retry=Retry(max_attempts=1))
    async def book(session: AsyncSession, how: str) -> None:
        await session.execute(insert(Entry).values(label=how, cents=1))
        try:
            await ends_it(session, how)
        except continuum.NotAllowedHere:
            if not is_swallowed:
                raise

    @workflow
    async def books(how: str) -> str:
        try:
            await book(how)
        except ActivityFailed as error:
            return f"{error.type} {error.message}"
        return "done"

    for how in (*ENDS, "connection", "transaction", "SQL", "END", "ABORT", "BEGIN", "ROLLBACK"):
        told = await (await app.start(books, how)).result(timeout=15)
        assert told.startswith("continuum.errors.NotAllowedHere"), (how, told)
        assert "begin_nested" in told
        assert how not in ENDS[:6] or f"session.{how}()" in told
    assert await bank.entries() == []


async def test_an_error_of_the_database_that_is_swallowed_is_not_taken_for_success(bank: Bank, app: Instance) -> None:
    @activity(transactional=True, retry=Retry(max_attempts=1))
    async def book(session: AsyncSession, how: str) -> None:
        session.add(Entry(label=how, cents=1))
        await session.flush()
        try:
            if how == "flush":
                session.add(Account(name="bob", cents=1))
                await session.flush()
            else:
                prefix = how.upper() if how == "or rollback" else ""
                await session.execute(insert(Account).prefix_with(prefix).values(name="bob", cents=1))
        except IntegrityError:
            pass

    @workflow
    async def books(how: str) -> str:
        try:
            await book(how)
        except ActivityFailed as error:
            return error.message
        return "done"

    await bank.execute("INSERT INTO accounts VALUES ('bob', 0)")
    assert "rolled back" in await (await app.start(books, "flush")).result(timeout=15)
    assert await bank.entries() == []
    told = await (await app.start(books, "core")).result(timeout=15)
    if bank.engine.dialect.name == "sqlite":  # where a statement fails alone
        assert (told, await bank.entries()) == ("done", ["core"])
        assert "rolled back" in await (await app.start(books, "or rollback")).result(timeout=15)
        assert await bank.entries() == ["core"]
    else:
        assert "rolled back" in told
        assert await bank.entries() == []


async def test_a_timed_out_attempt_is_rolled_back_even_if_it_will_not_be_cancelled(bank: Bank, app: Instance) -> None:
    async def stubborn(session: AsyncSession) -> None:
        await session.flush()
        if activity_context().attempt == 1:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(30)

    run = await app.start(booking(body=stubborn, timeout=0.5, retry=PATIENTLY), "second")
    assert await run.result(timeout=15) == "booked second"
    assert await bank.entries() == ["second"]


ENDLESS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"


async def test_a_statement_that_outlives_the_timeout_leaves_no_lock_behind(bank: Bank, app: Instance) -> None:
    """SQLite goes on with it in its thread, and keeps a closed connection until the collector has found its statement."""

    async def long(session: AsyncSession) -> None:
        if activity_context().attempt == 1:
            await session.flush()
            await session.execute(text(ENDLESS))

    gc.disable()
    try:
        run = await app.start(booking(body=long, timeout=0.5, retry=PATIENTLY), "second")
        assert await run.result(timeout=15) == "booked second"
    finally:
        gc.enable()
    assert await bank.entries() == ["second"]


# --- whose task it is -------------------------------------------------------------------------------------------------


SWEEP = "UPDATE continuum_tasks SET lease_owner = NULL, attempt = attempt + 1"


async def test_a_task_that_was_swept_meanwhile_books_nothing(
    bank: Bank, app: Instance, heard: list[TelemetryEvent]
) -> None:
    """On SQLite nobody else can write meanwhile: there the sweep is part of what is rolled back."""
    swept: list[int] = []

    async def sweep(session: AsyncSession) -> None:
        await session.flush()
        if not swept:
            swept.append(1)
            if bank.engine.dialect.name == "sqlite":
                await session.execute(text(SWEEP))
            else:
                await bank.execute(SWEEP)

    run = await app.start(booking(body=sweep), "once")
    recovery = wiring_of(app).recovery

    def is_over() -> bool:
        recovery.audit_soon()  # on SQLite the task is still ours
        return "completed" in names(heard)

    await eventually(is_over)
    assert await run.result(timeout=15) == "booked once"
    assert await bank.entries() == ["once"]
    # Its end is refused, unless a heartbeat has noticed before and stopped it.
    assert names(heard).count("fenced") + names(heard).count("cancelled") == 1
    assert names(heard).count("completed") == 1


async def test_a_run_that_is_cancelled_meanwhile_books_nothing_unless_it_was_booked_before(
    bank: Bank, app: Instance, heard: list[TelemetryEvent]
) -> None:
    hold = Hold()
    run = await app.start(booking(body=lambda _session: hold()), "x")
    await hold.reached.wait()
    cancelling = asyncio.create_task(run.cancel())
    if bank.engine.dialect.name == "sqlite":  # where the cancel has to wait, and may come too late
        await asyncio.sleep(0)
        hold.released.set()
        with suppress(continuum.RunNotActive):
            await cancelling
    else:
        assert await cancelling == "cancelled"
    await eventually(lambda: checked_out(bank.engine) == 0 and wiring_of(app).attempts.running == 0)
    is_booked = "completed" in names(heard)
    assert await bank.entries() == (["x"] if is_booked else [])
    assert bank.engine.dialect.name == "sqlite" or not is_booked


async def test_a_node_that_dies_books_nothing_and_another_one_does(bank: Bank, place: Place) -> None:
    hold = Hold()
    books = booking(body=lambda _session: hold())
    node = place.another()
    async with node:
        run = await instance_of(node).start(books, "once")
        await hold.reached.wait()
        await crash(node)
    assert await bank.entries() == []
    assert place.engine is not None
    assert checked_out(place.engine) == 0, "stopping waits until the host has its connection back"
    hold.released.set()
    async with place.node() as other:
        assert await other.await_run(run.run_id, books, timeout=15) == "booked once"
    assert await bank.entries() == ["once"]


async def test_a_drain_awaits_it_and_past_the_deadline_hands_it_over_unbooked(bank: Bank, place: Place) -> None:
    hold = Hold()
    books = booking(body=lambda _session: hold())
    async with place.node() as app:
        first = await app.start(books, "awaited")
        await hold.reached.wait()
        draining = asyncio.create_task(app.drain(10.0))
        await asyncio.sleep(0)
        hold.released.set()
        await draining
    assert await bank.entries() == ["awaited"]
    hold.released.clear()
    hold.reached.clear()
    async with place.node(drain_timeout=0.2) as app:
        second = await app.start(books, "handed over")
        await hold.reached.wait()
    assert await bank.entries() == ["awaited"]
    hold.released.set()
    async with place.node() as app:
        assert await app.await_run(first.run_id, books, timeout=15) == "booked awaited"
        assert await app.await_run(second.run_id, books, timeout=15) == "booked handed over"
    assert await bank.entries() == ["awaited", "handed over"]


# --- collisions -------------------------------------------------------------------------------------------------------


async def test_a_collision_begins_anew_without_consuming_an_attempt(
    bank: Bank, app: Instance, heard: list[TelemetryEvent]
) -> None:
    await bank.execute("INSERT INTO accounts VALUES ('bob', 0)")
    tries: list[int] = []

    @activity(transactional=True, isolation_level="REPEATABLE READ", retry=Retry(max_attempts=1))
    async def book(session: AsyncSession, label: str) -> int:
        tries.append(activity_context().attempt)
        account = await session.get_one(Account, "bob")
        if bank.engine.dialect.name == "postgresql" and len(tries) < 3:
            await bank.execute("UPDATE accounts SET cents = cents + 100")  # after our snapshot
        session.add(Entry(label=label, cents=1))
        account.cents += 1
        return account.cents

    @workflow
    async def books(label: str) -> int:
        return await book(label)

    if bank.engine.dialect.name == "sqlite":
        with other_writer(bank):
            run = await app.start(books, "x")
            assert await run.result(timeout=15) == 1
        assert tries == [1], "it is not called before it has the database"
        assert names(heard) == ["started", "collided", "completed"]
    else:
        run = await app.start(books, "x")
        assert await run.result(timeout=15) == 201
        assert tries == [1, 1, 1]
        assert names(heard) == ["started", "collided", "collided", "completed"]
    assert await bank.entries() == ["x"]


@contextmanager
def other_writer(bank: Bank) -> Iterator[None]:
    """Take SQLite's write lock when the first attempt's transaction begins, and let go when it has collided."""
    other = sqlite3.connect(bank.engine.url.database or "", isolation_level=None, check_same_thread=False)

    def take(_connection: Any) -> None:
        other.execute("BEGIN IMMEDIATE")

    def let_go(_event: TelemetryEvent) -> None:
        other.execute("ROLLBACK")

    event.listen(bank.engine.sync_engine, "begin", take, once=True)
    attach(let_go, ["activity.collided"])
    yield
    detach(let_go)
    other.close()


async def test_collisions_without_end_are_failures_of_the_attempt(
    bank: Bank, app: Instance, heard: list[TelemetryEvent]
) -> None:
    if bank.engine.dialect.name == "sqlite":
        return
    await bank.execute("INSERT INTO accounts VALUES ('bob', 0)")
    tries: list[int] = []

    @activity(transactional=True, isolation_level="SERIALIZABLE", serialization_retries=2, retry=QUICKLY)
    async def book(session: AsyncSession, label: str) -> None:
        tries.append(activity_context().attempt)
        account = await session.get_one(Account, "bob")
        await bank.execute("UPDATE accounts SET cents = cents + 100")
        account.cents += 1

    @workflow
    async def books(label: str) -> None:
        await book.options(serialization_retries=1)(label)

    assert "could not serialize" in await failure_of(app, books)
    assert tries == [1, 1, 2, 2, 3, 3]


async def test_heartbeats_do_not_collide_with_what_they_are_for(
    bank: Bank, place: Place, heard: list[TelemetryEvent]
) -> None:
    """Under REPEATABLE READ the end of a task whose row has changed since would be refused, every time."""
    hold = Hold()

    async def beat(session: AsyncSession) -> None:
        await session.flush()
        activity_context().heartbeat({"half": True})
        await hold()

    async with place.node(activity_supervisor={"transactional_concurrency": 2}) as app:
        run = await app.start(booking(body=beat, isolation_level="REPEATABLE READ"), "x")
        await hold.reached.wait()
        attempts = wiring_of(app).attempts
        for _ in range(2):
            await attempts.once()
        hold.released.set()
        assert await run.result(timeout=15) == "booked x"
    assert names(heard) == ["started", "completed"]


# --- COMMIT without an answer -----------------------------------------------------------------------------------------


AUDITS = ["CREATE TABLE audit (label TEXT NOT NULL)", "INSERT INTO audit VALUES (NULL)"]


@pytest.mark.parametrize("kind", ["of its own", "of another database"])
async def test_what_goes_wrong_after_commit_does_not_book_twice(
    bank: Bank, app: Instance, heard: list[TelemetryEvent], kind: str
) -> None:
    """A hook of the host's raises when everything is committed: the attempt's only one, so a failure would be final."""

    class Hooked(Session):
        pass

    class OurSession(AsyncSession):
        sync_session_class = Hooked

    @event.listens_for(Hooked, "after_commit")
    def hook(_session: Session) -> None:
        if kind == "of its own":
            raise RuntimeError("the host's hook")
        with create_engine("sqlite://").begin() as audit:
            for statement in AUDITS:
                audit.execute(text(statement))

    @activity(transactional=True, retry=Retry(max_attempts=1))
    async def book(session: OurSession, label: str) -> str:
        session.add(Entry(label=label, cents=1))
        return label

    @workflow
    async def books(label: str) -> str:
        return await book(label)

    assert await (await app.start(books, "x")).result(timeout=15) == "x"
    assert await bank.entries() == ["x"]
    await eventually(lambda: names(heard) == ["started", "completed"])


@pytest.mark.parametrize("attempts_max", [1, 3])
async def test_a_commit_whose_answer_is_lost_is_booked_once(
    bank: Bank, place: Place, heard: list[TelemetryEvent], attempts_max: int
) -> None:
    if place.kind == "sqlite":
        return
    url = bank.engine.url
    socket = str(url.query.get("host", url.host))
    async with CuttingProxy(socket, url.port or 5432, share=1.0, cuts_max=1, mark=b"INSERT INTO entries") as proxy:
        proxy.is_armed = True
        through = url.set(host="127.0.0.1", port=proxy.port, query={})
        engine = create_async_engine(through)
        books = booking(retry=Retry(max_attempts=attempts_max, initial=0.01))
        async with Place(place.kind, engine).node() as app:
            assert await (await app.start(books, "x")).result(timeout=15) == "booked x"
        await engine.dispose()
        assert proxy.cuts == 1
    assert await bank.entries() == ["x"]
    assert names(heard) == ["started", "completed"]


async def test_a_commit_that_did_not_arrive_is_a_failed_attempt(
    bank: Bank, app: Instance, place: Place, heard: list[TelemetryEvent]
) -> None:
    if place.kind == "sqlite":
        return
    sync_engine = bank.engine.sync_engine
    killed: list[int] = []

    async def watch(session: AsyncSession) -> None:
        pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        if not killed:
            killed.append(pid)
            connection = (await session.connection()).sync_connection

            @event.listens_for(connection, "commit")
            def cut(_connection: Any) -> None:
                driver: Any = connection.connection.driver_connection  # type: ignore[union-attr]
                driver.terminate()

    run = await app.start(booking(body=watch), "x")
    assert await run.result(timeout=15) == "booked x"
    assert await bank.entries() == ["x"]
    assert names(heard) == ["started", "retried", "started", "completed"]
    assert sync_engine is bank.engine.sync_engine


# --- the pool ---------------------------------------------------------------------------------------------------------


async def test_the_hosts_requests_find_a_connection_however_many_runs_there_are(
    bank: Bank, place: Place, database: str
) -> None:
    engine = engine_on(database, pool_size=2, max_overflow=0, pool_timeout=0.001)
    most = 0

    async def look(session: AsyncSession) -> None:
        nonlocal most
        await session.flush()
        most = max(most, checked_out(engine))
        async with engine.connect() as connection:  # as a request would; it does not wait
            await connection.execute(text("SELECT 1"))

    books = booking(body=look, retry=Retry(max_attempts=1))
    async with Place(place.kind, engine).node() as app:
        runs = await app.start_many(books, [f"n{n}" for n in range(60)])
        await asyncio.gather(*[run.result(timeout=30) for run in runs])
    assert most == 1
    assert len(await bank.entries()) == 60
    await engine.dispose()


async def test_a_pool_that_would_starve_is_told_at_the_start(place: Place, database: str) -> None:
    booking()
    engine = engine_on(database, pool_size=2, max_overflow=1)
    with pytest.raises(
        continuum.ConfigurationError, match=r"transactional_concurrency=3 could take all 3 .* at most 2"
    ):
        async with Place(place.kind, engine).node(activity_supervisor={"transactional_concurrency": 3}):
            pass
    single = engine_on(database, poolclass=StaticPool)
    with pytest.raises(continuum.ConfigurationError, match="has one in all"):
        async with Place(place.kind, single).node():
            pass
    async with Place(place.kind, single).node(activities=[]) as app:  # which serves none
        assert app.is_running
    for one in (engine, single):
        await one.dispose()
