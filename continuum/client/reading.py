"""Asking about runs, and waiting for their end."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID

from msgspec.structs import replace

from continuum.client.first_looks import Looks
from continuum.client.inputs import short_name, wanted_of
from continuum.codec import shape_of
from continuum.definitions.workflow import Workflow
from continuum.errors import (
    InputInvalid,
    JournalUnavailable,
    Problem,
    ResultTimedOut,
    RunBlocked,
    RunCancelled,
    RunFailed,
    RunNotFound,
)
from continuum.ids import canonical
from continuum.journal.port import ReadJournal, RunFilter
from continuum.model.events import Event
from continuum.model.failure import Failure
from continuum.model.policy import Duration, seconds
from continuum.model.runs import Ending, Run, RunRow, Standing
from continuum.model.states import RunState
from continuum.replay.turns import RunInfo
from continuum.runtime.awaiting import Awaiting
from continuum.runtime.decisions import facts_of
from continuum.runtime.execution import Execution
from continuum.runtime.node import Node
from continuum.runtime.registry import Registry

T = TypeVar("T")
PAGE_MAX = 1_000
# A run's place (microseconds since 1970, and its id), and a digest of the filters among which it is one.
CURSOR_PATTERN = "[0-9]{1,17}-[0-9a-f]{32}-[0-9a-f]{8}"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of a listing; `next_cursor` asks for more, None: that was all."""

    items: tuple[T, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One record of a run's history; `data` is the decoded payload."""

    seq: int
    type: str
    at: datetime
    command_id: int | None
    message_id: str | None
    name: str | None
    data: Any


class History(list[HistoryEvent]):
    """The events of one generation of a run, and what replaying them takes: facts about the run, and the raw records."""

    def __init__(self, run: RunInfo, records: Iterable[Event]) -> None:
        self.run = run
        self.records = tuple(records)
        super().__init__(decoded(event) for event in self.records)

    def upto(self, seq: int) -> History:
        """Return the history as it was when its last event was number `seq`."""
        return History(self.run, [event for event in self.records if event.seq <= seq])


class Reader:
    """Reads runs."""

    def __init__(self, *, node: Node, journal: ReadJournal, registry: Registry[Execution], awaiting: Awaiting) -> None:
        self._node = node
        self._journal = journal
        self._registry = registry
        self._awaiting = awaiting
        self._looks = Looks(journal)

    async def result(
        self, run_id: str, workflow: Workflow[..., Any] | None, *, timeout: Duration | None, wait_blocked: bool
    ) -> Any:
        """Wait for a run's end; return its result or raise what became of it."""
        limit = None if timeout is None else seconds(timeout, name="timeout")
        ending = await self.ending(run_id, timeout_seconds=limit, wait_blocked=wait_blocked)
        if ending is None:
            raise ResultTimedOut(f"run {run_id} did not end within {limit:g} s; it goes on", run_id=run_id)
        return _result_of(ending, workflow)

    def ending(
        self,
        run_id: str,
        *,
        timeout_seconds: float | None,
        wait_blocked: bool,
        until_drain: bool = False,
        look_seconds: float | None = None,
    ) -> Awaitable[Ending | None]:
        """Wait for a run's end; None if it has not come in time, or (`until_drain`) before this node drains.

        `look_seconds`: what the database has to say where a run stands that does not live here.

        Raises:
            JournalUnavailable: it has not, and it may be asked again.
        """
        if run_id in self._registry:
            return self._awaiting.ending(
                run_id, wait_blocked=wait_blocked, timeout_seconds=timeout_seconds, until_drain=until_drain
            )
        return self._ending_elsewhere(
            run_id, timeout_seconds, wait_blocked=wait_blocked, until_drain=until_drain, look_seconds=look_seconds
        )

    async def standing(self, run_id: str) -> Standing:
        """Return how a run stands; one statement for all who ask in one moment.

        Raises:
            RunNotFound: there is no such run.
        """
        standing = await self._looks.at(run_id)
        if standing is None:
            raise RunNotFound(f"there is no run {run_id} in this instance", run_id=run_id)
        return standing

    async def _ending_elsewhere(
        self,
        run_id: str,
        timeout_seconds: float | None,
        *,
        wait_blocked: bool,
        until_drain: bool,
        look_seconds: float | None,
    ) -> Ending | None:
        """Look first: it may have ended before we came, or never have been."""
        try:
            async with asyncio.timeout(look_seconds):
                standing = await self.standing(run_id)
        except TimeoutError as error:
            away = f"the database has not answered within {look_seconds:g} s where the run stands; ask again"
            raise JournalUnavailable(away, run_id=run_id) from error
        ending = standing.ending
        if ending is not None and not (wait_blocked and ending.state is RunState.BLOCKED):
            return ending
        return await self._awaiting.ending(
            run_id,
            wait_blocked=wait_blocked,
            timeout_seconds=timeout_seconds,
            owner=standing.lease_owner,
            until_drain=until_drain,
        )

    async def get_run(self, run_id: str) -> Run:
        """Return a run as callers see it."""
        row = await self._journal.run(run_id)
        if row is None:
            raise RunNotFound(f"there is no run {run_id} in this instance", run_id=run_id)
        error = None
        if row.state is RunState.FAILED:
            ending = next(iter(await self._journal.endings([run_id])), None)
            error = Failure.decode(ending.payload) if ending is not None and ending.payload is not None else None
        return _run(row, error)

    async def list_runs(
        self,
        *,
        workflow: str | Workflow[..., Any] | None,
        state: RunState | str | None,
        namespace: str | None,
        attributes: Mapping[str, Any] | None,
        limit: Any,
        cursor: str | None,
    ) -> Page[Run]:
        """Return a page of runs, newest first."""
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= PAGE_MAX:
            problem = Problem("/limit", f"must be 1 to {PAGE_MAX}")
            raise InputInvalid(f"limit must be an integer from 1 to {PAGE_MAX}, not {limit!r}", problems=[problem])
        where = RunFilter(
            workflow=_workflow_name(workflow),
            state=None if state is None else _state(state),
            namespace=None if namespace is None else short_name(namespace, "namespace"),
            attributes=wanted_of(attributes),
        )
        rows = await self._journal.list_runs(where, limit=limit + 1, before=_read_cursor(cursor, where))
        page = rows[:limit]
        more = _write_cursor(page[-1], where) if len(rows) > limit else None
        return Page(tuple(_run(row, None) for row in page), more)

    async def history(self, run_id: str, *, generation: int | None = None) -> History:
        """Return the events of a run's generation (default: the present one), decoded."""
        row = await self._journal.run(run_id)
        if row is None:
            raise RunNotFound(f"there is no run {run_id} in this instance", run_id=run_id)
        facts = facts_of(row, self._node.instance)
        if generation is not None:
            facts = replace(facts, generation=generation)
        return History(facts, await self._journal.history(run_id, generation=facts.generation))


def _result_of(ending: Ending, workflow: Workflow[..., Any] | None) -> Any:
    run_id = ending.run_id
    match ending.state:
        case RunState.COMPLETED:
            shape = workflow.signature.result if workflow is not None else shape_of(object)
            return shape.decode(ending.payload or b"null")
        case RunState.CANCELLED:
            raise RunCancelled(f"run {run_id} was cancelled", run_id=run_id)
        case RunState.BLOCKED:
            reason = ending.reason or "no reason was recorded"
            raise RunBlocked(
                f"run {run_id} is blocked until its code is mended: {reason}", run_id=run_id, reason=reason
            )
        case _:
            raise _run_failed(ending)


def _run_failed(ending: Ending) -> RunFailed:
    failure = Failure.decode(ending.payload or b'{"type":"","message":"no failure was recorded"}')
    return RunFailed(
        f"run {ending.run_id} failed: {failure.type}: {failure.message}",
        run_id=ending.run_id,
        type=failure.type,
        details=failure.details,
        causes=failure.causes,
        remote_traceback=failure.traceback,
    )


def _run(row: RunRow, error: Failure | None) -> Run:
    return Run(
        run_id=row.run_id,
        workflow=row.workflow,
        version=row.version,
        namespace=row.namespace,
        state=row.state,
        generation=row.generation,
        attributes=dict(row.attributes or {}),
        started_at=row.created_at,
        ended_at=row.ended_at,
        blocked_reason=row.reason if row.state is RunState.BLOCKED else None,
        error=error,
        parent=row.parent_id,
    )


def decoded(event: Event) -> HistoryEvent:
    """Return an event as callers see it."""
    data: Any = None
    if event.payload is not None:
        try:
            data = json.loads(event.payload)
        except ValueError:
            data = base64.b64encode(event.payload).decode()
    return HistoryEvent(event.seq, event.type.value, event.at, event.command_id, event.message_id, event.name, data)


def _workflow_name(value: str | Workflow[..., Any] | None) -> str | None:
    if value is None or isinstance(value, Workflow):
        return None if value is None else value.name
    return short_name(value, "workflow")


def _state(value: RunState | str) -> RunState:
    try:
        return RunState(value)
    except ValueError as error:
        known = ", ".join(state.value for state in RunState)
        problem = Problem("/state", f"must be one of {known}")
        raise InputInvalid(f"{value!r} is no state; states are {known}", problems=[problem]) from error


def _write_cursor(row: RunRow, where: RunFilter) -> str:
    return f"{(row.created_at - _EPOCH) // _MICROSECOND}-{UUID(row.run_id).hex}-{_digest(where)}"


def _read_cursor(cursor: str | None, where: RunFilter) -> tuple[datetime, str] | None:
    if cursor is None:
        return None
    if not re.fullmatch(CURSOR_PATTERN, str(cursor)):
        problem = Problem("/cursor", "must be a next_cursor")
        raise InputInvalid("the cursor is not one that a page of runs gave", problems=[problem])
    microseconds, run_id, digest = cursor.split("-")
    if digest != _digest(where):
        problem = Problem("/cursor", "must be the next_cursor of a page with the same filters")
        message = "the cursor comes from a list with other filters: begin without one, or ask with the filters it had"
        raise InputInvalid(message, problems=[problem])
    return _EPOCH + int(microseconds) * _MICROSECOND, canonical(UUID(run_id))


def _digest(where: RunFilter) -> str:
    asked = [where.workflow, where.state, where.namespace, where.attributes]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
