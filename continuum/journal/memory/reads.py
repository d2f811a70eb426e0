"""What callers ask, and what keeps the tables small: listing, histories, endings, snapshots, retention."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from continuum.journal.memory.store import MemoryStore, StoredSnapshot
from continuum.journal.port import RunFilter
from continuum.model.events import Event, EventType
from continuum.model.runs import Ending, RunRow, Standing
from continuum.model.states import RunState


def handed_out(row: RunRow) -> RunRow:
    """Return a row whose attributes a caller may do anything to."""
    return row if row.attributes is None else replace(row, attributes=copy.deepcopy(row.attributes))


def run(store: MemoryStore, run_id: str) -> RunRow | None:
    """Return a run's row."""
    row = store.runs.get(run_id)
    return None if row is None else handed_out(row)


def run_by_key(store: MemoryStore, namespace: str, workflow: str, key: str) -> RunRow | None:
    """Return the run that a start key made."""
    run_id = store.start_keys.get((namespace, workflow, key))
    return None if run_id is None else handed_out(store.runs[run_id])


def history(store: MemoryStore, run_id: str, generation: int | None) -> Sequence[Event]:
    """Return a generation's events; nothing for a run that is not there."""
    row = store.runs.get(run_id)
    if row is None:
        return []
    return [stored.event for stored in store.events.get((run_id, generation or row.generation), ())]


def events_after(
    store: MemoryStore, run_id: str, *, generation: int, seq: int, limit: int
) -> Sequence[tuple[int, Event]]:
    """Return at most so many events behind a place, each with its generation."""
    row = store.runs.get(run_id)
    if row is None:
        return []
    behind = (
        (one, stored.event)
        for one in range(generation, row.generation + 1)
        for stored in store.events.get((run_id, one), ())
        if (one, stored.event.seq) > (generation, seq)
    )
    return list(itertools.islice(behind, limit))


def endings(store: MemoryStore, run_ids: Sequence[str]) -> Sequence[Ending]:
    """Return how those stand that have ended or are blocked, in the order asked."""
    rows = [store.runs[run_id] for run_id in run_ids if run_id in store.runs]
    return [_ending(store, row) for row in rows if row.state.has_ended or row.state is RunState.BLOCKED]


def standings(store: MemoryStore, run_ids: Sequence[str]) -> Sequence[Standing]:
    """Return how those of the runs stand that exist, in the order asked."""
    ended = {ending.run_id: ending for ending in endings(store, run_ids)}
    rows = [store.runs[run_id] for run_id in run_ids if run_id in store.runs]
    return [
        Standing(row.run_id, row.state, row.generation, row.last_seq, row.lease_owner, ended.get(row.run_id))
        for row in rows
    ]


def _ending(store: MemoryStore, row: RunRow) -> Ending:
    if row.state is RunState.BLOCKED:
        return Ending(row.run_id, row.state, reason=row.reason)
    last = store.event_at(row.run_id, row.generation, row.last_seq)
    if last is None or last.event.type not in {EventType.COMPLETED, EventType.FAILED}:
        return Ending(row.run_id, row.state)
    return Ending(row.run_id, row.state, payload=last.event.payload)


def list_runs(
    store: MemoryStore, where: RunFilter, *, limit: int, before: tuple[datetime, str] | None
) -> Sequence[RunRow]:
    """Return a page of runs, newest first."""
    rows = [row for row in store.runs.values() if _matches(row, where)]
    rows.sort(key=_age, reverse=True)
    older = [row for row in rows if before is None or _age(row) < before]
    return [handed_out(row) for row in older[:limit]]


def _age(row: RunRow) -> tuple[datetime, str]:
    return row.created_at, row.run_id


def _matches(row: RunRow, where: RunFilter) -> bool:
    return (
        (where.workflow is None or row.workflow == where.workflow)
        and (where.state is None or row.state is where.state)
        and (where.namespace is None or row.namespace == where.namespace)
        and (where.attributes is None or _contains(row.attributes or {}, where.attributes))
    )


def _contains(whole: Any, part: Any) -> bool:
    """Containment as Postgres has it for jsonb: types count, so "4" is not 4 and true is not 1."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(
            name in whole and _contains(whole[name], value) for name, value in part.items()
        )
    if isinstance(part, list | tuple):
        return isinstance(whole, list | tuple) and all(any(_contains(have, want) for have in whole) for want in part)
    if isinstance(part, bool) or isinstance(whole, bool):
        return part is whole
    return bool(part == whole)


def save_snapshot(store: MemoryStore, run_id: str, *, generation: int, seq: int, blob: bytes) -> bool:
    """Keep the newest compacted prefix of a history."""
    there = store.snapshots.get((run_id, generation))
    if run_id not in store.runs or (there is not None and there.seq > seq):
        return False
    store.snapshots[run_id, generation] = StoredSnapshot(seq, blob)
    return True


def prune(store: MemoryStore, *, limit: int) -> Sequence[str]:
    """Delete ended runs whose retention has passed; one kept for ever has no `retention_until`."""
    now = store.now()
    over = [
        row
        for row in store.runs.values()
        if row.state.has_ended
        and row.retention_until is not None
        and row.retention_until < now
        and row.parent_id not in store.active  # which may still ask for it
    ]
    for row in over[:limit]:
        store.delete_run(row)
    return [row.run_id for row in over[:limit]]


def prune_generations(store: MemoryStore, *, limit: int) -> int:
    """Delete generations that runs left behind for longer than their retention."""
    old = [
        (row.run_id, generation)
        for row in store.runs.values()
        if row.retention_seconds is not None
        for generation in range(1, row.generation)
        if _ended_before(store, row.run_id, generation, store.due(-row.retention_seconds))
    ][:limit]
    for key in old:
        store.events.pop(key, None)
        store.snapshots.pop(key, None)
    return len(old)


def _ended_before(store: MemoryStore, run_id: str, generation: int, then: datetime) -> bool:
    history = store.events.get((run_id, generation))
    return bool(history) and history[-1].event.at < then  # type: ignore[index]  # it is there


def prune_results(store: MemoryStore, *, age_seconds: float, limit: int) -> int:
    """Forget results of activities that are older than that, the oldest first."""
    oldest = store.due(-age_seconds)
    over = [key for key, stored in store.activity_results.items() if stored.at < oldest][:limit]
    for key in over:
        del store.activity_results[key]
    return len(over)
