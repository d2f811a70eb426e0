"""A transactional activity takes its session first, and hides it from callers, from the journal and from schemas."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from continuum.definitions.activity import activity
from continuum.definitions.workflow import workflow
from continuum.errors import ConfigurationError, DefinitionError, NotInWorkflow
from continuum.model.tasks import TaskOptions
from continuum.replay.turns import Completed
from tests.unit.replay.builders import ARun, done


class OurSession(AsyncSession):
    pass


@activity(name="tx.book", transactional=True, isolation_level="SERIALIZABLE", serialization_retries=9)
async def book(session: AsyncSession, order: str, *, cents: int = 5) -> int:
    return cents if session.sync_session.autoflush else 0


@activity(name="tx.ours", transactional=True)
async def ours(mine: Annotated[OurSession, "ours"]) -> None: ...


async def none(order: str) -> None: ...
async def second(order: str, session: AsyncSession) -> None: ...
async def two(session: AsyncSession, other: OurSession) -> None: ...
async def by_name(*, session: AsyncSession) -> None: ...
def blocking(session: AsyncSession) -> None: ...


@pytest.mark.parametrize(
    ("fn", "way_out"),
    [
        (none, "takes no session: annotate its first parameter with sqlalchemy.ext.asyncio.AsyncSession"),
        (second, "must take one session, as its first parameter, and it has session among"),
        (two, "must take one session, as its first parameter, and it has session, other among"),
        (by_name, "must take one session, as its first parameter"),
        (blocking, "is a `def`, which runs in a thread of its own; .* write `async def book"),
    ],
)
def test_what_cannot_be_transactional_is_refused_with_the_way_out(fn: Any, way_out: str) -> None:
    with pytest.raises(DefinitionError, match=way_out):
        activity(transactional=True)(fn)


def test_a_session_that_nobody_would_inject_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"'session' is a session.* With @activity\(transactional=True\)"):
        activity(second)


def test_the_session_is_found_by_its_annotation_whatever_its_class_and_name() -> None:
    assert (book.session_class, ours.session_class) == (AsyncSession, OurSession)
    assert list(book.signature.fields) == ["order", "cents"]
    assert list(ours.signature.fields) == []


def test_options_of_transactions_are_checked_and_go_with_the_task() -> None:
    assert book.task_options == TaskOptions(isolation_level="SERIALIZABLE", serialization_retries=9)
    assert TaskOptions.decode(book.task_options.encode()) == book.task_options
    assert book.options(isolation_level=None, serialization_retries=5).task_options == TaskOptions()
    assert set(json.loads(TaskOptions().encode())) == {"timeout", "heartbeat_timeout", "queue", "priority", "retry"}
    with pytest.raises(ConfigurationError, match="isolation_level must be one of 'READ COMMITTED'"):
        book.options(isolation_level="AUTOCOMMIT")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="serialization_retries must be an integer of at least 0"):
        book.options(serialization_retries=-1)
    with pytest.raises(DefinitionError, match="are for @activity"):
        activity(isolation_level="SERIALIZABLE")  # type: ignore[call-overload]


async def test_called_outside_of_a_workflow_it_says_where_it_belongs() -> None:
    with pytest.raises(NotInWorkflow, match=r"tx.book is transactional.*call book\.fn\(session, …\)"):
        await book("o-1")
    session = AsyncSession()
    assert await book.fn(session, "o-1", cents=7) == 7
    await session.close()


def test_a_workflow_calls_it_without_the_session() -> None:
    @workflow(name="tx.books")
    async def books(order: str) -> int:
        return await book(order, cents=8)

    run = ARun(books, "o-1")
    assert json.loads(run.history[1].payload or b"") == {"order": "o-1", "cents": 8}
    run.turn(done(1, 8))
    assert run.last.outcome == Completed(b"8")
