"""How a workflow's end is judged."""

from __future__ import annotations

import asyncio
from typing import Any

from continuum.codec import check_size
from continuum.errors import DurableValueError
from continuum.model.events import Event, EventType
from continuum.model.failure import Failure, failure_of
from continuum.replay.matching import same_input
from continuum.replay.turns import Body, Completed, ContinueAsNew, Failed, Outcome, Stuck


def judged(main: asyncio.Task[Any], body: Body, payload_max: int) -> Outcome:
    """Say what became of a workflow whose main task is done; a result of more bytes cannot be stored."""
    if main.cancelled():
        return Failed(failure_of(asyncio.CancelledError("the workflow cancelled itself")))
    error = main.exception()
    if error is None:
        try:
            return Completed(check_size(body.seal(main.result()), payload_max, "the result of the workflow"))
        except DurableValueError as unstorable:
            return Failed(failure_of(unstorable))
        except Exception as broken:  # noqa: BLE001  # a validator of the user's must not reach whoever drives us
            return Stuck(report(broken))
    if isinstance(error, ContinueAsNew):
        return error.outcome
    return Failed(failure_of(error)) if body.fails_on(error) else Stuck(report(error))


def same_ending(payload: bytes, expected: Event) -> bool:
    """Tell whether a workflow ended as the journal says; errors are compared by what they are, tracebacks name lines."""
    if expected.type is EventType.FAILED:
        old, new = Failure.decode(expected.payload or b"{}"), Failure.decode(payload)
        return (old.type, old.message) == (new.type, new.message)
    return same_input(payload, expected.payload, None)


def report(error: BaseException) -> str:
    """Describe an exception for whoever mends the code."""
    failure = failure_of(error)
    return f"{failure.type}: {failure.message}\n{failure.traceback}"
