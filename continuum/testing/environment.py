"""An in-memory instance whose time is virtual: a year's sleep takes a millisecond.

Nothing polls and nothing is random. With `auto`, time jumps to the next deadline whenever no turn, no attempt and no
commit is under way and somebody waits for a run; without it, only `advance` moves time. Activities run for real (or
their fakes do): while one runs, time stands still.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

from continuum.client.reading import HistoryEvent
from continuum.clock import VirtualClock
from continuum.composition.building import instances, memory_instance
from continuum.composition.children import children_of
from continuum.composition.instance import Instance
from continuum.composition.instances import DEFAULT
from continuum.composition.options import settings_of
from continuum.composition.wiring import Wiring, World
from continuum.definitions.activity import Activity
from continuum.definitions.catalog import catalog
from continuum.definitions.handles import RunHandle
from continuum.ids import uuid7
from continuum.journal.memory import MemoryStore
from continuum.model.policy import Duration, seconds

QUIET_PASSES = 3  # of the host's loop with nothing to do, before time may move
REAL_PAUSE_SECONDS = 0.001  # between looks at an attempt that waits for the real world


class Environment:
    """What `environment()` gives: the clock and the instances of a test."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.running: dict[str, Instance] = {}

    @property
    def now(self) -> datetime:
        """The virtual time: aware, UTC."""
        return self._clock.now()

    def instance(self, name: str = DEFAULT) -> Instance:
        """Return one of the instances."""
        return self.running[name]

    async def history(self, run: RunHandle[Any] | str, *, instance: str = DEFAULT) -> list[HistoryEvent]:
        """Return the history of a run.

        Raises:
            RunNotFound: there is none of this id.
        """
        run_id = run if isinstance(run, str) else run.run_id
        return await self.running[instance].history(run_id)

    async def advance(self, duration: Duration) -> None:
        """Move time on, doing everything that becomes due in order, and wait until all is quiet.

        Args:
            duration: seconds or timedelta.
        """
        target = self._clock.monotonic() + seconds(duration, name="duration")
        await self.settle()
        while (due := self._clock.next_deadline()) is not None and due <= target:
            self._clock.move_to(due)
            await self.settle()
        self._clock.move_to(target)
        await self.settle()

    async def settle(self) -> None:
        """Wait until no turn, no attempt and no commit is under way."""
        quiet = 0
        while quiet < QUIET_PASSES:
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._is_quiet else 0
            if any(wiring.attempts.running for wiring in self.wirings):
                await asyncio.sleep(REAL_PAUSE_SECONDS)

    @property
    def wirings(self) -> list[Wiring]:
        """The running instances' parts."""
        return [instance.wiring for instance in self.running.values() if instance.wiring is not None]

    @property
    def _is_quiet(self) -> bool:
        return all(wiring.is_quiet for wiring in self.wirings)

    @property
    def _is_awaited(self) -> bool:
        return any(wiring.awaiting.waiters for wiring in self.wirings)

    async def jump(self) -> None:
        """Move time to the next deadline whenever somebody waits and nothing else can happen."""
        while True:
            await self.settle()
            due = self._clock.next_deadline()
            if due is not None and self._is_awaited:
                self._clock.move_to(due)
            else:
                await asyncio.sleep(REAL_PAUSE_SECONDS)


@asynccontextmanager
async def environment(
    *,
    names: Sequence[str] = (DEFAULT,),
    activities: Mapping[Activity[..., Any], Callable[..., Any]] | None = None,
    state: Any = None,
    auto: bool = True,
) -> AsyncIterator[Environment]:
    """Run in-memory instances in virtual time, registered under `names` while the block lasts.

    Args:
        names: instance names; the verbs find them as they find real ones.
        activities: functions that are performed instead of activities; they get the same arguments.
        state: what `activity_context().state` gives.
        auto: move time by itself whenever somebody waits for a run and nothing else can happen.

    Raises:
        ConfigurationError: a running instance has one of the names.
    """
    clock = VirtualClock()
    world = World(
        clock=clock,
        draw=random.Random(0),
        new_id=uuid7,
        catalog=catalog(),
        is_threaded=False,
        has_pollers=False,
        fakes={activity.name: _fake(activity, fn) for activity, fn in (activities or {}).items()},
    )
    env = Environment(clock)
    replaced = {name: known for name in names if (known := instances.known(name)) is not None}
    async with AsyncExitStack() as stack:
        stack.callback(_put_back, replaced, names)
        for name in names:
            settings = settings_of(name, {"state": state})
            instance = memory_instance(settings, MemoryStore(clock), lambda: world)
            await stack.enter_async_context(children_of(instance))
            env.running[name] = instance
        jumper = asyncio.get_running_loop().create_task(env.jump()) if auto else None
        try:
            yield env
        finally:
            if jumper is not None:
                jumper.cancel()
                await asyncio.gather(jumper, return_exceptions=True)
            for wiring in env.wirings:  # what still waits in virtual time must not hold the stop up
                wiring.settings.values["drain_timeout"] = 0.0


def _put_back(replaced: Mapping[str, Instance], names: Sequence[str]) -> None:
    for name in names:
        known = instances.known(name)
        if known is not None:
            instances.remove(name, known)
        if name in replaced:
            instances.register(name, replaced[name], is_running=False)


def _fake(activity: Activity[..., Any], fn: Callable[..., Any]) -> Activity[..., Any]:
    if isinstance(fn, Activity):
        fn = fn.fn
    fake: Activity[..., Any] = object.__new__(Activity)
    fake.__dict__.update(activity.__dict__)
    fake.fn = fn
    fake.is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)
    return fake
