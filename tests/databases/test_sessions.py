"""What hosts and networks do to the sessions of an instance: settings of the database, ends that nobody hears of, silence.

Each holds for both drivers of PostgreSQL.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

import continuum
from continuum import JournalUnavailable, activity, workflow
from continuum.journal.sql import SqlJournal, lines, migrate
from continuum.journal.sql.dialects import psycopg
from tests.support.cutting import CuttingProxy
from tests.support.eventually import eventually
from tests.support.hosting import Place
from tests.support.postgres import connect, driven, execute

# What a database, a role or a server may set for every session, and a driver or we could be misled by.
SETTINGS = {
    "TimeZone": "Europe/Berlin",
    "DateStyle": "German",
    "client_encoding": "LATIN1",
    "array_nulls": "off",
    "default_transaction_isolation": "serializable",
    "bytea_output": "escape",
}
ENDING = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
RUN_ID = "01890000-0000-7000-8000-000000000000"
NAME = "Käse, 你好"


@activity
async def greeted(name: str) -> str:
    return f"{1}: {name}"


@workflow(name="sessions.told")
async def told(name: str) -> tuple[str, str]:
    return await greeted(name), str(continuum.now().tzinfo)


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    """The driver of an engine."""
    name: str = request.param
    return name


@pytest.fixture
async def engine_of(driver: str) -> AsyncIterator[Callable[[str], AsyncEngine]]:
    """Make engines of the driver."""
    async with AsyncExitStack() as stack:

        def engine(url: str) -> AsyncEngine:
            made = create_async_engine(driven(url, driver))
            stack.push_async_callback(made.dispose)
            return made

        yield engine


def altered(url: str, name: str, value: str) -> str:
    return f"ALTER DATABASE \"{make_url(url).database}\" SET {name} = '{value}'"


async def test_what_a_database_sets_for_its_sessions_changes_nothing(
    engine_of: Callable[[str], AsyncEngine], postgres_database: str
) -> None:
    for name, value in SETTINGS.items():
        await execute(postgres_database, altered(postgres_database, name, value))
    engine = engine_of(postgres_database)
    await migrate(engine)
    async with Place("postgresql", engine).node() as node:
        run = await node.start(told, NAME, idempotency_key=NAME, attributes={"name": NAME})
        assert await run.result(timeout=20) == (f"1: {NAME}", "UTC")
        found = (await node.list_runs(attributes={"name": NAME})).items[0]
        assert (found.started_at.tzinfo, found.ended_at and found.ended_at.tzinfo) == (UTC, UTC)


async def test_what_a_session_cannot_write_is_refused_alone(
    engine_of: Callable[[str], AsyncEngine], postgres_database: str
) -> None:
    await execute(postgres_database, altered(postgres_database, "client_encoding", "LATIN1"))
    engine = engine_of(postgres_database)
    await migrate(engine)
    async with Place("postgresql", engine).node() as node, AsyncSession(engine) as session, session.begin():
        if engine.dialect.driver == "psycopg":  # which keeps to the host's encoding
            with pytest.raises(continuum.DurableValueError, match="refuses this start"):
                await node.start(told, NAME, idempotency_key=NAME, session=session)
        await node.start(told, NAME, idempotency_key="plain", session=session)


async def test_connections_that_were_ended_meanwhile_are_replaced_without_a_word(
    engine_of: Callable[[str], AsyncEngine], postgres_database: str
) -> None:
    engine = engine_of(postgres_database)
    await migrate(engine)
    journal = SqlJournal(engine)
    await journal.open("app")
    outside = await connect(postgres_database)

    async def are_gone() -> bool:
        return bool(await outside.fetchval(OTHERS) == 0)

    for _ in range(2):
        assert await journal.run(RUN_ID) is None
        await outside.execute(ENDING)
        await eventually(are_gone)
    assert await journal.run(RUN_ID) is None
    await outside.close()
    await journal.close()


async def test_who_listens_stops_without_complaint(
    engine_of: Callable[[str], AsyncEngine], postgres_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of(postgres_database)
    await migrate(engine)
    journal = SqlJournal(engine)
    await journal.open("app")
    heard = journal.listen()
    assert await anext(heard) == ()
    with caplog.at_level(logging.WARNING):
        await heard.aclose()
        await journal.close()
    assert caplog.messages == []


class HushingProxy(CuttingProxy):
    """A way to the server on which, from some moment on, nothing comes back, and nobody hears that it ended."""

    hushes = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        self._pipes.add(serving)  # so that leaving waits for it
        await super()._serve(reader, writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: object) -> None:
        while data := await reader.read(65_536):
            if self.hushes:
                await asyncio.Event().wait()  # until the test is over
            writer.write(data)


async def test_a_listener_whose_server_has_fallen_silent_finds_out(
    engine_of: Callable[[str], AsyncEngine], postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psycopg, "LISTEN_SECONDS", 0.1)
    monkeypatch.setattr(psycopg, "ANSWER_SECONDS", 0.1)
    await migrate(engine_of(postgres_database))
    url = make_url(postgres_database)
    host, port = url.query.get("host", url.host), url.query.get("port", url.port) or 5432
    async with HushingProxy(str(host), int(str(port)), share=0, cuts_max=0) as proxy:
        through = url.set(query={}, host="127.0.0.1", port=proxy.port)
        journal = SqlJournal(engine_of(through.render_as_string(hide_password=False)))
        await journal.open("app")
        journal._notices._probe_seconds = 0.1
        heard = journal.listen()
        assert await anext(heard) == ()
        proxy.hushes = True
        with pytest.raises(JournalUnavailable, match="listening connection broke"):
            async with asyncio.timeout(20):
                await anext(heard)
        await journal.close()


async def test_callers_who_wait_for_the_same_connection_hear_together_that_there_is_none(
    engine_of: Callable[[str], AsyncEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "CONNECT_SECONDS", 0.2)
    tries = 0
    over = asyncio.Event()
    closed: list[asyncio.Event] = []

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        closed.append(asyncio.Event())
        mine = closed[-1]
        await over.wait()  # and say nothing
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        mine.set()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    journal = SqlJournal(engine_of(f"postgresql://nobody@127.0.0.1:{port}/nothing"))
    asked = [asyncio.create_task(journal.run(RUN_ID)) for _ in range(20)]
    done, _ = await asyncio.wait(asked, timeout=30)
    assert {str(one.exception()) for one in done} == {str(asked[0].exception())}
    assert "no answer in time" in str(asked[0].exception())
    assert (len(done), tries) == (20, 1)
    with pytest.raises(JournalUnavailable):
        await journal.run(RUN_ID)  # who comes later tries again
    assert tries == 2
    await journal.close()
    server.close()
    over.set()
    for one in closed:
        await one.wait()
