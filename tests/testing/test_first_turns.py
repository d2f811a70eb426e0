"""What a run's first turn cannot write is written by whoever claims it: at once, though no loop polls."""

import asyncio

import pytest

import continuum
from continuum import RunBlocked, workflow
from continuum.testing import environment


@workflow
async def counts_down(left: int) -> int:
    if left:
        continuum.continue_as_new(left - 1)
    return left


@workflow(purity="off")
async def broken() -> None:
    raise AttributeError("a bug")


async def test_a_run_may_continue_in_its_first_turn() -> None:
    async with environment():
        run = await continuum.start(counts_down, 3)
        assert await asyncio.wait_for(run.result(), 10) == 0


async def test_a_bug_in_the_first_turn_blocks_at_once() -> None:
    async with environment():
        run = await continuum.start(broken)
        with pytest.raises(RunBlocked, match="a bug"):
            await asyncio.wait_for(run.result(), 10)
