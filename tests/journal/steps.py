"""Steps that arrange: each does one thing and asserts that it was done."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from continuum.journal.port import Journal, Swept
from continuum.model.messages import Message
from continuum.model.states import RunState
from continuum.model.tasks import Attempt
from continuum.model.writes import LANDED, Post, Posted, Start, Verdict, Write
from tests.journal.builders import (
    ACTIVITY,
    MINE,
    OTHER,
    OWNER,
    Lease,
    a_block,
    a_release,
    a_start,
    a_task,
    an_ending,
    an_unleased_start,
    scheduled,
)


async def write(journal: Journal, one: Write) -> Verdict:
    """Write one value, in the lane that is its."""
    keyed = (isinstance(one, Start) and one.is_keyed) or (isinstance(one, Post) and one.message.delivery_id is not None)
    (verdict,) = await journal.write(1 if keyed else 0, [one])
    return verdict


async def land(journal: Journal, one: Write) -> None:
    """Write one value that nothing stands against."""
    assert await write(journal, one) == LANDED


async def post(journal: Journal, message: Message) -> Message:
    """Post a message that is accepted."""
    assert isinstance(await write(journal, Post(message)), Posted)
    return message


async def started_run(journal: Journal, start: Start | None = None) -> Lease:
    """Start a leased run."""
    start = start or a_start()
    await land(journal, start)
    assert start.owner is not None
    return Lease(start.run_id, owner=start.owner, base_seq=len(start.events))


async def run_in(journal: Journal, state: RunState) -> str:
    """Make an unleased run that stands in `state`, and is not due."""
    if state is RunState.PENDING:
        start = an_unleased_start(wake_at=await later(journal, 3600.0))
        await land(journal, start)
        return start.run_id
    lease = await started_run(journal)
    match state:
        case RunState.BLOCKED:
            await land(journal, a_block(lease, backoff_seconds=3600.0))
        case RunState.RUNNING | RunState.SUSPENDED | RunState.CANCELLING:
            await land(journal, a_release(lease, state=state))
        case _:
            await land(journal, an_ending(lease, state))
    return lease.run_id


async def run_with_task(journal: Journal, *, max_attempts: int = 3, leased: bool = True, owner: str = OWNER) -> Lease:
    """Start a run whose first turn has scheduled command 1."""
    task = a_task(max_attempts=max_attempts, leased=leased)
    return await started_run(journal, a_start(None, scheduled(), owner=owner, tasks=(task,)))


async def attempt_elsewhere(journal: Journal, *, max_attempts: int = 3) -> tuple[Lease, Attempt]:
    """Start a run on OWNER whose one task is claimed by OTHER."""
    lease = await run_with_task(journal, max_attempts=max_attempts, leased=False)
    (claimed,) = await journal.claim_tasks(OTHER, activities=[ACTIVITY], slots={}, default_slots=10)
    return lease, claimed.attempt


async def claim(
    journal: Journal, owner: str = OTHER, *, limit: int = 100, workflows: Sequence[tuple[str, int]] = MINE
) -> list[str]:
    """Claim what there is; return the run ids."""
    return [claim.run_id for claim in (await journal.claim_runs(owner, workflows=workflows, limit=limit)).runs]


async def later(journal: Journal, seconds: float) -> datetime:
    """Return the database's time in so many seconds."""
    return await journal.now() + timedelta(seconds=seconds)


async def die(journal: Journal, owner: str = OWNER) -> None:
    """Let an owner's row go, as when it was declared dead."""
    await journal.retire(owner)


async def sweep(journal: Journal, *, crashes_max: int = 5) -> Swept:
    """Make one recovery pass."""
    return await journal.sweep(crashes_max=crashes_max, backoff_seconds=60.0, task_backoff_seconds=5.0)
