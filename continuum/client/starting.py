"""Starting runs: once per idempotency key, here if there is room, else for whoever claims them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol
from uuid import UUID
from weakref import WeakValueDictionary

from msgspec import Struct

from continuum.client.inputs import answer, attributes_of, moment_of, run_id_of, short_name
from continuum.client.venues import OwnTransactions, Reads, Venue, transaction_of
from continuum.codec import check_size
from continuum.definitions.handles import Fate
from continuum.definitions.workflow import Workflow
from continuum.errors import (
    ContinuumError,
    DurableValueError,
    IdempotencyConflict,
    InstanceDraining,
    JournalUnavailable,
    RunExists,
)
from continuum.journal.group import GroupCommitter
from continuum.journal.port import HostedJournal, ReadJournal
from continuum.model.events import EventType
from continuum.model.runs import Ending, NewRun, RunRow
from continuum.model.writes import Landed, Start, StartMany, Unwritable, Verdict
from continuum.replay.matching import same_input
from continuum.runtime.awaiting import Awaiting, StartWait
from continuum.runtime.decisions import pending_start
from continuum.runtime.node import Node
from continuum.runtime.run_supervisor import RunSupervisor
from continuum.runtime.telling import enqueued
from continuum.runtime.tracing import TraceContext, ambient, trace_context_of
from continuum.runtime.wakes import Wakes
from continuum.telemetry import heard

TRIES = 10  # of a keyed start whose winner is invisible: it was refused by a run that is gone when we look


class StartOptions(Struct, frozen=True, kw_only=True, gc=False):
    """What a caller decides about a start, checked."""

    run_id: str | None = None
    idempotency_key: str | None = None
    namespace: str = "default"
    attributes: Mapping[str, Any] | None = None
    start_at: datetime | None = None
    trace_context: str | None = None

    @classmethod
    def checked(
        cls,
        *,
        run_id: str | UUID | None,
        idempotency_key: str | None,
        namespace: str,
        attributes: Mapping[str, Any] | None,
        start_at: datetime | None,
        trace_context: TraceContext | None,
    ) -> StartOptions:
        """Check everything; without a trace context it is that of whoever calls.

        Raises:
            InputInvalid, DurableValueError: a value is not acceptable; the message says which would be.
        """
        trace = ambient() if trace_context is None else trace_context_of(trace_context)
        is_bare = run_id is None and idempotency_key is None and attributes is None and start_at is None
        if is_bare and trace is None and namespace == "default":
            return _DEFAULT
        return cls(
            run_id=None if run_id is None else run_id_of(run_id),
            idempotency_key=None if idempotency_key is None else short_name(idempotency_key, "idempotency_key"),
            namespace=short_name(namespace, "namespace"),
            attributes=attributes_of(attributes),
            start_at=moment_of(start_at, "start_at"),
            trace_context=trace,
        )


_DEFAULT = StartOptions()


class Until(Struct, frozen=True, gc=False):
    """A caller who waits for the end of what is started, `seconds` at most, and calls `landed` when the start is durable."""

    seconds: float
    landed: Callable[[], object]


class Started(Struct, frozen=True, gc=False):
    """A run id, whether the run was there already, what becomes of it if a host's transaction decides that, and how it
    ended if that was waited for, and the run was begun here, and it has ended (or is blocked).
    """

    run_id: str
    existing: bool
    fate: Fate | None = None
    ending: Ending | None = None


class StartJournal(ReadJournal, HostedJournal, Protocol):
    """What is asked when a start is refused, and whose statements a host's transaction takes in."""


class Starter:
    """Writes starts."""

    def __init__(
        self,
        *,
        node: Node,
        journal: StartJournal,
        committer: GroupCommitter,
        supervisor: RunSupervisor,
        awaiting: Awaiting,
        wakes: Wakes,
        payload_max: int,
    ) -> None:
        self._awaiting = awaiting
        self._node = node
        self._journal = journal
        self._committer = committer
        self._supervisor = supervisor
        self._wakes = wakes
        self._payload_max = payload_max
        self._own: Venue = OwnTransactions(committer.put, journal)
        self._fates: WeakValueDictionary[str, Fate] = WeakValueDictionary()  # of starts in hosts' open transactions

    async def start(
        self,
        workflow: Workflow[..., Any],
        arguments: bytes,
        options: StartOptions,
        session: object = None,
        *,
        until: Until | None = None,
    ) -> Started:
        """Start one run; returns after its commit, or once it is in the transaction of `session`.

        With `until` it returns later, if the run can be begun here: when it has ended, or that much time has passed. So
        who waits is called once, for the end.
        """
        check_size(arguments, self._payload_max, "the input of", workflow.name)
        venue = self._own if session is None else await transaction_of(session, self._journal)
        for _ in range(TRIES):
            if session is None and not self._committer.has_room:
                await self._committer.room()  # which may last: what this node may begin is asked afterwards
            if self._node.is_draining:
                raise InstanceDraining(f"instance {self._node.instance!r} is shutting down and starts no new runs")
            run = self._new_run(workflow, arguments, options)
            if session is None and self._has_room_for(run, workflow, options):
                is_chosen = options.run_id is not None
                if until is None:
                    verdict = await self._begin(run, workflow, arguments, chosen=is_chosen)
                else:
                    outcome = await self._begin_and_wait(run, workflow, arguments, until, chosen=is_chosen)
                    if outcome is None or isinstance(outcome, Ending):
                        return Started(run.run_id, existing=False, ending=outcome)
                    verdict = outcome
            else:
                verdict = await self._put_pending(run, arguments, options, venue)
            if isinstance(verdict, Landed):
                return Started(
                    run.run_id, existing=False, fate=None if session is None else self._fates.get(run.run_id)
                )
            if isinstance(verdict, Unwritable):
                raise _unwritable(verdict, "this start", run.run_id)
            found = await self._winner(run, workflow, arguments, options, venue.reads)
            if found is not None:
                existing = options.run_id is not None or found != run.run_id
                return Started(found, existing=existing, fate=None if session is None else self._fates.get(found))
        raise JournalUnavailable(
            f"starting {workflow.name} with key {options.idempotency_key!r} was refused {TRIES} times by runs that "
            "were gone when asked for; try again"
        )

    async def start_many(
        self, calls: Sequence[tuple[Workflow[..., Any], bytes]], options: StartOptions, session: object = None
    ) -> list[Started]:
        """Start many runs in one commit, all or none; whoever has room claims them."""
        venue = self._own if session is None else await transaction_of(session, self._journal)
        if not calls:
            return []
        if self._node.is_draining:
            raise InstanceDraining(f"instance {self._node.instance!r} is shutting down and starts no new runs")
        now, starts = self._node.database_now(), []
        for workflow, arguments in calls:
            check_size(arguments, self._payload_max, "the input of", workflow.name)
            run = self._new_run(workflow, arguments, options)
            starts.append(pending_start(run, arguments, now, chosen=False, start_at=options.start_at))
        verdict = await venue.put(StartMany(tuple(starts)))
        if isinstance(verdict, Unwritable):
            raise _unwritable(verdict, "these starts", None)
        if not isinstance(verdict, Landed):
            raise ContinuumError(f"start_many was refused ({verdict}); nothing was started")
        fate = venue.then(partial(self._tell, starts))
        if fate is not None:
            self._fates.update((start.run_id, fate) for start in starts)
        return [Started(start.run_id, existing=False, fate=fate) for start in starts]

    def _tell(self, starts: Sequence[Start]) -> None:
        """Say that runs wait for whoever claims them, now that they can be seen."""
        if "run.enqueued" in heard:
            for start in starts:
                enqueued(self._node.emit, start.run, wake_at=start.wake_at)
        if any(start.wake_at is None for start in starts):
            self._wakes.runs_waiting()
        else:
            self._wakes.watch_deadline(0.0)

    def _new_run(self, workflow: Workflow[..., Any], arguments: bytes, options: StartOptions) -> NewRun:
        return NewRun(
            run_id=options.run_id or self._node.new_id(),
            workflow=workflow.name,
            version=workflow.version,
            namespace=options.namespace,
            attributes=options.attributes,
            idempotency_key=options.idempotency_key,
            fingerprint=hashlib.sha256(arguments).digest() if options.idempotency_key is not None else None,
            retention_seconds=workflow.retention_seconds,
            trace_context=options.trace_context,
        )

    def _has_room_for(self, run: NewRun, workflow: Workflow[..., Any], options: StartOptions) -> bool:
        if options.start_at is not None and self._node.seconds_until(options.start_at) > 0:
            return False
        if options.run_id is not None and self._supervisor.has(run.run_id):
            return False
        return self._supervisor.room > 0 and self._supervisor.serves(workflow)

    def _begin(
        self, run: NewRun, workflow: Workflow[..., Any], arguments: bytes, *, chosen: bool
    ) -> asyncio.Future[Verdict]:
        verdict: asyncio.Future[Verdict] = self._node.loop.create_future()
        self._supervisor.start_run(run, workflow, arguments, chosen=chosen, settled=partial(answer, verdict))
        return verdict

    async def _begin_and_wait(
        self, run: NewRun, workflow: Workflow[..., Any], arguments: bytes, until: Until, *, chosen: bool
    ) -> Ending | Verdict | None:
        """Return how the run ended, None if it has not in time, or why it was not started."""
        arrived: asyncio.Future[Ending | Verdict | None] = self._node.loop.create_future()
        wait = StartWait(arrived, until.landed)
        self._supervisor.start_run(run, workflow, arguments, chosen=chosen, settled=wait.settled)
        self._awaiting.expect(run.run_id, wait)  # from now on: what ends with its first turn has ended when that lands
        timer = self._node.clock.call_later(until.seconds, wait.give_up)
        try:
            return await arrived
        finally:
            timer.cancel()
            self._awaiting.forget(run.run_id, wait)

    async def _put_pending(self, run: NewRun, arguments: bytes, options: StartOptions, venue: Venue) -> Verdict:
        start = pending_start(
            run,
            arguments,
            self._node.database_now(),
            chosen=options.run_id is not None,
            start_at=options.start_at,
        )
        verdict = await venue.put(start)
        if isinstance(verdict, Landed):
            fate = venue.then(partial(self._tell, (start,)))
            if fate is not None:
                self._fates[run.run_id] = fate
        return verdict

    async def _winner(
        self, run: NewRun, workflow: Workflow[..., Any], arguments: bytes, options: StartOptions, reads: Reads
    ) -> str | None:
        """Return the run that this start lost against if it is the same start; None if it is gone.

        Read in a statement of its own: the winner is invisible to the one that lost.
        """
        if options.idempotency_key is not None:
            row = await reads.run_by_key(run.namespace, run.workflow, options.idempotency_key)
            if row is not None:
                if row.fingerprint == run.fingerprint or await _means_the_same(row, workflow, arguments, reads):
                    return row.run_id
                raise IdempotencyConflict(
                    f"idempotency key {options.idempotency_key!r} was used before for {run.workflow} with another "
                    "input; use a new key for a new start",
                    run_id=row.run_id,
                )
        if await reads.run(run.run_id) is None:
            return None
        if options.run_id is None:  # our own id: the start landed, and both its answer and its lease were lost
            return run.run_id
        raise RunExists(f"run {run.run_id} exists already; pick another id, or a key", run_id=run.run_id)


async def _means_the_same(row: RunRow, workflow: Workflow[..., Any], arguments: bytes, reads: Reads) -> bool:
    history = await reads.history(row.run_id, generation=1)
    started = next((event for event in history if event.type is EventType.STARTED), None)
    return started is not None and same_input(arguments, started.payload, workflow.signature.parameters.recode)


def _unwritable(verdict: Unwritable, what: str, run_id: str | None) -> Exception:
    if isinstance(verdict.error, JournalUnavailable):  # the instance stopped: nobody knows what became of it
        return verdict.error
    error = DurableValueError(f"the database refuses {what}: {verdict.error}", run_id=run_id)
    error.__cause__ = verdict.error
    return error
