"""What can be read of the running instances at any moment: what lives here, and the census of what stands in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from concurrent.futures import CancelledError, Future
from time import perf_counter

from continuum.composition.building import instances
from continuum.composition.instance import Instance
from continuum.composition.wiring import Wiring
from continuum.model.census import Census
from continuum.model.states import RunState
from continuum.telemetry.metrics import (
    ATTEMPTS_RUNNING,
    QUEUE_AGE,
    QUEUE_DELAYED,
    QUEUE_DEPTH,
    READY,
    RUNS_ACTIVE,
    RUNS_RESIDENT,
    Gauge,
)

# All that there can be: a series that comes and goes is hard to draw, and harder to alert on.
OPEN = (
    (RunState.PENDING, ""),
    (RunState.RUNNING, ""),
    (RunState.SUSPENDED, "timer"),
    (RunState.SUSPENDED, "message"),
    (RunState.CANCELLING, ""),
    (RunState.BLOCKED, ""),
)
PATIENCE_SECONDS = 1.0  # for a database that is slow: a scrape must not wait for it


async def gauges(names: Collection[str] | None = None) -> list[Gauge]:
    """Read all gauges of the instances of these names (None: of all) that run on this loop or another."""
    running = _running(names)
    censuses = await asyncio.gather(*(_census(wiring) for _, wiring in running))
    return [*_not_ready(names)] + [
        one
        for (instance, wiring), census in zip(running, censuses, strict=True)
        for one in _of(instance, wiring, census)
    ]


def latest_gauges(names: Collection[str] | None = None) -> list[Gauge]:
    """Do the same for a caller who cannot await.

    From a thread of its own it waits for the census, not for long; on an instance's loop it takes the last one, and the
    next one is begun.
    """
    running = _running(names)
    asked = [_asked(wiring) for _, wiring in running]  # all of them, before the first is waited for
    until = perf_counter() + PATIENCE_SECONDS
    return [*_not_ready(names)] + [
        one
        for (instance, wiring), taking in zip(running, asked, strict=True)
        for one in _of(instance, wiring, _answer(taking, until) if isinstance(taking, Future) else taking)
    ]


def _known(names: Collection[str] | None) -> list[Instance]:
    known = (instances.known(name) for name in (instances.names if names is None else sorted(names)))
    return [one for one in known if one is not None]


def _running(names: Collection[str] | None) -> list[tuple[Instance, Wiring]]:
    return [(one, one.wiring) for one in _known(names) if one.wiring is not None]


def _not_ready(names: Collection[str] | None) -> list[Gauge]:
    """Return the gauges of those that were entered and wait for their database: an alert must see them."""
    return [
        (READY, 0.0, (one.name,))
        for one in _known(names)
        if one.wiring is None and one.late is not None and one.late.is_waited_for
    ]


async def _census(wiring: Wiring) -> Census | None:
    if wiring.node.loop.is_closed():  # the instance was not left, and its loop is gone
        return None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            if asyncio.get_running_loop() is wiring.node.loop:
                return await wiring.client.census.taken()
            return await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(wiring.client.census.taken(), wiring.node.loop)
            )
    except TimeoutError:
        return None


def _asked(wiring: Wiring) -> Future[Census | None] | Census | None:
    """Ask for the census; where nobody can wait for it, return the last one."""
    loop = wiring.node.loop
    if loop.is_closed():  # the instance was not left, and its process is about to end
        return None
    if asyncio._get_running_loop() is not None or wiring.node.is_draining:
        loop.call_soon_threadsafe(wiring.client.census.ask)
        return wiring.client.census.latest
    return asyncio.run_coroutine_threadsafe(wiring.client.census.taken(), loop)


def _answer(taking: Future[Census | None], until: float) -> Census | None:
    try:
        return taking.result(max(until - perf_counter(), 0.0))
    except (TimeoutError, CancelledError):  # the database is slow, or the instance is being left
        taking.cancel()
        return None


def _of(instance: Instance, wiring: Wiring, census: Census | None) -> Iterator[Gauge]:
    name = instance.name
    yield READY, float(instance.readiness().state == "ready"), (name,)
    yield RUNS_RESIDENT, float(len(wiring.registry)), (name,)
    yield ATTEMPTS_RUNNING, float(wiring.attempts.running), (name,)
    if census is None:
        return
    counted = {(count.state, count.waits_for): count.runs for count in census.runs}
    for state, waits_for in OPEN:
        yield RUNS_ACTIVE, float(counted.get((state, waits_for), 0)), (name, state.value, waits_for)
    for depth in census.queues:
        yield QUEUE_DEPTH, float(depth.due), (name, depth.queue)
        yield QUEUE_DELAYED, float(depth.delayed), (name, depth.queue)
        yield QUEUE_AGE, depth.oldest_age_seconds, (name, depth.queue)
