"""The journal inside a host's transaction: with its rows or not at all, and nothing of ours left on its connection."""

import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session

from continuum.clock import SystemClock
from continuum.codec import PayloadContext
from continuum.errors import SchemaNotReady, SessionInvalid
from continuum.journal.memory import MemoryJournal, MemoryStore
from continuum.journal.port import BadData, Journal
from continuum.journal.sealing import sealed
from continuum.journal.sql import SqlJournal, migrate
from continuum.model.states import RunState
from continuum.model.writes import LANDED, REFUSED, Duplicate, Over, Post, Posted, StartMany, Unknown
from tests.journal.backends import OpenHarness
from tests.journal.builders import (
    OWNER,
    URL,
    Lease,
    a_finish,
    a_run,
    a_signal,
    a_start,
    a_task,
    an_attempt,
    an_ending,
    an_unleased_start,
    scheduled,
)
from tests.journal.sql import SqlHarness, open_postgres, open_sqlite
from tests.journal.steps import claim, land, started_run

Hosts = Callable[[AsyncEngine], AbstractAsyncContextManager[AsyncSession | AsyncConnection]]


@asynccontextmanager
async def by_session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session


@asynccontextmanager
async def by_connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as connection:
        yield connection


both = pytest.mark.parametrize("host", [by_session, by_connection])


@pytest.fixture(params=["sqlite", "postgres"])
def open_harness(request: pytest.FixtureRequest, tmp_path: Path) -> OpenHarness:
    if request.param == "sqlite":
        return partial(open_sqlite, request.getfixturevalue("sqlite_template"), tmp_path / "journal.db")
    return partial(open_postgres, request.getfixturevalue("migrated_postgres"))


@pytest.fixture
async def engine(harness: SqlHarness) -> AsyncIterator[AsyncEngine]:
    """The host's engine, with a table of the host's."""
    async with harness.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE orders (id integer)"))
    yield harness.engine
    async with harness.engine.begin() as connection:
        await connection.execute(text("DROP TABLE orders"))


async def orders(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM orders"))).scalar_one())


async def a_begun_run(journal: Journal) -> Lease:
    start = a_start(None, scheduled(), tasks=(a_task(leased=True),))
    await land(journal, start)
    return Lease(start.run_id, base_seq=2)


# --- with the host's rows, or not at all ------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("order_first", [True, False])
async def test_what_is_hosted_exists_when_the_host_commits_and_never_after_a_rollback(
    engine: AsyncEngine, harness: SqlHarness, journal: Journal, host: Hosts, order_first: bool
) -> None:
    lease = await a_begun_run(journal)
    attempt, waiting = an_attempt(lease.run_id), await started_run(journal)
    for ends in ("rollback", "close", "commit"):
        one, many = an_unleased_start(), tuple(an_unleased_start() for _ in range(3))
        signal = a_signal(waiting.run_id, delivery_id=f"d-{ends}")
        async with host(engine) as session:
            if order_first:
                await session.execute(text("INSERT INTO orders VALUES (1)"))
            hosted = await journal.hosted(session)
            assert await hosted.write(one) == LANDED
            assert await hosted.write(StartMany(many)) == LANDED
            assert await hosted.write(Post(signal)) == Posted(OWNER, URL)
            assert await hosted.write(a_finish(attempt)) == Posted(OWNER, URL)
            row = await hosted.run(one.run_id)
            assert row is not None
            assert (row.state, row.lease_owner, row.lease_token) == (RunState.PENDING, None, 0)
            assert len(await hosted.history(one.run_id)) == 1
            if not order_first:
                await session.execute(text("INSERT INTO orders VALUES (1)"))
            for start in (one, *many):
                assert await journal.run(start.run_id) is None
            assert not await harness.inbox()
            if ends != "close":
                await getattr(session, ends)()
        is_there = ends == "commit"
        assert [await journal.run(start.run_id) is not None for start in (one, *many)] == [is_there] * 4
        assert len(await harness.inbox()) == (2 if is_there else 0)
        assert bool(await harness.tasks(lease.run_id)) is not is_there
        assert await orders(engine) == is_there
    assert len(await claim(journal)) == 4


async def test_who_is_refused_leaves_the_hosts_transaction_as_it_was(engine: AsyncEngine, journal: Journal) -> None:
    taken = an_unleased_start(a_run(key="k"))
    await land(journal, taken)
    ended, new = await started_run(journal), an_unleased_start()
    seen = a_signal(ended.run_id, delivery_id="seen")
    await journal.write(0, [Post(seen)])
    await land(journal, an_ending(ended))
    async with by_session(engine) as session:
        hosted = await journal.hosted(session)
        await session.execute(text("INSERT INTO orders VALUES (1)"))
        verdicts = [
            await hosted.write(write)
            for write in (
                taken,
                an_unleased_start(a_run(key="k")),
                StartMany((new, taken)),
                Post(a_signal(ended.run_id)),
                Post(a_signal(ended.run_id, delivery_id="seen")),
                Post(a_signal(a_run().run_id)),
                a_finish(an_attempt(ended.run_id)),
            )
        ]
        assert verdicts == [REFUSED, REFUSED, REFUSED, Over(), Duplicate(), Unknown(), REFUSED]
        assert (row := await hosted.run_by_key("default", taken.run.workflow, "k")) is not None
        assert row.run_id == taken.run_id
        await session.commit()
    assert await journal.run(new.run_id) is None
    assert await orders(engine) == 1


async def test_a_value_that_the_database_does_not_take_is_our_error_and_the_host_goes_on(
    engine: AsyncEngine, journal: Journal
) -> None:
    start = an_unleased_start()
    async with by_session(engine) as session:
        hosted = await journal.hosted(session)
        await session.execute(text("INSERT INTO orders VALUES (1)"))
        with pytest.raises(BadData):
            await hosted.write(Post(a_signal(start.run_id, name="nul\0")))
        with pytest.raises(BadData):
            await hosted.write(an_unleased_start(a_run(attributes={"not": {"json": float("nan")}})))
        assert await hosted.write(start) == LANDED
        await session.commit()
    assert await journal.run(start.run_id) is not None
    assert await orders(engine) == 1


async def test_a_savepoint_of_the_hosts_takes_back_what_was_hosted_in_it(engine: AsyncEngine, journal: Journal) -> None:
    before, within, after = (an_unleased_start() for _ in range(3))
    async with by_session(engine) as session:
        hosted = await journal.hosted(session)
        await hosted.write(before)
        async with session.begin_nested() as savepoint:
            await session.execute(text("INSERT INTO orders VALUES (1)"))
            await hosted.write(within)
            await savepoint.rollback()
        await hosted.write(after)
        await session.commit()
    assert [await journal.run(start.run_id) is not None for start in (before, within, after)] == [True, False, True]
    assert await orders(engine) == 0


async def test_payloads_are_sealed_in_a_hosts_transaction_as_everywhere(
    engine: AsyncEngine, harness: SqlHarness
) -> None:
    class Backwards:
        def encode(self, payload: bytes, context: PayloadContext) -> bytes:
            return payload[::-1]

        def decode(self, payload: bytes, context: PayloadContext) -> bytes:
            return payload[::-1]

    journal = sealed(harness.journal, Backwards())
    start = an_unleased_start()
    async with by_connection(engine) as connection:
        hosted = await journal.hosted(connection)
        await hosted.write(start)
        assert list(await hosted.history(start.run_id)) == list(start.events)
        await connection.commit()
    (stored,) = await harness.events(start.run_id)
    assert stored.event.payload != start.events[0].payload
    assert list(await journal.history(start.run_id)) == list(start.events)


async def test_what_listens_to_a_hosts_connection_goes_with_it(engine: AsyncEngine, journal: SqlJournal) -> None:
    told: list[bool] = []

    async def commit() -> None:
        async with by_session(engine) as session:
            hosted = await journal.hosted(session)
            await hosted.write(an_unleased_start())
            look = hosted.when_over(told.append)
            await session.commit()
            look()

    for _ in range(3):
        await commit()
    assert told == [True] * 3
    gc.collect()
    assert not journal._followings


# --- whose connection it is -------------------------------------------------------------------------------------------


async def test_nothing_is_set_on_the_hosts_connection(migrated_postgres: str) -> None:
    async with open_postgres(migrated_postgres) as harness:
        assert isinstance(harness, SqlHarness)
        await _expect_nothing_set(harness)


async def _expect_nothing_set(harness: SqlHarness) -> None:
    async with harness.engine.connect() as connection:
        settings = text("SELECT name, setting FROM pg_settings ORDER BY name")
        before = (await connection.execute(settings)).all()
        await connection.commit()
        hosted = await harness.journal.hosted(connection)
        await hosted.write(an_unleased_start())
        assert (await connection.execute(settings)).all() == before
        await connection.commit()
        assert (await connection.execute(settings)).all() == before


async def test_the_tables_are_those_of_the_instances_schema(postgres_database: str) -> None:
    engine = create_async_engine(postgres_database)
    await migrate(engine, schema="tenant")
    journal, elsewhere = SqlJournal(engine, schema="tenant"), SqlJournal(engine)
    await journal.open("continuum")
    start = an_unleased_start()
    async with by_session(engine) as session:
        await (await journal.hosted(session)).write(start)
        with pytest.raises(SchemaNotReady):  # and the transaction goes on
            await (await elsewhere.hosted(session)).write(start)
        await session.commit()
    assert await journal.run(start.run_id) is not None
    await journal.close()
    await engine.dispose()


async def test_a_sqlite_host_may_begin_its_transactions_as_it_likes(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/c.db")

    @event.listens_for(engine.sync_engine, "connect")
    def no_implicit_begin(connection: object, _record: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: object) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # type: ignore[attr-defined]

    await migrate(engine)
    journal = SqlJournal(engine)
    await journal.open("continuum")
    for ends in ("rollback", "commit"):
        start = an_unleased_start()
        async with by_session(engine) as session:
            await (await journal.hosted(session)).write(start)
            await getattr(session, ends)()
        assert (await journal.run(start.run_id) is not None) == (ends == "commit")
    await journal.close()
    await engine.dispose()


# --- what is no session -----------------------------------------------------------------------------------------------


async def test_what_cannot_carry_a_write_is_refused_with_what_can(engine: AsyncEngine, journal: Journal) -> None:
    another = create_async_engine(engine.url)
    closed = engine.connect()
    never = engine.connect()
    await closed.start()
    await closed.close()
    spent = AsyncSession(engine, close_resets_only=False)
    await spent.close()

    async def expect(session: object, because: str) -> None:
        with pytest.raises(SessionInvalid, match=because) as caught:
            await journal.hosted(session)
        assert "pass the AsyncSession or AsyncConnection" in str(caught.value)

    await expect(None, "cannot be used")
    await expect(engine, "cannot be used")
    await expect(Session(create_engine("sqlite://")), "cannot be used")
    await expect(closed, "not open")
    await expect(never, "not open")
    await expect(spent, "no connection to write on")
    await expect(AsyncSession(engine, autobegin=False), "no connection to write on")
    await expect(AsyncSession(), "no connection to write on")
    async with by_session(another) as session:
        await expect(session, "another engine")
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await expect(connection, "AUTOCOMMIT")
    always = create_async_engine(engine.url, isolation_level="AUTOCOMMIT")
    async with by_session(always) as session:
        with pytest.raises(SessionInvalid, match="AUTOCOMMIT"):
            await SqlJournal(always).hosted(session)
    await always.dispose()
    await another.dispose()


async def test_sessions_of_all_kinds_are_taken(engine: AsyncEngine, journal: Journal) -> None:
    scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: 1)
    optioned = engine.execution_options(logging_token="host")
    makers: list[Callable[[], AsyncSession | async_scoped_session[AsyncSession]]] = [
        lambda: scoped,
        lambda: AsyncSession(engine),
        lambda: AsyncSession(optioned),
        lambda: AsyncSession(engine, twophase=False, autoflush=False),
    ]
    for make in makers:
        session, start = make(), an_unleased_start()
        await (await journal.hosted(session)).write(start)
        await session.commit()
        assert await journal.run(start.run_id) is not None
        await session.close()
    async with engine.connect() as connection, AsyncSession(bind=connection) as session:
        start = an_unleased_start()
        await (await journal.hosted(session)).write(start)
        await session.commit()
    assert await journal.run(start.run_id) is not None


async def test_a_journal_in_memory_has_no_transactions_to_take_part_in() -> None:
    with pytest.raises(SessionInvalid, match="in memory"):
        await MemoryJournal(MemoryStore(SystemClock())).hosted(object())
