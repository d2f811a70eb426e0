"""What commits do to other runs and to their own next generation, after the fence: the same on both dialects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec.structs import replace

from continuum.journal.sql.lines import Talk
from continuum.journal.sql.sheets import event_cells
from continuum.journal.sql.statements import batches, families
from continuum.model import families as said
from continuum.model.messages import Message
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
            messages.append(said.cascaded(row.run_id, row.parent_id, cascading[row.parent_id]))
    if messages:
        await put(talk, sorted(messages, key=lambda message: (message.run_id, message.message_id)))
    await _continue(talk, commits)


async def _born(talk: Talk, children: Sequence[tuple[Start | Commit, NewChild]], spawn: Spawn) -> list[Message]:
    """Insert children; return what is to be said to the parents of those that exist already."""
    new = await spawn(talk, [child_columns(parent.run_id, child) for parent, child in children])
    await _append(talk, [said.started(child) for _, child in children if child.run_id in new])
    known = [(parent, child) for parent, child in children if child.run_id not in new]
    if not known:
        return []
    rows = {row.run_id: row for row in await talk.fetch(families.NAMESAKES, ids=[child.run_id for _, child in known])}
    return [
        message
        for parent, child in known
        if (message := _of_namesake(parent, child, rows.get(child.run_id))) is not None
    ]


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


def _of_namesake(parent: Start | Commit, child: NewChild, row: Any) -> Message | None:
    """Say what a run that has the child's id already means; one that is not to be seen is a stranger's."""
    namesake = (None, "", None) if row is None else (row.parent_id, row.workflow, row.fingerprint)
    kind = said.known(parent, child, namesake=namesake, state=None if row is None else RunState(row.state))
    if kind is None:
        return None
    is_ours = namesake == (parent.run_id, child.workflow, child.fingerprint)
    return said.told(parent, child, kind, row.payload if is_ours else child.taken)


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
    await _append(
        talk,
        [
            replace(write, generation=write.generation + 1, base_seq=0, events=opened.events)
            for write, opened in continuing
        ],
    )


async def _append(talk: Talk, writes: Sequence[Start | Commit]) -> None:
    """Write the events of runs that these very statements have put there."""
    if rows := [dict(zip(EVENT_COLUMNS, cells, strict=True)) for cells in event_cells(writes)]:
        await talk.many(batches.APPEND, rows)
