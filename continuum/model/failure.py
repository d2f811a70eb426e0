"""A failure as data: what is left of an exception once it has crossed the journal. Never a pickle."""

from __future__ import annotations

import itertools
import json
import math
import traceback
from datetime import timedelta
from typing import Any

from msgspec import Struct

from continuum.errors import ActivityError

MESSAGE_MAX = 4_096  # characters: an error is a hint to a person, not a place to store data
TRACEBACK_MAX = 16_384  # characters, the innermost frames are kept
DETAILS_MAX = 16_384  # bytes of JSON, the default of the option `details_max`


class Failure(Struct, frozen=True, gc=False):
    """`type` is `module.qualname`; `causes` holds the same of every base class, so that handlers can ask for a base."""

    type: str
    message: str
    causes: tuple[str, ...] = ()
    details: Any = None
    traceback: str | None = None
    attempts: int = 0
    timed_out: bool = False
    retryable: bool = True
    retry_after: float | None = None

    def encode(self) -> bytes:
        """Render as JSON bytes, the form in which failures are journaled."""
        body: dict[str, Any] = {"type": self.type, "message": self.message, "causes": self.causes}
        if self.details is not None:
            body["details"] = self.details
        if self.traceback is not None:
            body["traceback"] = self.traceback
        if self.attempts:
            body["attempts"] = self.attempts
        if self.timed_out:
            body["timed_out"] = True
        return json.dumps(body, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, payload: bytes) -> Failure:
        """Read what `encode` wrote; fields of a newer version are ignored."""
        body = json.loads(payload)
        return cls(
            type=body["type"],
            message=body["message"],
            causes=tuple(body.get("causes", ())),
            details=body.get("details"),
            traceback=body.get("traceback"),
            attempts=body.get("attempts", 0),
            timed_out=body.get("timed_out", False),
        )


def failure_of(error: BaseException, *, details_max: int = DETAILS_MAX) -> Failure:
    """Describe an exception, bounded: nothing in it can be too large or impossible to journal.

    What a TaskGroup raised is described by what is in it as well: it names those errors and is caused by them, and is
    not to be retried if one of them is not.
    """
    details, retryable, retry_after = None, True, None
    parts = _parts(error)
    said = min((one for one in parts if isinstance(one, ActivityError)), key=lambda one: one.retryable, default=None)
    if said is not None:
        details, retryable, retry_after = _bounded(said.details, details_max), said.retryable, _delay(said)
    bases = dict.fromkeys(base for one in parts for base in type(one).__mro__ if base not in (object, BaseException))
    return Failure(
        type=_name(type(error)),
        message=_text(parts),
        causes=tuple(map(_name, bases)),
        details=details,
        traceback=_traceback(error),
        retryable=retryable,
        retry_after=retry_after,
    )


def _delay(error: ActivityError) -> float | None:
    after = error.retry_after
    seconds = after.total_seconds() if isinstance(after, timedelta) else after
    is_duration = isinstance(seconds, int | float) and 0 <= seconds < math.inf
    return seconds if is_duration else None  # the policy's delay is better than a failure that cannot be recorded


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _parts(error: BaseException) -> list[BaseException]:
    """Return an error, followed by those that it groups."""
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return [error, *itertools.chain.from_iterable(map(_parts, inner))]


def _text(parts: list[BaseException]) -> str:
    first, *grouped = parts
    text = "; ".join((_said(first), *(f"{_name(type(one))}: {_said(one)}" for one in grouped)))
    clean = text.encode("utf-8", "replace").decode()
    return clean if len(clean) <= MESSAGE_MAX else clean[: MESSAGE_MAX - 1] + "…"


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except KeyboardInterrupt:  # somebody wants the process to end
        raise
    except BaseException as broken:  # noqa: BLE001  # a user's __str__ must not decide whether a failure can be recorded
        return f"<{type(error).__name__} whose __str__ raised {type(broken).__name__}>"


def _traceback(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error)).encode("utf-8", "replace").decode()
    return text if len(text) <= TRACEBACK_MAX else "…" + text[-TRACEBACK_MAX + 1 :]


def _bounded(details: Any, limit: int) -> Any:
    if details is None:
        return None
    try:
        size = len(json.dumps(details, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        return {"omitted": f"the details are not JSON: {error}"}
    return details if size <= limit else {"omitted": f"the details take {size} bytes, more than details_max={limit}"}
