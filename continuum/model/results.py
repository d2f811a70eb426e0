"""What an activity has returned under an idempotency key, for whoever asks for the same again in another run."""

from __future__ import annotations

from msgspec import Struct


class ResultKey(Struct, frozen=True, gc=False):
    """Under which a success is remembered."""

    namespace: str
    activity: str
    key: str


class ActivityResult(Struct, frozen=True, gc=False):
    """A success: the arguments that it was performed with, what it returned, and the run that it was performed for.

    The first one recorded stands. `unreadable` says why it could not be opened.
    """

    key: ResultKey
    run_id: str
    arguments: bytes
    payload: bytes
    unreadable: str | None = None
