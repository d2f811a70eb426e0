"""What runs in the simulation: a workflow that plays a script of steps.

A step is text, like `add:0.5` or `hear:note:2`: a kind and what it takes. The result of a run is one word per step, of
all its generations.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from random import Random

import continuum
from continuum import ActivityFailed, Retry, SignalTimedOut, activity, activity_context, workflow
from tests.simulation import kin
from tests.simulation.hands import PATIENT, hands
from tests.simulation.kin import KIN, KIN_ACTIVITIES, NEXT, Place
from tests.simulation.payments import pay

FRAIL = Retry(max_attempts=1)
FAILED, LATE, LOST = "failed", "late", "lost"

entropy = Random(0)  # of side effects: seeded once per simulation, so a second call would give another value


@activity(name="simulation.add", retry=PATIENT)
async def add(number: int, seconds: float) -> int:
    await hands().clock.sleep(seconds)
    return number + 1


@activity(name="simulation.frail", retry=FRAIL, queue="narrow")
async def frail(number: int, seconds: float) -> int:
    await hands().clock.sleep(seconds)
    return number + 1


@activity(name="simulation.flaky", retry=PATIENT)
async def flaky(failures: int) -> str:
    await hands().clock.sleep(0.05)
    if activity_context().attempt <= failures:
        raise ValueError(f"attempt {activity_context().attempt} fails")
    return "flaky"


@activity(name="simulation.doomed", retry=Retry(max_attempts=3, non_retryable=(KeyError,)))
async def doomed(seconds: float) -> str:
    await hands().clock.sleep(seconds)
    raise KeyError("always")


@activity(name="simulation.brief", retry=Retry(max_attempts=2, initial=0.2), timeout=0.5)
async def brief() -> str:
    await hands().clock.sleep(5.0)
    return "never"


@activity(name="simulation.beating", retry=PATIENT, heartbeat_timeout=2.0)
async def beating(beats: int) -> str:
    own, context = hands(), activity_context()
    done = context.last_heartbeat or 0
    while done < beats:
        await own.clock.sleep(0.4)
        done += 1
        context.heartbeat(done)
    return f"beaten {done}"


# --- the steps --------------------------------------------------------------------------------------------------------


async def _add(seconds: str) -> str:
    return str(await add(1, float(seconds)))


async def _pay(seconds: str) -> str:
    return str(await pay(1, float(seconds)))


async def _frail(seconds: str) -> str:
    return str(await frail(1, float(seconds)))


async def _flaky(failures: str) -> str:
    return await flaky(int(failures))


async def _doomed() -> str:
    return await doomed(0.1)


async def _brief() -> str:
    return await brief()


async def _beating(beats: str) -> str:
    return await beating(int(beats))


async def _nap(seconds: str) -> str:
    before = continuum.now()
    await asyncio.sleep(float(seconds))
    assert (continuum.now() - before).total_seconds() >= float(seconds) - 0.001
    return "nap"


async def _fan(count: str) -> str:
    return ",".join(str(one) for one in await asyncio.gather(*(add(n, 0.1 * n) for n in range(int(count)))))


async def _group(count: str) -> str:
    """One fails, and the others are withdrawn while they run or before they begin."""
    word = "unreachable"
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(int(count)):
                group.create_task(_adding(number))
            group.create_task(_doomed())
    except* ActivityFailed:
        word = FAILED
    return word


async def _adding(number: int) -> int:
    return await add(number, 3.0)


async def _race(limit: str) -> str:
    try:
        async with asyncio.timeout(float(limit)):
            return str(await add(1, 1.0))
    except TimeoutError:
        return LOST


async def _hear(name: str, limit: str = "") -> str:
    try:
        return await continuum.wait_signal(name, str, timeout=float(limit) if limit else None)
    except SignalTimedOut:
        return LATE


async def _both(name: str) -> str:
    return ",".join(await asyncio.gather(_hear(name), _add("0.3")))


async def _either(name: str, seconds: str) -> str:
    """Whichever comes first; a signal that was not waited for to the end stays for the next who waits."""
    heard, added = asyncio.create_task(_hear(name)), asyncio.create_task(_add(seconds))
    await asyncio.wait([heard, added], return_when=asyncio.FIRST_COMPLETED)
    first, other = (heard, added) if heard.done() else (added, heard)
    other.cancel()
    return await first


async def _effect() -> str:
    return str(await continuum.side_effect(lambda: entropy.getrandbits(40)))


async def _raise() -> str:
    raise ValueError("as the script says")


STEPS: dict[str, Callable[..., Awaitable[str]]] = {
    "add": _add,
    "pay": _pay,
    "frail": _frail,
    "flaky": _flaky,
    "doomed": _doomed,
    "brief": _brief,
    "beating": _beating,
    "nap": _nap,
    "fan": _fan,
    "group": _group,
    "race": _race,
    "hear": _hear,
    "both": _both,
    "either": _either,
    "effect": _effect,
    "raise": _raise,
}


@workflow(name="simulation.script")
async def script(nonce: str, steps: list[str], words: list[str] | None = None) -> list[str]:
    said = words or []
    for place, step in enumerate(steps):
        kind, _, rest = step.partition(":")
        if kind == "next":
            await kin.leave_open(Place(script, nonce, len(said)), rest)
            continuum.continue_as_new(nonce, steps[place + 1 :], [*said, NEXT])
        try:
            if kind in KIN:
                said.append(await KIN[kind](Place(script, nonce, len(said)), rest))
            else:
                said.append(await STEPS[kind](*rest.split(":") if rest else ()))
        except ActivityFailed:
            said.append(FAILED)
    return said


@workflow(name="simulation.ticks")
async def ticks(schedule_id: str, moment: datetime, seconds: float) -> str:
    """What schedules start."""
    await add(1, seconds)
    return f"{schedule_id} at {moment.isoformat()}"


WORKFLOWS = [script, ticks]
ACTIVITIES = [add, frail, flaky, doomed, brief, beating, pay, *KIN_ACTIVITIES]
