"""A batch on SQLite: one BEGIN IMMEDIATE transaction, a handful of statements whatever its size.

Nobody else writes meanwhile, so a statement may ask and the next one act on the answer. Rows with payloads go through
executemany, because tables made of parameters are JSON, which has no blobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from continuum.journal.sql.families import EVENT_COLUMNS, reach_out, reaches_out
from continuum.journal.sql.lines import Line, Talk
from continuum.journal.sql.rows import attempt_columns, message_columns, task_key
from continuum.journal.sql.sheets import (
    Cells,
    Sheet,
    commit_cells,
    event_cells,
    read_cells,
    resolved_cells,
    result_cells,
    sheet_of,
    start_columns,
    task_cells,
)
from continuum.journal.sql.statements import batches, families, inbox, results
from continuum.journal.sql.statements.book import Statement
from continuum.journal.sql.writing import Verdicts, free, posting, retry, set_attributes, set_own_attributes
from continuum.model.messages import Message, MessageKind
from continuum.model.tasks import TaskKey
from continuum.model.writes import LANDED, REFUSED, Commit, Post, Posted, Start, StartMany, Verdict, Write

_RESULT = ("namespace", "activity", "key", "run_id", "arguments", "payload")
_TASK = (
    "run_id",
    "generation",
    "command_id",
    "event_seq",
    "activity",
    "queue",
    "priority",
    "options",
    "max_attempts",
    "owner",
)


class SqliteWriter:
    """Writes batches one after the other: there is one lane, whatever its number."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def write(self, lane: int, batch: Sequence[Write]) -> Sequence[Verdict]:  # noqa: ARG002  there is only one
        """Write a batch; see `continuum.journal.port`."""
        match batch:
            case []:
                return []
            case [StartMany(starts)]:
                return [await self._start_many(starts)]
            case _:
                return await self._write(batch)

    async def _write(self, batch: Sequence[Write]) -> Verdicts:
        sheet = sheet_of(batch)
        verdicts: Verdicts = [REFUSED] * len(batch)
        async with self._line.transaction() as talk:
            await _write(talk, sheet, verdicts)
        return verdicts

    async def _start_many(self, starts: Sequence[Start]) -> Verdict:
        """Let all of the starts land, or none."""
        if len({start.run_id for start in starts}) < len(starts):
            return REFUSED
        sheet = sheet_of(starts)
        verdicts: Verdicts = [REFUSED] * len(starts)
        async with self._line.transaction() as talk:
            await _write(talk, sheet, verdicts)
            if REFUSED in verdicts:
                talk.undo()
                return REFUSED
        return LANDED


async def write_within(talk: Talk, batch: Sequence[Write]) -> Verdicts:
    """Write a batch in a transaction that is open; who is refused is refused alone."""
    verdicts: Verdicts = [REFUSED] * len(batch)
    await _write(talk, sheet_of(batch), verdicts)
    return verdicts


async def _write(talk: Talk, sheet: Sheet, verdicts: Verdicts) -> None:
    landed: list[Start | Commit] = []
    if sheet.starts:
        landed += await _start(talk, sheet, verdicts)
    if sheet.commits:
        landed += await _hold(talk, sheet, verdicts)
    await _many(talk, batches.APPEND, EVENT_COLUMNS, event_cells(landed))
    await _many(talk, batches.SCHEDULE, _TASK, task_cells(landed))
    await _settle(talk, [write for write in landed if isinstance(write, Commit)])
    if any(reaches_out(write) for write in landed):
        await reach_out(talk, landed, spawn=_spawn, put=_put)
    if sheet.finishes:
        await _finish(talk, sheet, verdicts)
    if sheet.retries:
        await retry(talk, sheet.retries, verdicts)
    if sheet.frees:
        await free(talk, sheet.frees, verdicts)
    if sheet.posts:
        await _post(talk, sheet, verdicts)
    if sheet.settings:
        await set_attributes(talk, sheet.settings, verdicts)


async def _many(talk: Talk, statement: Statement, columns: Sequence[str], cells: Iterable[Cells]) -> None:
    if rows := [dict(zip(columns, row, strict=True)) for row in cells]:
        await talk.many(statement, rows)


# --- starts and commits -----------------------------------------------------------------------------------------------


async def _start(talk: Talk, sheet: Sheet, verdicts: Verdicts) -> list[Start]:
    wanted = [
        (place, write.run_id, write.run.namespace, write.run.workflow, write.run.idempotency_key)
        for place, write in sheet.starts
    ]
    taken = {row.place for row in await talk.fetch(batches.TAKEN, s=wanted)}
    keys: set[Cells] = set()
    starts = []
    for place, _, *key in wanted:
        if place in taken or (key[-1] is not None and tuple(key) in keys):
            continue
        keys.add(tuple(key))
        starts.append(place)
    chosen = [(place, write) for place, write in sheet.starts if place in set(starts)]
    if chosen:
        await talk.many(batches.START, [start_columns(write) for _, write in chosen])
    for place, _ in chosen:
        verdicts[place] = LANDED
    return [write for _, write in chosen]


async def _hold(talk: Talk, sheet: Sheet, verdicts: Verdicts) -> list[Commit]:
    rows = await talk.fetch(batches.HOLD, c=[commit_cells(write) for _, write in sheet.commits])
    held = {row.run_id for row in rows}
    for place, write in sheet.commits:
        if write.run_id in held:
            verdicts[place] = LANDED
    return [write for _, write in sheet.commits if write.run_id in held]


async def _settle(talk: Talk, commits: Sequence[Commit]) -> None:
    """Do what commits do to tasks and messages."""
    await _many(talk, batches.RESOLVE, ("run_id", "generation", "command_id"), resolved_cells(commits))
    read = read_cells(commits)
    await _many(talk, results.REMEMBER, _RESULT, result_cells(commits))
    await set_own_attributes(talk, commits)
    await _many(talk, batches.TAKE, ("run_id", "id"), (cells[:2] for cells in read if not cells[2]))
    await _many(talk, batches.ENTOMB, ("run_id", "id"), (cells[:2] for cells in read if cells[2]))
    if ended := [write.run_id for write in commits if write.is_final]:
        for statement in (batches.DROP_TASKS, batches.CLEAR_INBOX, batches.KEEP_DELIVERIES):
            await talk.fetch(statement, ids=ended)


async def _spawn(talk: Talk, children: Sequence[dict[str, object]]) -> set[str]:
    known = {row.run_id for row in await talk.fetch(families.NAMESAKES, ids=[child["id"] for child in children])}
    new = [child for child in children if child["id"] not in known]
    if new:
        await talk.many(families.SPAWN, new)
    return {str(child["id"]) for child in new}


# --- messages and task endings ----------------------------------------------------------------------------------------


async def _finish(talk: Talk, sheet: Sheet, verdicts: Verdicts) -> None:
    rows = await talk.fetch(inbox.END_TASKS, w=[attempt_columns(write.attempt) for _, write in sheet.finishes])
    ended: dict[TaskKey, Posted] = {task_key(row): Posted(row.lease_owner, row.advertise_url) for row in rows}
    messages, landed = [], []
    for place, write in sheet.finishes:
        posted = ended.pop(write.attempt.key, None)
        if posted is not None:
            verdicts[place] = posted
            messages.append(message_columns(write.message))
            landed.append(write)
    if messages:
        await talk.many(inbox.INSERT, messages)
    await _many(talk, results.REMEMBER, _RESULT, result_cells(landed))


async def _put(talk: Talk, messages: Sequence[Message]) -> None:
    """Post messages whose verdicts nobody asks for."""
    sheet = Sheet(posts=[(place, Post(message)) for place, message in enumerate(messages)])
    await _post(talk, sheet, [REFUSED] * len(messages))


async def _post(talk: Talk, sheet: Sheet, verdicts: Verdicts) -> None:
    wanted = [
        (
            place,
            post.message.message_id,
            post.message.run_id,
            post.message.kind.value,
            post.message.name,
            post.message.delivery_id,
        )
        for place, post in sheet.posts
    ]
    foreseen = {row.place: row for row in await talk.fetch(inbox.FORESEE, w=wanted)}
    accepted = _Accepted()
    inserted = []
    for place, post in sheet.posts:
        row = foreseen[place]
        verdict = accepted.verdict(post.message) if row.verdict == "unseen" else row.verdict
        if verdict == "new":
            inserted.append(message_columns(post.message))
        verdicts[place] = posting("posted" if verdict == "new" else verdict, row.lease_owner, row.advertise_url)
    if inserted:
        await talk.many(inbox.INSERT, inserted)


class _Accepted:
    """What this batch itself has accepted: later messages of it may repeat earlier ones."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._deliveries: set[tuple[str, str | None, str]] = set()
        self._cancelled: set[str] = set()

    def verdict(self, message: Message) -> str:
        """Return `new`, or what the message turns out to be."""
        if message.message_id in self._ids:
            return "posted"
        if message.delivery_id is not None:
            delivery = message.run_id, message.name, message.delivery_id
            if delivery in self._deliveries:
                return "duplicate"
            self._deliveries.add(delivery)
        if message.kind is MessageKind.CANCEL:
            if message.run_id in self._cancelled:
                return "posted"
            self._cancelled.add(message.run_id)
        self._ids.add(message.message_id)
        return "new"
