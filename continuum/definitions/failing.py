"""What a workflow is told of an activity that has no attempts left."""

from __future__ import annotations

from continuum.errors import ActivityFailed, ActivityTimedOut
from continuum.model.failure import Failure


def finally_failed(failure: Failure, activity: str, run_id: str) -> ActivityFailed:
    """Return the error of an activity that has no attempts left."""
    kind = ActivityTimedOut if failure.timed_out else ActivityFailed
    return kind(
        f"activity {activity} failed after {failure.attempts} attempt(s): {failure.type}: {failure.message}",
        activity=activity,
        type=failure.type,
        details=failure.details,
        attempts=failure.attempts,
        causes=failure.causes,
        remote_traceback=failure.traceback,
        run_id=run_id,
    )
