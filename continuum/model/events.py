"""The records of a run's history.

Two families. *Answers* come from outside and move the workflow: started, begun, signal_received, activity_completed,
activity_failed, timer_fired, child_completed, child_failed, child_cancelled, message_answered, cancel_requested.
*Commands* are what the workflow asked for in reply: activity_scheduled, timer_started, side_effect_recorded,
child_started, message_sent. A history is answers, each followed by the commands that it caused, and at the very end one
of completed, failed, cancelled; `continued` ends a generation, and the next one opens with `started`.

`patched` stands among the commands and has no id: it is known by its name, and code that no longer asks may pass it by.
`compensation_owed` follows `started` for what an earlier generation did and nobody has undone yet.
"""

from datetime import datetime
from enum import StrEnum

from msgspec import Struct

# The key of `started` where a run was inserted for whoever claims it. Its first turn comes later, with `begun`, and that
# is when its time begins: a run that waited a day for its first turn does not find its timers a day short.
PENDING = "pending"

EVENT_FORMAT = 1  # written with every event; a node that meets a newer one leaves the run to others


class EventType(StrEnum):
    """What happened, as stored in `continuum_events.type`."""

    STARTED = "started"
    BEGUN = "begun"
    SIGNAL_RECEIVED = "signal_received"
    ACTIVITY_SCHEDULED = "activity_scheduled"
    ACTIVITY_COMPLETED = "activity_completed"
    ACTIVITY_FAILED = "activity_failed"
    TIMER_STARTED = "timer_started"
    TIMER_FIRED = "timer_fired"
    SIDE_EFFECT_RECORDED = "side_effect_recorded"
    CHILD_STARTED = "child_started"
    CHILD_COMPLETED = "child_completed"
    CHILD_FAILED = "child_failed"
    CHILD_CANCELLED = "child_cancelled"
    MESSAGE_SENT = "message_sent"
    MESSAGE_ANSWERED = "message_answered"
    PATCHED = "patched"
    COMPENSATION_OWED = "compensation_owed"
    CANCEL_REQUESTED = "cancel_requested"
    CONTINUED = "continued"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


COMMANDS = frozenset(
    {
        EventType.ACTIVITY_SCHEDULED,
        EventType.TIMER_STARTED,
        EventType.SIDE_EFFECT_RECORDED,
        EventType.CHILD_STARTED,
        EventType.MESSAGE_SENT,
    }
)
ANSWERS_TO_COMMANDS = frozenset(
    {
        EventType.ACTIVITY_COMPLETED,
        EventType.ACTIVITY_FAILED,
        EventType.TIMER_FIRED,
        EventType.CHILD_COMPLETED,
        EventType.CHILD_FAILED,
        EventType.CHILD_CANCELLED,
        EventType.MESSAGE_ANSWERED,
    }
)
EFFECTS = COMMANDS | ANSWERS_TO_COMMANDS  # without its command's id one of these would answer any command on replay
ENDINGS = frozenset({EventType.COMPLETED, EventType.FAILED, EventType.CANCELLED, EventType.CONTINUED})


class Event(Struct, frozen=True, gc=False):
    """One record: `seq` counts from 1 within its generation, `at` is the time of the turn that wrote it.

    `command_id` is set for commands and their answers, `message_id` for what came through the inbox or a mailbox,
    `name` for activities, side effects, signals and patches; a child has its workflow's, a child's ending its run id. `payload` is what the codec made of the value (JSON), or for
    `timer_started` the deadline.
    """

    seq: int
    type: EventType
    at: datetime
    command_id: int | None = None
    message_id: str | None = None
    name: str | None = None
    payload: bytes | None = None
    key: str | None = None
    format: int = EVENT_FORMAT


class Answer(Struct, frozen=True, gc=False):
    """An event that has not been journaled yet: something from outside that will move the workflow."""

    type: EventType
    command_id: int | None = None
    message_id: str | None = None
    name: str | None = None
    payload: bytes | None = None
