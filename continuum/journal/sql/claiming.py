"""Claiming and loading runs; claiming and tending tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from continuum.journal.port import Claim, Claims, LoadedRun
from continuum.journal.sql.desk import Part
from continuum.journal.sql.rows import attempt_columns, runs_of, task_key
from continuum.journal.sql.statements import inbox, opening, results, runs, tasks
from continuum.model.events import Event
from continuum.model.messages import Message
from continuum.model.packing import SNAPSHOT_FORMAT, unpack_history
from continuum.model.results import ActivityResult, ResultKey
from continuum.model.runs import RunRow
from continuum.model.tasks import Attempt, Beat, ClaimedTask, TaskOptions


class Claiming(Part):
    """Runs."""

    async def claim_runs(
        self,
        owner: str,
        *,
        workflows: Sequence[tuple[str, int]],
        limit: int,
        run_ids: Sequence[str] | None = None,
    ) -> Claims:
        """Lease up to `limit` unleased runs that have evidence; see `continuum.journal.port`."""
        desk = self._desk
        if run_ids is None:
            rows = await desk.change(runs.CLAIM, owner=owner, m=list(workflows), n=limit)
        else:
            rows = await desk.change(runs.CLAIM_CHOSEN, owner=owner, m=list(workflows), n=limit, ids=list(run_ids))
        if not rows:  # SQLite says nothing when nothing was claimed
            (row,) = await desk.ask(opening.NOW)
            return Claims((), desk.reader.moment(row.now))
        claimed = [
            Claim(row.run_id, row.lease_token, row.generation, row.last_seq) for row in rows if row.run_id is not None
        ]
        return Claims(tuple(sorted(claimed, key=lambda claim: claim.run_id)), desk.reader.moment(rows[0].now))

    async def load_runs(self, run_ids: Sequence[str]) -> Sequence[LoadedRun]:
        """Read rows, histories (from snapshots where there are any) and unread messages of these runs."""
        desk, ids = self._desk, list(run_ids)
        if not ids:
            return []
        # Each read sees what was committed before it. A history is taken up to the `last_seq` of its row, so that the
        # two fit together even for a run that somebody else is writing.
        rows = {row.run_id: desk.reader.run(row) for row in await desk.ask(runs.BY_ID, ids=ids)}
        prefixes = await self._prefixes(ids)
        tails = await self._tails(list(rows.values()), prefixes)
        messages = defaultdict(list)
        for row in await desk.ask(inbox.UNREAD_OF_RUNS, ids=ids):
            messages[row.run_id].append(desk.reader.message(row))
        return [
            LoadedRun(
                row=rows[run_id],
                history=(*prefixes.get(run_id, ()), *tails[run_id]),
                messages=tuple(messages[run_id]),
                snapshot_seq=len(prefixes.get(run_id, ())),
            )
            for run_id in ids
            if run_id in rows
        ]

    async def _prefixes(self, run_ids: Sequence[str]) -> dict[str, tuple[Event, ...]]:
        """Return what snapshots hold; one that we cannot read is as good as none, the events are all still there."""
        prefixes = {}
        for row in await self._desk.ask(runs.SNAPSHOTS, ids=list(run_ids)):
            if row.format == SNAPSHOT_FORMAT:
                with suppress(ValueError):
                    prefixes[row.run_id] = unpack_history(row.blob)
        return prefixes

    async def _tails(
        self, rows: Sequence[RunRow], prefixes: Mapping[str, tuple[Event, ...]]
    ) -> Mapping[str, list[Event]]:
        """Return the events that come after the prefixes."""
        wanted = [(row.run_id, row.generation, len(prefixes.get(row.run_id, ())), row.last_seq) for row in rows]
        tails = defaultdict(list)
        for row in await self._desk.ask(runs.EVENTS, w=wanted):
            tails[row.run_id].append(self._desk.reader.event(row))
        return tails

    async def unread(self, owner: str, *, limit: int) -> Sequence[Message]:
        """Return unread messages of runs leased to `owner`, oldest first."""
        rows = await self._desk.ask(inbox.UNREAD_OF_OWNER, owner=owner, limit=limit)
        return [self._desk.reader.message(row) for row in rows]

    async def upcoming(self, *, horizon_seconds: float, limit: int) -> Sequence[tuple[str, datetime]]:
        """Return (run id, wake_at) of unleased runs that become due within the horizon, soonest first."""
        rows = await self._desk.ask(runs.UPCOMING, horizon=horizon_seconds, n=limit)
        return [(row.run_id, self._desk.reader.moment(row.wake_at)) for row in rows]


class Tending(Part):
    """Tasks."""

    async def claim_tasks(
        self, owner: str, *, activities: Sequence[str], slots: Mapping[str, int], default_slots: int
    ) -> Sequence[ClaimedTask]:
        """Lease due tasks, the most urgent first; see `continuum.journal.port`."""
        leased = await self._desk.change(
            tasks.CLAIM, owner=owner, activities=list(activities), q=list(slots.items()), default_slots=default_slots
        )
        if not leased:
            return []
        keys = [(row.run_id, row.generation, row.command_id) for row in leased]
        return [
            ClaimedTask(
                attempt=Attempt(task_key(row), owner, row.attempt),
                workflow=row.workflow,
                version=row.version,
                namespace=row.namespace,
                activity=row.activity,
                arguments=row.payload or b"",
                options=TaskOptions.decode(row.options),
                idempotency_key=row.key,
                details=row.details,
                trace_context=row.trace_context,
                available_at=self._desk.reader.moment(row.available_at),
            )
            for row in await self._desk.ask(tasks.DETAILS, owner=owner, w=keys, ids=runs_of(keys))
        ]

    async def heartbeat_tasks(self, beats: Sequence[Beat]) -> Sequence[Attempt]:
        """Store the details of running attempts; return those that are still theirs."""
        desk = self._desk
        quiet = [attempt_columns(beat.attempt) for beat in beats if beat.is_quiet]
        asked = await desk.ask(tasks.THEIRS, w=quiet, ids=runs_of(quiet)) if quiet else ()
        theirs = {Attempt(task_key(row), row.lease_owner, row.attempt) for row in asked}
        if len(quiet) < len(beats):
            theirs |= await self._beat([beat for beat in beats if not beat.is_quiet])
        return [beat.attempt for beat in beats if beat.attempt in theirs]

    async def _beat(self, beats: Sequence[Beat]) -> set[Attempt]:
        desk = self._desk
        by_fence = {attempt_columns(beat.attempt): beat for beat in beats}
        if desk.book.dialect.name == "postgresql":
            wanted = [(*fence, beat.details) for fence, beat in sorted(by_fence.items())]
            rows = await desk.change(tasks.HEARTBEAT, w=wanted, ids=runs_of(wanted))
        else:
            async with desk.changing() as talk:
                rows = await talk.fetch(tasks.THEIRS, w=list(by_fence), ids=runs_of(by_fence))
                names = ("run_id", "generation", "command_id", "owner", "attempt")
                beating = [
                    dict(zip(names, fence, strict=True), details=beat.details) for fence, beat in by_fence.items()
                ]
                if beating:
                    await talk.many(tasks.HEARTBEAT, beating)
        return {Attempt(task_key(row), row.lease_owner, row.attempt) for row in rows}

    async def results(self, keys: Sequence[ResultKey]) -> Sequence[ActivityResult]:
        """Return what is remembered under these keys."""
        wanted = [(key.namespace, key.activity, key.key) for key in dict.fromkeys(keys)]
        return [
            ActivityResult(
                ResultKey(row.namespace, row.activity, row.idempotency_key), row.run_id, row.arguments, row.payload
            )
            for row in await self._desk.ask(results.FIND, w=wanted)
        ]

    async def next_task_at(self, activities: Sequence[str]) -> datetime | None:
        """Return when the next free task of these activities becomes available, if any waits."""
        rows = await self._desk.ask(tasks.NEXT, activities=list(activities))
        return self._desk.reader.moment(rows[0].available_at) if rows else None
