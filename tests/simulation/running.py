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
from continuum.model.failure import Failure
from continuum.model.runs import RunRow
from continuum.model.states import RunState
from continuum.model.writes import Commit
from continuum.replay.machine import Machine
from continuum.replay.turns import RunInfo
from tests.simulation import workflows
from tests.simulation.adversary import Adversary, NodeClimate, Weather, weather_of
from tests.simulation.checker import Checker
from tests.simulation.story import STORY_SECONDS, Clients, runs_of
from tests.simulation.workflows import explain, script
from tests.simulation.world import LEASE_TTL, NAMES, Busy, Node, NodeJournal, Stuck, VirtualLoop

END_SECONDS = 200.0  # after the story, until which everything must have ended: a run that crashed often is left alone for 60
OVER_SECONDS = 500.0  # whatever happens
QUIET_SECONDS = LEASE_TTL * 3  # after the last end, until nothing may be left over
LOGGED = frozenset({"write", "claim_runs", "claim_tasks", "sweep", "declare_dead", "register", "renew", "retire", "release_run"})


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
        self.clients = Clients(self, runs_of(seed))
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
            if name in LOGGED:
                line = _line(name, args, answer)
                if line:
                    self.note(f"{node.label} {line}")
                self.checker.look(name, args, answer)
                for run_id in _touched(name, args, answer):
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

        wiring.runs.soon = busy.soon  # type: ignore[method-assign]
        wakes.claim_runs = weakened(wakes.claim_runs)
        wakes.claim_tasks = weakened(wakes.claim_tasks)
        wakes.read_inbox = weakened(wakes.read_inbox)
        wakes.tell_others = weakened(wakes.tell_others)
        wakes.watch_deadline = weakened(wakes.watch_deadline)
        wiring.pubsub.publish = weakened(wiring.pubsub.publish)  # type: ignore[method-assign]

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
            case "restart":
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
        await self.clock.sleep(STORY_SECONDS)
        self.note("calm")
        self.adversary.calm()
        await self.clients.hush()
        await asyncio.gather(*misfortunes)
        await self._end(told)
        for task in self._chores:
            if task.done():
                task.result()
        await self.clock.sleep(QUIET_SECONDS)
        self.checker.look_at_the_end()
        self._look_at_nodes()
        started: dict[str, str] = {}
        for row in self.store.runs.values():
            nonce = self._look_at_result(row)
            self.checker.expect(nonce not in started, f"{nonce} was started twice: {started.get(nonce)}, {row.run_id}")
            started[nonce] = row.run_id

    async def _end(self, told: asyncio.Task[None]) -> None:
        deadline = self.clock.monotonic() + END_SECONDS
        while self.store.active or not told.done():
            if self.clock.monotonic() > deadline:
                left = [f"{row.run_id[-6:]} {row}" for row in self.store.active_runs()]
                self.checker.violate(f"{END_SECONDS:g} s after the story, this has not ended: {left or 'a client'}")
                return
            await self.clock.sleep(2.0)
            await self.clients.finish()

    # --- the last look ------------------------------------------------------------------------------------------------

    def _look_at_nodes(self) -> None:
        expect = self.checker.expect
        for node in self.nodes.values():
            parts = node.wiring
            expect(not len(parts.registry), f"{node.label} keeps executions: {parts.registry.run_ids}")
            expect(not parts.attempts.running, f"{node.label} keeps attempts")
            expect(not parts.attempts._known, f"{node.label} remembers attempts: {list(parts.attempts._known)[:3]}")
            expect(parts.attempts._taken_in_all == 0, f"{node.label} lost slots: {parts.attempts._taken}")
            expect(not parts.committer.in_flight, f"{node.label} has writes in flight")
            expect(not parts.awaiting.waiters, f"{node.label} keeps waiters")
        for node in (*self._gone, *self.nodes.values()):
            for (key, attempt), times in node.begun.items():
                expect(times == 1, f"{node.label} began attempt {attempt} of {key} {times} times")

    def _look_at_result(self, row: RunRow) -> str:
        history = [stored.event for stored in self.store.events[row.run_id, row.generation]]
        arguments = script.signature.parameters.decode(history[0].payload or b"{}")
        nonce, steps = str(arguments["nonce"]), arguments["steps"]
        if row.state is RunState.COMPLETED:
            words = script.signature.result.decode(history[-1].payload or b"null")
            wrong = explain(steps, words, history)
            self.checker.expect(wrong is None, f"the result of {row.run_id}: {wrong}: {words} of {steps}")
        elif row.state is RunState.FAILED:
            failure = Failure.decode(history[-1].payload or b"{}")
            self.checker.expect("raise" in steps, f"{row.run_id} failed: {failure.type}: {failure.message}")
        else:
            return nonce
        machine = Machine(script, RunInfo(row.run_id, row.workflow, row.version, 1, row.namespace, "", row.created_at))
        try:
            machine.replay(history)
            self.checker.expect(machine.outcome is not None, f"{row.run_id} does not end when it is replayed")
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the finding
            self.checker.violate(f"{row.run_id} cannot be replayed: {error}")
        finally:
            machine.close()
        return nonce

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
    gc.disable()
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


def _touched(name: str, args: tuple[Any, ...], answer: Any) -> list[str]:
    if name == "claim_runs":
        return [claim.run_id for claim in answer.runs]
    return [write.run_id for write in args[-1] if isinstance(write, Commit)] if name == "write" else []


def _line(name: str, args: tuple[Any, ...], answer: Any) -> str | None:
    match name:
        case "write":
            pairs = zip(args[-1], answer, strict=True)
            return "write " + "; ".join(f"{_short(write)} = {type(verdict).__name__}" for write, verdict in pairs)
        case "claim_runs":
            taken = ", ".join(f"{claim.run_id[-6:]}@{claim.token}" for claim in answer.runs)
            return f"claim {taken}" if taken else None
        case "claim_tasks":
            taken = ", ".join(_attempt(task.attempt) for task in answer)
            return f"tasks {taken}" if taken else None
        case "sweep":
            return f"sweep {answer}" if answer.runs or answer.tasks or answer.exhausted or answer.blocked else None
        case "declare_dead":
            return f"dead {answer}" if answer else None
        case "renew":
            return None if answer else f"renew {args[-1]}: lost"
        case "register":
            return f"register {args[-1].owner}"
        case _:
            return f"{name} {args[1:]} = {answer}"


def _attempt(attempt: Any) -> str:
    return f"{attempt.key.run_id[-6:]}/{attempt.key.command_id}#{attempt.attempt}"


def _short(write: Any) -> str:
    digest = hashlib.sha256(repr(write).encode()).hexdigest()[:8]
    kind = type(write).__name__
    if hasattr(write, "attempt"):
        return f"{kind} {_attempt(write.attempt)} {digest}"
    if hasattr(write, "message"):
        return f"{kind} {write.message.run_id[-6:]} {write.message.kind.value} {digest}"
    if hasattr(write, "events"):
        what = ",".join(f"{event.type.value}{event.command_id or ''}" for event in write.events)
        seq = write.base_seq if hasattr(write, "base_seq") else 0
        token = write.token if hasattr(write, "token") else (1 if write.owner else 0)
        state = write.state.value if write.state else "-"
        return f"{kind} {write.run_id[-6:]}@{token}+{seq} {state} [{what}] {digest}"
    return f"{kind} {digest}"
