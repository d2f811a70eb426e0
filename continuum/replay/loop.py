"""The deterministic event loop that workflows run on.

All of asyncio's primitives stand on `call_soon`, `call_at`, `create_future`, `create_task` and `time`. This loop has
just these: callbacks run in the order in which they were asked for, time is the time of the turn, a deadline is a
durable timer. Sockets, threads, subprocesses and signals are missing on purpose: who asks for one meets
`NondeterminismError` with the way out, and the run is blocked until its code no longer asks.

Two states matter besides running: *halted* (the run has left its history: nothing runs any more, nothing can be caught)
and *closed* (the execution was given up: `finally:` blocks may run, but can neither wait nor command).
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import sys
from asyncio import events as asyncio_events
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from continuum.errors import NondeterminismError

T = TypeVar("T")

HANDLES_MAX = 100_000  # callbacks in one drive; a workflow that needs more is spinning (`while True: await sleep(0)`)


class ExecutionClosed(BaseException):
    """Ends whatever a closed execution's `finally:` blocks still try; never meant to be caught."""


class NotQuiescent(Exception):
    """The workflow keeps itself busy without ever waiting for anything."""


class DurableTimer(asyncio.TimerHandle):
    """A deadline that was journaled."""

    __slots__ = ("command_id",)

    command_id: int


class LoopOwner(Protocol):
    """The machine, as the loop sees it."""

    def timer_started(self, timer: DurableTimer) -> None:
        """Journal a new deadline."""
        ...

    def timer_cancelled(self, timer: DurableTimer) -> None:
        """Forget a deadline."""
        ...

    def misused(self, error: NondeterminismError) -> None:
        """Remember that the code reached for the real world."""
        ...


class WorkflowLoop(asyncio.AbstractEventLoop):
    """One run's event loop; `drive` runs it until it is quiescent."""

    def __init__(self, owner: LoopOwner) -> None:
        self.owner = owner
        self.now_seconds = 0.0
        self.is_halted = False
        self.is_shut = False
        self._ready: list[asyncio.Handle] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._named = 0

    # --- what asyncio calls -------------------------------------------------------------------------------------------

    def time(self) -> float:
        """Return the time of the turn, in seconds since 1970."""
        return self.now_seconds

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Run a callback in this drive, after those that wait already."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Run a callback when a durable timer fires."""
        return self.call_at(self.now_seconds + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Run a callback when a durable timer fires; what is due already runs in this drive and needs no timer."""
        if self.is_shut:
            raise ExecutionClosed
        timer = DurableTimer(when, callback, args, self, context)
        if when <= self.now_seconds:
            self._ready.append(timer)
        else:
            timer._scheduled = True
            self.owner.timer_started(timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        # asyncio's TimerHandle.cancel() calls this for handles that were scheduled.
        assert isinstance(handle, DurableTimer)
        self.owner.timer_cancelled(handle)

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        if self.is_shut:
            raise ExecutionClosed
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]  # typeshed's signature differs between Python versions
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **_unused: Any,  # eager_start of Python 3.14: tasks start in the order of the loop here, always
    ) -> asyncio.Task[T]:
        """Return a task of this loop; its default name counts within the run, so that it replays equal."""
        if self.is_shut:
            coro.close()
            raise ExecutionClosed
        if not self._tasks:
            _open_loops[id(self)] = self
        self._named += 1
        task = asyncio.Task(coro, loop=self, name=str(name) if name else f"Task-{self._named}", context=context)
        # The machine closes what is left of a run; asyncio's complaint about pending tasks would be noise.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        if len(self._tasks) >= 64 and len(self._tasks) & (len(self._tasks) - 1) == 0:
            self._tasks = [known for known in self._tasks if not known.done()]
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Ignore: errors that nobody awaited are the workflow's own, and would be reported again on every replay."""

    def get_debug(self) -> bool:
        """Return False."""
        return False

    def is_running(self) -> bool:
        """Return True: code that asks runs on it."""
        return True

    def is_closed(self) -> bool:
        """Tell whether the execution was given up."""
        return self.is_shut

    async def shutdown_asyncgens(self) -> None:
        """Do nothing: asynchronous generators end with their run."""

    # --- what the machine calls ---------------------------------------------------------------------------------------

    def drive(self, main: asyncio.Task[Any]) -> None:
        """Run callbacks until none is left, `main` is done, or the loop is halted.

        Raises:
            NotQuiescent: it would never end.
        """
        host = asyncio_events._get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        asyncio_events._set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=None, finalizer=_forget)
        try:
            self._run_ready(main)
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio_events._set_running_loop(host)

    def _run_ready(self, main: asyncio.Task[Any]) -> None:
        left = HANDLES_MAX
        while self._ready:
            batch, self._ready = self._ready, []
            for handle in batch:
                if not handle._cancelled:  # type: ignore[attr-defined]
                    handle._run()
                    if self.is_halted or main.done():
                        return
            left -= len(batch)
            if left < 0:
                raise NotQuiescent

    def fire(self, timer: DurableTimer) -> None:
        """Let a timer's callback run in the next drive."""
        timer._scheduled = False
        self._ready.append(timer)

    def shut(self) -> None:
        """Close every coroutine: `finally:` blocks run, but whatever they try to wait for ends them."""
        self.is_shut = True
        self._ready.clear()
        host = asyncio_events._get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        asyncio_events._set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=None, finalizer=_forget)
        try:
            for task in self._tasks:
                _close(task.get_coro())
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio_events._set_running_loop(host)
        self._tasks.clear()
        self._ready.clear()
        _open_loops.pop(id(self), None)


# A parked coroutine must not be garbage collected before it was shut: its `finally:` blocks would run in whatever
# loop happens to be running, and an activity called there would really be performed. So open loops are kept alive.
_open_loops: dict[int, WorkflowLoop] = {}


@atexit.register
def _shut_all() -> None:
    for loop in list(_open_loops.values()):
        loop.shut()


def _forget(generator: object) -> None:
    """Finalize an asynchronous generator: not at all. The host loop's hook would run its cleanup in the real world."""


CLOSE_TRIES = 100  # a coroutine may swallow GeneratorExit once per await in its way; beyond that it never ends


def _close(coroutine: Any) -> None:
    for _ in range(CLOSE_TRIES):
        try:
            coroutine.close()
        except RuntimeError:  # "coroutine ignored GeneratorExit": it waits again, so it is told again
            continue
        except BaseException:  # whatever a finally block raises concerns nobody any more
            return
        return


def _missing(name: str) -> Callable[..., Any]:
    hint = _HINTS.get(name, "do it in an activity and await that")

    def method(self: WorkflowLoop, *args: Any, **kwargs: Any) -> Any:
        error = NondeterminismError(f"a workflow has no loop.{name}(): {hint}")
        self.owner.misused(error)
        raise error

    method.__name__ = name
    method.__doc__ = f"Raise NondeterminismError: {hint}."
    return method


_HINTS = {
    "run_in_executor": "put work for threads or processes (asyncio.to_thread too) into a `def` activity",
    "call_soon_threadsafe": "threads reach a workflow by signals only: `continuum.signal(run_id, name, payload)`",
    "create_connection": "put network access into an activity",
    "sock_connect": "put network access into an activity",
    "subprocess_exec": "put subprocesses into an activity",
    "subprocess_shell": "put subprocesses into an activity",
    "add_signal_handler": "operating system signals belong to the host",
}

for _name in dir(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name not in WorkflowLoop.__dict__:
        setattr(WorkflowLoop, _name, _missing(_name))
