"""How much there is."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from continuum.journal.memory.store import MemoryStore
from continuum.model.census import Census, QueueDepth, RunCount
from continuum.model.runs import RunRow
from continuum.model.states import RunState


def census(store: MemoryStore, *, limit: int) -> Census:
    """Count open runs and free tasks, up to a limit each."""
    now = store.now()
    open_runs = list(store.active_runs())
    working = islice((row for row in open_runs if row.state is not RunState.BLOCKED), limit)
    blocked = islice((row for row in open_runs if row.state is RunState.BLOCKED), limit)
    counts = Counter((row.state, _waits_for(row)) for some in (working, blocked) for row in some)
    free = sorted((task.available_at, task.options.queue) for task in store.all_tasks() if task.owner is None)[:limit]
    due, delayed = Counter(q for at, q in free if at <= now), Counter(q for at, q in free if at > now)
    oldest = {queue: at for at, queue in reversed(free)}
    return Census(
        tuple(sorted(RunCount(state, waits_for, runs) for (state, waits_for), runs in counts.items())),
        tuple(
            QueueDepth(queue, due[queue], delayed[queue], max((now - oldest[queue]).total_seconds(), 0.0))
            for queue in sorted(oldest)
        ),
    )


def _waits_for(row: RunRow) -> str:
    if row.state is not RunState.SUSPENDED:
        return ""
    return "message" if row.wake_at is None else "timer"
