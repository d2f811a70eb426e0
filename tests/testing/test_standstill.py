"""A test that waits for what nothing can wake hears so; one that only takes its time does not."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

import continuum
from continuum import RunHandle, activity, workflow
from continuum.testing import Standstill, environment, standstill

PATIENCE, LONGER = 0.05, 0.3  # seconds


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standstill, "PATIENCE_SECONDS", PATIENCE)


@activity
def performed_in_a_thread() -> int:
    return 1


@workflow
async def needs_approval() -> int:
    before = await performed_in_a_thread()
    return before + await continuum.wait_signal("approved", int)


@workflow
async def has_a_child() -> int:
    child = await continuum.start_child(needs_approval, id="order")
    return await child


@workflow
async def forgets_its_event() -> None:
    await asyncio.Event().wait()


@workflow
async def naps() -> None:
    await asyncio.sleep(60)


async def test_a_signal_that_nobody_sends_is_named_to_everyone_who_waits() -> None:
    async with environment():
        run = await continuum.start(needs_approval)
        for error in await asyncio.gather(run.result(), run.result(), return_exceptions=True):
            assert isinstance(error, Standstill)
            assert run.run_id in str(error)
            assert "needs_approval" in str(error)
            assert "waits for the signal 'approved'" in str(error)
        await run.signal("approved", 1)  # nothing is lost
        assert await run.result() == 2


async def test_a_child_that_waits_is_told_beside_its_parent() -> None:
    async with environment():
        run = await continuum.start(has_a_child)
        with pytest.raises(Standstill, match=r"has_a_child (.*), awaited(.*)needs_approval\n.*waits for the signal"):
            await run.result()


async def test_what_no_journal_knows_is_told_as_well() -> None:
    async with environment():
        with pytest.raises(Standstill, match="an Event, a Queue, a future"):
            await (await continuum.start(forgets_its_event)).result()


async def test_who_has_to_move_time_is_told_so() -> None:
    async with environment(auto=False) as env:
        run = await continuum.start(naps)
        with pytest.raises(Standstill, match=r"env\.advance\(\)(.|\n)*its timer at 2026-01-01 00:01:00"):
            await run.result()
        await env.advance(60)
        await run.result()


Sends = Callable[[], Awaitable[object]]


async def after_a_sleep(send: Sends) -> None:
    await asyncio.sleep(LONGER)
    await send()


async def from_another_thread(send: Sends) -> None:
    loop = asyncio.get_running_loop()

    async def sends() -> None:
        await send()

    def later() -> None:
        time.sleep(LONGER)
        asyncio.run_coroutine_threadsafe(sends(), loop)

    threading.Thread(target=later).start()


async def after_something_in_the_pool(send: Sends) -> None:
    await asyncio.to_thread(time.sleep, LONGER)
    await send()


async def after_another_process(send: Sends) -> None:
    process = await asyncio.create_subprocess_exec("sleep", str(LONGER))
    await process.wait()
    await send()


@pytest.mark.parametrize(
    "way", [after_a_sleep, from_another_thread, after_something_in_the_pool, after_another_process]
)
async def test_a_signal_that_takes_real_time_is_waited_for(way: Callable[[Sends], Awaitable[None]]) -> None:
    async with environment():
        run: RunHandle[int] = await continuum.start(needs_approval)
        sending = asyncio.ensure_future(way(lambda: run.signal("approved", 1)))
        assert await run.result() == 2
        await sending
