"""Claiming and tending activity tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec.structs import replace

from continuum.journal.memory.store import MemoryStore, StoredTask
from continuum.model.results import ActivityResult, ResultKey
from continuum.model.tasks import Attempt, Beat, ClaimedTask

UNNAMED = ""  # stands for all queues without slots of their own


def claim_tasks(
    store: MemoryStore, owner: str, *, activities: Sequence[str], slots: Mapping[str, int], default_slots: int
) -> Sequence[ClaimedTask]:
    """Lease due tasks to an owner whose row exists; the attempt's number stays, it has not begun."""
    if owner not in store.owners:
        return []
    now = store.now()
    due = sorted((task for task in _free(store, activities) if task.available_at <= now), key=_by_urgency)
    taken: Counter[str] = Counter()
    claimed = []
    for task in due:
        queue = task.options.queue if task.options.queue in slots else UNNAMED
        if taken[queue] < slots.get(queue, default_slots):
            taken[queue] += 1
            claimed.append(_lease(store, task, owner))
    return claimed


def _free(store: MemoryStore, activities: Sequence[str]) -> list[StoredTask]:
    known = frozenset(activities)
    return [
        task
        for task in store.all_tasks()
        if task.owner is None and task.activity in known and task.key.run_id in store.active
    ]


def _by_urgency(task: StoredTask) -> tuple[int, datetime]:
    return -task.options.priority, task.available_at


def _lease(store: MemoryStore, task: StoredTask, owner: str) -> ClaimedTask:
    store.put_task(replace(task, owner=owner))
    row = store.runs[task.key.run_id]
    scheduled = store.event_at(task.key.run_id, task.key.generation, task.seq)
    return ClaimedTask(
        attempt=Attempt(task.key, owner, task.attempt),
        workflow=row.workflow,
        version=row.version,
        namespace=row.namespace,
        activity=task.activity,
        arguments=(scheduled.event.payload if scheduled is not None else None) or b"",
        options=task.options,
        idempotency_key=scheduled.event.key if scheduled is not None else None,
        details=task.details,
        trace_context=row.trace_context,
        available_at=task.available_at,
    )


def heartbeat_tasks(store: MemoryStore, beats: Sequence[Beat]) -> Sequence[Attempt]:
    """Remember what running attempts want to remember; return those that still run."""
    theirs = []
    for beat in beats:
        task = store.task(beat.attempt.key)
        if task is None or not task.belongs_to(beat.attempt):
            continue
        if beat.details is not None:  # a beat without details keeps what was said before
            store.put_task(replace(task, details=beat.details))
        theirs.append(beat.attempt)
    return theirs


def results(store: MemoryStore, keys: Sequence[ResultKey]) -> Sequence[ActivityResult]:
    """Return what is remembered under these keys."""
    return [store.activity_results[key].result for key in dict.fromkeys(keys) if key in store.activity_results]


def next_task_at(store: MemoryStore, activities: Sequence[str]) -> datetime | None:
    """Return when the first free task of these activities is available."""
    return min((task.available_at for task in _free(store, activities)), default=None)
