"""What open runs need, and who carries it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from continuum.journal.memory.store import MemoryStore
from continuum.model.events import EventType
from continuum.model.states import RunState
from continuum.model.versions import Carrier, OpenRun, OpenRuns, PatchMarks


def carry(store: MemoryStore, owner: str, *, workflows: Sequence[tuple[str, int]]) -> None:
    """Record what an owner carries; forget what those without a row did."""
    store.workflow_versions = {
        known: carried for known, carried in store.workflow_versions.items() if known in store.owners
    }
    if owner in store.owners:
        store.workflow_versions[owner] = tuple(workflows)


def retry_blocked(
    store: MemoryStore, *, workflows: Sequence[tuple[str, int]], crashes_max: int, limit: int
) -> Sequence[str]:
    """Let blocked runs be due now."""
    now = store.now()
    waiting = [
        row
        for row in store.active_runs()
        if row.state is RunState.BLOCKED
        and row.crashes < crashes_max
        and row.wake_at is not None
        and row.wake_at > now
        and (row.workflow, row.version) in workflows
    ]
    chosen = sorted(waiting, key=lambda row: row.run_id)[:limit]
    for row in chosen:
        store.put_run(replace(row, wake_at=now))
    return [row.run_id for row in chosen]


def carriers(store: MemoryStore) -> Sequence[Carrier]:
    """Return who carries what, of the living."""
    now = store.now()
    return sorted(
        (
            Carrier(workflow, version, stored.owner.node, owner)
            for owner, carried in store.workflow_versions.items()
            if (stored := store.owners.get(owner)) is not None and stored.expires_at >= now
            for workflow, version in carried
        ),
        key=lambda one: (one.workflow, one.version, one.node, one.owner),
    )


def open_counts(store: MemoryStore) -> Sequence[OpenRuns]:
    """Count the open runs."""
    counts = Counter((row.workflow, row.version, row.state) for row in store.active_runs())
    return [OpenRuns(workflow, version, state, runs) for (workflow, version, state), runs in sorted(counts.items())]


def patch_marks(store: MemoryStore) -> Sequence[PatchMarks]:
    """Count the open runs that take patches."""
    counts = Counter(
        (row.workflow, row.version, stored.event.name or "")
        for row in store.active_runs()
        for stored in store.events.get((row.run_id, row.generation), ())
        if stored.event.type is EventType.PATCHED
    )
    return [PatchMarks(workflow, version, patch, runs) for (workflow, version, patch), runs in sorted(counts.items())]


def open_runs(
    store: MemoryStore, *, workflow: str | None, limit: int, before: tuple[datetime, str] | None
) -> Sequence[OpenRun]:
    """Return a page of open runs, newest first."""
    rows = [row for row in store.active_runs() if workflow in {None, row.workflow}]
    rows.sort(key=lambda row: (row.created_at, row.run_id), reverse=True)
    older = [row for row in rows if before is None or (row.created_at, row.run_id) < before]
    return [OpenRun(row.run_id, row.workflow, row.version, row.created_at, row.last_seq) for row in older[:limit]]
