"""Threads for `def` activities: bounded, reused, and never in the way of a process that wants to end."""

import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from continuum.runtime.threads import DaemonThreads

HANGING = """
import asyncio, threading
import continuum

began = threading.Event()

@continuum.activity
def hangs() -> None:
    began.set()
    threading.Event().wait()

@continuum.workflow
async def waits() -> None:
    await hangs()

async def main():
    async with continuum.application(drain_timeout=0.2):
        await continuum.start(waits)
        await asyncio.to_thread(began.wait)

asyncio.run(main())
print("over")
"""


def test_no_more_threads_than_the_limit_and_none_without_need() -> None:
    threads = DaemonThreads(2, name="test")
    gate, seen = threading.Event(), set[str]()

    def work() -> None:
        seen.add(threading.current_thread().name)
        gate.wait(10)

    futures = [threads.submit(work) for _ in range(5)]
    gate.set()
    for future in futures:
        future.result(10)
    assert seen == {"test-1", "test-2"}

    one = DaemonThreads(2, name="one")
    names = set[str]()
    for _ in range(3):
        names.add(one.submit(lambda: threading.current_thread().name).result(10))
        with one._idle:  # the thread says that it is free a moment after it has told the result
            pass
        one._idle.release()
    assert len(names) == 1
    threads.shutdown()
    one.shutdown()


def test_errors_and_results_reach_who_waits() -> None:
    threads = DaemonThreads(1, name="test")
    assert threads.submit(divmod, 7, 2).result(10) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 7, 0).result(10)
    with pytest.raises(SystemExit):
        threads.submit(sys.exit, 3).result(10)
    assert threads.submit(len, "abc").result(10) == 3, "the thread lives on"
    threads.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        threads.submit(len, "abc")


def test_a_shutdown_cancels_what_has_not_begun() -> None:
    threads = DaemonThreads(1, name="test")
    began, gate = threading.Event(), threading.Event()

    def work() -> int:
        began.set()
        gate.wait(10)
        return 1

    running, waiting = threads.submit(work), threads.submit(work)
    began.wait(10)
    threads.shutdown(cancel_futures=True)
    gate.set()
    assert running.result(10) == 1
    with pytest.raises(CancelledError):
        waiting.result(10)


def test_an_activity_that_never_returns_does_not_keep_the_process(tmp_path: Path) -> None:
    program = tmp_path / "hanging.py"
    program.write_text(HANGING)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr
