"""One seed, from its first moment to its verdict."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from continuum import telemetry
from continuum.clock import VirtualClock
from continuum.composition.wiring import Wiring
from continuum.errors import JournalUnavailable
from continuum.journal.memory import MemoryStore
from continuum.journal.port import Contended
from tests.simulation import workflows
from tests.simulation.adversary import Adversary, NodeClimate, Weather, weather_of
from tests.simulation.checker import Checker
from tests.simulation.clockwork import STEPS, Clockwork
from tests.simulation.ending import look_at_the_end
from tests.simulation.plans import STORY_SECONDS, stories_of
from tests.simulation.story import Clients
from tests.simulation.telling import TOLD, line_of, touched
from tests.simulation.timetables import Timekeepers, timetables_of
from tests.simulation.world import LEASE_TTL, NAMES, Busy, Node, NodeJournal, Stuck, VirtualLoop

END_SECONDS = 200.0  # after the story, until which all must have ended: a run that crashed often is left alone for 60
OVER_SECONDS = 500.0  # whatever happens
CALM_SECONDS = 15.0  # after the last misfortune, until schedules must have been seen to
QUIET_SECONDS = LEASE_TTL * 3  # after the last end, until nothing may be left over


@dataclass(slots=True)
class Outcome:
    """What came of a seed."""

    seed: int
    violations: list[str]
    lines: list[str]
    virtual_seconds: float
    real_seconds: float
    states: dict[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The hash of the log."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()

    def report(self) -> str:
        """Say what failed, and how to see it again."""
        found = "\n  ".join(self.violations[:5])
        return f"seed {self.seed}:\n  {found}\nsee: python -m tests.simulation --seed {self.seed} -v"


class Simulation:
    """A cluster of three, its clients, its adversary and its judge."""

    def __init__(self, seed: int, weather: Weather, loop: asyncio.AbstractEventLoop, clock: VirtualClock) -> None:
        self.seed = seed
        self.clock = clock
        self.lines: list[str] = []
        self.draw = Random(f"{seed}/clients")
        self.store = MemoryStore(clock)
        self.failed: asyncio.Future[None] = loop.create_future()
        self.checker = Checker(self.store, self._violated)
        self.adversary = Adversary(seed, weather, clock, self.note)
        self.clients = Clients(self, stories_of(seed))
        self.clockwork = Clockwork(self.store, self.checker.expect)
        self.timekeepers = Timekeepers(timetables_of(seed), clock, self.clients.call)
        self.nodes: dict[str, Node] = {}
        self.climates: dict[str, NodeClimate] = {}
        self._boots = dict.fromkeys(NAMES, 0)
        self._gone: list[Node] = []
        self._chores: list[asyncio.Task[None]] = []
        self._skew = Random(f"{seed}/skew")

    def note(self, line: str) -> None:
        """Write a line into the log, with the virtual time."""
        self.lines.append(f"{self.clock.monotonic():11.6f} {line}")

    def _violated(self, message: str) -> None:
        self.note(f"VIOLATION {message}")
        if not self.failed.done():
            self.failed.set_result(None)

    def some_node(self) -> Node | None:
        """Return a node that can be reached."""
        reachable = [node for node in self.nodes.values() if node.is_reachable]
        return self.draw.choice(reachable) if reachable else None

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _boot(self, name: str) -> None:
        self._boots[name] += 1
        node = Node(
            name, self._boots[name], seed=self.seed, clock=self.clock, skew=self._skew.uniform(-LEASE_TTL, LEASE_TTL)
        )
        self.nodes[name] = node
        self.climates[name] = NodeClimate(self.adversary, node.label, node.gate)
        self.note(f"{node.label} boots")
        self._chore(node.open(self._journal_of, self._weaken))

    def _journal_of(self, node: Node) -> NodeJournal:
        def witness(name: str, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            answer = step(*args, **kwargs)
            if name in STEPS:
                self.clockwork.look(name, args, answer)
            if name in TOLD:
                line = line_of(name, args, answer)
                if line:
                    self.note(f"{node.label} {line}")
                self.checker.look(name, args, answer)
                for run_id in touched(name, args, answer):
                    self.clients.pry(node, run_id)
            return answer

        climate = self.climates[node.name]
        return NodeJournal(self.store, climate=climate, gate=node.gate, clock=self.clock, witness=witness)

    def _weaken(self, wiring: Wiring) -> None:
        """Let hints within the process get lost, too."""
        climate = self.climates[wiring.node.name]
        wakes = wiring.wakes
        busy = Busy(self.nodes[wiring.node.name].clock, self.adversary.hesitation)

        def weakened(nudge: Callable[..., object]) -> Callable[..., object]:
            return lambda *args: None if climate.loses_nudge() else nudge(*args)

        wiring.runs.soon = busy.soon
        wakes.claim_runs = weakened(wakes.claim_runs)
        wakes.claim_tasks = weakened(wakes.claim_tasks)
        wakes.read_inbox = weakened(wakes.read_inbox)
        wakes.tell_others = weakened(wakes.tell_others)
        wakes.watch_deadline = weakened(wakes.watch_deadline)
        wiring.pubsub.publish = weakened(wiring.pubsub.publish)  # type: ignore[method-assign,assignment]

    def _crash(self, name: str) -> None:
        node = self.nodes[name]
        self.note(f"{node.label} crashes")
        node.die()
        self._gone.append(node)

    async def _misfortune(self, at: float, what: str, name: str, lasts: float) -> None:
        await self.clock.sleep(at)
        node = self.nodes[name]
        if self.adversary.is_calm or node.gate.is_shut or (what != "crash" and not node.is_up):
            return
        match what:
            case "crash":
                self._crash(name)
                await self.clock.sleep(lasts)
                self._boot(name)
            case "freeze":
                self.note(f"{node.label} freezes for {lasts:.3f}")
                node.gate.shut()
                await self.clock.sleep(lasts)
                self.note(f"{node.label} thaws")
                node.gate.open()
            case "cut":
                self.note(f"{node.label} is cut off for {lasts:.3f}")
                self.climates[name].cut(lasts)
            case _:
                await self._restart(node, lasts)

    async def _restart(self, node: Node, lasts: float) -> None:
        self.note(f"{node.label} stops")
        node.is_up = False
        stopped = self._chore(node.stop())
        await asyncio.wait([stopped, node.death], return_when=asyncio.FIRST_COMPLETED)
        if node.gate.is_dead:
            return  # it crashed meanwhile
        self.note(f"{node.label} has stopped")
        node.die()
        self._gone.append(node)
        await self.clock.sleep(lasts / 4)
        self._boot(node.name)

    def _chore(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._chores.append(task)
        return task

    # --- the course of things -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Play the story, then let all become quiet; stop at the first violation."""
        story = asyncio.get_running_loop().create_task(self._course())
        alarm = self.clock.call_later(OVER_SECONDS, lambda: self.checker.violate("the story never ends"))
        await asyncio.wait([story, self.failed], return_when=asyncio.FIRST_COMPLETED)
        alarm.cancel()
        if story.done():
            story.result()

    async def _course(self) -> None:
        for name in NAMES:
            self._boot(name)
        misfortunes = [self._chore(self._misfortune(*one)) for one in self.adversary.misfortunes(STORY_SECONDS)]
        told = self._chore(self.clients.play())
        kept = self._chore(self.timekeepers.play())
        await self.clock.sleep(STORY_SECONDS)
        self.note("calm")
        self.adversary.calm()
        await self.clients.hush()
        await asyncio.gather(*misfortunes, kept)
        if self.store.schedules:
            await self.clock.sleep(CALM_SECONDS)
            self.clockwork.look_when_calm()
            await self.timekeepers.stop()
        await self._end(told)
        for task in self._chores:
            if task.done():
                task.result()
        await self.clock.sleep(QUIET_SECONDS)
        look_at_the_end(self.checker, self.store, self.clients.stories, list(self.nodes.values()), self._gone)

    async def _end(self, told: asyncio.Task[None]) -> None:
        deadline = self.clock.monotonic() + END_SECONDS
        while self.store.active or not told.done():
            if self.clock.monotonic() > deadline:
                left = [f"{row.run_id[-6:]} {row}" for row in self.store.active_runs()]
                self.checker.violate(f"{END_SECONDS:g} s after the story, this has not ended: {left or 'a client'}")
                return
            await self.clock.sleep(2.0)
            await self.clients.finish()

    def forget(self) -> None:
        """Close what would otherwise be kept for ever."""
        for node in (*self._gone, *self.nodes.values()):
            node.forget()


class _Complaints(logging.Handler):
    """Errors that the library logs are findings, too."""

    def __init__(self, violate: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._violate = violate

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        is_farewell = "the instance stopped before the database had answered" in record.getMessage()
        if not isinstance(error, JournalUnavailable | Contended) and not is_farewell:  # a loop says when it fails often
            self._violate(f"logged: {record.getMessage()} {error!r}")


def simulate(seed: int, weather: Weather | None = None) -> Outcome:
    """Run one seed."""
    began = time.perf_counter()
    clock = VirtualClock()
    loop = VirtualLoop(clock)
    workflows.entropy.seed(f"{seed}/entropy")
    simulation = Simulation(seed, weather or weather_of(seed), loop, clock)

    def crashed(event: telemetry.TelemetryEvent) -> None:
        error = str(event.metadata["error"])
        if not error.startswith(("JournalUnavailable", "Ambiguous", "Contended")):
            simulation.checker.violate(f"{event.metadata['loop']} crashed: {error}")

    complaints = _Complaints(simulation.checker.violate)
    logger = logging.getLogger("continuum")
    level, propagates = logger.level, logger.propagate
    logger.addHandler(complaints)
    logger.propagate = False
    telemetry.attach(crashed, ["loop.crashed"])
    asyncio.set_event_loop(loop)
    gc_was_on = gc.isenabled()
    gc.disable()  # a coroutine that hangs in a dead node must not be closed in the middle of somebody else's day
    try:
        try:
            loop.run_until_complete(simulation.run())
        except Stuck as stuck:
            simulation.checker.violate(f"{stuck}: {_running(loop)}")
        for complaint in loop.complaints:
            simulation.checker.violate(f"asyncio: {complaint}")
        virtual = clock.monotonic()
        lines = list(simulation.lines)
        violations = list(simulation.checker.violations)
        _end_all(loop, simulation)
    finally:
        telemetry.detach(crashed)
        logger.removeHandler(complaints)
        logger.setLevel(level)
        logger.propagate = propagates
        asyncio.set_event_loop(None)
        loop.close()
        if gc_was_on:
            gc.enable()
    states: dict[str, int] = {}
    for row in simulation.store.runs.values():
        states[row.state.value] = states.get(row.state.value, 0) + 1
    return Outcome(seed, violations, lines, virtual, time.perf_counter() - began, states)


def _running(loop: VirtualLoop) -> list[str]:
    return sorted(task.get_name() for task in asyncio.all_tasks(loop))[:20]


def _end_all(loop: VirtualLoop, simulation: Simulation) -> None:
    simulation.forget()
    for _ in range(20):
        tasks = asyncio.all_tasks(loop)
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
