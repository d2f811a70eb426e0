"""A batch on PostgreSQL: one statement for starts and commits, one for each other kind of write that occurs.

A batch of one kind is that one statement in autocommit: one round trip. Where several kinds meet they share a
transaction, two round trips more: a batch has to take effect as a whole or not at all, or a second sending after a
lock timeout would find its finishes done and take them for refused. (Not one statement for everything: a message to a
run that the same batch ends must see the end, and within one statement it would not.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from continuum.journal.port import Contended
from continuum.journal.sql.families import reach_out, reaches_out
from continuum.journal.sql.lines import Line, Talk
from continuum.journal.sql.rows import attempt_columns, message_columns, task_key
from continuum.journal.sql.sheets import (
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
from continuum.journal.sql.writing import Verdicts, free, posting, retry, set_attributes, set_own_attributes
from continuum.model.messages import Message
from continuum.model.writes import LANDED, REFUSED, Commit, Finish, Post, Posted, Start, StartMany, Verdict, Write

Step = Callable[[Talk], Awaitable[None]]

UNSEEN_MAX = 3  # askings for what an in-flight twin became; each waits for the twin, so once is the rule


class PostgresWriter:
    """Writes batches, each lane on a connection of its own."""

    def __init__(self, lanes: Sequence[Line]) -> None:
        self.lanes = lanes

    async def write(self, lane: int, batch: Sequence[Write]) -> Sequence[Verdict]:
        """Write a batch; see `continuum.journal.port`."""
        line = self.lanes[lane]
        match batch:
            case [StartMany(starts)]:
                return [await _start_many(line, starts)]
            case _:
                return await _write(line, batch)


async def write_within(talk: Talk, batch: Sequence[Write]) -> Verdicts:
    """Write a batch in a transaction that is open; who is refused is refused alone."""
    sheet, verdicts = sheet_of(batch), list[Verdict]([REFUSED] * len(batch))
    if len(sheet.starts) == len(batch) and all(write.owner is None for _, write in sheet.starts):
        await _begin(talk, sheet, verdicts)
    else:
        for step in _steps(sheet, verdicts):
            await step(talk)
    return verdicts


async def _begin(talk: Talk, sheet: Sheet, verdicts: Verdicts) -> None:
    """Insert unleased runs: without the plan for all that a commit can do, which a host's connection makes each time."""
    starts = [write for _, write in sheet.starts]
    rows = await talk.fetch(
        batches.BEGIN, s=[tuple(start_columns(write).values()) for write in starts], e=event_cells(starts)
    )
    landed = {row.run_id for row in rows}
    for place, write in sheet.starts:
        if write.run_id in landed:
            verdicts[place] = LANDED


async def _start_many(line: Line, starts: Sequence[Start]) -> Verdict:
    """Let all of the starts land, or none."""
    if len({start.run_id for start in starts}) < len(starts):
        return REFUSED
    sheet = sheet_of(starts)
    verdicts: Verdicts = [REFUSED] * len(starts)
    async with line.transaction() as talk:
        await _commit(talk, sheet, verdicts)
        if REFUSED in verdicts:
            talk.undo()
            return REFUSED
    return LANDED


async def _write(line: Line, batch: Sequence[Write]) -> Verdicts:
    sheet = sheet_of(batch)
    verdicts: Verdicts = [REFUSED] * len(batch)
    steps = _steps(sheet, verdicts)
    if len(steps) == 1 and not _reaches_out(sheet) and not _brings_more(sheet):
        async with line.talk() as talk:
            await steps[0](talk)
    elif steps:
        async with line.transaction() as talk:
            for step in steps:
                await step(talk)
    return verdicts


def _reaches_out(sheet: Sheet) -> bool:
    return any(reaches_out(write) for _, write in sheet.starts) or any(reaches_out(write) for _, write in sheet.commits)


def _brings_more(sheet: Sheet) -> bool:
    """Whether something is written beside the runs: results under idempotency keys, attributes."""
    return any(write.results or write.attributes for _, write in sheet.commits) or any(
        write.result for _, write in sheet.finishes
    )


def _steps(sheet: Sheet, verdicts: Verdicts) -> list[Step]:
    steps: list[Step] = []
    if sheet.commits or sheet.starts:
        steps.append(lambda talk: _commit(talk, sheet, verdicts))
    if sheet.finishes:
        steps.append(lambda talk: _finish(talk, sheet, verdicts))
    if sheet.retries:
        steps.append(lambda talk: retry(talk, sheet.retries, verdicts))
    if sheet.frees:
        steps.append(lambda talk: free(talk, sheet.frees, verdicts))
    if sheet.posts:
        steps.append(lambda talk: _post(talk, sheet, verdicts))
    if sheet.settings:
        steps.append(lambda talk: set_attributes(talk, sheet.settings, verdicts))
    return steps


async def _commit(talk: Talk, sheet: Sheet, verdicts: Verdicts) -> None:
    starts, commits = [write for _, write in sheet.starts], [write for _, write in sheet.commits]
    writes: list[Start | Commit] = [*starts, *commits]
    rows = await talk.fetch(
        batches.COMMIT,
        s=[tuple(start_columns(write).values()) for write in starts],
        c=[commit_cells(write) for write in commits],
        e=event_cells(writes),
        t=task_cells(writes),
        d=resolved_cells(commits),
        g=read_cells(commits),
    )
    landed = set((rows[0].run_ids or "").split(","))
    for place, written in zip([place for place, _ in (*sheet.starts, *sheet.commits)], writes, strict=True):
        if written.run_id in landed:
            verdicts[place] = LANDED
    held = [write for write in commits if write.run_id in landed]
    await set_own_attributes(talk, held)  # before children inherit them
    if _reaches_out(sheet):
        await reach_out(talk, [write for write in writes if write.run_id in landed], spawn=_spawn, put=_put)
    await _remember(talk, held)


async def _remember(talk: Talk, writes: Sequence[Commit | Finish]) -> None:
    if cells := result_cells(writes):
        await talk.fetch(results.REMEMBER, w=cells)


async def _spawn(talk: Talk, children: Sequence[dict[str, object]]) -> set[str]:
    return {row.run_id for row in await talk.fetch(families.SPAWN, n=[tuple(child.values()) for child in children])}


async def _put(talk: Talk, messages: Sequence[Message]) -> None:
    """Post messages whose verdicts nobody asks for."""
    sheet = Sheet(posts=[(place, Post(message)) for place, message in enumerate(messages)])
    await _post(talk, sheet, [REFUSED] * len(messages))


async def _finish(talk: Talk, sheet: Sheet, verdicts: Verdicts) -> None:
    finishes = {
        write.attempt.key: (place, write) for place, write in reversed(sheet.finishes)
    }  # the first of each task
    wanted = [
        (*attempt_columns(write.attempt), *_message_cells(message_columns(write.message)))
        for _, write in finishes.values()
    ]
    landed = []
    for row in await talk.fetch(inbox.FINISH, w=wanted):
        place, write = finishes[task_key(row)]
        verdicts[place] = Posted(row.lease_owner, row.advertise_url)
        landed.append(write)
    await _remember(talk, landed)


def _message_cells(columns: dict[str, object]) -> tuple[object, ...]:
    del columns["run_id"]  # the attempt names it
    return tuple(columns.values())


async def _post(talk: Talk, sheet: Sheet, verdicts: Verdicts) -> None:
    messages = {place: message_columns(write.message) for place, write in sheet.posts}
    for _ in range(UNSEEN_MAX):
        wanted = [(place, *columns.values()) for place, columns in messages.items()]
        for row in await talk.fetch(inbox.POST, w=wanted):
            if row.verdict != "unseen":
                del messages[row.place]
                verdicts[row.place] = posting(row.verdict, row.lease_owner, row.advertise_url)
        if not messages:
            return
    raise Contended("messages collide with others that are being posted")
