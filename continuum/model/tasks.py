"""One activity to perform, and one try at it."""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache

from msgspec import Struct

from continuum.model.policy import Retry

MINUTE = 60.0


class TaskOptions(Struct, frozen=True, gc=False):
    """How an activity is to be run; stored with the task, so that it holds whichever node performs it.

    `timeout_seconds` bounds one attempt, `heartbeat_timeout_seconds` the silence between two heartbeats; None: never.
    """

    retry: Retry = Retry()
    timeout_seconds: float | None = 5 * MINUTE
    heartbeat_timeout_seconds: float | None = None
    queue: str = "default"
    priority: int = 0
    isolation_level: str | None = None  # of a transactional activity; None: as the engine has it
    serialization_retries: int = 5  # of one attempt, when its transaction collides with others

    def encode(self) -> bytes:
        """Render as JSON bytes."""
        return _encode(self)

    @classmethod
    def decode(cls, blob: bytes) -> TaskOptions:
        """Read what `encode` wrote."""
        return _decode(blob)


DEFAULTS = TaskOptions()
LATER = (
    "isolation_level",
    "serialization_retries",
)  # not in the rows of older versions; written where they say something


@lru_cache(maxsize=1_024)  # a program has few distinct options and many tasks
def _encode(options: TaskOptions) -> bytes:
    retry = options.retry
    body: dict[str, object] = {
        "timeout": options.timeout_seconds,
        "heartbeat_timeout": options.heartbeat_timeout_seconds,
        "queue": options.queue,
        "priority": options.priority,
        "retry": {
            "max_attempts": retry.max_attempts,
            "initial": retry.initial,
            "backoff": retry.backoff,
            "max_delay": retry.max_delay,
            "jitter": retry.jitter,
            "non_retryable": retry.non_retryable,
        },
    }
    for name in LATER:
        if getattr(options, name) != getattr(DEFAULTS, name):
            body[name] = getattr(options, name)
    return json.dumps(body, separators=(",", ":")).encode()


@lru_cache(maxsize=1_024)
def _decode(blob: bytes) -> TaskOptions:
    body = json.loads(blob)
    return TaskOptions(
        retry=Retry(**body["retry"]),
        timeout_seconds=body["timeout"],
        heartbeat_timeout_seconds=body["heartbeat_timeout"],
        queue=body["queue"],
        priority=body["priority"],
        **{name: body[name] for name in LATER if name in body},
    )


class TaskKey(Struct, frozen=True, gc=False):
    """Which command of which run a task performs."""

    run_id: str
    generation: int
    command_id: int


class Attempt(Struct, frozen=True, gc=False):
    """One try at a task; (`owner`, `attempt`) fences everything it writes.

    `owner` is the one under which the attempt began, even if the process has a newer one by now.
    """

    key: TaskKey
    owner: str
    attempt: int


class NewTask(Struct, frozen=True, gc=False):
    """A task as the commit that schedules it inserts it: leased to the committing node, or free for anyone."""

    command_id: int
    seq: int  # of its activity_scheduled event, which holds the arguments
    activity: str
    options: TaskOptions
    leased: bool


class ClaimedTask(Struct, frozen=True, gc=False):
    """A task that this node has just claimed, with all that an attempt needs."""

    attempt: Attempt
    workflow: str
    version: int
    namespace: str
    activity: str
    arguments: bytes
    options: TaskOptions
    idempotency_key: str | None = None
    details: bytes | None = None  # of the last heartbeat of an earlier attempt
    trace_context: str | None = None  # of the run's start
    available_at: datetime | None = None  # since when it could have begun, if it was claimed or anybody listens


class Beat(Struct, frozen=True, gc=False):
    """A heartbeat of a running attempt with what it wants to remember."""

    attempt: Attempt
    details: bytes | None
    activity: str | None = None
    is_quiet: bool = False  # only asks whether the task is still theirs: nothing is stored, no lock is taken
