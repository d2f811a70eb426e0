"""What commits do beyond their own run: children, messages to other runs, cancels that cascade, the next generation."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from msgspec.structs import replace

from continuum.journal.memory.store import MemoryStore
from continuum.model import families as said
from continuum.model.messages import Message, MessageKind
from continuum.model.runs import NewChild, RunRow
from continuum.model.states import RunState
from continuum.model.writes import Commit, NextGeneration, Start


def reach_out(store: MemoryStore, write: Start | Commit) -> None:
    """Do what a write that took effect does beyond its own run."""
    for child in write.children:
        _spawn(store, write, child)
    if not isinstance(write, Commit):
        return
    for message in write.posts:
        post(store, message)
    if write.cascade is not None:
        for row in store.active_runs():
            if row.parent_id == write.run_id:
                post(store, said.cascaded(row.run_id, write.run_id, write.cascade))
    if write.continues is not None:
        _continue(store, store.runs[write.run_id], write.token, write.continues)


def post(store: MemoryStore, message: Message) -> None:
    """Put a message into the inbox of an active run, once."""
    row = store.runs.get(message.run_id)
    is_taken = message.message_id in store.message_runs
    if row is None or row.state.has_ended or is_taken:
        return
    if message.kind is not MessageKind.CANCEL or not store.has_unread_cancel(row.run_id):
        store.add_message(message)


def _spawn(store: MemoryStore, write: Start | Commit, child: NewChild) -> None:
    known = store.runs.get(child.run_id)
    if known is not None:
        _meet(store, write, child, known)
        return
    parent, now = store.runs[write.run_id], store.now()
    store.put_run(
        RunRow(
            run_id=child.run_id,
            workflow=child.workflow,
            version=child.version,
            namespace=child.namespace,
            state=RunState.PENDING,
            generation=1,
            last_seq=1,
            lease_owner=None,
            lease_token=0,
            wake_at=now,
            created_at=now,
            attributes=copy.deepcopy(parent.attributes),
            fingerprint=child.fingerprint,
            retention_seconds=child.retention_seconds,
            trace_context=parent.trace_context,
            parent_id=parent.run_id,
            depth=child.depth,
        )
    )
    store.append(child.run_id, 1, 0, said.started(child).events)


def _meet(store: MemoryStore, parent: Start | Commit, child: NewChild, known: RunRow) -> None:
    """Tell the parent of a run that has its child's id already, unless that will tell its end itself."""
    namesake = (known.parent_id, known.workflow, known.fingerprint)
    kind = said.known(parent, child, namesake=namesake, state=known.state)
    if kind is None:
        return
    is_ours = namesake == (parent.run_id, child.workflow, child.fingerprint)
    last = store.event_at(known.run_id, known.generation, known.last_seq)
    payload = (last.event.payload if last is not None else None) if is_ours else child.taken
    post(store, said.told(parent, child, kind, payload))


def _continue(store: MemoryStore, row: RunRow, token: int, opened: NextGeneration) -> None:
    store.tasks.pop(row.run_id, None)
    store.put_run(
        replace(
            row,
            generation=row.generation + 1,
            version=opened.version,
            last_seq=len(opened.events),
            state=RunState.RUNNING,
            wake_at=None,
            crashes=0,
        )
    )
    store.append(row.run_id, row.generation + 1, token, opened.events)


def active_children(store: MemoryStore, parents: Sequence[str]) -> Sequence[tuple[str, str | None, str | None]]:
    """Return (run id, owner, its URL) of the active children of runs."""
    found = []
    for row in store.active_runs():
        if row.parent_id in parents:
            stored = store.owners.get(row.lease_owner or "")
            found.append((row.run_id, row.lease_owner, stored.owner.advertise_url if stored else None))
    return sorted(found)
