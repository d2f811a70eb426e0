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
    CANCEL = "cancel"


class Message(Struct, frozen=True, gc=False):
    """One inbox row; `message_id` is chosen by its sender, and posting it twice is posting it once.

    `generation` and `command_id` say which command an activity's result answers. A message with a `delivery_id` stays
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
