"""What commits do to other runs and to their own next generation, after the fence: the same on both dialects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID, uuid5

from continuum.journal.sql.lines import Talk
from continuum.journal.sql.statements import batches, families
from continuum.model.events import PENDING, Event, EventType
from continuum.model.messages import Message, MessageKind
from continuum.model.runs import NewChild
from continuum.model.states import RunState
from continuum.model.writes import Commit, Start

Spawn = Callable[[Talk, Sequence[dict[str, object]]], Awaitable[set[str]]]
Put = Callable[[Talk, Sequence[Message]], Awaitable[None]]

EVENT_COLUMNS = (
    "run_id",
    "generation",
    "seq",
    "token",
    "type",
    "format",
    "command_id",
    "message_id",
    "name",
    "key",
    "payload",
    "at",
)
_KINDS = {
    RunState.COMPLETED: MessageKind.CHILD_COMPLETED,
    RunState.FAILED: MessageKind.CHILD_FAILED,
    RunState.CANCELLED: MessageKind.CHILD_CANCELLED,
}


def reaches_out(write: Start | Commit) -> bool:
    """Tell whether a write does more than change its own run."""
    if write.children:
        return True
    return isinstance(write, Commit) and bool(write.posts or write.cascade or write.continues)


async def reach_out(talk: Talk, landed: Sequence[Start | Commit], *, spawn: Spawn, put: Put) -> None:
    """Do what commits that took effect do beyond their own runs."""
    messages: list[Message] = []
    children = [(write, child) for write in landed for child in write.children]
    if children:
        messages += await _born(talk, children, spawn)
    commits = [write for write in landed if isinstance(write, Commit)]
    messages += [message for write in commits for message in write.posts]
    cascading = {write.run_id: write.cascade for write in commits if write.cascade is not None}
    if cascading:
        for row in await talk.fetch(families.ACTIVE_CHILDREN, ids=list(cascading)):
            messages.append(_cascaded(row.run_id, row.parent_id, cascading[row.parent_id]))
    if messages:
        await put(talk, sorted(messages, key=lambda message: (message.run_id, message.message_id)))
    await _continue(talk, commits)


def _cascaded(child: str, parent: str, kind: MessageKind) -> Message:
    """Return a child's cancel: a parent is cancelled once, so its id says which it is."""
    return Message(message_id=str(uuid5(UUID(child), f"cascade/{parent}")), run_id=child, kind=kind)


async def _born(talk: Talk, children: Sequence[tuple[Start | Commit, NewChild]], spawn: Spawn) -> list[Message]:
    """Insert children; return what is to be said to the parents of those that exist already."""
    new = await spawn(talk, [child_columns(parent.run_id, child) for parent, child in children])
    events = [
        dict(zip(EVENT_COLUMNS, _event(child.run_id, 1, 0, _started(child)), strict=True))
        for _, child in children
        if child.run_id in new
    ]
    if events:
        await talk.many(batches.APPEND, events)
    known = {child.run_id: (parent, child) for parent, child in children if child.run_id not in new}
    if not known:
        return []
    rows = {row.run_id: row for row in await talk.fetch(families.NAMESAKES, ids=list(known))}
    return [
        message
        for run_id, (parent, child) in known.items()
        if (message := _known(parent, child, rows.get(run_id))) is not None
    ]


def _started(child: NewChild) -> Event:
    return Event(1, EventType.STARTED, child.at, name=child.workflow, payload=child.arguments, key=PENDING)


def child_columns(parent: str, child: NewChild) -> dict[str, object]:
    """Return a child's columns."""
    return {
        "id": child.run_id,
        "parent": parent,
        "workflow": child.workflow,
        "version": child.version,
        "namespace": child.namespace,
        "fingerprint": child.fingerprint,
        "retention": child.retention_seconds,
        "depth": child.depth,
    }


def _known(parent: Start | Commit, child: NewChild, row: Any) -> Message | None:
    """Return what a parent hears of a run that has its child's id already; None if that will tell its end itself.

    An earlier generation asked for the same child: it is the same. Anybody else's run is not. Each generation that asks
    is told under an id of its own, or it would be taken for what an earlier one has read.
    """
    is_ours = row is not None and (row.parent_id, row.workflow, row.fingerprint) == (
        parent.run_id,
        child.workflow,
        child.fingerprint,
    )
    if is_ours and not RunState(row.state).has_ended:
        return None
    kind, payload = (_KINDS[RunState(row.state)], row.payload) if is_ours else (MessageKind.CHILD_FAILED, child.taken)
    name = f"known/{parent.run_id}/{parent.generation}/{child.command_id}"
    return Message(
        message_id=str(uuid5(UUID(child.run_id), name)),
        run_id=parent.run_id,
        kind=kind,
        name=child.run_id,
        payload=payload,
    )


async def _continue(talk: Talk, commits: Sequence[Commit]) -> None:
    continuing = [(write, write.continues) for write in commits if write.continues is not None]
    if not continuing:
        return
    await talk.many(
        families.CONTINUE,
        [
            {"run_id": write.run_id, "version": opened.version, "last_seq": len(opened.events)}
            for write, opened in continuing
        ],
    )
    await talk.fetch(families.DROP_OLD_TASKS, ids=[write.run_id for write, _ in continuing])
    await talk.many(
        batches.APPEND,
        [
            dict(zip(EVENT_COLUMNS, _event(write.run_id, write.generation + 1, write.token, event), strict=True))
            for write, opened in continuing
            for event in opened.events
        ],
    )


def _event(run_id: str, generation: int, token: int, event: Event) -> tuple[object, ...]:
    return (
        run_id,
        generation,
        event.seq,
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
