"""What is posted to a run by anyone who does not hold its lease."""

from datetime import datetime
from enum import StrEnum

from msgspec import Struct

MESSAGE_FORMAT = 1


class MessageKind(StrEnum):
    """What a message is, as stored in `continuum_inbox.kind`."""

    SIGNAL = "signal"
    ACTIVITY_COMPLETED = "activity_completed"
    ACTIVITY_FAILED = "activity_failed"
    CHILD_COMPLETED = "child_completed"
    CHILD_FAILED = "child_failed"
    CHILD_CANCELLED = "child_cancelled"
    MESSAGE_ANSWERED = "message_answered"  # what came of a message that the run itself sent
    CANCEL = "cancel"  # at once: no code of the workflow runs
    COMPENSATE = "compensate"  # cancel, but first undo what is owed; needs the workflow's code


class Message(Struct, frozen=True, gc=False):
    """One inbox row; `message_id` is chosen by its sender, and posting it twice is posting it once.

    `generation` and `command_id` say which command an activity's result answers; a child's ending has the child's run id
    as its name, and is for whichever generation of the parent asks. A message with a `delivery_id` stays
    as a tombstone after it was read, so that a retried webhook is recognised for as long as the run is kept.
    """

    message_id: str
    run_id: str
    kind: MessageKind
    name: str | None = None
    payload: bytes | None = None
    generation: int | None = None
    command_id: int | None = None
    delivery_id: str | None = None
    at: datetime | None = None
    format: int = MESSAGE_FORMAT
