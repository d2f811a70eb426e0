"""The base of all loops: interval, jitter, nudges, crashes, starting and stopping."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from continuum import telemetry
from continuum.clock import VirtualClock
from continuum.runtime.component import BACKOFF_MAX_SECONDS, DEGRADED_AFTER, Component, Loop, Nudge
from continuum.telemetry import Emitter
from tests.support.stage import settled


class Counter(Loop):
    """Counts its passes, and does in each what a test says."""

    def __init__(self, clock: VirtualClock, *, interval: float | None = 10.0, starts_at_once: bool = True) -> None:
        emit = Emitter(instance="test", node="n")
        super().__init__(
            "test.counter", interval=interval, clock=clock, draw=random.Random(0), emit=emit,
            starts_at_once=starts_at_once,
        )  # fmt: skip
        self.passes: list[float] = []
        self.does: Callable[[], Any] = lambda: False

    async def once(self) -> bool:
        self.passes.append(self.clock.monotonic())
        done = self.does()
        return bool(await done) if asyncio.iscoroutine(done) else bool(done)


@pytest.fixture
async def loop(clock: VirtualClock) -> AsyncIterator[Counter]:
    loop = Counter(clock)
    yield loop
    await loop.stop()


async def move(clock: VirtualClock, seconds: float) -> None:
    target = clock.monotonic() + seconds
    await settled()
    while (due := clock.next_deadline()) is not None and due <= target:
        clock.move_to(due)
        await settled()
    clock.move_to(target)


async def test_it_passes_at_once_and_then_by_its_interval_with_jitter(loop: Counter, clock: VirtualClock) -> None:
    await loop.start()
    await move(clock, 100)
    assert len(loop.passes) in range(10, 13)
    pauses = [after - before for before, after in zip(loop.passes, loop.passes[1:], strict=False)]
    assert all(9.0 <= pause <= 11.0 for pause in pauses)
    assert len(set(pauses)) > 1


async def test_it_waits_for_its_first_interval_if_it_is_told_to(clock: VirtualClock) -> None:
    loop = Counter(clock, starts_at_once=False)
    await loop.start()
    await move(clock, 8)
    assert loop.passes == []
    await move(clock, 4)
    assert len(loop.passes) == 1
    await loop.stop()


async def test_many_nudges_make_one_pass_and_one_during_a_pass_makes_another(loop: Counter) -> None:
    await loop.start()
    await settled()
    for _ in range(100):
        loop.nudge()
    await settled()
    assert len(loop.passes) == 2
    loop.does = lambda: loop.nudge() if len(loop.passes) == 3 else None
    loop.nudge()
    await settled()
    assert len(loop.passes) == 4


async def test_without_an_interval_only_nudges_count(clock: VirtualClock) -> None:
    loop = Counter(clock, interval=None, starts_at_once=False)
    await loop.start()
    await move(clock, 1e9)
    assert loop.passes == []
    loop.nudge()
    await settled()
    assert len(loop.passes) == 1
    await loop.stop()


async def test_of_delayed_nudges_the_earliest_counts(loop: Counter, clock: VirtualClock) -> None:
    await loop.start()
    await settled()
    for delay in (5.0, 2.0, 3.0, 0.5, 7.0):
        loop.nudge(delay)
    await move(clock, 1)
    assert loop.passes == [0.0, 0.5]
    loop.nudge(1.0)  # the earlier plans are not in the way
    await move(clock, 1)
    assert loop.passes == [0.0, 0.5, 2.0]


async def test_a_full_batch_is_followed_at_once(loop: Counter) -> None:
    loop.does = lambda: len(loop.passes) < 5
    await loop.start()
    await settled()
    assert len(loop.passes) == 5


async def test_a_nudge_that_comes_before_the_start_is_not_lost(clock: VirtualClock) -> None:
    loop = Counter(clock, starts_at_once=False)
    loop.nudge()
    await loop.start()
    await settled()
    assert len(loop.passes) == 1
    await loop.stop()


async def test_a_crash_is_told_backed_off_from_and_survived(
    loop: Counter, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[telemetry.TelemetryEvent] = []
    telemetry.attach(heard.append, ["loop.crashed"])
    loop.does = lambda: 1 // 0
    await loop.start()
    with caplog.at_level(logging.WARNING):
        await move(clock, 60)
    telemetry.detach(heard.append)
    assert [event.measurements["crashes"] for event in heard] == list(range(1, len(heard) + 1))
    assert {event.metadata["loop"] for event in heard} == {"test.counter"}
    assert {event.metadata["instance"] for event in heard} == {"test"}
    pauses = [after - before for before, after in zip(loop.passes, loop.passes[1:], strict=False)]
    assert pauses[0] < 0.25
    assert max(pauses) <= BACKOFF_MAX_SECONDS
    assert sum(pauses[:3]) < sum(pauses[-3:])
    assert loop.is_degraded
    assert [record.levelname for record in caplog.records][:DEGRADED_AFTER] == ["WARNING"] * 4 + ["ERROR"]
    loop.does = lambda: False
    await move(clock, 2 * BACKOFF_MAX_SECONDS)
    assert not loop.is_degraded


async def test_nudges_do_not_shorten_the_back_off(loop: Counter, clock: VirtualClock) -> None:
    loop.does = lambda: 1 // 0
    await loop.start()
    await settled()
    for _ in range(10):
        loop.nudge()
        await settled()
    assert len(loop.passes) == 1


async def test_starting_twice_is_starting_once_and_stopping_twice_is_harmless(loop: Counter) -> None:
    await loop.start()
    await loop.start()
    await settled()
    assert len(loop.passes) == 1
    await loop.stop()
    await loop.stop()
    loop.nudge()
    await settled()
    assert len(loop.passes) == 1
    await loop.start()
    await settled()
    assert len(loop.passes) == 2


async def test_stopping_cancels_the_pass_in_progress(loop: Counter) -> None:
    ended: list[str] = []

    async def long() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    loop.does = long
    await loop.start()
    await settled()
    await loop.stop()
    assert ended == ["cancelled"]


async def test_stopping_during_the_back_off_leaves_nothing_behind(loop: Counter, clock: VirtualClock) -> None:
    loop.does = lambda: 1 // 0
    await loop.start()
    await settled()
    await loop.stop()
    loop.does = lambda: False
    await loop.start()
    await settled()
    assert loop.is_resting
    waiting = asyncio.Event()
    loop.does = waiting.wait
    loop.nudge()
    await settled()
    assert not loop.is_resting


async def test_a_stop_that_is_cancelled_is_cancelled(loop: Counter) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            raise

    loop.does = stubborn
    await loop.start()
    await settled()
    stopping = asyncio.create_task(loop.stop())
    await settled()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping


async def test_a_nudge_is_consumed_by_the_wait_that_it_ends(clock: VirtualClock) -> None:
    nudge = Nudge(clock)
    nudge.set()
    assert await nudge.wait(1.0) is True
    waiting = asyncio.create_task(nudge.wait(1.0))
    await settled()
    assert nudge.is_waiting
    clock.move_to(1.0)
    assert await waiting is False
    assert not nudge.is_waiting


async def test_a_component_is_a_context_manager_with_a_name() -> None:
    component = Component("x.part")
    async with component as entered:
        assert entered is component
    assert (repr(component), component.is_degraded) == ("<Component x.part>", False)
