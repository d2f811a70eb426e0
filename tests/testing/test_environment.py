"""The environment: real verbs on an in-memory journal, in virtual time."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import continuum
from continuum import Retry, activity, workflow
from continuum.journal.memory import MemoryJournal
from continuum.testing import environment
from tests.testing.flows import charge, fulfil, ship


@activity
async def whereami() -> list[Any]:
    context = continuum.activity_context()
    return [context.instance, context.state, context.attempt]


@activity(name="kit.flaky", retry=Retry(max_attempts=3, initial=3600, max_delay=7200, jitter=0))
async def flaky(n: int) -> int:
    raise AssertionError("a fake stands in for it")


@workflow
async def looks_around() -> list[Any]:
    return await whereami()


@workflow
async def tries(n: int) -> int:
    return await flaky(n)


@workflow
async def naps(seconds: float) -> str:
    before = continuum.now()
    await asyncio.sleep(seconds)
    return str(continuum.now() - before)


async def test_a_year_passes_while_somebody_waits() -> None:
    async with environment() as env:
        before = env.now
        run = await continuum.start(naps, 365 * 86_400)
        assert await run.result() == "365 days, 0:00:00"
        assert env.now - before == timedelta(days=365)


async def test_time_stands_still_while_nobody_waits() -> None:
    async with environment() as env:
        before = env.now
        run = await continuum.start(naps, 1)
        await env.settle()
        assert (env.now, (await run.status()).state) == (before, "suspended")


async def test_without_auto_only_advance_moves_time() -> None:
    async with environment(auto=False) as env:
        run = await continuum.start(naps, 3600)
        waiting = asyncio.create_task(run.result())
        await env.advance(timedelta(minutes=59))
        assert not waiting.done()
        await env.advance(60)
        assert waiting.done()
        assert await waiting == "1:00:00"
        assert env.now == datetime(2026, 1, 1, 1, tzinfo=UTC)


async def test_advancing_does_what_becomes_due_in_its_order_and_at_its_time() -> None:
    async with environment(auto=False) as env:
        runs = [await continuum.start(naps, seconds) for seconds in (30, 10, 20)]
        await env.advance(60)
        ended = [(await run.status()).ended_at for run in runs]
        assert ended == [datetime(2026, 1, 1, 0, 0, seconds, tzinfo=UTC) for seconds in (30, 10, 20)]


async def test_verbs_wait_in_virtual_time() -> None:
    async with environment() as env:
        run = await continuum.start(naps, 7200)
        with pytest.raises(continuum.ResultTimedOut):
            await run.result(timeout=3600)
        assert env.now.hour == 1


@pytest.mark.parametrize("kind", ["function", "coroutine function", "activity", "object"])
async def test_a_fake_is_performed_instead(kind: str) -> None:
    def plain(order: str, cents: int) -> str:
        return f"fake {order} {cents}"

    async def coroutine(order: str, cents: int) -> str:
        return plain(order, cents)

    class Recorder:
        async def __call__(self, order: str, cents: int) -> str:
            return plain(order, cents)

    fakes: dict[str, Any] = {
        "function": plain,
        "coroutine function": coroutine,
        "activity": activity(name="kit.fake")(coroutine),
        "object": Recorder(),
    }
    async with environment(activities={charge: fakes[kind], ship: lambda order: "no label"}):
        run = await continuum.start(fulfil, "o-1", 5)
        await run.signal("approved", True)
        assert await run.result() == ["fake o-1 5", "no label"]


async def test_a_fake_is_retried_by_the_policy_of_what_it_stands_for() -> None:
    tried: list[int] = []

    def fails_twice(n: int) -> int:
        tried.append(n)
        if len(tried) < 3:
            raise ConnectionError
        return n

    async with environment(activities={flaky: fails_twice}) as env:
        before = env.now
        assert await (await continuum.start(tries, 7)).result() == 7
        assert env.now - before == timedelta(hours=3)


@pytest.mark.parametrize("wrong", [{"charge": lambda: 1}, {charge: "paid"}, {fulfil: lambda: 1}])
async def test_what_is_no_fake_is_refused(wrong: Any) -> None:
    with pytest.raises(continuum.ConfigurationError, match=r"\{charge: fake_charge\}"):
        async with environment(activities=wrong):
            pass


async def test_every_name_is_an_instance_of_its_own_and_vanishes() -> None:
    async with environment(names=("orders", "billing"), state="the state") as env:
        ones = [await continuum.start(looks_around, instance=name) for name in ("orders", "billing")]
        assert [await run.result() for run in ones] == [["orders", "the state", 1], ["billing", "the state", 1]]
        with pytest.raises(continuum.RunNotFound):
            await continuum.get_run(ones[0].run_id, instance="billing")
        assert [event.type for event in await env.history(ones[1], instance="billing")][-1] == "completed"
        assert env.instance("orders") is continuum.instance("orders")
        with pytest.raises((continuum.InstanceNotRegistered, continuum.InstanceNotStarted)):  # one may rest there
            await continuum.start(looks_around)
    with pytest.raises(continuum.InstanceNotRegistered):
        continuum.instance("orders")


async def test_a_name_that_runs_already_is_refused_and_one_that_rests_comes_back() -> None:
    async with environment(names=("orders",)):
        with pytest.raises(continuum.ConfigurationError, match="orders"):
            async with environment(names=("orders",)):
                pass
    async with environment(names=("orders",)) as env:
        resting = env.instance("orders")
    from continuum.composition.building import instances

    instances.register("orders", resting, is_running=False)
    try:
        async with environment(names=("orders",)):
            assert continuum.instance("orders") is not resting
        assert continuum.instance("orders") is resting
    finally:
        instances.remove("orders", resting)


async def test_with_a_seed_everything_is_the_same_again() -> None:
    @workflow
    async def draws() -> list[Any]:
        return [continuum.random().random(), str(continuum.uuid4())]

    async def once(seed: int | None) -> tuple[str, Any]:
        async with environment(seed=seed):
            run = await continuum.start(draws)
            return run.run_id, await run.result()

    assert await once(7) == await once(7) != await once(8)
    assert await once(None) != await once(None)


# P99
async def test_nothing_polls_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    step = MemoryJournal._step

    async def counted(self: MemoryJournal, do: Any, *args: Any, **options: Any) -> Any:
        asked.append(do.__name__)
        return await step(self, do, *args, **options)

    async with environment(auto=False) as env:
        parked = await continuum.start(naps, 86_400 * 365)
        await env.settle()
        monkeypatch.setattr(MemoryJournal, "_step", counted)
        await env.advance(timedelta(days=300))
        assert asked == []
        monkeypatch.undo()
        assert (await parked.status()).state == "suspended"


async def test_an_environment_is_left_at_once_whatever_still_goes_on() -> None:
    @activity
    async def hangs() -> None:
        await asyncio.Event().wait()

    @workflow
    async def waits() -> None:
        await hangs()

    async with environment(auto=False):
        await continuum.start(waits)
        await continuum.start(naps, 10)


async def test_real_randomness_is_not_touched() -> None:
    random.seed(1)
    expected = random.random()
    random.seed(1)
    async with environment(seed=3):
        await (await continuum.start(naps, 1)).result()
    assert random.random() == expected


async def test_turns_can_be_guarded(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("7")

    @workflow(purity="off")
    async def reads(path: str) -> str:
        await asyncio.sleep(1)
        return Path(path).read_text()

    async with environment() as _:
        assert await (await continuum.start(reads, str(path))).result() == "7"
    async with environment(guard="raise") as _:
        with pytest.raises(continuum.RunBlocked, match="a workflow's turn reached for the real world, open"):
            await (await continuum.start(reads, str(path))).result()
