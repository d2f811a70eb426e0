"""The states of a run.

pending (never claimed) → running → suspended (parked: nothing to do until `wake_at` or a message) → completed, failed
or cancelled. `cancelling` stands between a cancel and its end while compensations are owed, and is treated like
`running`. `blocked` is recoverable: drift, missing code, repeated crashes; never a permanent failure.
"""

from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands, as stored in `continuum_runs.state`."""

    PENDING = "pending"
    RUNNING = "running"
    SUSPENDED = "suspended"
    CANCELLING = "cancelling"
    BLOCKED = "blocked"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    def __init__(self, value: str) -> None:
        self.has_ended = value in ("completed", "failed", "cancelled")  # whether the run is over for good


TERMINAL = frozenset(state for state in RunState if state.has_ended)
ACTIVE = frozenset(RunState) - TERMINAL
# The commit fence: a pending run was never leased and a blocked one was given up by its writer.
WRITABLE = frozenset({RunState.RUNNING, RunState.SUSPENDED, RunState.CANCELLING})
GOING = frozenset({RunState.RUNNING, RunState.CANCELLING})  # evidence by itself: whoever finds it unleased goes on
