"""Owners, and the repair of what they leave behind.

A lease is valid while its owner's row is. To declare an owner dead deletes that row and nothing else; the sweep then
finds every lease that names no row, again and again, so that a lease taken by a process that was only paused is found
by the next pass. Runs go before tasks: a result that travels in a commit under a token that still holds must win.
"""

from __future__ import annotations

import uuid

from msgspec.structs import replace

from continuum.journal.memory.store import MemoryStore, StoredOwner, StoredTask
from continuum.journal.port import BadData, Held, Swept
from continuum.model.failure import Failure
from continuum.model.messages import Message, MessageKind
from continuum.model.owners import Owner
from continuum.model.runs import RunRow
from continuum.model.states import GOING, RunState
from continuum.model.tasks import Attempt


def register(store: MemoryStore, owner: Owner, *, ttl_seconds: float) -> None:
    """Insert an owner row; an id is never used twice."""
    if owner.owner in store.owners:
        raise BadData(f"owner {owner.owner} is registered already")
    store.owners[owner.owner] = StoredOwner(owner, store.due(ttl_seconds))


def renew(store: MemoryStore, owner: str, *, ttl_seconds: float) -> bool:
    """Extend an owner row; late is fine while it exists."""
    stored = store.owners.get(owner)
    if stored is not None:
        store.owners[owner] = replace(stored, expires_at=store.due(ttl_seconds))
    return stored is not None


def retire(store: MemoryStore, owner: str) -> None:
    """Delete an owner row; harmless if it is gone."""
    store.owners.pop(owner, None)


def owners(store: MemoryStore) -> list[Owner]:
    """Return the owners that have a row."""
    return [stored.owner for stored in store.owners.values()]


def declare_dead(store: MemoryStore) -> list[str]:
    """Delete the owner rows that have expired."""
    now = store.now()
    dead = [owner for owner, stored in store.owners.items() if stored.expires_at < now]
    for owner in dead:
        del store.owners[owner]
    return dead


def sweep(store: MemoryStore, *, crashes_max: int, backoff_seconds: float, task_backoff_seconds: float) -> Swept:
    """Free what owners without a row hold, and delete what belongs to nobody."""
    freed: list[str] = []
    blocked: list[str] = []
    retried: list[Attempt] = []
    exhausted: list[Attempt] = []
    for row in store.active_runs():
        if row.lease_owner is not None and row.lease_owner not in store.owners:
            swept = _freed(store, row, crashes_max, backoff_seconds)
            store.put_run(swept)
            (blocked if swept.state is RunState.BLOCKED else freed).append(row.run_id)
    for task in store.all_tasks():
        if not _is_wanted(store, task):
            store.delete_task(task.key)
        elif task.owner is not None and task.owner not in store.owners:
            attempt = Attempt(task.key, task.owner, task.attempt)
            if task.attempt < task.options.retry.max_attempts:
                available_at = store.due(task_backoff_seconds)
                store.put_task(replace(task, owner=None, attempt=task.attempt + 1, available_at=available_at))
                retried.append(attempt)
            else:
                store.delete_task(task.key)
                store.add_message(_exhausted(task))
                exhausted.append(attempt)
    _delete_late_messages(store)
    return Swept(tuple(freed), tuple(retried), tuple(blocked), tuple(exhausted))


def _freed(store: MemoryStore, row: RunRow, crashes_max: int, backoff_seconds: float) -> RunRow:
    crashes = row.crashes + (row.state in GOING)
    free = replace(row, lease_owner=None, lease_token=row.lease_token + 1, crashes=crashes)
    if crashes < crashes_max or row.state not in GOING:
        return free
    reason = f"its process died {crashes} times without a commit"
    return replace(free, state=RunState.BLOCKED, wake_at=store.due(backoff_seconds), reason=reason)


def _is_wanted(store: MemoryStore, task: StoredTask) -> bool:
    row = store.runs.get(task.key.run_id)
    return row is not None and not row.state.has_ended and row.generation == task.key.generation


def _exhausted(task: StoredTask) -> Message:
    failure = Failure(
        type="attempts_exhausted",
        message=f"the process died during attempt {task.attempt} of {task.options.retry.max_attempts}",
        attempts=task.attempt,
        retryable=False,
    )
    name = f"{task.key.generation}/{task.key.command_id}/attempts_exhausted"
    return Message(
        message_id=str(uuid.uuid5(uuid.UUID(task.key.run_id), name)),
        run_id=task.key.run_id,
        kind=MessageKind.ACTIVITY_FAILED,
        name=task.activity,
        payload=failure.encode(),
        generation=task.key.generation,
        command_id=task.key.command_id,
    )


def _delete_late_messages(store: MemoryStore) -> None:
    """Delete what arrived after the end; with a delivery id it stays, so that a retry is recognised."""
    for run_id, rows in tuple(store.inbox.items()):
        if run_id in store.active:
            continue
        for stored in tuple(rows.values()):
            if stored.message.delivery_id is None:
                store.delete_message(run_id, stored.message.message_id)


def held(store: MemoryStore, owner: str) -> Held:
    """Return what is leased to an owner."""
    return Held(
        runs={row.run_id: row.lease_token for row in store.active_runs() if row.lease_owner == owner},
        tasks=tuple(Attempt(task.key, owner, task.attempt) for task in store.all_tasks() if task.owner == owner),
    )


def release_run(
    store: MemoryStore,
    run_id: str,
    *,
    owner: str,
    token: int,
    state: RunState | None,
    backoff_seconds: float | None,
    reason: str | None,
) -> bool:
    """Give a lease back if it is still this one."""
    row = store.runs.get(run_id)
    if row is None or row.state.has_ended or row.lease_owner != owner or row.lease_token != token:
        return False
    row = replace(row, lease_owner=None, lease_token=token + 1)
    if state is not None:
        wake_at = None if backoff_seconds is None else store.due(backoff_seconds)
        row = replace(row, state=state, wake_at=wake_at, reason=reason)
    store.put_run(row)
    return True
