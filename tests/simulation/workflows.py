"""What runs in the simulation: a workflow that plays a script of steps, and a model that says what may come of it.

A step is text, like `add:0.5` or `hear:note:2`: a kind and what it takes. The result of a run is one word per step.
The model does not run any code of the library: it reads the history and says which words it allows.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Protocol

import continuum
from continuum import ActivityContext, ActivityFailed, Retry, SignalTimedOut, activity, activity_context, workflow
from continuum.clock import Clock
from continuum.model.events import Event, EventType

PATIENT = Retry(max_attempts=8, initial=0.1, max_delay=1.0)
FRAIL = Retry(max_attempts=1)
FAILED, LATE, LOST = "failed", "late", "lost"

entropy = Random(0)  # of side effects: seeded once per simulation, so a second call would give another value


class Hands(Protocol):
    """What activities get from the node that performs them, as `activity_context().state`."""

    clock: Clock

    def began(self, context: ActivityContext) -> None:
        """Take note of an attempt."""
        ...


def _hands() -> Hands:
    context = activity_context()
    hands: Hands = context.state
    hands.began(context)
    return hands


@activity(name="simulation.add", retry=PATIENT)
async def add(number: int, seconds: float) -> int:
    await _hands().clock.sleep(seconds)
    return number + 1


@activity(name="simulation.frail", retry=FRAIL, queue="narrow")
async def frail(number: int, seconds: float) -> int:
    await _hands().clock.sleep(seconds)
    return number + 1


@activity(name="simulation.flaky", retry=PATIENT)
async def flaky(failures: int) -> str:
    hands = _hands()
    await hands.clock.sleep(0.05)
    if activity_context().attempt <= failures:
        raise ValueError(f"attempt {activity_context().attempt} fails")
    return "flaky"


@activity(name="simulation.doomed", retry=Retry(max_attempts=3, non_retryable=(KeyError,)))
async def doomed(seconds: float) -> str:
    await _hands().clock.sleep(seconds)
    raise KeyError("always")


@activity(name="simulation.brief", retry=Retry(max_attempts=2, initial=0.2), timeout=0.5)
async def brief() -> str:
    await _hands().clock.sleep(5.0)
    return "never"


@activity(name="simulation.beating", retry=PATIENT, heartbeat_timeout=2.0)
async def beating(beats: int) -> str:
    hands, context = _hands(), activity_context()
    done = context.last_heartbeat or 0
    while done < beats:
        await hands.clock.sleep(0.4)
        done += 1
        context.heartbeat(done)
    return f"beaten {done}"


# --- the steps --------------------------------------------------------------------------------------------------------


async def _add(seconds: str) -> str:
    return str(await add(1, float(seconds)))


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
async def script(nonce: str, steps: list[str]) -> list[str]:
    words = []
    for step in steps:
        kind, *arguments = step.split(":")
        try:
            words.append(await STEPS[kind](*arguments))
        except ActivityFailed:
            words.append(FAILED)
    return words


WORKFLOWS = [script]
ACTIVITIES = [add, frail, flaky, doomed, brief, beating]


# --- the model --------------------------------------------------------------------------------------------------------


class Facts:
    """What a history says that the results depend on, each told once."""

    def __init__(self, history: Sequence[Event]) -> None:
        self.failures = sum(event.type is EventType.ACTIVITY_FAILED for event in history)
        self._values = [_value(event) for event in history if event.type is EventType.SIDE_EFFECT_RECORDED]
        self._signals: dict[str, list[str]] = {}
        for event in history:
            if event.type is EventType.SIGNAL_RECEIVED:
                self._signals.setdefault(event.name or "", []).append(str(_value(event)))

    def effect(self) -> str:
        """Return the next side effect's value."""
        return str(self._values.pop(0))

    def signal(self, name: str) -> str | None:
        """Return the next signal of a name."""
        queue = self._signals.get(name)
        return queue.pop(0) if queue else None


def _value(event: Event) -> object:
    return json.loads(event.payload or b"null")


def explain(steps: Sequence[str], words: Sequence[str], history: Sequence[Event]) -> str | None:
    """Return what is wrong with a completed run's result, or None."""
    facts = Facts(history)
    if "raise" in steps:
        return "it must have failed"
    if len(words) != len(steps):
        return f"{len(words)} words for {len(steps)} steps"
    for step, word in zip(steps, words, strict=True):
        allowed = _allowed(step, word, facts)
        if word not in allowed:
            return f"step {step} gave {word!r}, allowed are {allowed}"
    return None


def _allowed(step: str, word: str, facts: Facts) -> list[str | None]:
    kind, *arguments = step.split(":")
    match kind:
        case "nap":
            return ["nap"]
        case "effect":
            return [facts.effect()]
        case "hear":
            return [LATE] if word == LATE and len(arguments) > 1 else [facts.signal(arguments[0])]
        case "both":
            return [f"{facts.signal(arguments[0])},2", *_failed(facts)]
        case "either":
            return [word if word in {"2", *_failed(facts)} else facts.signal(arguments[0])]
        case "group" | "doomed" | "brief":
            return [FAILED]
        case "race":
            return ["2", LOST, *_failed(facts)]
        case "fan":
            return [",".join(str(number + 1) for number in range(int(arguments[0]))), *_failed(facts)]
        case "flaky":
            return ["flaky", *_failed(facts)]
        case "beating":
            return [f"beaten {arguments[0]}", *_failed(facts)]
        case _:
            return ["2", *_failed(facts)]


def _failed(facts: Facts) -> list[str | None]:
    return [FAILED] if facts.failures else []
