"""SIGTERM begins the drain, and goes on to whoever heard it before."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

import continuum
from continuum import workflow
from tests.support.eventually import eventually
from tests.support.hosting import Place, instance_of


@workflow
async def parked() -> None:
    await continuum.wait_signal("never")


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """A host's own handler."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    yield heard
    signal.signal(signal.SIGTERM, before)


def term() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("spread", [True, False])
async def test_it_drains_and_the_host_hears_it_too(engine: AsyncEngine, heard: list[int], spread: bool) -> None:
    mine = signal.getsignal(signal.SIGTERM)
    children = Place("sqlite", engine).another()
    instance = instance_of(children)
    entered: Any = children if spread else [children]
    async with continuum.lifespan(*entered):
        await instance.start(parked)
        term()
        assert heard == [signal.SIGTERM]
        async with asyncio.timeout(10):
            await instance.until_drain()
        assert instance.readiness().state in {"draining", "drained"}
        await eventually(lambda: instance.readiness().state == "drained")
        assert instance.wiring is not None
        assert len(instance.wiring.registry) == 0
        term()  # a second one does not drain twice
        await asyncio.sleep(0)
    assert heard == [signal.SIGTERM, signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is mine


async def test_it_is_left_to_the_host_if_told_so(engine: AsyncEngine, heard: list[int]) -> None:
    children = Place("sqlite", engine).another()
    mine = signal.getsignal(signal.SIGTERM)
    async with continuum.lifespan(*children, on_sigterm=False):
        assert signal.getsignal(signal.SIGTERM) is mine
        term()
        await asyncio.sleep(0)
        assert instance_of(children).readiness().state == "ready"


async def test_what_the_host_put_in_its_place_stays(heard: list[int]) -> None:
    later = lambda *_: None
    async with continuum.lifespan():
        signal.signal(signal.SIGTERM, later)
    assert signal.getsignal(signal.SIGTERM) is later


async def test_a_process_that_ignores_it_goes_on_ignoring_it(heard: list[int]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    async with continuum.lifespan():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_other_threads_leave_it_alone(heard: list[int]) -> None:
    mine = signal.getsignal(signal.SIGTERM)
    seen: list[Any] = []

    async def main() -> None:
        async with continuum.lifespan():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join(10)
    assert seen == [mine]


def test_a_process_that_it_would_have_ended_is_ended_after_the_drain() -> None:
    program = """
import asyncio, continuum, os, signal
from continuum.telemetry import attach
attach(lambda event: print(event.name, flush=True), ["instance.drained"])

async def main():
    from continuum.composition.building import memory_instance, real_world
    from continuum.composition.children import children_of
    from continuum.composition.options import settings_of
    from continuum.clock import SystemClock
    from continuum.journal.memory import MemoryStore
    children = children_of(memory_instance(settings_of("app", {}), MemoryStore(SystemClock()), real_world))
    async with continuum.lifespan(*children):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(30)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "instance.drained\n"), done.stderr
