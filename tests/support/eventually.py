"""Waiting for a state, with a deadline: the only way in which a test may wait."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

WITHIN_SECONDS = 15.0  # generous: a shared machine may stand still for seconds, and who passes does not wait
PAUSE_SECONDS = 0.01


@overload
async def eventually(claim: Callable[[], Awaitable[T]], *, within: float = ...) -> T: ...
@overload
async def eventually(claim: Callable[[], T], *, within: float = ...) -> T: ...
async def eventually(claim: Callable[[], Any], *, within: float = WITHIN_SECONDS) -> Any:
    """Ask until the answer is truthy, and return it; fail with the last answer when the time is up."""
    deadline = time.monotonic() + within
    while True:
        answer = claim()
        seen = await answer if inspect.isawaitable(answer) else answer
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {inspect.getsource(claim).strip()} (last: {seen!r})")
        await asyncio.sleep(PAUSE_SECONDS)
