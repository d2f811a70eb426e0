"""The verbs as the doors of the house use them, where callers send names and JSON instead of code and values.

Nothing here waits longer than until a drain begins: who is far away should ask another node then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from msgspec import Struct

from continuum.client.inputs import Named, run_id_of
from continuum.client.reading import HistoryEvent, Reader, decoded
from continuum.client.starting import Started, Until
from continuum.definitions.workflow import Workflow
from continuum.errors import JournalUnavailable, RunNotFound
from continuum.journal.port import ReadJournal
from continuum.model.runs import Ending, RunRow
from continuum.model.states import RunState
from continuum.runtime.node import Node
from continuum.runtime.tracing import TraceContext

FOLLOW_FIRST_SECONDS = 0.1  # and what all moments to look are multiples of
LOOK_MAX = 1_000  # events that one look reads
FOLLOW_SLOWEST_SECONDS = 1.0  # an ending is heard of at once


class Position(Struct, frozen=True, order=True, gc=False):
    """A place in a run's history: after event `seq` of a generation."""

    generation: int = 1
    seq: int = 0


class PlacedEvent(Struct, frozen=True):
    """An event and where it stands."""

    position: Position
    event: HistoryEvent


class Look(Struct, frozen=True):
    """What a look at a run's history showed: what is new in it, and whether that was all for good."""

    events: Sequence[PlacedEvent] = ()
    has_ended: bool = False


class Begun(Struct, frozen=True, gc=False):
    """A run that a start made, or found; `ending` if that was waited for and has come."""

    run_id: str
    workflow: str
    version: int
    namespace: str
    state: RunState
    existing: bool
    ending: Ending | None = None


class Starting(Protocol):
    """The client's guarded start."""

    def start(
        self,
        flow: Any,
        args: tuple[Any, ...],
        *,
        run_id: str | UUID | None,
        idempotency_key: str | None,
        namespace: str,
        attributes: Mapping[str, Any] | None,
        start_at: datetime | None,
        trace_context: TraceContext | None = None,
        until: Until | None = None,
    ) -> tuple[Workflow[..., Any], Coroutine[Any, Any, Started]]:
        """Check a start; return the workflow that it means, and what starts it."""
        ...

    async def start_many(
        self,
        flow: Any,
        inputs: None,
        *,
        namespace: str,
        attributes: Mapping[str, Any] | None,
        start_at: datetime | None,
        trace_context: TraceContext | None = None,
    ) -> list[tuple[Workflow[..., Any], Started]]:
        """Start many runs in one commit."""
        ...


class Registered(Protocol):
    """The runs that live here."""

    def __contains__(self, run_id: str, /) -> bool: ...


class Wire:
    """Verbs for callers who are far away."""

    def __init__(
        self, *, client: Starting, node: Node, journal: ReadJournal, registry: Registered, reader: Reader
    ) -> None:
        self._client = client
        self._node = node
        self._journal = journal
        self._registry = registry
        self._reader = reader

    @property
    def is_draining(self) -> bool:
        """Whether this node takes no more work."""
        return self._node.is_draining

    async def ping(self) -> None:
        """Ask the database for its time.

        Raises:
            JournalUnavailable: it does not answer.
        """
        await self._journal.now()

    async def start(
        self,
        flow: Named,
        *,
        run_id: str | UUID | None = None,
        idempotency_key: str | None = None,
        namespace: str = "default",
        attributes: Mapping[str, Any] | None = None,
        start_at: datetime | None = None,
        trace_context: TraceContext | None = None,
        until: Until | None = None,
    ) -> Begun:
        """Start a run of a workflow by its name; with `until`, and if it is begun here, wait for its end as well.

        Raises:
            WorkflowNotFound: it is not registered in this process. Others as `continuum.start`.
        """
        workflow, starting = self._client.start(
            flow,
            (),
            run_id=run_id,
            idempotency_key=idempotency_key,
            namespace=namespace,
            attributes=attributes,
            start_at=start_at,
            trace_context=trace_context,
            until=until,
        )
        started = await starting
        version, state, ending = workflow.version, RunState.RUNNING, started.ending
        if ending is not None:
            state = ending.state
        elif started.existing or started.run_id not in self._registry:
            row = await self._row_of(started)
            if row is not None:  # else it has come, ended and been pruned
                version, state = row.version, row.state
        return Begun(started.run_id, workflow.name, version, namespace, state, started.existing, ending)

    async def _row_of(self, started: Started) -> RunRow | None:
        """Read where a run stands; a new one has been started, whether that can be read just now or not."""
        try:
            return await self._journal.run(started.run_id)
        except JournalUnavailable:
            if started.existing:
                raise
            return None

    async def start_many(
        self,
        flows: Sequence[Named],
        *,
        namespace: str = "default",
        attributes: Mapping[str, Any] | None = None,
        start_at: datetime | None = None,
        trace_context: TraceContext | None = None,
    ) -> list[Begun]:
        """Start a run of each, by names, all or none.

        Raises:
            WorkflowNotFound: one of them is not registered in this process. Others as `continuum.start_many`.
        """
        started = await self._client.start_many(
            flows, None, namespace=namespace, attributes=attributes, start_at=start_at, trace_context=trace_context
        )
        return [
            Begun(one.run_id, workflow.name, workflow.version, namespace, RunState.PENDING, existing=False)
            for workflow, one in started
        ]

    def ending(self, run_id: str | UUID, *, timeout_seconds: float, look_seconds: float) -> Awaitable[Ending | None]:
        """Wait for a run's end, or until it is blocked; None after the timeout, and when a drain begins.

        Args:
            run_id: the run.
            timeout_seconds: how long to wait.
            look_seconds: how long the database may take to say where a run stands that does not live here.

        Raises:
            RunNotFound: there is no such run. JournalUnavailable: the database has not said so in time.
        """
        return self._reader.ending(
            run_id_of(run_id),
            timeout_seconds=timeout_seconds,
            wait_blocked=False,
            until_drain=True,
            look_seconds=look_seconds,
        )

    async def row(self, run_id: str | UUID) -> RunRow:
        """Read where a run stands.

        Raises:
            RunNotFound: there is no such run.
        """
        row = await self._journal.run(run_id_of(run_id))
        if row is None:
            raise RunNotFound(f"there is no run {run_id} in this instance", run_id=str(run_id))
        return row

    async def outcome(self, run_id: str | UUID) -> Ending | RunRow:
        """Read how a run ended, or where it stands if it has not.

        Raises:
            RunNotFound: there is no such run.
        """
        row = await self.row(run_id)
        if not row.state.has_ended:
            return row
        for ending in await self._journal.endings([row.run_id]):
            return ending
        raise RunNotFound(f"run {run_id} was pruned just now", run_id=row.run_id)

    async def events(self, run_id: str | UUID, *, after: Position, limit: int) -> Sequence[PlacedEvent]:
        """Read a run's history from a position on: at most `limit` events.

        Raises:
            RunNotFound: there is no such run.
        """
        row = await self.row(run_id)
        return await self._between(row.run_id, after, Position(row.generation, row.last_seq), limit)

    async def follow(self, run_id: str | UUID, *, after: Position) -> AsyncIterator[Look]:
        """Look again and again at what a history grows by, until the run has ended or this node drains.

        All who follow look at the same moments, so that a thousand who wait for news are a few statements. While the
        database is away there is nothing to be seen: whoever listens stays, and misses nothing.
        """
        run_id = run_id_of(run_id)
        ended = asyncio.ensure_future(
            self._reader.ending(run_id, timeout_seconds=None, wait_blocked=True, until_drain=True)
        )
        pause = FOLLOW_FIRST_SECONDS
        try:
            while True:
                look = await self._look(run_id, after)
                if look.events:
                    after, pause = look.events[-1].position, FOLLOW_FIRST_SECONDS
                yield look
                if look.has_ended or self.is_draining:
                    return
                rest = pause + -(self._node.clock.monotonic() + pause) % FOLLOW_FIRST_SECONDS  # until others look too
                if ended.done():  # but not yet to be seen
                    await self._node.clock.sleep(rest)
                else:
                    await asyncio.wait({ended}, timeout=rest)
                pause = min(pause * 1.5, FOLLOW_SLOWEST_SECONDS)
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    async def _look(self, run_id: str, after: Position) -> Look:
        try:
            standing = await self._reader.standing(run_id)
            end = Position(standing.generation, standing.last_seq)
            events = await self._between(run_id, after, end, LOOK_MAX)
            is_all = not events or events[-1].position >= end
            return Look(events, standing.state.has_ended and is_all)
        except RunNotFound:  # pruned meanwhile
            return Look(has_ended=True)
        except JournalUnavailable:
            return Look()

    async def _between(self, run_id: str, after: Position, end: Position, limit: int) -> list[PlacedEvent]:
        if end <= after:
            return []
        found = await self._journal.events_after(run_id, generation=after.generation, seq=after.seq, limit=limit)
        return [PlacedEvent(Position(generation, event.seq), decoded(event)) for generation, event in found]
