"""Spans, from what the runtime tells of runs that wake and rest and of attempts that begin and end.

A run in memory is awake from when there is something to do for it (it was started, claimed, a letter came, a timer is
due) until its commits have landed and it waits. That is a `continuum.run_attempt`: replay, turn and commit, mostly
milliseconds. It begins a trace of its own with a *link* to the span in which the run was started, for that trace may have
been over for days; whatever belongs to one run has its `continuum.run.id`.

What happens in between is told by events of the span, under the names of telemetry events. What is said about a run that
is at rest waits for its next span. What a sender hears (its signal was delivered, a peer was called) is told in the
span of whoever sends, if there is one.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextvars import Context
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanContext, Status, StatusCode, TraceFlags, TraceState

from continuum.clock import SystemClock
from continuum.model.failure import Failure
from continuum.model.runs import Ending
from continuum.model.states import RunState
from continuum.model.tasks import ClaimedTask
from continuum.replay.turns import RunInfo
from continuum.runtime.node import node_of
from continuum.runtime.tracing import joined
from continuum.telemetry import TelemetryEvent
from continuum.telemetry.saying import say

logger = logging.getLogger("continuum.otel")

RUN, ATTEMPT = "continuum.run_attempt", "continuum.activity_attempt"
LONGEST_SECONDS = 60.0  # a run that never comes to rest gets another span
EARLY_MAX, EARLY_EACH = 1_000, 32  # runs at rest of which something was said, and how much of it is kept for each
REASON_MAX = 1_000  # characters of a status

# Whoever sends is told these.
SENT = ("signal.delivered", "signal.duplicate", "run.forwarded")
# An attempt's own; the rest of HEARD is told of its run.
TRIED = ("activity.retried", "activity.failed", "activity.timed_out", "activity.collided")
HEARD = (
    *SENT, *TRIED, "activity.idempotency_hit", "timer.scheduled", "timer.fired",
    "signal.received", "signal.buffered", "child.started", "child.completed", "child.failed", "child.cancelled",
    "message.sent", "message.answered", "compensation.scheduled", "compensation.completed", "compensation.failed",
    "run.started", "run.replayed", "run.continued", "run.cancelling", "run.patched", "run.drifted",
    "lease.lost",
)  # fmt: skip
# Said by the span itself, or by no means: texts that may quote what users gave.
UNTOLD = frozenset(
    {"instance", "node", "run_id", "workflow", "version", "namespace", "generation", "owner", "token"}
    | {"message", "expected", "found", "trace_context"}
)
NAMES = {"activity": "activity.name", "child_run_id": "child.run.id", "child_workflow": "child.workflow.name"}

_CLOCK = SystemClock()  # spans are stamped with the machine's time

P = ParamSpec("P")
R = TypeVar("R")


def harmless(method: Callable[P, R]) -> Callable[P, R | None]:
    """Keep what an SDK raises from the engine: it never decides what becomes of a run, nor is it given up for that."""

    @wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return method(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  # see above
            say(logger, logging.ERROR, "OpenTelemetry failed in %s; the run goes on", method.__name__, exc_info=error)
            return None

    return guarded


class RunSpan:
    """The open span of a run that is awake."""

    __slots__ = ("opened_at", "span", "token")

    def __init__(self, span: Span, token: int) -> None:
        self.span = span
        self.token = token
        self.opened_at = time.perf_counter()


class AttemptSpan:
    """The span of an attempt, until it is over."""

    __slots__ = ("_forget", "span")

    def __init__(self, span: Span, forget: Callable[[], object]) -> None:
        self.span = span
        self._forget = forget

    @harmless
    def ended(self, failure: Failure | None) -> None:
        """End it."""
        self._forget()
        self.span.set_attribute("continuum.outcome", "completed" if failure is None else "failed")
        if failure is not None:
            _failed(self.span, failure.type, failure.message)
        self.span.end()

    @harmless
    def withdrawn(self) -> None:
        """End it: it was stopped."""
        self._forget()
        self.span.set_attribute("continuum.outcome", "cancelled")
        self.span.end()


class Spans:
    """The tracer (see `continuum.runtime.tracing`), and the handler of telemetry that adds events to its spans."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._runs: dict[tuple[str, str], RunSpan] = {}
        self._attempts: dict[tuple[Any, ...], AttemptSpan] = {}
        self._early: OrderedDict[tuple[str, str], list[tuple[str, Mapping[str, Any], int]]] = OrderedDict()

    def ambient(self) -> str | None:
        """Return the trace context of whoever calls."""
        return _written(trace.get_current_span().get_span_context())

    # --- runs ---------------------------------------------------------------------------------------------------------

    @harmless
    def awake(self, run: RunInfo, *, owner: str, token: int) -> None:
        """Open a run's span, if none is."""
        key = (run.instance, run.run_id)
        is_open = self._runs.get(key)
        if is_open is not None:
            if is_open.token == token and time.perf_counter() - is_open.opened_at < LONGEST_SECONDS:
                return
            self._close(key, "running")
        attributes = {
            **_of_run(run.instance, run.run_id, run.workflow, run.version, run.namespace, run.generation, owner),
            "continuum.lease.token": token,
        }
        span = self._tracer.start_span(
            RUN, context=contexts.Context(), attributes=attributes, links=_links(run.trace_context)
        )
        self._runs[key] = RunSpan(span, token)
        for name, said, at in self._early.pop(key, ()):
            span.add_event(name, said, at)

    @harmless
    def at_rest(self, run: RunInfo) -> None:
        """End a run's span: it waits."""
        self._close((run.instance, run.run_id), RunState.SUSPENDED.value)

    @harmless
    def gone(self, run: RunInfo, ending: Ending | None) -> None:
        """End a run's span: it has ended, is blocked, or was given up."""
        key = (run.instance, run.run_id)
        self._early.pop(key, None)
        is_open = self._runs.get(key)
        try:
            if is_open is not None and ending is not None:
                _ended_badly(is_open.span, ending)
        finally:
            self._close(key, "given up" if ending is None else ending.state.value)

    def _close(self, key: tuple[str, str], state: str) -> None:
        is_open = self._runs.pop(key, None)
        if is_open is not None:
            is_open.span.set_attribute("continuum.run.state", state)
            is_open.span.end()

    # --- attempts -----------------------------------------------------------------------------------------------------

    @harmless
    def attempt(self, task: ClaimedTask, *, instance: str, context: Context) -> AttemptSpan:
        """Open an attempt's span, and make it the parent of those that its function makes."""
        attempt = task.attempt
        of_run = attempt.key
        attributes = {
            **_of_run(
                instance, of_run.run_id, task.workflow, task.version, task.namespace, of_run.generation, attempt.owner
            ),
            "continuum.activity.name": task.activity,
            "continuum.attempt": attempt.attempt,
            "continuum.command_id": of_run.command_id,
            "continuum.queue": task.options.queue,
        }
        span = self._tracer.start_span(
            ATTEMPT, context=contexts.Context(), attributes=attributes, links=_links(task.trace_context)
        )
        context.run(lambda: contexts.attach(trace.set_span_in_context(span)))
        key = (instance, of_run.run_id, of_run.generation, of_run.command_id, attempt.attempt)
        made = self._attempts[key] = AttemptSpan(span, lambda: self._attempts.pop(key, None))
        return made

    # --- what is told -------------------------------------------------------------------------------------------------

    @harmless
    def told(self, event: TelemetryEvent) -> None:
        """Add an event to the span that it belongs to."""
        metadata = event.metadata
        if event.name in SENT:
            span = trace.get_current_span()  # which has ended, if a peer was called after the sender was answered
            if span.is_recording():
                about = {"continuum.instance": metadata["instance"], "continuum.run.id": metadata["run_id"]}
                span.add_event(event.name, _said(event) | about)
        elif event.name in TRIED:
            where = (metadata.get(key) for key in ("instance", "run_id", "generation", "command_id", "attempt"))
            tried = self._attempts.get(tuple(where))
            if tried is not None and tried.span.is_recording():
                tried.span.add_event(event.name, _said(event))
        else:
            key = (metadata["instance"], metadata["run_id"])
            is_open = self._runs.get(key)
            if is_open is None:
                self._keep(key, event)
            elif is_open.span.is_recording():
                is_open.span.add_event(event.name, _said(event))

    def _keep(self, key: tuple[str, str], event: TelemetryEvent) -> None:
        """Keep what is said about a run at rest for its next span."""
        early = self._early.setdefault(key, [])
        if len(early) < EARLY_EACH:
            early.append((event.name, _said(event), int(_CLOCK.now().timestamp() * 1e9)))
        if len(self._early) > EARLY_MAX:
            self._early.popitem(last=False)

    def close(self) -> None:
        """End everything that is open."""
        for key in tuple(self._runs):
            self._close(key, "running")
        for attempt in tuple(self._attempts.values()):
            attempt.withdrawn()
        self._early.clear()


def _of_run(
    instance: str, run_id: str, workflow: str, version: int, namespace: str, generation: int, owner: str
) -> dict[str, str | int]:
    return {
        "continuum.instance": instance,
        "continuum.node": node_of(owner),
        "continuum.run.id": run_id,
        "continuum.workflow.name": workflow,
        "continuum.workflow.version": version,
        "continuum.namespace": namespace,
        "continuum.generation": generation,
    }


def _ended_badly(span: Span, ending: Ending) -> None:
    """Record why a run failed or is blocked, if it is."""
    if ending.state is RunState.FAILED and ending.payload is not None:
        failure = Failure.decode(ending.payload)
        _failed(span, failure.type, failure.message)
    elif ending.state is RunState.BLOCKED:
        _failed(span, "continuum.RunBlocked", (ending.reason or "").partition("\n")[0])


def _failed(span: Span, kind: str, message: str) -> None:
    """Record an error by its type and message: no traceback, whose lines may quote what users gave."""
    message = message[:REASON_MAX]
    span.set_status(Status(StatusCode.ERROR, f"{kind}: {message}"))
    span.set_attribute("error.type", kind)
    span.add_event("exception", {"exception.type": kind, "exception.message": message})


def _said(event: TelemetryEvent) -> dict[str, Any]:
    metadata = event.metadata
    said = {f"continuum.{NAMES.get(key, key)}": _plain(metadata[key]) for key in metadata if key not in UNTOLD}
    return said | {f"continuum.{key}": value for key, value in event.measurements.items()}


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, bool, int, float)) else str(value)


def _links(trace_context: str | None) -> list[Link]:
    started = None if trace_context is None else _read(trace_context)
    return [] if started is None else [Link(started, {"continuum.link": "start"})]


@lru_cache(maxsize=1_024)  # all that one request started has the same
def _read(trace_context: str) -> SpanContext | None:
    """Return the span that a run was started in; None if this is no trace context: SQL can write anything."""
    traceparent, _, tracestate = trace_context.partition(" ")
    if joined(traceparent) is None:
        return None
    _version, trace_id, span_id, flags, *_more = traceparent.split("-")
    found = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=TraceState.from_header([tracestate] if tracestate else []),
    )
    return found if found.is_valid else None


def _written(span: SpanContext) -> str | None:
    if not span.is_valid:
        return None
    traceparent = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    return f"{traceparent} {span.trace_state.to_header()}" if span.trace_state else traceparent
