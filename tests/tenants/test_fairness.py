"""One process, many tenants: who has much to do does not keep the others waiting. Turns are counted, not timed."""

import asyncio
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

import continuum
from continuum import activity, workflow
from continuum.clock import SystemClock
from continuum.composition.building import memory_instance, real_world
from continuum.composition.children import Children, children_of
from continuum.composition.options import settings_of
from continuum.journal.memory import MemoryStore
from continuum.runtime.passes import CALLS_MAX, Passes
from tests.support.eventually import eventually
from tests.support.hosting import QUICK
from tests.support.stage import Stage

turns: list[str] = []  # whose turn it was, in order
enough: list[bool] = []  # the busy ones may end


@workflow(purity="off")  # it is counted how often it gets on, replays and all
async def counting(steps: int) -> int:
    for _ in range(steps):
        if enough and continuum.info().instance != "quiet":
            break
        turns.append(continuum.info().instance)
        await touch()
    return steps


@activity
async def touch() -> None:
    pass


@pytest.fixture(autouse=True)
def _counted() -> Iterator[None]:
    yield
    turns.clear()
    enough.clear()


def tenant(name: str, **options: Any) -> Children:
    settings = settings_of(name, {**QUICK, **options})
    return children_of(memory_instance(settings, MemoryStore(SystemClock()), real_world))


# --- the rule ---------------------------------------------------------------------------------------------------------


async def passes_of(stage: Stage, count: int) -> list[Passes]:
    """The passes of several instances on this loop."""
    nodes = [await stage.still() for _ in range(count)]
    return [Passes(node.parts.node) for node in nodes]


async def test_one_that_is_alone_makes_a_whole_batch_in_a_pass(stage: Stage) -> None:
    (alone,) = await passes_of(stage, 1)
    made: list[int] = []
    for n in range(CALLS_MAX + 10):
        alone.soon(partial(made.append, n))
    await asyncio.sleep(0)
    assert len(made) == CALLS_MAX
    await asyncio.sleep(0)
    assert made == list(range(CALLS_MAX + 10))


@pytest.mark.parametrize("busy", [1, 4, CALLS_MAX + 50])
async def test_a_turn_waits_for_one_pass_of_all_whatever_they_have_to_do(stage: Stage, busy: int) -> None:
    """Each busy tenant has a hundred passes' worth of turns; a quiet one asks for a turn again and again."""
    *many, quiet = await passes_of(stage, busy + 1) if busy < 10 else _alike(await passes_of(stage, 1), busy + 1)
    made: list[str] = []
    for one in many:
        for _ in range(100 * CALLS_MAX // busy):
            one.soon(lambda: made.append("busy"))
    waited: list[int] = []

    def note(before: int) -> None:
        waited.append(len(made) - before)

    for asked in range(10):
        quiet.soon(partial(note, len(made)))
        while len(waited) == asked:
            await asyncio.sleep(0)
    assert max(waited) <= CALLS_MAX + busy
    assert len(made) < 100 * CALLS_MAX  # so there was somebody to wait for, all the while


def _alike(passes: list[Passes], count: int) -> list[Passes]:
    return [Passes(passes[0]._node) for _ in range(count)]


async def test_a_call_that_fails_costs_the_others_nothing_and_the_share_is_right_afterwards(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    one, other = await passes_of(stage, 2)
    made: list[int] = []

    def fail() -> None:
        raise RuntimeError("a bug")

    for n in range(20):
        one.soon(partial(made.append, n) if n != 3 else fail)
    for _ in range(3):
        await asyncio.sleep(0)
    assert made == [n for n in range(20) if n != 3]
    assert (one._crowd is other._crowd, one._crowd.busy) == (True, 0)


# --- instances --------------------------------------------------------------------------------------------------------


async def test_a_quiet_tenant_gets_its_turns_among_twenty_busy_ones() -> None:
    """Two thousand runs of twenty tenants are under way; a run of the quiet one takes ten steps among theirs."""
    busy = {f"busy-{n}": tenant(f"busy-{n}", activity_supervisor={"max_concurrency": 100}) for n in range(20)}
    quiet = tenant("quiet")
    runs = []
    async with continuum.lifespan(*busy.values(), quiet, on_sigterm=False):
        for name in busy:
            runs += await continuum.start_many(counting, [1_000] * 100, instance=name)
        await eventually(lambda: len(set(turns)) == len(busy))
        turns.clear()
        assert await (await continuum.start(counting, 10, instance="quiet")).result(timeout=30) == 10
        among = list(turns)
        enough.append(True)
        await asyncio.gather(*(run.result(timeout=30) for run in runs))
    for one in (*busy.values(), quiet):
        one.forget()
    places = [place for place, name in enumerate(among) if name == "quiet"]
    gaps = [after - before - 1 for before, after in pairwise(places)]
    assert len(places) == 10
    # A step takes three passes of the loop: a turn, its commit and its attempt, each behind a share of everybody's.
    assert max(gaps) <= 4 * (CALLS_MAX + len(busy))
    assert max(gaps) < len(runs)  # and not behind everybody's every turn
