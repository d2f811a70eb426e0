"""The deterministic event loop that workflows run on.

All of asyncio's primitives stand on `call_soon`, `call_at`, `create_future`, `create_task` and `time`. This loop has
just these: callbacks run in the order in which they were asked for, time is the time of the turn, a deadline is a
durable timer. Sockets, threads, subprocesses and signals are missing on purpose: who asks for one meets
`NondeterminismError` with the way out, and the run is blocked until its code no longer asks.

Sets are why tasks and futures hash by a number of their run's own instead of their address: asyncio keeps both in sets,
a TaskGroup cancels its tasks in the order of one, and `as_completed` even starts coroutines in it.

Two states matter besides running: *halted* (the run has left its history or is blocked: nothing goes past its next
`await`, and nothing can be caught) and *shut* (the execution was given up: `finally:` blocks may run, but can neither
wait nor command).
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import sys
from asyncio import events as asyncio_events
from asyncio import tasks as asyncio_tasks
from collections.abc import Callable, Coroutine, Sequence
from types import FrameType
from typing import Any, Protocol, TypeVar, TypeVarTuple

from continuum.errors import NondeterminismError
from continuum.replay.closing import Refusal, close, forget
from continuum.replay.watch import LoopGuard

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

HANDLES_MAX = 100_000  # callbacks in one drive; a workflow that needs more is spinning (`while True: await sleep(0)`)
TASKS_PRUNED_AT = 64  # tasks that ended are forgotten when the list of all reaches this, twice this, four times this …


class NotQuiescent(Exception):
    """The workflow keeps itself busy without ever waiting for anything."""


class DurableTimer(asyncio.TimerHandle):
    """A deadline that was journaled."""

    __slots__ = ("command_id",)

    command_id: int
    _scheduled: bool  # asyncio's own: whether cancelling it concerns the loop


class WorkflowTask(asyncio.Task[Any]):
    """A task whose hash, and so its place in a set, replays equal; `context` is what its code runs in."""

    __slots__ = ("_identity", "context")

    def __init__(
        self, identity: int, coro: Coroutine[Any, Any, Any], loop: WorkflowLoop, name: str, context: contextvars.Context
    ) -> None:
        self._identity = identity  # first: asyncio puts the task into a weak set while making it
        self.context = context
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self._identity


class WorkflowFuture(asyncio.Future[Any]):
    """A future whose hash replays equal."""

    __slots__ = ("_identity",)

    def __init__(self, identity: int, *, loop: asyncio.AbstractEventLoop) -> None:
        self._identity = identity
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._identity


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
    """One run's event loop; `drive` runs it until it is quiescent. `seed` tells the hashes of one run from another's."""

    guard: LoopGuard | None = None  # whoever drives it sets its own

    def __init__(self, owner: LoopOwner, *, seed: int) -> None:
        self.owner: LoopOwner = owner
        self.now_seconds = 0.0
        self.is_halted = False
        self.is_shut = False
        self._ready: list[asyncio.Handle] = []
        self._tasks: list[WorkflowTask] = []
        self._early: dict[object, asyncio.Task[Any]] | None = (
            None  # made for `as_completed` before it asked, by coroutine
        )
        self._named = 0
        self._seed = seed
        self._refusal: Refusal  # there once it is shut
        self._identities = 0

    # --- what asyncio calls -------------------------------------------------------------------------------------------

    def time(self) -> float:
        """Return the time of the turn, in seconds since 1970."""
        return self.now_seconds

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Run a callback in this drive, after those that wait already."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run a callback when a durable timer fires."""
        return self.call_at(self.now_seconds + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run a callback when a durable timer fires; what is due already runs in this drive and needs no timer."""
        timer = DurableTimer(when, callback, args, self, context)
        if when <= self.now_seconds:
            self._ready.append(timer)
        elif self.is_shut:
            self.refuse()
        else:
            timer._scheduled = True
            self.owner.timer_started(timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        # asyncio's TimerHandle.cancel() calls this for every handle, also for one that has run or was never journaled.
        assert isinstance(handle, DurableTimer)
        if handle._scheduled:
            self.owner.timer_cancelled(handle)

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return WorkflowFuture(self._identity(), loop=self)

    def create_task(  # type: ignore[override]  # typeshed also takes generators, which asyncio has ceased to take
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **_unused: Any,  # eager_start of Python 3.14: tasks start in the order of the loop here, always
    ) -> asyncio.Task[T]:
        """Return a task of this loop; its default name counts within the run, so that it replays equal."""
        together = _given_to_as_completed()
        if together is None:
            return self._new_task(coro, name, context)
        self._early = self._early or {}
        if coro not in self._early:
            self._start_together(coro, together, self._early)
        return self._early.pop(coro)

    def _new_task(
        self, coro: Coroutine[Any, Any, T], name: object = None, context: contextvars.Context | None = None
    ) -> asyncio.Task[T]:
        if not self._tasks:
            _open_loops.add(self)
        self._named += 1
        label = str(name) if name else f"Task-{self._named}"
        own = contextvars.copy_context() if context is None else context  # which is falsy while it is empty
        task = WorkflowTask(self._identity(), coro, self, label, own)
        asyncio_tasks._unregister_task(task)  # the host's `all_tasks()` looks at each one that the process knows
        # The machine closes what is left of a run; asyncio's complaint about pending tasks would be noise.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        if len(self._tasks) >= TASKS_PRUNED_AT and len(self._tasks) & (len(self._tasks) - 1) == 0:
            self._tasks = [known for known in self._tasks if not known.done()]
        self._tasks.append(task)
        return task

    def _start_together(
        self, coro: Coroutine[Any, Any, Any], together: object, early: dict[object, asyncio.Task[Any]]
    ) -> None:
        """Start what `as_completed` was given in the order in which it was given.

        It makes a set of them first and asks for one task after the other in the order of that set, which is the order
        of addresses. So at the first question all of them are started.
        """
        listed = together if isinstance(together, Sequence) else ()
        if coro not in listed:
            error = NondeterminismError(
                "asyncio.as_completed starts what it is given in the order of a set, which no replay repeats, unless it "
                "is a list of coroutines or tasks: `as_completed([…])`, of children `as_completed([child.result(), …])`"
            )
            coro.close()
            self.owner.misused(error)
            raise error
        for given in listed:
            if asyncio.iscoroutine(given) and given not in early:
                early[given] = self._new_task(given)

    def _identity(self) -> int:
        self._identities += 1
        return self._seed ^ self._identities

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
        sys.set_asyncgen_hooks(firstiter=None, finalizer=forget)
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
                if not handle._cancelled:
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
        """Close every coroutine: `finally:` blocks run, but what they wait for never comes, so it is closed too."""
        self.is_shut = True
        self._refusal = Refusal()
        self._ready.clear()
        self._tasks = [task for task in self._tasks if not task.done()]
        if self._tasks:
            self._close_all()
        self.owner = _NOBODY  # no cycle is left: the run's memory is free at once, not at the next garbage collection
        _open_loops.discard(self)

    def refuse(self) -> None:
        """Raise NotAllowedHere, once in each task, if the loop is shut: nothing more can be asked for."""
        if self.is_shut:
            self._refusal.tell(asyncio.current_task(self))

    def _close_all(self) -> None:
        host = asyncio_events._get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        asyncio_events._set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=None, finalizer=forget)
        try:
            while self._tasks:  # on their way out they may start others, which are closed before they began
                task = self._tasks.pop(0)
                # What asks for the current task (timeout, TaskGroup) must find one: an error that comes without an
                # `await` would drive a coroutine that tries again whatever happens for ever.
                asyncio_tasks._enter_task(self, task)
                task.context.run(close, task.get_coro())
                asyncio_tasks._leave_task(self, task)
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio_events._set_running_loop(host)
        self._ready.clear()


class _Nobody:
    """Owns loops that were shut."""

    def timer_started(self, timer: DurableTimer) -> None:
        """Do nothing."""

    def timer_cancelled(self, timer: DurableTimer) -> None:
        """Do nothing."""

    def misused(self, error: NondeterminismError) -> None:
        """Do nothing."""


_NOBODY = _Nobody()


# A parked coroutine must not be garbage collected before it was shut: its `finally:` blocks would run in whatever
# loop happens to be running, and an activity called there would really be performed. So open loops are kept alive.
_open_loops: set[WorkflowLoop] = set()


@atexit.register
def _shut_all() -> None:
    for loop in list(_open_loops):
        loop.shut()


def _given_to_as_completed() -> object:
    """Return what `asyncio.as_completed` was given if it is what asks for a task, else None."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_globals is asyncio_tasks.__dict__:
        argument = _AS_COMPLETED.get(frame.f_code.co_qualname)
        if argument is not None:
            return frame.f_locals[argument]
        frame = frame.f_back
    return None


# How as_completed calls its argument: until Python 3.12, since 3.13.
_AS_COMPLETED = {"as_completed": "fs", "_AsCompletedIterator.__init__": "aws"}


def _missing(name: str) -> Callable[..., Any]:
    hint = _HINTS.get(name, "do it in an activity and await that")

    def method(self: WorkflowLoop, *_args: Any, **_kwargs: Any) -> Any:
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
