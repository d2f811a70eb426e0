"""The SQL journal and what is around it: engines and pools it is given, connections that break, values that do not fit."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, StaticPool

from continuum.errors import ConfigurationError, JournalUnavailable
from continuum.ids import uuid7
from continuum.journal.port import Ambiguous, BadData, Contended, Held
from continuum.journal.sql import SqlJournal, migrate
from continuum.journal.sql.noticing import PAYLOAD_BYTES_MAX, channel_of, payloads
from continuum.model.events import EVENT_FORMAT
from continuum.model.messages import MESSAGE_FORMAT
from continuum.model.packing import pack_history
from continuum.model.writes import LANDED, Post, Write
from tests.journal.builders import (
    OWNER,
    TTL,
    a_block,
    a_commit,
    a_run,
    a_signal,
    a_start,
    an_owner,
    answered,
    timer_started,
)
from tests.journal.steps import land, post, started_run, write
from tests.support.postgres import connect


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/c.db"
    database: str = request.getfixturevalue("postgres_database")
    return database


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    """A host's engine on a migrated database."""
    engine = create_async_engine(url)
    await migrate(engine)
    yield engine
    await engine.dispose()


@pytest.fixture
async def journal(engine: AsyncEngine) -> AsyncIterator[SqlJournal]:
    journal = SqlJournal(engine)
    await journal.open("continuum")
    await journal.register(an_owner(OWNER), ttl_seconds=TTL)
    yield journal
    await journal.close()


postgres_only = pytest.mark.parametrize("url", ["postgres"], indirect=True)
sqlite_only = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


# --- engines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (lambda: create_engine("sqlite:///c.db"), "create_async_engine"),
        (lambda: None, "AsyncEngine"),
        (lambda: create_async_engine("sqlite+aiosqlite://"), "in memory"),
        (lambda: create_async_engine("sqlite+aiosqlite:///:memory:"), "in memory"),
        (lambda: create_async_engine("sqlite+aiosqlite:///file::memory:?cache=shared&uri=true"), "in memory"),
        (lambda: create_async_engine("sqlite+aiosqlite:///file:app.db?cache=shared&uri=true"), "cache=shared"),
    ],
)
def test_an_engine_that_cannot_hold_a_journal_is_refused_at_once(engine: object, message: str) -> None:
    assert callable(engine)
    with pytest.raises(ConfigurationError, match=message):
        SqlJournal(engine())


def test_sqlite_has_no_schemas(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no schemas"):
        SqlJournal(create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/c.db"), schema="tenant")


@pytest.mark.parametrize("schema", ["", "s" * 64, "ü" * 40])
def test_a_schema_that_postgres_would_cut_off_is_refused(schema: str) -> None:
    with pytest.raises(ConfigurationError, match="1 to 63 bytes"):
        SqlJournal(create_async_engine("postgresql+asyncpg://nobody@/nothing"), schema=schema)


async def test_a_database_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    journal = SqlJournal(create_async_engine(f"postgresql+asyncpg://nobody@/nothing?host={tmp_path}"))
    with pytest.raises(JournalUnavailable, match="cannot connect"):
        await journal.open("continuum")
    with pytest.raises(JournalUnavailable):
        await journal.write(0, [a_start()])
    await journal.close()


@pytest.mark.parametrize(
    "options",
    [
        {"poolclass": NullPool},
        {"poolclass": StaticPool},
        {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0, "pool_timeout": 0.5},
    ],
    ids=lambda options: options["poolclass"].__name__,
)
async def test_any_pool_of_a_host_will_do(url: str, options: dict[str, object]) -> None:
    engine = create_async_engine(url, **options)
    await migrate(engine)
    async with engine.connect() as host:  # the only connection that a pool of one may hand out
        await host.execute(text("SELECT 1"))
        journal = SqlJournal(engine)
        await journal.open("continuum")
        await journal.register(an_owner(OWNER), ttl_seconds=TTL)
        lease = await started_run(journal)
        assert (await journal.held(OWNER)).runs == {lease.run_id: 1}
        assert await journal.heart().renew(OWNER, ttl_seconds=TTL) is not None
        await journal.close_heart()
        await journal.close()
        assert (await host.execute(text("SELECT 1"))).scalar_one() == 1
    await engine.dispose()


async def test_connect_events_of_a_host_apply_and_its_engine_is_left_alone(url: str) -> None:
    engine = create_async_engine(url)
    connected: list[object] = []
    began: list[object] = []
    event.listen(engine.sync_engine, "connect", lambda connection, _: connected.append(connection))
    event.listen(engine.sync_engine, "begin", began.append)
    await migrate(engine)
    journal = SqlJournal(engine)
    await journal.open("continuum")
    await journal.register(an_owner(OWNER), ttl_seconds=TTL)
    await started_run(journal)
    await journal.close()
    assert connected
    assert began == []
    pool = engine.sync_engine.pool
    assert isinstance(pool, AsyncAdaptedQueuePool)
    assert (pool.checkedin(), pool.checkedout()) == (0, 0)
    await engine.dispose()


@postgres_only
async def test_two_schemas_are_two_instances(engine: AsyncEngine) -> None:
    journals = []
    for schema in ("billing", "Ship ping"):
        await migrate(engine, schema=schema)
        journal = SqlJournal(engine, schema=schema)
        await journal.open(schema)
        await journal.register(an_owner(OWNER), ttl_seconds=TTL)
        journals.append(journal)
    run = a_run(key="order-1")
    for journal in journals:
        await land(journal, a_start(run))
        assert list((await journal.held(OWNER)).runs) == [run.run_id]
        await journal.close()


# --- another thread ---------------------------------------------------------------------------------------------------


async def test_the_heart_beats_on_a_thread_and_loop_of_its_own(journal: SqlJournal) -> None:
    heart = journal.heart()

    async def beat() -> bool:
        renewed = [await heart.renew(OWNER, ttl_seconds=TTL) for _ in range(3)]
        await journal.close_heart()
        return None not in renewed

    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(asyncio.run(beat())))
    thread.start()
    while thread.is_alive():
        await journal.now()  # meanwhile the journal's own connections are busy on this loop
    thread.join()
    assert answers == [True]


# --- connections that break -------------------------------------------------------------------------------------------


async def end_connections(url: str) -> None:
    """End every other connection to the database, as a restart or an administrator does."""
    raw = await connect(url)
    await raw.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await raw.close()


@postgres_only
async def test_connections_that_were_ended_while_idle_are_replaced(journal: SqlJournal, url: str) -> None:
    lease = await started_run(journal)
    await end_connections(url)
    await eventually_notices(journal)
    assert await write(journal, a_commit(lease, timer_started())) == LANDED
    assert (await journal.held(OWNER)).runs == {lease.run_id: 1}


async def eventually_notices(journal: SqlJournal) -> None:
    """Let the loop read that the sockets were closed."""
    lines = journal._lines
    async with asyncio.timeout(10):
        while any(line._driver is not None and not line._driver.is_closed() for line in lines):
            await asyncio.sleep(0.01)


@postgres_only
async def test_a_connection_that_ends_in_mid_statement_leaves_the_write_ambiguous(
    journal: SqlJournal, url: str
) -> None:
    patient = SqlJournal(journal._engine, lock_timeout_seconds=20.0)
    lease = await started_run(patient)
    host = await connect(url)
    transaction = host.transaction()
    await transaction.start()
    await host.execute("UPDATE continuum_runs SET crashes = 1 WHERE id = $1", lease.run_id)
    commit = a_commit(lease, timer_started())
    writing = asyncio.create_task(write(patient, commit))
    victim = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(10):
        while (pid := await host.fetchval(victim)) is None:
            await asyncio.sleep(0.01)
    await host.execute("SELECT pg_terminate_backend($1)", pid)
    with pytest.raises(Ambiguous):
        await writing
    await transaction.rollback()
    await host.close()
    assert await patient.judge(commit) is None
    assert await write(patient, commit) == LANDED
    assert await patient.judge(commit) == LANDED
    await patient.close()


@postgres_only
async def test_an_answer_that_stays_out_is_ambiguous_and_its_line_is_replaced(engine: AsyncEngine, url: str) -> None:
    journal = SqlJournal(engine, lock_timeout_seconds=20.0, answer_timeout_seconds=0.2)
    await journal.open("continuum")
    await journal.register(an_owner(OWNER), ttl_seconds=TTL)
    lease = await started_run(journal)
    host = await connect(url)
    async with host.transaction():
        await host.execute("UPDATE continuum_runs SET crashes = 1 WHERE id = $1", lease.run_id)
        with pytest.raises(Ambiguous):
            await write(journal, a_commit(lease, timer_started()))
    await host.close()
    other = await started_run(journal)
    assert await write(journal, a_commit(other, timer_started())) == LANDED
    await journal.close()


async def test_a_cancelled_write_spoils_nothing_but_itself(journal: SqlJournal) -> None:
    lease = await started_run(journal)
    for delay in (0, 1, 2, 5):
        task = asyncio.create_task(write(journal, a_commit(lease, timer_started())))
        for _ in range(delay):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        (held,) = await journal.load_runs([lease.run_id])
        lease = replace(lease, base_seq=held.row.last_seq)
        assert len(held.history) == held.row.last_seq
    other = await started_run(journal)
    assert await write(journal, a_commit(other, timer_started())) == LANDED


@sqlite_only
async def test_a_hosts_open_transaction_makes_sqlite_contended(engine: AsyncEngine, journal: SqlJournal) -> None:
    hasty = SqlJournal(engine, lock_timeout_seconds=0.05)
    async with engine.connect() as host:
        await host.execute(
            text(
                "INSERT INTO continuum_owners (owner, instance, node, booted_at, expires_at) VALUES ('a', 'b', 'c', 0, 0)"
            )
        )
        for work in (hasty.write(0, [a_start()]), hasty.heart().renew(OWNER, ttl_seconds=TTL)):
            with pytest.raises(Contended):
                await work
        assert await hasty.held(OWNER) == Held({}, ())  # reading goes on
        await host.rollback()
    assert await hasty.write(0, [a_start()]) == [LANDED]
    await hasty.close_heart()
    await hasty.close()


@sqlite_only
async def test_sqlite_writes_ahead_and_to_the_disk(journal: SqlJournal) -> None:
    await started_run(journal)
    for line in journal._lines:
        driver = await line.driver()
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("busy_timeout", 900)):
            cursor = await driver.execute(f"PRAGMA {pragma}")
            assert await cursor.fetchone() == (value,)
            await cursor.close()


# --- values that do not fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["\ud800", "a\x00b"])
async def test_text_that_no_database_stores_is_bad_data_or_comes_back(journal: SqlJournal, name: str) -> None:
    lease = await started_run(journal)
    message = a_signal(lease.run_id, name=name)
    try:
        await post(journal, message)
    except BadData:
        assert await journal.unread(OWNER, limit=10) == []
    else:
        assert [one.name for one in await journal.unread(OWNER, limit=10)] == [name]


@pytest.mark.parametrize("reason", ["\ud800", "a\x00b"])
async def test_a_reason_that_no_database_stores_is_bad_data(journal: SqlJournal, reason: str) -> None:
    lease = await started_run(journal)
    with pytest.raises(BadData):
        await write(journal, a_block(lease, reason=reason))
    assert await write(journal, a_block(lease, reason="it does not fit: \N{SNOWMAN}")) == LANDED


async def test_a_value_out_of_range_is_bad_data_and_nothing_of_its_batch_happens(journal: SqlJournal) -> None:
    lease, other = await started_run(journal), await started_run(journal)
    bad = a_commit(lease, replace(timer_started(), command_id=2**70))
    with pytest.raises(BadData):
        await journal.write(0, [a_commit(other, timer_started()), bad])
    assert await write(journal, a_commit(other, timer_started())) == LANDED


async def test_attributes_that_are_no_json_are_bad_data(journal: SqlJournal) -> None:
    for value in (float("nan"), object(), {1, 2}):
        with pytest.raises(BadData):
            await journal.write(0, [a_start(a_run(attributes={"a": value}))])


async def test_a_batch_of_several_kinds_takes_effect_as_a_whole_or_not_at_all(journal: SqlJournal) -> None:
    lease = await started_run(journal)
    bad = a_signal(lease.run_id, message_id=uuid7())
    batch: list[Write] = [a_commit(lease, timer_started()), Post(replace(bad, command_id=2**70))]
    with pytest.raises(BadData):
        await journal.write(0, batch)
    row = await journal.run(lease.run_id)
    assert row is not None
    assert row.last_seq == 1


# --- what newer versions have written ---------------------------------------------------------------------------------


async def test_what_a_newer_version_wrote_keeps_its_format(engine: AsyncEngine, journal: SqlJournal) -> None:
    lease = await started_run(journal)
    await land(journal, a_commit(lease, replace(timer_started(), format=7)))
    message = await post(journal, replace(a_signal(lease.run_id), format=8))
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE continuum_events SET type = 'dreamt', format = 1 WHERE seq = 1"))
    (loaded,) = await journal.load_runs([lease.run_id])
    assert [one.format for one in loaded.history] == [EVENT_FORMAT + 1, 7]
    assert [(one.message_id, one.format) for one in loaded.messages] == [(message.message_id, 8)]
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE continuum_inbox SET kind = 'dream', format = 1"))
    (unread,) = await journal.unread(OWNER, limit=10)
    assert unread.format == MESSAGE_FORMAT + 1


async def test_a_snapshot_of_another_format_is_passed_over(engine: AsyncEngine, journal: SqlJournal) -> None:
    lease = await started_run(journal)
    await land(journal, a_commit(lease, *(answered(number) for number in range(5))))
    history = tuple(await journal.history(lease.run_id))
    assert await journal.save_snapshot(lease.run_id, generation=1, seq=4, blob=pack_history(history[:4]))
    (loaded,) = await journal.load_runs([lease.run_id])
    assert (loaded.history, loaded.snapshot_seq) == (history, 4)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE continuum_snapshots SET format = 2"))
    (loaded,) = await journal.load_runs([lease.run_id])
    assert (loaded.history, loaded.snapshot_seq) == (history, 0)


# --- notices ----------------------------------------------------------------------------------------------------------


def test_notices_travel_in_as_few_payloads_as_they_fit_in() -> None:
    notices = [uuid7() for _ in range(1_000)]
    made = list(payloads([*notices, *notices, "x" * 9_000]))
    assert len(made) == 5
    assert all(len(payload.encode()) <= PAYLOAD_BYTES_MAX for payload in made)


def test_a_long_schema_has_a_channel_of_its_own_that_postgres_takes() -> None:
    channels = [channel_of(schema) for schema in (None, "a", "s" * 63, "s" * 62 + "t")]
    assert len(set(channels)) == 4
    assert all(len(channel.encode()) <= 63 for channel in channels)


@postgres_only
async def test_a_thousand_notices_are_heard_by_others_and_not_by_oneself(
    engine: AsyncEngine, journal: SqlJournal
) -> None:
    other = SqlJournal(engine)
    await other.open("continuum")
    notices = {uuid7() for _ in range(1_000)}
    async with aclosing(journal.listen()) as mine, aclosing(other.listen()) as theirs:
        assert [*await anext(mine), *await anext(theirs)] == []
        await journal.notify(sorted(notices))
        heard: set[str] = set()
        async with asyncio.timeout(10):
            while heard < notices:
                heard.update(await anext(theirs))
            assert heard == notices
            await other.notify(["from the other"])
            assert await anext(mine) == ["from the other"]  # and not what it said itself before
    await other.close()


@postgres_only
async def test_a_listener_whose_connection_breaks_says_so_and_may_listen_again(journal: SqlJournal, url: str) -> None:
    async with aclosing(journal.listen()) as notices:
        await anext(notices)
        await end_connections(url)
        with pytest.raises(JournalUnavailable):
            async with asyncio.timeout(10):
                await anext(notices)
    async with aclosing(journal.listen()) as notices:
        assert list(await anext(notices)) == []


@postgres_only
async def test_a_closing_journal_ends_its_listeners(engine: AsyncEngine) -> None:
    journal = SqlJournal(engine)
    await journal.open("continuum")
    listening = asyncio.Event()

    async def listen() -> list[object]:
        heard: list[object] = []
        async for notices in journal.listen():
            heard.append(notices)
            listening.set()
        return heard

    task = asyncio.create_task(listen())
    await listening.wait()
    await journal.close()
    async with asyncio.timeout(10):
        assert await task == [()]


@sqlite_only
async def test_sqlite_has_no_notices(journal: SqlJournal) -> None:
    assert not journal.has_notices
    await journal.notify(["run:1"])
    assert [notices async for notices in journal.listen()] == []
