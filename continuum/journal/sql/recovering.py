"""Level-triggered repair, one page at a time: a pass may be cut anywhere and run anywhere, any number of times."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from continuum.journal.port import Evidence, Held, Swept
from continuum.journal.sql.desk import Part
from continuum.journal.sql.lines import Talk
from continuum.journal.sql.rows import message_columns, runs_of, task_key
from continuum.journal.sql.statements import inbox, pulse, runs, sweeps, tasks
from continuum.model.failure import Failure
from continuum.model.messages import Message, MessageKind
from continuum.model.states import RunState
from continuum.model.tasks import Attempt


class Recovering(Part):
    """The sweep, the audit's view, and the release of a single lease."""

    async def sweep(self, *, crashes_max: int, backoff_seconds: float, task_backoff_seconds: float) -> Swept:
        """Free what owners without a row hold, runs before tasks; delete what belongs to nobody."""
        freed: list[str] = []
        blocked: list[str] = []
        lost: list[Attempt] = []
        exhausted: list[Attempt] = []
        dead = [row.owner for row in await self._desk.ask(sweeps.MISSING_OWNERS)]
        while dead and (
            rows := await self._desk.change(sweeps.RUNS, dead=dead, crashes_max=crashes_max, backoff=backoff_seconds)
        ):
            for row in rows:
                # A run that is blocked now was running before: one that was blocked before is never leased.
                (blocked if row.state == RunState.BLOCKED.value else freed).append(row.run_id)
        await self._desk.change(sweeps.UNWANTED_TASKS)
        while dead and await self._sweep_tasks(dead, task_backoff_seconds, lost, exhausted):
            pass
        await self._desk.change(inbox.FORGET_LATE)
        return Swept(tuple(freed), tuple(lost), tuple(blocked), tuple(exhausted))

    async def _sweep_tasks(
        self, dead: Sequence[str], backoff_seconds: float, lost: list[Attempt], exhausted: list[Attempt]
    ) -> bool:
        """Take one page of tasks from the dead; tell whether there was anything to take."""
        async with self._desk.changing() as talk:
            rows = await talk.fetch(sweeps.LOST_TASKS, dead=list(dead))
            again = [row for row in rows if row.attempt < row.max_attempts]
            over = [row for row in rows if row.attempt >= row.max_attempts]
            if again:
                fenced = [(*_fence(row), backoff_seconds) for row in again]
                await talk.fetch(tasks.RETRY, w=fenced, ids=runs_of(fenced))
            if over:
                await _give_up(talk, over)
        lost.extend(_attempt(row) for row in again)
        exhausted.extend(_attempt(row) for row in over)
        return bool(rows)

    async def evidence(self) -> Evidence:
        """Say whether there is anything for anybody to do."""
        (row,) = await self._desk.ask(pulse.EVIDENCE)
        return Evidence(
            runs=bool(row.runs), tasks=bool(row.tasks), orphans=bool(row.orphans), schedules=bool(row.schedules)
        )

    async def held(self, owner: str) -> Held:
        """Return the active runs and the tasks leased to `owner`."""
        leased = await self._desk.ask(runs.HELD, owner=owner)
        tasks_held = await self._desk.ask(tasks.HELD, owner=owner)
        return Held(
            runs={row.run_id: row.lease_token for row in leased},
            tasks=tuple(Attempt(task_key(row), owner, row.attempt) for row in tasks_held),
        )

    async def release_run(
        self,
        run_id: str,
        *,
        owner: str,
        token: int,
        state: RunState | None = None,
        backoff_seconds: float | None = None,
        reason: str | None = None,
    ) -> bool:
        """Give a lease back, fenced by owner and token; with `state`, also set it and `wake_at` (None: NULL)."""
        rows = await self._desk.change(
            runs.RELEASE,
            run_id=run_id,
            owner=owner,
            token=token,
            state=None if state is None else state.value,
            backoff=backoff_seconds,
            reason=reason,
        )
        return bool(rows)


async def _give_up(talk: Talk, rows: Sequence[Row[Any]]) -> None:
    """Let the last attempts of tasks count as failed: the task goes, its run gets the failure."""
    keys = [(row.run_id, row.generation, row.command_id) for row in rows]
    await talk.fetch(sweeps.DELETE_TASKS, w=keys, ids=runs_of(keys))
    for message in (_exhausted(row) for row in rows):
        await talk.fetch(inbox.INSERT, **message_columns(message))


def _exhausted(row: Row[Any]) -> Message:
    failure = Failure(
        type="attempts_exhausted",
        message=f"the process died during attempt {row.attempt} of {row.max_attempts}",
        attempts=row.attempt,
        retryable=False,
    )
    name = f"{row.generation}/{row.command_id}/attempts_exhausted"  # the same message however often it is written
    return Message(
        message_id=str(uuid.uuid5(uuid.UUID(row.run_id), name)),
        run_id=row.run_id,
        kind=MessageKind.ACTIVITY_FAILED,
        name=row.activity,
        payload=failure.encode(),
        generation=row.generation,
        command_id=row.command_id,
    )


def _fence(row: Row[Any]) -> tuple[str, int, int, str, int]:
    return row.run_id, row.generation, row.command_id, row.lease_owner, row.attempt


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(task_key(row), row.lease_owner, row.attempt)
