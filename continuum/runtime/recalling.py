"""Whether an activity with an idempotency key has to be performed at all.

Asked before each attempt with a key, in one read for all that begin together; an attempt without a key asks nothing.
What succeeded under the key, in any run of the namespace, is the answer. It is no lock: of two runs that ask at the same
time both perform, each goes on with what its own attempt returned, and the first one recorded is what later ones get. (A
transactional one is rolled back instead, and answered by the first.)

The key says that two calls are the same call. Where their arguments differ they are not, and one of them is a mistake:
neither to perform it nor to answer it with another call's result would be right, so it fails at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from continuum.clock import Clock
from continuum.definitions.activity import Activity
from continuum.errors import DurableValueError, IdempotencyConflict, JournalUnavailable
from continuum.journal.port import Contended, TaskJournal
from continuum.model.failure import Failure, failure_of
from continuum.model.results import ActivityResult, ResultKey
from continuum.model.tasks import ClaimedTask
from continuum.replay.matching import same_input

PAUSE_FIRST_SECONDS, PAUSE_MAX_SECONDS = 0.05, 1.0


def key_of(task: ClaimedTask) -> ResultKey:
    """Return under what a task's success is remembered; it must have an idempotency key."""
    assert task.idempotency_key is not None
    return ResultKey(task.namespace, task.activity, task.idempotency_key)


async def recorded(
    journal: TaskJournal, clock: Clock, tasks: Sequence[ClaimedTask]
) -> Mapping[ResultKey, ActivityResult]:
    """Read what succeeded under the keys of tasks; while the database is away there is nothing to begin either."""
    pause = PAUSE_FIRST_SECONDS
    while True:
        try:
            return {result.key: result for result in await journal.results([key_of(task) for task in tasks])}
        except (JournalUnavailable, Contended):
            await clock.sleep(pause)
            pause = min(pause * 2, PAUSE_MAX_SECONDS)


def recalled(
    task: ClaimedTask, activity: Activity[..., Any], known: ActivityResult | None
) -> ActivityResult | Failure | None:
    """Return what answers a task without performing it; None: perform it."""
    if known is None:
        return None
    parameters = activity.signature.parameters
    if known.unreadable is not None:
        return failure_of(DurableValueError(known.unreadable, run_id=known.run_id))
    if same_input(task.arguments, known.arguments, parameters.recode, parameters.decode):
        return known
    conflict = IdempotencyConflict(
        f"activity {task.activity} succeeded under the key {task.idempotency_key!r} with other arguments, for run "
        f"{known.run_id}; a key names one call: make it of all that matters in the arguments",
        run_id=known.run_id,
    )
    return replace(failure_of(conflict), retryable=False)
