"""The features of the workflow language: for each a workflow, the story of one run, and how that run stands at its end.

Golden histories are recorded from this table (`python -m tests.golden.record`) and replayed by `test_golden`. A new
feature takes a line in `FEATURES`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import continuum
from continuum import Retry, RunHandle, activity, workflow
from continuum.definitions.workflow import Workflow
from continuum.testing import Environment, History, environment

Story = Callable[[Environment, RunHandle[Any]], Awaitable[None]]


async def nothing_happens(env: Environment, run: RunHandle[Any]) -> None:
    """Let the run go as far as it gets by itself."""


@dataclass(frozen=True)
class Feature:
    """One golden history: the generations of one run, the last of which ends in `state`."""

    name: str
    flow: Workflow[..., Any]
    arguments: tuple[Any, ...] = ()
    story: Story = nothing_happens
    state: str = "completed"

    async def record(self) -> list[History]:
        """Run the workflow in an environment whose ids and time are always the same."""
        async with environment(auto=False, seed=0) as env:
            run = await continuum.start(self.flow, *self.arguments)
            await env.settle()
            await self.story(env, run)
            await env.settle()
            last = (await run.status()).generation
            return [await env.history(run, generation=number) for number in range(1, last + 1)]


class CardDeclined(Exception):
    """The activity's way to say no."""


@activity(name="golden.double")
async def double(number: int) -> int:
    return 2 * number


@activity(name="golden.unsteady", retry=Retry(max_attempts=3, initial=10.0, jitter=0))
async def unsteady(fails: int) -> str:
    attempt = continuum.activity_context().attempt
    if attempt <= fails:
        raise ConnectionError(f"attempt {attempt}")
    return f"attempt {attempt}"


@activity(name="golden.keyed", idempotency_key=lambda order: f"order-{order}")
async def keyed(order: str) -> str | None:
    return continuum.activity_context().idempotency_key


@activity(name="golden.declines", retry=Retry(non_retryable=(CardDeclined,)))
async def declines(cents: int) -> None:
    raise CardDeclined(f"{cents} cents")


@activity(name="golden.never", retry=Retry(max_attempts=10_000, initial=86_400.0, max_delay=86_400.0, jitter=0))
async def never() -> None:
    raise ConnectionError("tomorrow, perhaps")


@workflow(name="golden.activities")
async def activities(number: int) -> list[Any]:
    first = await double(number)
    return [first, *await asyncio.gather(double(first), double(7)), await keyed("o-1")]


@workflow(name="golden.retries")
async def retries() -> list[str]:
    try:
        lost = await unsteady(3)
    except continuum.ActivityFailed as error:
        lost = f"{error.type} after {error.attempts}"
    try:
        await declines(42)
    except continuum.ActivityFailed as error:
        return [await unsteady(2), lost, str(error), str(error.caused_by(CardDeclined))]
    return []


@workflow(name="golden.timers")
async def timers() -> list[str]:
    marks = []
    for seconds in (0.25, 3600):
        await asyncio.sleep(seconds)
        marks.append(continuum.now().isoformat())
    try:
        async with asyncio.timeout(60):
            await never()
    except TimeoutError:
        marks.append(continuum.today().isoformat())
    return marks


@workflow(name="golden.signals", signals={"number": int, "word": str, "early": str})
async def signals() -> list[Any]:
    both = await asyncio.gather(continuum.wait_signal("number", int), continuum.wait_signal("number", int))
    word = await continuum.wait_signal("word", str, timeout=timedelta(days=7))
    try:
        await continuum.wait_signal("word", str, timeout=timedelta(days=7))
    except TimeoutError:
        return [*both, word, await continuum.wait_signal("early", str)]
    return []


async def four_signals(env: Environment, run: RunHandle[Any]) -> None:
    await run.signal("early", "kept", delivery_id="d-1")
    await run.signal("number", 1)
    await run.signal("number", 2)
    await env.advance(timedelta(days=6))
    await run.signal("word", "in time")
    await env.advance(timedelta(days=8))


@workflow(name="golden.side_effects")
async def side_effects() -> list[Any]:
    first = await continuum.side_effect(lambda: {"made": "once"})
    try:
        await continuum.side_effect(lambda: 1 // 0)
    except continuum.ContinuumError as error:
        return [first, str(error), await double(1)]
    return []


@workflow(name="golden.chance")
async def chance() -> list[Any]:
    drawn = [continuum.random().randrange(1000), str(continuum.uuid4()), continuum.info().started_at.isoformat()]
    return [*drawn, await double(continuum.random().randrange(1000))]


@workflow(name="golden.withdrawn")
async def withdrawn() -> int:
    tasks = [asyncio.create_task(double(1)), asyncio.create_task(never())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    done = [task.result() or 0 for task in tasks if task.done()]
    tasks[1].cancel()
    return sum(done) + await double(2)


@workflow(name="golden.fails")
async def fails() -> None:
    await double(1)
    raise CardDeclined("no")


@workflow(name="golden.waits")
async def waits() -> str:
    await double(1)
    async with asyncio.TaskGroup() as group:
        group.create_task(never())
        word = group.create_task(continuum.wait_signal("word", str, timeout=timedelta(days=365)))
    return word.result()


@workflow(name="golden.child")
async def child(number: int) -> int:
    if number < 0:
        raise CardDeclined(f"{number} is below 0")
    return await double(number) + await continuum.wait_signal("more", int)


@workflow(name="golden.children")
async def children() -> list[Any]:
    named = await continuum.start_child(child, 1, id="named")
    others = [await continuum.start_child(child, number) for number in (2, -1)]
    await named.signal("more", 10)
    await others[0].cancel()
    return [str(ending) for ending in await asyncio.gather(named, *others, return_exceptions=True)]


@workflow(name="golden.endless")
async def endless(month: int) -> str:
    kept = await continuum.wait_signal("note", str, timeout=timedelta(days=30))
    if month < 3:
        continuum.continue_as_new(month + 1)
    return f"month {month}: {kept}"


async def three_months(env: Environment, run: RunHandle[Any]) -> None:
    await run.signal("note", "one")
    await run.signal("note", "two")
    await run.signal("note", "three")


@workflow(name="golden.patched")
async def patched() -> list[Any]:
    notes = [continuum.patched("double twice")]
    first = await double(1)
    return [*notes, await double(first) if notes[0] else first, continuum.patched("double twice")]


@activity(name="golden.refund")
async def refund(charge: str) -> str:
    return f"refunded {charge}"


@activity(name="golden.release", retry=Retry(max_attempts=1))
async def release(order: str) -> None:
    raise CardDeclined(f"{order} cannot be released")


@activity(name="golden.charge", compensate=refund)
async def charge(order: str) -> str:
    return f"charge of {order}"


@activity(name="golden.reserve", retry=Retry(max_attempts=1))
async def reserve(order: str) -> None:
    raise TimeoutError(f"{order} may be reserved, or not")


@workflow(name="golden.compensation")
async def compensation(waits_for: str | None) -> list[str]:
    await charge("o-1")
    try:
        async with continuum.saga():
            await charge("o-2")
            await reserve.options(compensate=release.bound("o-3"))("o-3")
    except continuum.ActivityFailed as error:
        if waits_for is not None:
            await continuum.wait_signal(waits_for)
        return [str(failed) for failed in await continuum.compensate_all()] + [str(error)]
    return []


async def cancelled_in_good_order(env: Environment, run: RunHandle[Any]) -> None:
    await run.cancel(compensate=True)


async def cancelled(env: Environment, run: RunHandle[Any]) -> None:
    await run.cancel()


async def an_hour_and_a_bit(env: Environment, run: RunHandle[Any]) -> None:
    await env.advance(3700)


FEATURES = (
    Feature("activities", activities, (3,)),
    Feature("retries", retries, story=an_hour_and_a_bit),
    Feature("timers", timers, story=an_hour_and_a_bit),
    Feature("signals", signals, story=four_signals),
    Feature("side_effects", side_effects),
    Feature("chance", chance),
    Feature("withdrawn", withdrawn),
    Feature("children", children),
    Feature("endless", endless, (1,), story=three_months),
    Feature("patched", patched),
    Feature("compensation", compensation, (None,)),
    Feature("undone", compensation, ("nobody",), story=cancelled_in_good_order, state="cancelled"),
    Feature("failed", fails, state="failed"),
    Feature("cancelled", waits, story=cancelled, state="cancelled"),
    Feature("suspended", waits, state="suspended"),
)
