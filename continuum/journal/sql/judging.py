"""What became of a write whose answer was lost, told from what is there.

`last_seq` would not do: somebody else's events may have brought it to where ours would have. The token of the event at
the first position of the commit says whose it is.
"""

from __future__ import annotations

from msgspec.structs import replace

from continuum.journal.sql.desk import Desk
from continuum.journal.sql.statements import inbox, runs
from continuum.model.events import Event
from continuum.model.runs import RunRow
from continuum.model.writes import LANDED, REFUSED, Commit, Post, Posted, Start, StartMany, Verdict, Write


async def judge(desk: Desk, write: Write) -> Verdict | None:
    """Return the verdict; None: it did not arrive, or is harmless to send again."""
    match write:
        case Start():
            return await _start(desk, write)
        case StartMany(starts):
            verdicts = [await _start(desk, start) for start in starts]
            return verdicts[0] if all(verdict == verdicts[0] for verdict in verdicts) else REFUSED
        case Commit():
            return await _commit(desk, write)
        case Post(message):
            rows = await desk.ask(inbox.ARRIVED, run_id=message.run_id, message_id=message.message_id)
            return Posted(rows[0].lease_owner, rows[0].advertise_url) if rows else None
        case _:
            return None


async def _row(desk: Desk, run_id: str) -> RunRow | None:
    rows = await desk.ask(runs.BY_ID, ids=[run_id])
    return desk.reader.run(rows[0]) if rows else None


async def _start(desk: Desk, write: Start) -> Verdict | None:
    row, run = await _row(desk, write.run_id), write.run
    if row is None:
        key = run.idempotency_key
        taken = key is not None and await desk.ask(runs.BY_KEY, namespace=run.namespace, workflow=run.workflow, key=key)
        return REFUSED if taken else None
    if write.owner is not None and not write.state.has_ended:
        is_ours = row.lease_owner == write.owner and row.lease_token == 1
    else:  # its row tells nothing of who inserted it, its first event does
        first = await desk.ask(runs.EVENT_AT, run_id=write.run_id, generation=1, seq=1)
        is_ours = bool(first) and _without_payload(desk.reader.event(first[0])) == _without_payload(write.events[0])
    return LANDED if is_ours else REFUSED


def _without_payload(event: Event) -> Event:
    """Return what can be compared: a codec may write other bytes for the same value every time."""
    return replace(event, payload=None)


async def _commit(desk: Desk, write: Commit) -> Verdict | None:
    # The row first: a commit that is still on its way when we look may land between the two, and is then found.
    row = await _row(desk, write.run_id)
    if row is None:
        return REFUSED
    if write.events:
        there = await desk.ask(runs.EVENT_AT, run_id=write.run_id, generation=write.generation, seq=write.base_seq + 1)
        if there:
            return LANDED if there[0].token == write.token else REFUSED
    if write.continues is not None and _has_moved_on(row, write):
        return LANDED
    if _is_unmoved(row, write):
        return None
    return REFUSED if write.events or not _reads_as_released(row, write) else LANDED


def _is_unmoved(row: RunRow, write: Commit) -> bool:
    return (
        row.lease_owner == write.owner
        and row.lease_token == write.token
        and row.generation == write.generation
        and row.last_seq == write.base_seq
    )


def _has_moved_on(row: RunRow, write: Commit) -> bool:
    """Tell whether the next generation is open under our lease: only we could open it, and the old one may be pruned."""
    ours = (write.owner, write.token, write.generation + 1)
    return (row.lease_owner, row.lease_token, row.generation) == ours


def _reads_as_released(row: RunRow, write: Commit) -> bool:
    """Tell whether the row stands as a release without events would have left it: then it does not matter who did it."""
    return (
        write.releases
        and row.lease_owner is None
        and row.lease_token == write.token + 1
        and row.last_seq == write.base_seq
        and write.state in {None, row.state}
    )
