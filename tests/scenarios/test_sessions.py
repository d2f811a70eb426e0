"""Verbs with `session=`: a run, a signal, a cancel of the host's own transaction, seen at once when it commits."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import continuum
from continuum import (
    IdempotencyConflict,
    NotAllowedHere,
    Retry,
    RunCancelled,
    RunExists,
    RunHandle,
    RunNotActive,
    RunNotCommitted,
    RunNotFound,
    SessionInvalid,
    SignalInvalid,
    activity,
    workflow,
)
from continuum.composition.instance import Instance
from tests.support.eventually import eventually
from tests.support.hosting import Place, evict, instance_of, wiring_of

# Nothing is found by polling within the time of a test: what runs was nudged.
ASLEEP: dict[str, Any] = {
    "dispatcher": {"interval": 3600.0},
    "signal_router": {"catch_up": 3600.0},
    "timer_wheel": {"horizon": 3600.0},
}


@workflow(name="sessions.double")
async def double(n: int) -> int:
    return 2 * n


@workflow(name="sessions.waits", signals={"go": int})
async def waits(n: int) -> int:
    return n + await continuum.wait_signal("go", int)


@workflow(name="sessions.waits_twice")
async def waits_twice(n: int) -> int:
    return n + await continuum.wait_signal("first", int) + await continuum.wait_signal("go", int)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, database_of: Callable[[str], str | None]) -> str | None:
    return database_of(request.param)


@pytest.fixture
async def place(place: Place) -> AsyncIterator[Place]:
    """A database with a table of the host's."""
    assert place.engine is not None
    async with place.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE orders (run_id text)"))
    yield place
    async with place.engine.begin() as connection:
        await connection.execute(text("DROP TABLE orders"))


@pytest.fixture
async def app(place: Place) -> AsyncIterator[Instance]:
    children = place.children(**ASLEEP)
    async with children:
        yield instance_of(children)
    children.forget()


@asynccontextmanager
async def a_session(place: Place) -> AsyncIterator[AsyncSession]:
    assert place.engine is not None
    async with AsyncSession(place.engine, expire_on_commit=False) as session:
        yield session


@asynccontextmanager
async def a_connection(place: Place) -> AsyncIterator[AsyncConnection]:
    assert place.engine is not None
    async with place.engine.connect() as connection:
        yield connection


postgres_only = pytest.mark.parametrize("database", ["postgres"], indirect=True)  # SQLite has one writer at a time
both = pytest.mark.parametrize("host", [a_session, a_connection])


async def order(session: AsyncSession | AsyncConnection, run: RunHandle[Any]) -> None:
    await session.execute(text("INSERT INTO orders VALUES (:run_id)"), {"run_id": run.run_id})


async def orders(place: Place) -> int:
    async with a_connection(place) as connection:
        return int((await connection.execute(text("SELECT count(*) FROM orders"))).scalar_one())


# --- starting ---------------------------------------------------------------------------------------------------------


@both
async def test_a_start_runs_at_once_after_the_commit(place: Place, app: Instance, host: Any) -> None:
    async with host(place) as session:
        run = await app.start(double, 4, session=session)
        await order(session, run)
        assert run.pending_commit
        assert repr(run) == f"RunHandle('{run.run_id}', pending commit)"
        with pytest.raises(RunNotFound):
            await app.get_run(run.run_id)
        await session.commit()
    assert await run.result(timeout=15) == 8
    assert repr(run) == f"RunHandle('{run.run_id}')"
    assert await orders(place) == 1


@both
async def test_nothing_remains_after_a_rollback_and_nobody_is_nudged(place: Place, app: Instance, host: Any) -> None:
    nudges: list[str] = []
    wakes, router = wiring_of(app).wakes, cast("Any", wiring_of(app).components["signal_router"])
    await eventually(lambda: router.is_listening or wiring_of(app).journal.deafness)
    wakes.claim_runs, wakes.tell_others = lambda: nudges.append("here"), nudges.append
    async with host(place) as session:
        run = await app.start(double, 4, session=session)
        await order(session, run)
        await session.rollback()
    async with host(place) as session:
        abandoned = await app.start(double, 4, session=session)
    for gone in (run, abandoned):
        assert repr(gone) == f"RunHandle('{gone.run_id}', rolled back)"
        with pytest.raises(RunNotFound, match="rolled back"):
            await gone.result(timeout=5)
    assert await place.count("runs") == await orders(place) == 0
    assert not nudges
    async with host(place) as session:
        await app.start(double, 4, session=session)
        await session.commit()
    await eventually(lambda: nudges == ["here", "runs"])


@pytest.mark.filterwarnings("ignore:The garbage collector", "ignore:.*was deleted before being closed")
async def test_a_session_that_nobody_closes_leaves_no_handle_that_waits_for_its_commit(
    place: Place, app: Instance
) -> None:
    async def lose() -> RunHandle[int]:
        assert place.engine is not None
        return await app.start(double, 4, session=AsyncSession(place.engine))

    run = await lose()
    gc.collect()
    assert not run.pending_commit
    with pytest.raises(RunNotFound, match="rolled back"):
        await run.result(timeout=5)
    assert await (await app.start(double, 4)).result(timeout=15) == 8  # nothing is locked


async def test_what_needs_the_run_says_to_commit_first(place: Place, app: Instance) -> None:
    async with a_session(place) as session:
        run = await app.start(waits, 1, session=session)
        for needs in (
            run.result(timeout=5),
            run.status(),
            run.signal("go", 1),
            run.cancel(),
            run.set_attributes({"a": 1}),
        ):
            with pytest.raises(RunNotCommitted, match="commit"):
                await needs
        assert await run.signal("go", 41, session=session) == "delivered"
        await session.commit()
        assert await run.result(timeout=15) == 42


async def test_savepoints_decide_for_what_was_written_in_them(place: Place, app: Instance) -> None:
    async with a_session(place) as session:
        before = await app.start(double, 1, session=session)
        async with session.begin_nested():
            kept = await app.start(double, 2, session=session)
        async with session.begin_nested() as outer:
            undone = await app.start(double, 3, session=session)
            async with session.begin_nested():
                undone_too = await app.start(double, 4, session=session)
            await outer.rollback()
        after = await app.start(double, 5, session=session)
        assert [run.pending_commit for run in (before, kept, undone, undone_too, after)] == [
            True,
            True,
            False,
            False,
            True,
        ]
        await session.commit()
    assert [await run.result(timeout=15) for run in (before, kept, after)] == [2, 4, 10]
    assert "rolled back" in repr(undone)
    assert "rolled back" in repr(undone_too)
    assert await place.count("runs") == 3


async def test_a_session_that_joined_a_transaction_does_not_speak_for_it(place: Place, app: Instance) -> None:
    async with a_connection(place) as connection:
        transaction = await connection.begin()
        await connection.execute(text("INSERT INTO orders VALUES ('first')"))
        async with AsyncSession(bind=connection, join_transaction_mode="create_savepoint") as session:
            run = await app.start(double, 4, session=session)
            await session.commit()
        assert run.pending_commit
        await transaction.commit()
    assert await run.result(timeout=15) == 8


@postgres_only
@pytest.mark.parametrize("ends", ["commit", "rollback"])
async def test_a_session_that_commits_in_two_phases_is_heard_too(place: Place, app: Instance, ends: str) -> None:
    assert place.engine is not None
    async with a_connection(place) as connection:
        if (await connection.execute(text("SHOW max_prepared_transactions"))).scalar_one() == "0":
            pytest.skip("this server was not configured for it")
    async with AsyncSession(place.engine, twophase=True) as session:
        run = await app.start(double, 4, session=session)
        await order(session, run)
        await getattr(session, ends)()
    if ends == "commit":
        assert await run.result(timeout=15) == 8
    else:
        assert "rolled back" in repr(run)


async def test_every_option_of_a_start_holds_with_a_session(place: Place, app: Instance) -> None:
    chosen, soon = uuid4(), datetime.now(UTC) + timedelta(seconds=0.3)
    async with a_session(place) as session:
        run = await app.start(
            double,
            4,
            run_id=chosen,
            idempotency_key="k",
            namespace="eu",
            attributes={"customer": "c1"},
            start_at=soon,
            session=session,
        )
        await session.commit()
    row = await run.status()
    assert (row.run_id, row.namespace, row.attributes, row.state) == (str(chosen), "eu", {"customer": "c1"}, "pending")
    assert await run.result(timeout=15) == 8
    assert (await run.status()).started_at is not None


async def test_keys_and_chosen_ids_count_within_the_transaction_and_beyond(place: Place, app: Instance) -> None:
    chosen = uuid4()
    async with a_session(place) as session:
        first = await app.start(double, 1, idempotency_key="k", session=session)
        again = await app.start(double, 1, idempotency_key="k", session=session)
        assert (again.run_id, again.existing, again.pending_commit) == (first.run_id, True, True)
        with pytest.raises(IdempotencyConflict):
            await app.start(double, 2, idempotency_key="k", session=session)
        await app.start(double, 1, run_id=chosen, session=session)
        with pytest.raises(RunExists):
            await app.start(double, 1, run_id=chosen, session=session)
        await session.commit()
    assert await again.result(timeout=15) == 2
    async with a_session(place) as session:
        late = await app.start(double, 1, idempotency_key="k", session=session)
        assert (late.run_id, late.existing, late.pending_commit) == (first.run_id, True, False)
        assert await late.result(timeout=15) == 2
        with pytest.raises(RunExists):
            await app.start(double, 1, run_id=chosen, session=session)
    assert (await app.start(double, 1, idempotency_key="k")).existing


async def test_many_starts_are_all_of_the_transaction_or_none(place: Place, app: Instance) -> None:
    runs: list[RunHandle[int]] = []
    for ends in ("rollback", "commit"):
        async with a_session(place) as session:
            runs = await app.start_many(double, range(50), session=session)
            assert all(run.pending_commit for run in runs)
            await getattr(session, ends)()
        assert await place.count("runs") == (50 if ends == "commit" else 0)
    assert [await run.result(timeout=15) for run in runs] == [2 * n for n in range(50)]
    async with a_session(place) as session:
        assert await app.start_many(double, [], session=session) == []


@both
async def test_verbs_with_one_session_may_be_gathered(place: Place, app: Instance, host: Any) -> None:
    waiting = await app.start(waits, 1)
    async with host(place) as session:
        runs, late, _ = await asyncio.gather(
            asyncio.gather(*[app.start(double, n % 4, idempotency_key=f"k{n % 4}", session=session) for n in range(6)]),
            app.start_many(double, [5, 6], session=session),
            waiting.signal("go", 41, session=session),
        )
        await session.commit()
    assert [await run.result(timeout=15) for run in (*runs, *late)] == [0, 2, 4, 6, 0, 2, 10, 12]
    assert await waiting.result(timeout=15) == 42
    assert await place.count("runs") == 7


# --- signals and cancels ----------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("lives", ["here", "nowhere"])
async def test_a_signal_is_read_at_once_after_the_commit(place: Place, app: Instance, host: Any, lives: str) -> None:
    run = await app.start(waits, 1)
    if lives == "nowhere":
        await evict(app, run.run_id, waits_for="go")
    async with host(place) as session:
        assert await app.signal(run.run_id, "go", 1, session=session) == "delivered"
        await session.rollback()
    async with host(place) as session:
        assert await run.signal("go", 41, delivery_id="d", session=session) == "delivered"
        assert await run.signal("go", 99, delivery_id="d", session=session) == "duplicate"
        await asyncio.sleep(0)
        assert len(await app.history(run.run_id)) == 1
        await session.commit()
    assert await run.result(timeout=15) == 42
    async with host(place) as session:
        assert await run.signal("go", 41, delivery_id="d", session=session) == "duplicate"
        with pytest.raises(RunNotActive):
            await run.signal("go", 1, session=session)
        with pytest.raises(RunNotFound):
            await app.signal(uuid4(), "go", 1, session=session)
        unseen = await app.start(waits, 1, session=session)
        with pytest.raises(SignalInvalid):
            await unseen.signal("go", "much", session=session)


@both
@pytest.mark.parametrize("lives", ["here", "nowhere", "in the same transaction"])
async def test_a_cancel_is_honoured_at_once_after_the_commit(
    place: Place, app: Instance, host: Any, lives: str
) -> None:
    run = await app.start(waits, 1)
    if lives == "nowhere":
        await evict(app, run.run_id, waits_for="go")
    async with host(place) as session:
        assert await run.cancel(session=session) == "requested"
        await session.rollback()
    async with host(place) as session:
        if lives == "in the same transaction":
            run = await app.start(waits, 1, session=session)
        assert await run.cancel(session=session) == "requested"
        assert await run.cancel(session=session) == "requested"  # there is one cancel
        await session.commit()
    with pytest.raises(RunCancelled):
        await run.result(timeout=15)
    async with host(place) as session:
        with pytest.raises(RunNotActive):
            await app.cancel(run.run_id, session=session)


@postgres_only
async def test_a_late_message_finds_its_run_on_the_node_that_holds_it_by_then(place: Place) -> None:
    async with place.node(**ASLEEP, node="one") as one, place.node(**ASLEEP, node="two") as two:
        router: Any = wiring_of(two).components["signal_router"]
        if place.kind == "postgresql" and wiring_of(two).journal.deafness:
            pytest.skip("behind a pooler nobody listens, and here nobody polls")
        run = await one.start(waits_twice, 1)
        await evict(one, run.run_id, waits_for="first")
        async with a_session(place) as session:
            await one.signal(run.run_id, "go", 40, session=session)  # nobody holds the run now
            await two.signal(run.run_id, "first", 1)
            await eventually(lambda: run.run_id in wiring_of(two).registry)
            await eventually(lambda: router.is_listening)
            await session.commit()
        assert await run.result(timeout=15) == 42


@activity(transactional=True, retry=Retry(max_attempts=3, initial=0.01))
async def hand_over(session: AsyncSession, n: int) -> str:
    run = await continuum.start(double, n, session=session)
    await order(session, run)
    if continuum.activity_context().attempt < 2:
        raise ValueError("not yet")
    return run.run_id


@workflow(name="sessions.hands_over")
async def hands_over(n: int) -> str:
    return await hand_over(n)


async def test_a_transactional_activity_starts_a_run_once_with_its_own_rows(place: Place) -> None:
    children = place.children()  # registered: an activity finds its instance by its name
    async with children:
        app = instance_of(children)
        started = await (await app.start(hands_over, 4)).result(timeout=15)
        assert await app.await_run(started, timeout=15) == 8
        assert await orders(place) == 1
        assert await place.count("runs") == 2
    children.forget()


# --- where it cannot be -----------------------------------------------------------------------------------------------


@workflow(name="sessions.forbidden", purity="off")
async def forbidden(verb: str) -> str:
    session: Any = object()
    try:
        match verb:
            case "start":
                await continuum.start(double, 1, instance="app", session=session)
            case "signal":
                await continuum.signal(str(continuum.info().run_id), "go", 1, instance="app", session=session)
            case _:
                await continuum.cancel(str(continuum.info().run_id), instance="app", session=session)
    except NotAllowedHere as error:
        return str(error)
    return "allowed"


@pytest.mark.parametrize("verb", ["start", "signal", "cancel"])
async def test_a_workflow_has_no_session(app: Instance, verb: str) -> None:
    run = await app.start(forbidden, verb)
    assert "would not be journaled in a workflow" in await run.result(timeout=15)


async def test_what_is_no_session_of_this_database_is_refused_by_every_verb(place: Place, app: Instance) -> None:
    assert place.engine is not None
    another = create_async_engine(place.engine.url)
    for wrong in (object(), Session(create_engine("sqlite://")), AsyncSession(another)):
        session: Any = wrong
        for verb in (
            app.start(double, 1, session=session),
            app.start_many(double, [1], session=session),
            app.start_many(double, [], session=session),
            app.signal(uuid4(), "go", 1, session=session),
            app.cancel(uuid4(), session=session),
        ):
            with pytest.raises(SessionInvalid, match="pass the AsyncSession or AsyncConnection"):
                await verb
        if isinstance(session, AsyncSession):
            await session.close()
    assert await place.count("runs") == 0
    await another.dispose()


# --- beside other transactions ----------------------------------------------------------------------------------------


@postgres_only
async def test_an_open_transaction_with_a_key_stops_nobody_else(place: Place) -> None:
    async with place.node(node="one") as one, place.node(node="two") as two, a_session(place) as session:
        held = await one.start(double, 1, idempotency_key="held", session=session)
        signalled = await one.start(waits, 1)
        await signalled.signal("go", 1, delivery_id="held", session=session)
        blocked = [
            asyncio.ensure_future(two.start(double, 1, idempotency_key="held")),
            asyncio.ensure_future(two.signal(signalled.run_id, "go", 2, delivery_id="held")),
        ]
        runs = await asyncio.gather(
            *[one.start(double, n) for n in range(50)],
            *[two.start(double, n, idempotency_key=f"free-{n}") for n in range(50)],
        )
        assert [await run.result(timeout=15) for run in runs] == [2 * n for n in range(50)] * 2
        assert not any(one.done() for one in blocked)
        await session.commit()
        again, status = await asyncio.gather(*blocked)
        assert isinstance(again, RunHandle)
        assert (again.run_id, again.existing, status) == (held.run_id, True, "duplicate")
        assert await held.result(timeout=15) == 2


@postgres_only
async def test_a_commit_that_fails_leaves_no_run_and_no_handle_that_waits(place: Place, app: Instance) -> None:
    async with a_session(place) as session:
        await session.execute(text("ALTER TABLE orders ADD UNIQUE (run_id) DEFERRABLE INITIALLY DEFERRED"))
        await session.commit()
        run = await app.start(double, 4, session=session)
        for _ in range(2):
            await order(session, run)
        with pytest.raises(DBAPIError):
            await session.commit()
    assert not run.pending_commit
    with pytest.raises(RunNotFound):
        await run.result(timeout=5)
    assert await place.count("runs") == await orders(place) == 0


@postgres_only
@pytest.mark.parametrize("verb", ["signal", "cancel"])
async def test_a_message_whose_commit_fails_never_reaches_a_run_that_lives_here(
    place: Place, app: Instance, verb: str
) -> None:
    """Of a constraint that is checked at COMMIT: everything was written, and nothing of it is there."""
    run = await app.start(waits, 1)
    async with a_session(place) as session:
        await session.execute(text("ALTER TABLE orders ADD UNIQUE (run_id) DEFERRABLE INITIALLY DEFERRED"))
        await session.commit()
        told = await app.start(double, 1, session=session)
        for _ in range(2):
            await order(session, told)
        await (run.signal("go", 99, session=session) if verb == "signal" else run.cancel(session=session))
        with pytest.raises(DBAPIError):
            await session.commit()
        assert not told.pending_commit, "so whoever is told of the end of the transaction has been told"
    assert await run.signal("go", 41) == "delivered"
    assert await run.result(timeout=15) == 42


@postgres_only
async def test_a_host_that_loses_a_race_is_told_as_by_its_own_database(place: Place, app: Instance) -> None:
    assert place.engine is not None
    serious = place.engine.execution_options(isolation_level="REPEATABLE READ")
    async with AsyncSession(serious) as session:
        await session.execute(text("SELECT count(*) FROM orders"))  # the snapshot is from now
        run = await app.start(waits, 1, idempotency_key="k")
        with pytest.raises(RunNotFound):  # newer than the snapshot
            await app.signal(run.run_id, "go", 1, session=session)
        with pytest.raises(DBAPIError) as caught:
            await app.start(waits, 1, idempotency_key="k", session=session)
        assert caught.value.orig is not None
        assert getattr(caught.value.driver_exception, "sqlstate", None) == "40001"
        await session.rollback()
