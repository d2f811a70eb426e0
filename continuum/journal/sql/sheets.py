"""A batch of writes, sorted by kind and spread into the columns that statements take.

Starts and commits are in run-id order (keyed starts in the order of their keys), finishes and retries in the order of
their tasks, messages with a delivery id in the order of those: two committers that collide wait for each other in one
order only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from continuum.journal.port import BadData
from continuum.journal.sql.rows import encoded_attributes
from continuum.model.messages import Message
from continuum.model.results import ActivityResult
from continuum.model.runs import Attributes
from continuum.model.tasks import NewTask
from continuum.model.writes import (
    Commit,
    Finish,
    FreeTask,
    Post,
    RetryTask,
    SetAttributes,
    Start,
    StartMany,
    Write,
)

Cells = tuple[object, ...]


@dataclass(slots=True)
class Sheet:
    """The writes of a batch by kind, each with its place in the batch."""

    starts: list[tuple[int, Start]] = field(default_factory=list)
    commits: list[tuple[int, Commit]] = field(default_factory=list)
    finishes: list[tuple[int, Finish]] = field(default_factory=list)
    retries: list[tuple[int, RetryTask]] = field(default_factory=list)
    frees: list[tuple[int, FreeTask]] = field(default_factory=list)
    posts: list[tuple[int, Post]] = field(default_factory=list)
    settings: list[tuple[int, SetAttributes]] = field(default_factory=list)


def sheet_of(batch: Sequence[Write]) -> Sheet:
    """Sort a batch.

    Raises:
        BadData: an event does not stand where it says.
    """
    sheet = Sheet()
    for place, write in enumerate(batch):
        match write:
            case Commit():
                sheet.commits.append((place, write))
            case Start():
                sheet.starts.append((place, write))
            case Post():
                sheet.posts.append((place, write))
            case Finish():
                sheet.finishes.append((place, write))
            case RetryTask():
                sheet.retries.append((place, write))
            case FreeTask():
                sheet.frees.append((place, write))
            case SetAttributes():
                sheet.settings.append((place, write))
            case StartMany():
                raise AssertionError("many starts that land together are a batch of their own")
    _expect_each_run_once(sheet)
    sheet.starts.sort(key=lambda item: _start_order(item[1]))
    sheet.commits.sort(key=lambda item: item[1].run_id)
    for tasks in (sheet.finishes, sheet.retries, sheet.frees):
        tasks.sort(key=_task_order)
    sheet.settings.sort(key=lambda item: (item[1].run_id, item[0]))
    sheet.posts.sort(key=lambda item: _post_order(item[0], item[1].message))
    return sheet


def _expect_each_run_once(sheet: Sheet) -> None:
    runs = [write.run_id for _, write in sheet.commits] + [write.run_id for _, write in sheet.starts]
    if len(set(runs)) != len(runs):
        # A bug in whoever made the batch. It must not reach the database: the run would get the events of both.
        raise AssertionError("a run occurs twice in one batch")


def _start_order(write: Start) -> tuple[str, str, str, str]:
    run = write.run
    return run.namespace, run.workflow, run.idempotency_key or "", run.run_id


def _task_order(item: tuple[int, Finish] | tuple[int, RetryTask] | tuple[int, FreeTask]) -> tuple[str, int, int]:
    key = item[1].attempt.key
    return key.run_id, key.generation, key.command_id


def _post_order(place: int, message: Message) -> tuple[str, str, str, int]:
    if message.delivery_id is None:
        return message.run_id, "", "", place  # as they came
    return message.run_id, message.name or "", message.delivery_id, place


# --- starts -----------------------------------------------------------------------------------------------------------


def start_columns(write: Start) -> dict[str, object]:
    """Return a new run's columns: one that ends with its first turn is never leased; token 0 says unleased."""
    run, ends = write.run, write.state.has_ended
    return {
        "id": run.run_id,
        "workflow": run.workflow,
        "version": run.version,
        "namespace": run.namespace,
        "state": write.state,
        "last_seq": len(write.events),
        "owner": None if ends else write.owner,
        "token": 0 if write.owner is None else 1,
        "wake_at": None if ends else write.wake_at,
        "attributes": encoded_attributes(run.attributes, run_id=run.run_id),
        "key": run.idempotency_key,
        "fingerprint": run.fingerprint,
        "retention": run.retention_seconds,
        "trace": run.trace_context,
        "created_at": write.events[0].at,  # what the workflow was told in its first turn, it is told ever after
    }


# --- commits ----------------------------------------------------------------------------------------------------------


def commit_cells(write: Commit) -> Cells:
    """Return a commit's fence and what it does to the run's row."""
    final = write.is_final
    return (
        write.run_id,
        write.owner,
        write.token,
        write.generation,
        write.base_seq,
        write.base_seq + len(write.events),
        write.state,
        None if final else write.wake_at,
        None if final else write.backoff_seconds,
        write.reason,
        final or write.releases,
        final,
    )


def resolved_cells(commits: Iterable[Commit]) -> list[Cells]:
    """Return the keys of the tasks whose commands are resolved."""
    return [(write.run_id, write.generation, command_id) for write in commits for command_id in write.resolved]


def read_cells(commits: Iterable[Commit]) -> list[Cells]:
    """Return the messages that commits consume."""
    return [(write.run_id, read.message_id, read.tombstone) for write in commits for read in write.read]


def result_cells(writes: Iterable[Start | Commit | Finish]) -> list[Cells]:
    """Return what is to be remembered under idempotency keys, in the order of the keys, each once.

    Few writes bring any. So this is a statement of its own, after the one that tells which writes took effect.
    """
    found: dict[tuple[str, str, str], Cells] = {}
    for write in writes:
        for one in _results_of(write):
            key = one.key.namespace, one.key.activity, one.key.key
            found.setdefault(key, (*key, one.run_id, one.arguments, one.payload))
    return [found[key] for key in sorted(found)]


def _results_of(write: Start | Commit | Finish) -> tuple[ActivityResult, ...]:
    match write:
        case Commit():
            return write.results
        case Finish(result=ActivityResult() as result):
            return (result,)
        case _:
            return ()


def attribute_cells(settings: Iterable[tuple[str, Attributes | None]]) -> list[Cells]:
    """Return what changes in the attributes of each run; of several changes to one run the later ones count."""
    changes: dict[str, dict[str, object]] = {}
    for run_id, changed in settings:
        if changed:
            changes.setdefault(run_id, {}).update(changed)
    return [(run_id, encoded_attributes(one, run_id=run_id)) for run_id, one in changes.items()]


# --- what both bring --------------------------------------------------------------------------------------------------


def event_cells(writes: Iterable[Start | Commit]) -> list[Cells]:
    """Return all events, in the order of `_EVENT_COLUMNS`.

    Raises:
        BadData: an event does not stand where it says.
    """
    cells: list[Cells] = []
    for write in writes:
        if isinstance(write, Commit):
            run_id, generation, token, seq = write.run_id, write.generation, write.token, write.base_seq
        else:
            run_id, generation, token, seq = write.run_id, 1, 0 if write.owner is None else 1, 0
        for event in write.events:
            seq += 1
            if event.seq != seq:
                raise BadData(f"{event.type.value} has seq {event.seq}, its place is {seq}", run_id=run_id)
            cells.append(
                (
                    run_id,
                    generation,
                    seq,
                    token,
                    event.type,
                    event.format,
                    event.command_id,
                    event.message_id,
                    event.name,
                    event.key,
                    event.payload,
                    event.at,
                )
            )
    return cells


def task_cells(writes: Iterable[Start | Commit]) -> list[Cells]:
    """Return all tasks of runs that go on, leased to their writer where it said so."""
    return [
        _task(write.run_id, write.generation if isinstance(write, Commit) else 1, write.owner, task)
        for write in writes
        if not (write.state is not None and write.state.has_ended)
        for task in write.tasks
    ]


def _task(run_id: str, generation: int, owner: str | None, task: NewTask) -> Cells:
    options = task.options
    return (
        run_id,
        generation,
        task.command_id,
        task.seq,
        task.activity,
        options.queue,
        options.priority,
        options.encode(),
        options.retry.max_attempts,
        owner if task.leased else None,
    )
