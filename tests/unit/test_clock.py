"""Clocks: the machine's, and one that stands still until it is moved."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from continuum.clock import Clock, SystemClock, VirtualClock

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_both_are_clocks() -> None:
    clocks: list[Clock] = [SystemClock(), VirtualClock()]

    assert len(clocks) == 2


async def test_the_system_clock_is_aware_and_grows() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    called = asyncio.Event()

    clock.call_later(0, called.set)
    clock.call_later(0, lambda: pytest.fail("was cancelled")).cancel()
    await clock.sleep(0)
    await called.wait()

    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=1)
    assert clock.now().utcoffset() == timedelta(0)
    assert clock.monotonic() >= before
    with pytest.raises(TimeoutError):
        async with clock.timeout(0):
            await asyncio.Event().wait()
    async with clock.timeout(None):
        pass


def test_virtual_time_stands_still_until_it_is_moved_and_never_goes_back() -> None:
    clock = VirtualClock(START)

    clock.move_to(90)
    clock.move_to(30)

    assert (clock.now(), clock.monotonic()) == (START + timedelta(seconds=90), 90.0)


def test_calls_happen_in_order_of_time_then_of_planning() -> None:
    clock, seen = VirtualClock(), list[tuple[str, float]]()

    def note(name: str) -> object:
        return lambda: seen.append((name, clock.monotonic()))

    for name, after in (("late", 5), ("a", 1), ("b", 1), ("past", -3)):
        clock.call_later(after, note(name))  # type: ignore[arg-type]
    clock.move_to(4)
    assert clock.next_deadline() == 5
    clock.move_to(10)

    assert seen == [("past", 0.0), ("a", 1.0), ("b", 1.0), ("late", 5.0)]
    assert clock.next_deadline() is None


def test_what_a_call_plans_within_the_move_happens_in_it() -> None:
    clock, seen = VirtualClock(), list[float]()

    def again() -> None:
        seen.append(clock.monotonic())
        clock.call_later(2, again)

    clock.call_later(2, again)
    clock.move_to(7)

    assert seen == [2.0, 4.0, 6.0]


def test_a_cancelled_call_does_not_happen_and_is_no_deadline() -> None:
    clock = VirtualClock()
    first = clock.call_later(1, lambda: pytest.fail("was cancelled"))
    second = clock.call_later(2, lambda: pytest.fail("was cancelled"))
    clock.call_later(3, second.cancel)
    first.cancel()
    first.cancel()
    second.cancel()

    assert clock.next_deadline() == 3
    clock.move_to(5)


async def test_sleepers_wake_when_the_clock_has_been_moved_far_enough() -> None:
    clock = VirtualClock()
    sleeper = asyncio.create_task(clock.sleep(60))
    await asyncio.sleep(0)

    clock.move_to(59)
    await asyncio.sleep(0)
    assert not sleeper.done()
    clock.move_to(60)
    await sleeper


async def test_a_sleeper_that_is_cancelled_leaves_no_deadline_and_no_error() -> None:
    clock = VirtualClock()
    sleeper = asyncio.create_task(clock.sleep(60))
    await asyncio.sleep(0)

    sleeper.cancel()
    clock.move_to(60)  # before its task has heard of it
    with pytest.raises(asyncio.CancelledError):
        await sleeper

    assert clock.next_deadline() is None


async def test_a_virtual_timeout_ends_what_is_awaited_inside() -> None:
    clock = VirtualClock()

    async def bounded() -> str:
        try:
            async with clock.timeout(60):
                await asyncio.Event().wait()
        except TimeoutError:
            return "late"
        return "in time"

    task = asyncio.create_task(bounded())
    await asyncio.sleep(0)
    clock.move_to(59)
    await asyncio.sleep(0)
    assert not task.done()
    clock.move_to(60)

    assert await task == "late"


async def test_a_virtual_timeout_in_time_leaves_no_deadline() -> None:
    clock = VirtualClock()

    async with clock.timeout(60) as scope, clock.timeout(None):
        assert type(scope).__name__ == "_VirtualTimeout"
        assert clock.next_deadline() == 60

    assert clock.next_deadline() is None
