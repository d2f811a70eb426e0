"""Claiming and loading runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from msgspec.structs import replace

from continuum.journal.memory import schedules
from continuum.journal.memory.reads import handed_out
from continuum.journal.memory.store import MemoryStore
from continuum.journal.port import Claim, Claims, Evidence, LoadedRun
from continuum.model.events import Event
from continuum.model.messages import Message
from continuum.model.packing import unpack_history
from continuum.model.runs import RunRow
from continuum.model.states import GOING, RunState

WAITING = (RunState.PENDING, RunState.SUSPENDED, RunState.BLOCKED)  # become due by wake_at


def claim_runs(
    store: MemoryStore,
    owner: str,
    *,
    workflows: Sequence[tuple[str, int]],
    limit: int,
    run_ids: Sequence[str] | None,
) -> Claims:
    """Lease unleased runs with evidence to an owner whose row exists; nobody else's lease is ever looked at."""
    claimed: list[Claim] = []
    if owner in store.owners:
        for row in _evident(store, frozenset(workflows), None if run_ids is None else frozenset(run_ids)):
            if len(claimed) >= limit:
                break
            state = row.state if row.state is RunState.CANCELLING else RunState.RUNNING
            leased = replace(row, lease_owner=owner, lease_token=row.lease_token + 1, state=state, reason=None)
            store.put_run(leased)
            claimed.append(Claim(leased.run_id, leased.lease_token, leased.generation, leased.last_seq))
    return Claims(tuple(claimed), store.now())


def _evident(
    store: MemoryStore, workflows: frozenset[tuple[str, int]], only: frozenset[str] | None
) -> Iterator[RunRow]:
    """Go through three arms, as the SQL journals do: interrupted runs, due ones soonest first, those with messages."""
    free = [row for row in store.active_runs() if row.lease_owner is None and (only is None or row.run_id in only)]
    mine = [row for row in free if (row.workflow, row.version) in workflows]
    now = store.now()
    arms = [
        *(row for row in mine if row.state in GOING),
        *sorted((row for row in mine if _is_due(row, now)), key=_by_deadline),
        *(row for row in mine if row.state is RunState.SUSPENDED and store.unread(row.run_id)),
        *(row for row in mine if row.state is RunState.PENDING and store.has_unread_undoing(row.run_id)),
        *(row for row in free if store.has_unread_cancel(row.run_id)),  # ends without code, so any node can
    ]
    return iter({row.run_id: row for row in arms}.values())


def evidence(store: MemoryStore) -> Evidence:
    """Say whether any run, task or lease is anybody's business."""
    everything = frozenset((row.workflow, row.version) for row in store.active_runs())
    now = store.now()
    holders = [row.lease_owner for row in store.active_runs()] + [task.owner for task in store.all_tasks()]
    return Evidence(
        runs=any(True for _ in _evident(store, everything, None)),
        tasks=any(task.owner is None and task.available_at <= now for task in store.all_tasks()),
        orphans=any(stored.expires_at < now for stored in store.owners.values())
        or any(holder is not None and holder not in store.owners for holder in holders),
        schedules=any(schedules.is_due(store, row, now) for row in store.schedules.values()),
    )


def _is_due(row: RunRow, now: datetime) -> bool:
    return row.state in WAITING and row.wake_at is not None and row.wake_at <= now


def _by_deadline(row: RunRow) -> tuple[datetime, str]:
    return row.wake_at or row.created_at, row.run_id


def load_runs(store: MemoryStore, run_ids: Sequence[str]) -> Sequence[LoadedRun]:
    """Return what there is of these runs, in the order asked."""
    return [_loaded(store, store.runs[run_id]) for run_id in run_ids if run_id in store.runs]


def _loaded(store: MemoryStore, row: RunRow) -> LoadedRun:
    events = [stored.event for stored in store.events.get((row.run_id, row.generation), ())]
    prefix = _prefix(store, row)
    return LoadedRun(
        row=handed_out(row),
        history=(*prefix, *events[len(prefix) :]),
        messages=tuple(stored.message for stored in store.unread(row.run_id)),
        snapshot_seq=len(prefix),
    )


def _prefix(store: MemoryStore, row: RunRow) -> tuple[Event, ...]:
    """Return what the snapshot holds; one that cannot be read is as good as none, the events are all still there."""
    snapshot = store.snapshots.get((row.run_id, row.generation))
    try:
        return () if snapshot is None else unpack_history(snapshot.blob)
    except ValueError:
        return ()


def unread(store: MemoryStore, owner: str, *, limit: int) -> Sequence[Message]:
    """Return unread messages of an owner's runs, oldest first."""
    rows = [stored for row in store.active_runs() if row.lease_owner == owner for stored in store.unread(row.run_id)]
    return [stored.message for stored in sorted(rows, key=lambda stored: stored.number)[:limit]]


def upcoming(store: MemoryStore, *, horizon_seconds: float, limit: int) -> Sequence[tuple[str, datetime]]:
    """Return what becomes due among unleased runs, soonest first."""
    until = store.due(horizon_seconds)
    due = sorted(
        (row for row in store.active_runs() if row.lease_owner is None and _is_due(row, until)), key=_by_deadline
    )
    return [(row.run_id, row.wake_at) for row in due[:limit] if row.wake_at is not None]
