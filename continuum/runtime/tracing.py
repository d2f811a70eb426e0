"""Where a tracer stands, once a host has set one up (`continuum.otel`); until then it costs a truth test.

A run keeps the *trace context* of its start: W3C's `traceparent`, followed by a space and `tracestate` where there is one.
That is data like any other, with or without a tracer here: another node may have one. A tracer is told when a run wakes
and rests in this process and when an attempt begins and ends, and makes of it what it likes; it never raises.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import Context
from typing import Any, Protocol

from continuum.errors import InputInvalid, Problem
from continuum.model.failure import Failure
from continuum.model.runs import Ending
from continuum.model.tasks import ClaimedTask
from continuum.replay.turns import RunInfo

TraceContext = str | Mapping[str, str]  # a `traceparent`, or headers: what OpenTelemetry's `inject(carrier)` fills

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
TRACESTATE_MAX = 512  # characters that W3C asks everybody to carry; what is longer is dropped whole

# Version 00 is all there is; a later one may say more behind a dash.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
_LATER = re.compile(
    r"(?!00|ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{1,200})?"
).fullmatch
_PRINTABLE = re.compile(r"[!-~]([ -~]*[!-~])?").fullmatch


class AttemptTrace(Protocol):
    """What is traced of one attempt at an activity."""

    def ended(self, failure: Failure | None) -> None:
        """Hear that it is over: it returned, or how it failed."""
        ...

    def withdrawn(self) -> None:
        """Hear that it was stopped: nobody waits for its result."""
        ...


class Tracer(Protocol):
    """Something that traces."""

    def ambient(self) -> str | None:
        """Return the trace context of whoever calls, if there is one."""
        ...

    def awake(self, run: RunInfo, *, owner: str, token: int) -> None:
        """Hear that there is something to do for a run that lives here; it may have been awake before."""
        ...

    def at_rest(self, run: RunInfo) -> None:
        """Hear that a run waits; it may have been at rest before."""
        ...

    def gone(self, run: RunInfo, ending: Ending | None) -> None:
        """Hear that a run lives here no longer: it has ended or is blocked; None: it was given up."""
        ...

    def attempt(self, task: ClaimedTask, *, instance: str, context: Context) -> AttemptTrace | None:
        """Hear that an attempt begins, and prepare the context in which its function will run."""
        ...


tracer: Tracer | None = None


def use(one: Tracer | None) -> None:
    """Tell this tracer from now on; None: nobody."""
    global tracer  # noqa: PLW0603  # one per process, as OpenTelemetry's own providers are
    tracer = one


def ambient() -> str | None:
    """Return the trace context of whoever calls, if somebody traces here."""
    return None if tracer is None else tracer.ambient()


def ambient_headers() -> Mapping[str, str]:
    """Return the headers that carry the trace context of whoever calls."""
    found = ambient()
    return {} if found is None else headers_of(found)


def joined(traceparent: str | None, tracestate: str | None = None) -> str | None:
    """Return the trace context that two headers say; None if they say none: W3C has the receiver begin anew then."""
    if traceparent is None or not (_TRACEPARENT(traceparent) or _LATER(traceparent)):
        return None
    if not tracestate or len(tracestate) > TRACESTATE_MAX or not _PRINTABLE(tracestate):
        return traceparent
    return f"{traceparent} {tracestate}"


def headers_of(trace_context: str) -> Mapping[str, str]:
    """Return the headers that carry a trace context."""
    traceparent, _, tracestate = trace_context.partition(" ")
    return {TRACEPARENT: traceparent, TRACESTATE: tracestate} if tracestate else {TRACEPARENT: traceparent}


def trace_context_of(value: Any) -> str | None:
    """Return the trace context that a caller hands in: a `traceparent`, or a mapping that may hold one.

    Raises:
        InputInvalid: it is neither.
    """
    if isinstance(value, Mapping):
        if value.get(TRACEPARENT) is None:  # what `inject` leaves where no span is
            return None
        found = joined(value[TRACEPARENT], value.get(TRACESTATE))
    else:
        found = joined(*value.partition(" ")[::2]) if isinstance(value, str) else None
    if found is None:
        message = f"trace_context must be a W3C traceparent, or a mapping with one, not {value!r}"
        problem = Problem("/trace_context", "must be 00-<trace id>-<span id>-<flags>")
        raise InputInvalid(message[:500], problems=[problem])
    return found
