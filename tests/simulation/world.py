"""The loop, and the nodes on it: real wiring over one store in memory, in virtual time, in one thread.

The loop has no sockets: whenever nothing is ready it moves the clock to the next deadline. A node is what a process
is: it is reached through its gate alone (its clock, its journal, its notices), so that shutting the gate freezes it
wherever it stands, and shutting it for ever kills it without a `finally` having any effect.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any, TypeVar

from continuum import ActivityContext
from continuum.clock import Cancellable, VirtualClock
from continuum.composition.children import Children, children_of
from continuum.composition.instance import Instance
from continuum.composition.instances import Instances
from continuum.composition.options import settings_of
from continuum.composition.wiring import Wiring, World
from continuum.definitions.catalog import catalog
from continuum.errors import JournalUnavailable
from continuum.ids import seeded_ids
from continuum.journal.memory import MemoryJournal, MemoryStore
from continuum.journal.memory.journal import Faults
from continuum.journal.port import Ambiguous
from tests.simulation.hosts import Hosted
from tests.simulation.payments import Payments
from tests.simulation.workflows import ACTIVITIES, WORKFLOWS

T = TypeVar("T")
LEASE_TTL = 4.0  # virtual seconds
PASSES_MAX = 20_000  # of the loop without time going on: something spins
NAMES = ("ada", "bob", "eve")


class Stuck(AssertionError):
    """The simulated world stands still for ever."""


class _NoSockets(selectors.SelectSelector):
    """Where asyncio would wait for the world, time moves on."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self._passes = 0  # of the loop, since time last moved

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout > 0:
            moments = [self._clock.next_deadline(), None if timeout is None else self._clock.monotonic() + timeout]
            known = [moment for moment in moments if moment is not None]
            if not known:
                raise Stuck("nothing is ready and nothing is planned")
            if min(known) - self._clock.monotonic() > 1e-9:
                self._passes = 0
            self._clock.move_to(min(known))
        self._passes += 1
        if self._passes > PASSES_MAX:
            raise Stuck("something spins: time has not moved for a long while")
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is the virtual clock's; nothing that it was told of may be missed."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_NoSockets(clock))
        self._virtual = clock
        self.complaints: list[str] = []
        self.set_exception_handler(self._complain)

    def time(self) -> float:
        return self._virtual.monotonic()

    def _complain(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")


class Gate:
    """All ways into a node. What comes while it is shut waits, in order; behind a dead node's gate it waits for ever."""

    def __init__(self) -> None:
        self.is_shut = False
        self.is_dead = False
        self.is_over = False  # the simulation ends: let everything fall
        self._held: list[Callable[[], object]] = []

    async def passed(self) -> None:
        """Wait until it is open."""
        while self.is_shut and not self.is_over:
            opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._held.append(lambda opened=opened: opened.done() or opened.set_result(None))  # type: ignore[misc]
            await opened
        if self.is_over:
            raise asyncio.CancelledError

    def call(self, callback: Callable[[], object]) -> None:
        """Call back, now or when it is open."""
        if self.is_shut:
            self._held.append(callback)
        else:
            callback()

    def shut(self) -> None:
        """Freeze what is behind it."""
        self.is_shut = True

    def open(self) -> None:
        """Let it go on."""
        if self.is_dead:
            return
        self.is_shut = False
        held, self._held = self._held, []
        for callback in held:
            self.call(callback)

    def kill(self) -> None:
        """Never open again."""
        self.is_shut = self.is_dead = True


class _NodeCall:
    """A call planned on a node's clock."""

    __slots__ = ("_callback", "_planned")

    def __init__(self, clock: VirtualClock, gate: Gate, seconds: float, callback: Callable[[], object]) -> None:
        self._callback: Callable[[], object] | None = callback
        self._planned = clock.call_later(seconds, lambda: gate.call(self._happen))

    def _happen(self) -> None:
        callback, self._callback = self._callback, None
        if callback is None:
            return
        try:
            callback()
        except Exception as error:  # noqa: BLE001  # as a loop does: it tells, and goes on
            context = {"message": "a callback failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    def cancel(self) -> None:
        self._callback = None
        self._planned.cancel()


class NodeClock(VirtualClock):
    """The clock as one node sees it: wrong by some seconds, and silent while the node is frozen."""

    def __init__(self, clock: VirtualClock, gate: Gate, *, skew: float, booted: float) -> None:
        super().__init__()
        self._clock = clock
        self._gate = gate
        self._skew = skew
        self._booted = booted

    def now(self) -> datetime:
        return self._clock.now() + timedelta(seconds=self._skew)

    def monotonic(self) -> float:
        return self._clock.monotonic() - self._booted

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Cancellable:
        return _NodeCall(self._clock, self._gate, seconds, callback)


class Busy:
    """A host's loop with much to do: what is to happen soon happens in order, and other things happen before it."""

    def __init__(self, clock: NodeClock, hesitation: Callable[[], float]) -> None:
        self._clock = clock
        self._hesitation = hesitation
        self._queue: deque[Callable[[], object]] = deque()

    def soon(self, callback: Callable[[], object]) -> None:
        """Call back after all that was asked for before."""
        self._queue.append(callback)
        if len(self._queue) == 1:
            self._clock.call_later(self._hesitation(), self._next)

    def _next(self) -> None:
        callback = self._queue[0]
        try:
            callback()
        finally:
            self._queue.popleft()
            if self._queue:
                self._clock.call_later(self._hesitation(), self._next)


class Climate(Faults):
    """What the adversary decides about the traffic of one node; see `adversary`."""

    def lands_late(self) -> float | None:
        """Return in how many seconds a write will land whose sender is told now that its connection broke."""
        raise NotImplementedError

    def loses_notice(self) -> bool:
        """Tell whether a hint gets lost."""
        raise NotImplementedError


Witness = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class NodeJournal(MemoryJournal):
    """A node's journal: every step is witnessed, writes may land late, notices may get lost."""

    def __init__(
        self, store: MemoryStore, *, climate: Climate, gate: Gate, clock: VirtualClock, witness: Witness
    ) -> None:
        super().__init__(store, faults=climate)
        self._climate = climate
        self._gate = gate
        self._clock = clock
        self._witness = witness

    async def _step(self, step: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return await super()._step(self._witnessed(step), *args, **kwargs)

    def _witnessed(self, step: Callable[..., T]) -> Callable[..., T]:
        name = step.__name__.lstrip("_")

        def witnessed(*args: Any, **kwargs: Any) -> T:
            return self._witness(name, step, args, kwargs)  # type: ignore[no-any-return]

        witnessed.__name__ = name
        return witnessed

    async def write(self, lane: int, batch: Sequence[Any]) -> Sequence[Any]:
        late = self._climate.lands_late()
        if late is None:
            return await super().write(lane, batch)
        self._clock.call_later(late, lambda: self._witnessed(self._write)(lane, batch))
        await self._climate.after("write")
        raise Ambiguous("the connection broke, and the statement goes on")

    async def hosted(self, session: Any) -> Hosted:
        return Hosted(session, self)

    async def listen(self) -> AsyncIterator[Sequence[str]]:
        async for notices in super().listen():
            await self._gate.passed()
            if not notices or not self._climate.loses_notice():
                yield notices


class Node:
    """One process: one boot of a named node, with a real instance in it."""

    def __init__(self, name: str, boot: int, *, seed: int, clock: VirtualClock, skew: float) -> None:
        self.name = name
        self.boot = boot
        self.label = f"{name}{boot}"
        self.gate = Gate()
        self.clock = NodeClock(clock, self.gate, skew=skew, booted=clock.monotonic())
        self.is_up = False
        self.begun: dict[tuple[str, int], int] = {}
        self.death: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._draw = Random(f"{seed}/{name}/{boot}")
        self._new_id = seeded_ids(Random(f"{seed}/{name}/{boot}/ids"))
        self._instances: Instances[Instance] = Instances()
        self.instance: Instance | None = None
        self._children: Children | None = None
        self._boots: list[Instance] = []  # tries to open that failed, kept: what hangs must not be collected

    async def open(self, make_journal: Callable[[Node], NodeJournal], settled: Callable[[Wiring], None]) -> None:
        """Boot: open the instance, again and again while the database is away."""
        settings = settings_of("simulated", {**OPTIONS, "node": self.name, "state": self})
        while not self.is_up:
            instance = Instance(
                settings,
                make_journal=lambda: make_journal(self),
                prepare=_nothing,
                world=lambda: World(
                    clock=self.clock,
                    draw=self._draw,
                    new_id=self._new_id,
                    catalog=catalog(),
                    is_threaded=False,
                    transactions=lambda journal, _settings: Payments(journal),
                ),
                instances=self._instances,
            )
            self._boots.append(instance)
            try:
                await instance.open()
                assert instance.wiring is not None
                settled(instance.wiring)
                self._children = children_of(instance)
                await self._children.start()
            except JournalUnavailable:
                await self.clock.sleep(0.5)
                continue
            self.instance = instance
            self.is_up = True

    async def stop(self) -> None:
        """Shut down in order."""
        assert self._children is not None
        self.is_up = False
        await self._children.stop()

    @property
    def wiring(self) -> Wiring:
        """Its parts."""
        assert self.instance is not None
        assert self.instance.wiring is not None
        return self.instance.wiring

    @property
    def is_reachable(self) -> bool:
        """Whether a client finds it."""
        return self.is_up and not self.gate.is_shut

    def die(self) -> None:
        """Be gone from one moment to the next."""
        self.gate.kill()
        self.is_up = False
        if not self.death.done():
            self.death.set_result(None)

    def began(self, context: ActivityContext) -> None:
        """Take note of an attempt (see `workflows.Hands`)."""
        key = (context.idempotency_key, context.attempt)
        self.begun[key] = self.begun.get(key, 0) + 1

    def forget(self) -> None:
        """Close what its executions keep open."""
        self.gate.is_over = True
        for instance in self._boots:
            if instance.wiring is not None:
                for execution in instance.wiring.registry:
                    if execution.machine is not None:
                        execution.machine.close()


async def _nothing() -> None:
    """Nothing is to be prepared."""


OPTIONS: dict[str, Any] = {
    "workflows": WORKFLOWS,
    "activities": ACTIVITIES,
    "lease_ttl": LEASE_TTL,
    "drain_timeout": 3.0,
    "run_supervisor": {"cache": 4},  # so small that runs are evicted all the time
    "activity_supervisor": {"max_concurrency": 4, "queues": {"narrow": 1}},
    "snapshotter": {"threshold": 4, "interval": 2.0},
    "signal_router": {"catch_up": 3.0},
    "timer_wheel": {"horizon": 5.0},
}
