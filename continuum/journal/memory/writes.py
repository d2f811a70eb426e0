"""What the group committer sends: each write's precondition, effect and refusal, and the judgement of lost answers.

`apply` is total: it answers every write with a verdict and changes nothing when it refuses. What the database would not
take at all is found by `check` beforehand, for the whole batch, because a batch lands or fails as one transaction.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from continuum.journal.memory.families import reach_out
from continuum.journal.memory.store import MemoryStore, StartKey, StoredTask
from continuum.journal.port import BadData
from continuum.model.attributes import ATTRIBUTES_MAX, merged, size_of
from continuum.model.events import EFFECTS, Event
from continuum.model.messages import Message, MessageKind
from continuum.model.results import ActivityResult
from continuum.model.runs import Attributes, RunRow
from continuum.model.states import WRITABLE
from continuum.model.tasks import Attempt, NewTask, TaskKey
from continuum.model.writes import (
    LANDED,
    REFUSED,
    Commit,
    Duplicate,
    Finish,
    FreeTask,
    Over,
    Post,
    Posted,
    RetryTask,
    SetAttributes,
    Start,
    StartMany,
    Unknown,
    Verdict,
    Write,
)


def check(batch: Sequence[Write]) -> None:
    """Look at a batch before any of it takes effect.

    Raises:
        BadData: something in it may not be stored by any journal.
        AssertionError: a run occurs twice; its row would be written once, and both histories.
    """
    runs = [write.run_id for write in batch if isinstance(write, Commit | Start)]
    if len(set(runs)) != len(runs):
        raise AssertionError("a run occurs twice in one batch")
    for write in batch:
        _check(write)


def _check(write: Write) -> None:
    match write:
        case Start():
            _check_events(write.run_id, 0, write.events)
        case StartMany(starts):
            for start in starts:
                _check(start)
        case Commit():
            _check_events(write.run_id, write.base_seq, write.events)
        case _:
            pass


def _check_events(run_id: str, base_seq: int, events: tuple[Event, ...]) -> None:
    for position, event in enumerate(events, start=base_seq + 1):
        if event.command_id is None and event.type in EFFECTS:
            raise BadData(f"{event.type.value} at {event.seq} has no command_id", run_id=run_id)
        if event.seq != position:
            raise BadData(f"{event.type.value} has seq {event.seq}, its place is {position}", run_id=run_id)


def apply(store: MemoryStore, write: Write) -> Verdict:
    """Let one write take effect, or refuse it."""
    match write:
        case Commit():
            return _commit(store, write)
        case Start():
            return _start(store, write)
        case StartMany(starts):
            return _start_many(store, starts)
        case Post(message):
            return _post(store, message)
        case Finish(attempt, message, result):
            return _finish(store, attempt, message, result)
        case RetryTask(attempt, delay_seconds):
            return _retry(store, attempt, delay_seconds)
        case FreeTask(attempt):
            return _free(store, attempt)
        case SetAttributes(run_id, changes):
            return _set_attributes(store, run_id, changes)


# --- starts -----------------------------------------------------------------------------------------------------------


def _start(store: MemoryStore, write: Start) -> Verdict:
    if write.run_id in store.runs or _key_is_taken(store, write):
        return REFUSED
    row = _new_row(write, store.now())
    store.put_run(row)
    store.append(row.run_id, row.generation, row.lease_token, write.events)
    if not write.state.has_ended:
        _add_tasks(store, row, write.tasks)
    reach_out(store, write)
    return LANDED


def _start_many(store: MemoryStore, starts: Sequence[Start]) -> Verdict:
    keys = [key for start in starts if (key := _start_key(start)) is not None]
    is_consistent = len({start.run_id for start in starts}) == len(starts) and len(set(keys)) == len(keys)
    if not is_consistent or any(start.run_id in store.runs or _key_is_taken(store, start) for start in starts):
        return REFUSED
    for start in starts:
        _start(store, start)
    return LANDED


def _start_key(write: Start) -> StartKey | None:
    run = write.run
    return None if run.idempotency_key is None else (run.namespace, run.workflow, run.idempotency_key)


def _key_is_taken(store: MemoryStore, write: Start) -> bool:
    return _start_key(write) in store.start_keys


def _new_row(write: Start, now: datetime) -> RunRow:
    run = write.run
    ends = write.state.has_ended
    is_leased = write.owner is not None
    row = RunRow(
        run_id=run.run_id,
        workflow=run.workflow,
        version=run.version,
        namespace=run.namespace,
        state=write.state,
        generation=1,
        last_seq=len(write.events),
        lease_owner=None if ends else write.owner,  # a terminal row is never leased
        lease_token=1 if is_leased else 0,
        wake_at=write.wake_at if is_leased or write.wake_at is not None else now,
        created_at=write.events[0].at,
        attributes=copy.deepcopy(run.attributes),
        idempotency_key=run.idempotency_key,
        fingerprint=run.fingerprint,
        retention_seconds=run.retention_seconds,
        trace_context=run.trace_context,
    )
    return _ended(row, now) if ends else row


# --- commits ----------------------------------------------------------------------------------------------------------


def _commit(store: MemoryStore, write: Commit) -> Verdict:
    row = store.runs.get(write.run_id)
    if row is None or row.state not in WRITABLE or not _is_unmoved(row, write):
        return REFUSED
    now = store.now()
    store.append(row.run_id, row.generation, write.token, write.events)
    for command_id in write.resolved:
        store.delete_task(TaskKey(row.run_id, row.generation, command_id))
    for read in write.read:
        if read.tombstone:
            store.entomb_message(row.run_id, read.message_id)
        else:
            store.delete_message(row.run_id, read.message_id)
    _add_tasks(store, row, write.tasks)
    store.put_run(_committed(row, write, now))
    for result in write.results:
        store.remember(result)
    if write.attributes:
        row = store.runs[row.run_id]
        store.put_run(replace(row, attributes=merged(row.attributes, write.attributes)))
    if write.is_final:
        _clear(store, row.run_id)
    reach_out(store, write)
    return LANDED


def _is_unmoved(row: RunRow, write: Commit) -> bool:
    """Four parts of the fence: what the writer believes about the row is still so."""
    return (
        row.lease_owner == write.owner
        and row.lease_token == write.token
        and row.generation == write.generation
        and row.last_seq == write.base_seq
    )


def _committed(row: RunRow, write: Commit, now: datetime) -> RunRow:
    if write.events:
        row = replace(row, last_seq=row.last_seq + len(write.events), crashes=0)
    if write.state is not None:
        wake_at = write.wake_at
        if write.backoff_seconds is not None:
            wake_at = now + timedelta(seconds=write.backoff_seconds)
        row = replace(row, state=write.state, wake_at=wake_at, reason=write.reason)
    if write.gives_up_lease:
        row = replace(row, lease_owner=None, lease_token=row.lease_token + 1)
    return _ended(row, now) if write.is_final else row


def _ended(row: RunRow, now: datetime) -> RunRow:
    keep = row.retention_seconds
    until = None if keep is None else now + timedelta(seconds=keep)
    return replace(row, wake_at=None, ended_at=now, retention_until=until)


def _clear(store: MemoryStore, run_id: str) -> None:
    """Leave nothing behind that somebody could still work on; delivery ids stay known until the run is pruned."""
    store.tasks.pop(run_id, None)
    for stored in tuple(store.inbox.get(run_id, {}).values()):
        if stored.message.delivery_id is None:
            store.delete_message(run_id, stored.message.message_id)
        else:
            store.entomb_message(run_id, stored.message.message_id)


def _add_tasks(store: MemoryStore, row: RunRow, tasks: tuple[NewTask, ...]) -> None:
    for task in tasks:
        store.put_task(
            StoredTask(
                key=TaskKey(row.run_id, row.generation, task.command_id),
                seq=task.seq,
                activity=task.activity,
                options=task.options,
                available_at=store.now(),
                owner=row.lease_owner if task.leased else None,
            )
        )


# --- messages and task endings ----------------------------------------------------------------------------------------


def _post(store: MemoryStore, message: Message) -> Verdict:
    row = store.runs.get(message.run_id)
    if message.message_id in store.message_runs:
        return _posted(store, row)
    if message.delivery_id is not None and (message.run_id, message.name, message.delivery_id) in store.deliveries:
        return Duplicate()  # before the test for the end: a webhook retried after it is still a duplicate
    if row is None:
        return Unknown()
    if row.state.has_ended:
        return Over()
    if message.kind is not MessageKind.CANCEL or not store.has_unread_cancel(row.run_id):
        store.add_message(message)
    return _posted(store, row)


def _posted(store: MemoryStore, row: RunRow | None) -> Posted:
    if row is None or row.lease_owner is None:
        return Posted()
    stored = store.owners.get(row.lease_owner)
    return Posted(row.lease_owner, stored.owner.advertise_url if stored is not None else None)


def _finish(store: MemoryStore, attempt: Attempt, message: Message, result: ActivityResult | None) -> Verdict:
    task, row = store.task(attempt.key), store.runs.get(attempt.key.run_id)
    if task is None or not task.belongs_to(attempt):
        return REFUSED
    if row is None or row.state.has_ended or row.generation != attempt.key.generation:
        return REFUSED
    store.delete_task(attempt.key)
    store.add_message(message)
    if result is not None:
        store.remember(result)
    return _posted(store, row)


def _retry(store: MemoryStore, attempt: Attempt, delay_seconds: float) -> Verdict:
    task = store.task(attempt.key)
    if task is None or not task.belongs_to(attempt):
        return REFUSED
    store.put_task(replace(task, owner=None, attempt=task.attempt + 1, available_at=store.due(delay_seconds)))
    return LANDED


def _free(store: MemoryStore, attempt: Attempt) -> Verdict:
    task = store.task(attempt.key)
    if task is None or not task.belongs_to(attempt):
        return REFUSED
    store.put_task(replace(task, owner=None))
    return LANDED


# --- attributes -------------------------------------------------------------------------------------------------------


def _set_attributes(store: MemoryStore, run_id: str, changes: Attributes) -> Verdict:
    row = store.runs.get(run_id)
    if row is None:
        return Unknown()
    attributes = merged(row.attributes, changes)
    if attributes is not None and size_of(attributes) > ATTRIBUTES_MAX:
        return REFUSED
    store.put_run(replace(row, attributes=attributes))
    return LANDED


# --- lost answers -----------------------------------------------------------------------------------------------------


def judge(store: MemoryStore, write: Write) -> Verdict | None:
    """Say what became of a write whose answer was lost; None: it did not arrive, or is harmless to send again."""
    match write:
        case Start():
            return _judge_start(store, write)
        case StartMany(starts):
            verdicts = [_judge_start(store, start) for start in starts]
            return verdicts[0] if all(verdict == verdicts[0] for verdict in verdicts) else REFUSED
        case Commit():
            return _judge_commit(store, write)
        case Post(message):
            return _judge_post(store, message)
        case _:
            return None


def _judge_post(store: MemoryStore, message: Message) -> Verdict | None:
    """Look for the message where it may be by now: its inbox, or read by any generation of its run."""
    row = store.runs.get(message.run_id)
    is_read = row is not None and any(
        stored.event.message_id == message.message_id
        for generation in range(1, row.generation + 1)
        for stored in store.events.get((row.run_id, generation), ())
    )
    return _posted(store, row) if is_read or message.message_id in store.message_runs else None


def _judge_start(store: MemoryStore, write: Start) -> Verdict | None:
    row = store.runs.get(write.run_id)
    if row is None:
        return REFUSED if _key_is_taken(store, write) else None
    if write.owner is not None and not write.state.has_ended:
        is_ours = row.lease_owner == write.owner and row.lease_token == 1
    else:  # its row tells nothing of who inserted it, its first event does
        first = store.event_at(row.run_id, 1, 1)
        is_ours = first is not None and _without_payload(first.event) == _without_payload(write.events[0])
    return LANDED if is_ours else REFUSED


def _without_payload(event: Event) -> Event:
    """Return what can be compared: a codec may write other bytes for the same value every time."""
    return replace(event, payload=None)


def _judge_commit(store: MemoryStore, write: Commit) -> Verdict | None:
    row = store.runs.get(write.run_id)
    if row is None:
        return REFUSED
    if write.events:
        # last_seq would not do: somebody else's events may have brought it to where ours would have.
        there = store.event_at(write.run_id, write.generation, write.base_seq + 1)
        if there is not None:
            return LANDED if there.token == write.token else REFUSED
    if write.continues is not None and _has_moved_on(row, write):
        return LANDED
    if _is_unmoved(row, write):
        return None
    return REFUSED if write.events or not _reads_as_released(row, write) else LANDED


def _has_moved_on(row: RunRow, write: Commit) -> bool:
    """Whether the next generation is open under our lease: nobody else could open it, and the old one may be pruned."""
    ours = (write.owner, write.token, write.generation + 1)
    return (row.lease_owner, row.lease_token, row.generation) == ours


def _reads_as_released(row: RunRow, write: Commit) -> bool:
    """Whether the row stands as a release without events would have left it: then it does not matter who did it."""
    return (
        write.releases
        and row.lease_owner is None
        and row.lease_token == write.token + 1
        and row.last_seq == write.base_seq
        and write.state in {None, row.state}
    )
