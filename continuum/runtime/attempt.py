"""One try at an activity: the function running, its deadline, its heartbeats, and the one answer that comes of it.

An `async def` runs as a task on the host's loop and is cancelled at its deadline. A `def` runs in our own threads, which
cannot be stopped: at its deadline the attempt is over at once, the thread's slot stays taken until it returns, and what
it returns then concerns nobody. Whatever happens, the attempt reports once, or (cancelled) not at all.
"""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import Executor
from typing import Any, NamedTuple, Protocol

from continuum import codec
from continuum.clock import Cancellable, Clock
from continuum.definitions.activity import Activity
from continuum.errors import DurableValueError
from continuum.model.failure import Failure, failure_of
from continuum.model.messages import Message
from continuum.model.tasks import Beat, ClaimedTask
from continuum.runtime import tracing
from continuum.runtime.activity_context import ActivityContext, current
from continuum.runtime.tracing import AttemptTrace

TIMED_OUT = "continuum.ActivityTimedOut"
HEARTBEAT_TIMED_OUT = "continuum.HeartbeatTimedOut"


class Reports(Protocol):
    """Who hears what came of an attempt."""

    def returned(self, attempt: RunningAttempt, payload: bytes) -> None:
        """Hear that it returned a value."""
        ...

    def raised(self, attempt: RunningAttempt, failure: Failure) -> None:
        """Hear that it raised, or outlived a limit."""
        ...

    def stopped(self, attempt: RunningAttempt) -> None:
        """Hear that it was cancelled by us: nothing is to be reported."""
        ...

    def vacated(self, attempt: RunningAttempt) -> None:
        """Hear that the function is no longer running: its slot is free."""
        ...


class Workplace(NamedTuple):
    """Where attempts of one instance run: the same for all of them."""

    instance: str
    loop: asyncio.AbstractEventLoop
    clock: Clock
    threads: Executor
    reports: Reports
    state: Any
    surroundings: contextvars.Context
    payload_max: int
    details_max: int


class RunningAttempt:
    """A try in progress."""

    in_doubt: Message | None = None  # what a COMMIT brings that is on its way, see `transactional`
    __slots__ = (
        "_beaten_at",
        "_context",
        "_deadline",
        "_has_begun",
        "_is_cancelled",
        "_place",
        "_running",
        "_silence",
        "activity",
        "began_at",
        "details",
        "has_beaten",
        "is_over",
        "task",
        "trace",
    )

    def __init__(self, task: ClaimedTask, activity: Activity[..., Any], place: Workplace) -> None:
        self.task = task
        self.activity = activity
        self.is_over = False
        self.details: bytes | None = None
        self.has_beaten = False
        self.trace: AttemptTrace | None = None
        self.began_at: float | None = None  # by the clock, if anybody listens
        self._place = place
        self._context: ActivityContext | None = None
        self._has_begun = False
        self._is_cancelled = False
        self._running: asyncio.Future[Any] | None = None
        self._deadline: Cancellable | None = None
        self._silence: Cancellable | None = None
        self._beaten_at = 0.0

    def begin(self) -> None:
        """Start the function."""
        place, options = self._place, self.task.options
        context = place.surroundings.copy()
        context.run(current.set, self)
        if tracing.tracer is not None:
            self.trace = tracing.tracer.attempt(self.task, instance=place.instance, context=context)
        if self.activity.is_async:
            self._running = place.loop.create_task(self._perform(), name=self.task.activity, context=context)
        else:
            self._has_begun = True
            self._running = place.loop.run_in_executor(place.threads, context.run, self._perform_blocking)
            self._running.add_done_callback(self._returned_from_thread)
        if options.timeout_seconds is not None:
            self._deadline = place.clock.call_later(options.timeout_seconds, self._outlived)
        if options.heartbeat_timeout_seconds is not None:
            self._beaten_at = place.clock.monotonic()
            self._watch_heartbeat(options.heartbeat_timeout_seconds)

    def cancel(self) -> None:
        """Stop it: nobody waits for its result any more."""
        if self._end():
            self._place.reports.stopped(self)

    def abandon(self) -> None:
        """Stop it without a word: who calls says what becomes of the task."""
        self._end()

    async def finished(self) -> None:
        """Wait until the function is no longer running."""
        if self._running is not None:
            await asyncio.wait([self._running])

    # --- as the activity's context sees it ----------------------------------------------------------------------------

    def beat(self, details: bytes | None) -> None:
        """Take note of a sign of life; plain attribute writes, so any thread may."""
        if details is not None:
            self.details = details
        self.has_beaten = True
        self._beaten_at = self._place.clock.monotonic()

    @property
    def sign(self) -> Beat:
        """The last sign of life, to be stored; a transaction's only asks: it must not find its own row changed or locked."""
        if self.activity.session_class is not None and not self.is_over:
            return Beat(self.task.attempt, None, is_quiet=True)
        return Beat(self.task.attempt, self.details, self.task.activity)

    @property
    def instance(self) -> str:
        """The instance that it belongs to."""
        return self._place.instance

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the result any more."""
        return self._is_cancelled

    @property
    def locks_journal(self) -> bool:
        """Whether nobody else can write to the journal before it ends, see `transactional`."""
        return False

    # --- inside -------------------------------------------------------------------------------------------------------

    @property
    def context(self) -> ActivityContext:
        """What the function is told; the same each time it asks."""
        if self._context is None:
            self._context = self._activity_context()
        return self._context

    def _activity_context(self) -> ActivityContext:
        key = self.task.attempt.key
        return ActivityContext(
            self,
            run_id=key.run_id,
            workflow=self.task.workflow,
            activity=self.task.activity,
            attempt=self.task.attempt.attempt,
            idempotency_key=self.task.idempotency_key or f"{key.run_id}/{key.generation}/{key.command_id}",
            instance=self.instance,
            state=self._place.state,
            last_heartbeat=self.task.details,
            details_max=self._place.details_max,
        )

    async def _perform(self) -> None:
        """Run the function and say what came of it, from inside its task: that saves a pass of the loop."""
        self._has_begun = True
        activity = self.activity
        try:
            payload = self._seal(await activity.signature.parameters.call(activity.fn, self.task.arguments))
        except SystemExit as error:  # which a task would hand on to the host's loop, and so end the host
            self._ended(None, RuntimeError(f"the activity tried to end the process: SystemExit({error.code})"))
        except asyncio.CancelledError:
            self._ended(None, asyncio.CancelledError("the activity cancelled itself"))
            raise
        except (KeyboardInterrupt, GeneratorExit):  # the host is to end, or its loop has
            raise
        except BaseException as error:  # noqa: BLE001  # whatever it is, a group of others too: the policy decides
            self._ended(None, error)
        else:
            self._ended(payload, None)

    def _perform_blocking(self) -> bytes:
        activity = self.activity
        try:
            return self._seal(activity.signature.parameters.call(activity.fn, self.task.arguments))
        except StopIteration as error:  # no future takes it: nobody would ever hear of the end
            raise RuntimeError("the activity raised StopIteration") from error

    def _seal(self, result: Any) -> bytes:
        payload = self.activity.signature.result.encode(result)
        return codec.check_size(payload, self._place.payload_max, "the result of activity", self.task.activity)

    def _returned_from_thread(self, running: asyncio.Future[bytes]) -> None:
        if running.cancelled():  # while it waited for a thread, at the end of the instance
            self._ended(None, asyncio.CancelledError("the activity was never begun"))
        else:
            error = running.exception()
            self._ended(running.result() if error is None else None, error)

    def _ended(self, payload: bytes | None, error: BaseException | None) -> None:
        # No cycle is left: memory is free at once, not at the next garbage collection.
        self._running = self._context = None
        self._place.reports.vacated(self)
        if not self._end():  # it was over: what came of it concerns nobody
            return
        if payload is not None:
            self._place.reports.returned(self, payload)
        elif error is not None:
            failure = failure_of(error, details_max=self._place.details_max)
            if isinstance(error, DurableValueError):  # the same value would be refused again
                failure = _final(failure)
            self._place.reports.raised(self, failure)

    def _outlived(self) -> None:
        limit = self.task.options.timeout_seconds
        message = f"attempt {self.task.attempt.attempt} ran longer than its timeout of {limit:g} s"
        self._raise(Failure(TIMED_OUT, message, causes=(TIMED_OUT,), timed_out=True))

    def _watch_heartbeat(self, limit: float) -> None:
        silence = self._place.clock.monotonic() - self._beaten_at
        if silence >= limit:
            message = f"attempt {self.task.attempt.attempt} was silent longer than its heartbeat_timeout of {limit:g} s"
            self._raise(Failure(HEARTBEAT_TIMED_OUT, message, causes=(HEARTBEAT_TIMED_OUT, TIMED_OUT), timed_out=True))
        else:
            self._silence = self._place.clock.call_later(limit - silence, lambda: self._watch_heartbeat(limit))

    def _raise(self, failure: Failure) -> None:
        if self._end():
            self._place.reports.raised(self, failure)

    def _end(self) -> bool:
        """Be over, whatever the function does; False if it was over before: then there is nothing to report."""
        if self.is_over:
            return False
        self.is_over = True
        if self._deadline is not None:
            self._deadline.cancel()
        if self._silence is not None:
            self._silence.cancel()
        self._deadline = self._silence = None
        if self._running is not None and not self._running.done():
            self._is_cancelled = True
            if self.activity.is_async:
                self._running.cancel()
                if not self._has_begun:  # and never will
                    self._running.add_done_callback(lambda _: self._ended(None, None))
        return True


def _final(failure: Failure) -> Failure:
    return Failure(
        type=failure.type,
        message=failure.message,
        causes=failure.causes,
        traceback=failure.traceback,
        retryable=False,
    )
