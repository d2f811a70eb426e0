"""Threads for `def` activities, which never keep a process from ending.

The executor of the standard library joins its threads when the interpreter ends: a function that never returns, on a
socket without a timeout for example, would keep the process for ever, long after its drain. These threads are daemons.
What they were doing is a task whose lease runs out, and which another node performs again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class _Work:
    """A call, and the future that tells of it."""

    __slots__ = ("call", "future")

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.future: Future[Any] = Future()

    def perform(self) -> None:
        """Call; a future that was cancelled meanwhile stays cancelled."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.call()
        except BaseException as error:  # noqa: BLE001  # it is told to whoever waits, who must not wait for ever
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class DaemonThreads(Executor):
    """At most `limit` daemon threads, made when they are needed."""

    def __init__(self, limit: int, *, name: str) -> None:
        self._limit = limit
        self._name = name
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = threading.Semaphore(0)
        self._is_shut = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Call `fn` in a thread.

        Raises:
            RuntimeError: after `shutdown`.
        """
        work = _Work(lambda: fn(*args, **kwargs))
        with self._lock:
            if self._is_shut:
                raise RuntimeError(f"{self._name} was shut down")
            self._queue.put(work)
            if not self._idle.acquire(blocking=False) and self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._serve, name=f"{self._name}-{self._threads}", daemon=True).start()
        return work.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  # inherited
        """Take nothing more; threads end with what they do. `wait` is no promise: nobody waits for a daemon."""
        del wait
        with self._lock:
            self._is_shut = True
            while cancel_futures:
                try:
                    work = self._queue.get_nowait()
                except Empty:
                    break
                if work is not None:
                    work.future.cancel()
            for _ in range(self._threads):
                self._queue.put(None)

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            work.perform()
            del work  # the arguments are free while the thread waits
            self._idle.release()
