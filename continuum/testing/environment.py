"""An in-memory instance whose time is virtual: a year's sleep takes a millisecond.

Nothing polls, and what is drawn at random is drawn from `seed`. With `auto`, time jumps to the next deadline whenever no turn, no attempt and no
commit is under way and somebody waits for a run; without it, only `advance` moves time. Activities run for real (or
their fakes do): while one runs, time stands still. Who waits for a run that nothing can wake is told so (`standstill`).
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from continuum.client.reading import History
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
from continuum.definitions.workflow import Workflow
from continuum.errors import ConfigurationError
from continuum.ids import seeded_ids, uuid7
from continuum.journal.memory import MemoryJournal, MemoryStore
from continuum.model.policy import Duration, seconds
from continuum.replay.guard import GuardMode
from continuum.replay.machine import Machine
from continuum.testing.paranoia import Paranoia, WatchedJournal
from continuum.testing.rehearsing import rehearsals_on
from continuum.testing.standstill import Watch, standstill

QUIET_PASSES = 3  # of the host's loop with nothing to do, before time may move
LEAVING_PASSES = 50  # of the host's loop, while instances stop, before time moves on: enough for every ordinary stop
REAL_PAUSE_SECONDS = 0.001  # between looks at an attempt that waits for the real world
PARANOID = "CONTINUUM_PARANOID"  # set to 1, every environment is paranoid that does not say otherwise


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

    async def history(
        self, run: RunHandle[Any] | str, *, generation: int | None = None, instance: str = DEFAULT
    ) -> History:
        """Return the history of a run (of one generation, by default the present one), ready for `replay`.

        Raises:
            RunNotFound: there is none of this id.
        """
        run_id = run if isinstance(run, str) else run.run_id
        history = await self.running[instance].history(run_id, generation=generation)
        assert isinstance(history, History)  # what a reader returns, whom it is promised a list
        return history

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

    async def attend(self, *, auto: bool) -> None:
        """Move time to the next deadline (`auto`) whenever somebody waits and nothing else can happen.

        Whoever waits for what nothing can wake, or for a time that cannot come, is told so.
        """
        watch = Watch()
        while True:
            try:
                await self._step(watch, auto=auto)
            except Exception as error:  # noqa: BLE001  # else nobody would move time any more, and who waits would never know
                self._disappoint(error)
                await asyncio.sleep(REAL_PAUSE_SECONDS)

    async def _step(self, watch: Watch, *, auto: bool) -> None:
        await self.settle()
        due = self._clock.next_deadline()
        if auto and due is not None and self._is_awaited:
            watch.is_over()
            self._clock.move_to(due)
            return
        if not self._is_awaited:
            watch.is_over()
        elif watch.has_lasted():
            watch.is_over()
            self._disappoint(await standstill(self.running.values(), wants_time=due is not None))
        await asyncio.sleep(REAL_PAUSE_SECONDS)

    def _disappoint(self, error: Exception) -> None:
        for wiring in self.wirings:
            wiring.awaiting.disappoint(lambda: copy.copy(error))


@asynccontextmanager
async def environment(
    *,
    names: Sequence[str] = (DEFAULT,),
    activities: Mapping[Activity[..., Any], Callable[..., Any]] | None = None,
    state: Any = None,
    auto: bool = True,
    paranoid: bool | None = None,
    seed: int | None = None,
    guard: GuardMode = "off",
    engine: AsyncEngine | None = None,
) -> AsyncIterator[Environment]:
    """Run in-memory instances in virtual time, registered under `names` while the block lasts.

    Args:
        names: instance names; the verbs find them as they find real ones.
        activities: functions that are performed instead of activities; they get the same arguments.
        state: what `activity_context().state` gives.
        auto: move time by itself whenever somebody waits for a run and nothing else can happen.
        paranoid: replay every run after every turn in other processes under other hash seeds; None: if the variable
            CONTINUUM_PARANOID is 1. What differs is raised when the block is left.
        seed: makes ids, and so what workflows draw at random, the same every time; None: they differ.
        guard: what comes of I/O in a turn: "raise" blocks the run, "warn" logs it, "off" does not look.
        engine: the database that transactional activities write to; the journal is in memory all the same.

    Raises:
        ConfigurationError: a running instance has one of the names, or `activities` holds something else.
        ReplayDiffers: (paranoid, at the end) a workflow did not do the same in another process.
        NotReplayable: (paranoid, at the end) another process cannot import a workflow.
    """
    if paranoid is None:
        paranoid = os.environ.get(PARANOID, "0") not in ("", "0")
    clock = VirtualClock()
    world = World(
        clock=clock,
        draw=random.Random(seed or 0),
        new_id=uuid7 if seed is None else seeded_ids(random.Random(seed)),
        catalog=catalog(),
        is_threaded=False,
        has_pollers=False,
        fakes=dict(_fake(activity, fn) for activity, fn in (activities or {}).items()),
        transactions=rehearsals_on(engine),
    )
    env = Environment(clock)
    paranoia = Paranoia() if paranoid else None
    try:
        async with (
            _entered(env, world, names, {"state": state, "guard": guard}, paranoia, clock),
            _attended(env, auto=auto),
        ):
            yield env
    except Exception as error:
        if paranoia is not None and paranoia.found is not None:  # and whatever went wrong, went wrong because of it
            raise paranoia.found from error
        raise
    if paranoia is not None and paranoia.found is not None:
        raise paranoia.found


@asynccontextmanager
async def _entered(
    env: Environment,
    world: World,
    names: Sequence[str],
    options: Mapping[str, Any],
    paranoia: Paranoia | None,
    clock: VirtualClock,
) -> AsyncIterator[None]:
    replaced = {name: known for name in names if (known := instances.known(name)) is not None}
    async with AsyncExitStack() as stack:
        stack.callback(_put_back, replaced, names)
        leaving = _LeavingTime(clock)
        stack.push_async_callback(leaving.end)
        for name in names:
            instance = memory_instance(
                settings_of(name, options), MemoryStore(clock), lambda: world, journal=_journal(env, name, paranoia)
            )
            await stack.enter_async_context(children_of(instance))
            env.running[name] = instance
        try:
            yield
        finally:
            leaving.begin()


@asynccontextmanager
async def _attended(env: Environment, *, auto: bool) -> AsyncIterator[None]:
    attending = asyncio.get_running_loop().create_task(env.attend(auto=auto))
    try:
        yield
    finally:
        attending.cancel()
        await asyncio.gather(attending, return_exceptions=True)


def _journal(env: Environment, name: str, paranoia: Paranoia | None) -> Callable[[MemoryStore], MemoryJournal]:
    if paranoia is None:
        return MemoryJournal

    def find(run_id: str) -> tuple[Workflow[..., Any], Machine] | None:
        wiring = env.running[name].wiring
        execution = wiring.registry.get(run_id) if wiring is not None else None
        if wiring is None or execution is None or execution.machine is None:
            return None
        facts = execution.facts
        return wiring.world.catalog.workflow(facts.workflow, facts.version), execution.machine

    return lambda store: WatchedJournal(store, paranoia, find)


class _LeavingTime:
    """While instances stop, time moves on: what waits in it, such as a drain for an attempt that hangs, ends."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._move())

    async def _move(self) -> None:
        while True:
            for _ in range(LEAVING_PASSES):
                await asyncio.sleep(0)
            if (due := self._clock.next_deadline()) is not None:
                self._clock.move_to(due)

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _put_back(replaced: Mapping[str, Instance], names: Sequence[str]) -> None:
    for name in names:
        known = instances.known(name)
        if known is not None:
            instances.remove(name, known)
        if name in replaced:
            instances.register(name, replaced[name], is_running=False)


def _fake(activity: object, fn: object) -> tuple[str, Activity[..., Any]]:
    if not isinstance(activity, Activity) or not callable(fn):
        raise ConfigurationError(
            f"activities= maps activities to the functions that stand in for them: {{charge: fake_charge}}, not "
            f"{{{activity!r}: {fn!r}}}"
        )
    fake: Activity[..., Any] = object.__new__(Activity)
    fake.__dict__.update(activity.__dict__)
    fake.session_class = None  # a fake gets what the workflow passes
    if isinstance(fn, Activity):
        fake.session_class, fn = fn.session_class, fn.fn
    fake.fn = fn
    fake.is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)
    return activity.name, fake
