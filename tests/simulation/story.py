"""What clients do: they start, signal, cancel and await through whichever node they find, and remember what they were told.

A client whose node dies, or whose call fails for want of a database, does not know what became of it; everything else
that it was told counts, and is checked against the tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, Protocol

from continuum.client.client import Client
from continuum.clock import VirtualClock
from continuum.errors import (
    IdempotencyConflict,
    InstanceDraining,
    InstanceNotStarted,
    JournalUnavailable,
    RunCancelled,
    RunFailed,
    RunNotActive,
)
from continuum.journal.memory import MemoryStore
from continuum.model.states import RunState
from tests.simulation.checker import Checker
from tests.simulation.workflows import script
from tests.simulation.world import LEASE_TTL, Node

STORY_SECONDS = 15.0  # in which everything is asked for, and everything goes wrong
PATIENCE_SECONDS = 40.0  # of a client with one call
SIGNALS = ("note", "ping")
PRYING_MAX = 40  # signals by the nosy client


class CallLost(Exception):
    """The client will never know."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One to be sent: again and again with the same delivery id, if it has one."""

    at: float
    name: str
    delivery_id: str | None
    times: int


@dataclass(slots=True)
class Run:
    """A run as a client plans it, and what it was told about it."""

    nonce: str
    steps: list[str]
    at: float
    key: str | None
    delay: float | None  # of `start_at`
    signals: list[Signal] = field(default_factory=list)
    cancel_at: float | None = None
    awaiters: int = 0
    run_id: str | None = None


class Cluster(Protocol):
    """What clients need of the simulation."""

    store: MemoryStore
    clock: VirtualClock
    checker: Checker
    draw: Random  # of the clients

    def some_node(self) -> Node | None:
        """Return a node that can be reached, if there is one."""
        ...

    def note(self, line: str) -> None:
        """Write a line into the log."""
        ...


# --- what is planned --------------------------------------------------------------------------------------------------


def runs_of(seed: int) -> list[Run]:
    """Draw the runs of a seed."""
    draw = Random(f"{seed}/story")
    runs = [_run(draw, f"n{number}") for number in range(draw.randint(4, 12))]
    if draw.random() < 0.5:  # somebody asks for the same with the same key
        twin = next((run for run in runs if run.key is not None), None)
        if twin is not None:
            runs.append(Run(twin.nonce, twin.steps, draw.uniform(0, STORY_SECONDS / 2), twin.key, twin.delay))
    return runs


def _run(draw: Random, nonce: str) -> Run:
    run = Run(
        nonce=nonce,
        steps=[_step(draw) for _ in range(draw.randint(1, 5))],
        at=draw.uniform(0, STORY_SECONDS * 0.7),
        key=f"key-{nonce}" if draw.random() < 0.4 else None,
        delay=draw.uniform(0.1, 6.0) if draw.random() < 0.15 else None,
        cancel_at=draw.uniform(0, STORY_SECONDS / 2) if draw.random() < 0.2 else None,
        awaiters=draw.choice((0, 1, 1, 2)),
    )
    for number in range(draw.choice((0, 1, 2, 4, 6))):
        is_named = draw.random() < 0.4
        run.signals.append(
            Signal(
                at=draw.uniform(0, STORY_SECONDS * draw.choice((0.05, 0.5))),
                name=draw.choice(SIGNALS),
                delivery_id=f"d{number}" if is_named else None,
                times=draw.randint(1, 3) if is_named else 1,
            )
        )
    return run


def _step(draw: Random) -> str:
    seconds = f"{draw.uniform(0.05, 2.5):.2f}"
    return draw.choice(
        (
            f"add:{seconds}",
            f"add:{LEASE_TTL * 1.5}",
            f"frail:{seconds}",
            f"flaky:{draw.randint(1, 3)}",
            "doomed",
            "brief",
            f"beating:{draw.randint(1, 12)}",
            f"nap:{seconds}",
            f"nap:{LEASE_TTL * 1.2}",
            f"fan:{draw.randint(1, 6)}",
            f"group:{draw.randint(1, 4)}",
            f"race:{seconds}",
            f"hear:{draw.choice(SIGNALS)}",
            f"hear:{draw.choice(SIGNALS)}",
            f"hear:{draw.choice(SIGNALS)}:{seconds}",
            f"hear:{draw.choice(SIGNALS)}:{seconds}",
            "effect",
            "effect",
            "raise" if draw.random() < 0.2 else "effect",
        )
    )


# --- what is done -----------------------------------------------------------------------------------------------------


class Clients:
    """Plays the story."""

    def __init__(self, cluster: Cluster, runs: list[Run]) -> None:
        self.runs = runs
        self._cluster = cluster
        self._checker = cluster.checker
        self._sent = 0
        self._prying = 0
        self._is_told = True  # until the story is over
        self._calls: list[asyncio.Future[Any]] = []
        self._lost_calls: list[asyncio.Task[Any]] = []  # kept: what hangs must not be collected

    async def play(self) -> None:
        """Do everything, and wait for every answer that can be had."""
        async with asyncio.TaskGroup() as group:
            for run in self.runs:
                group.create_task(self._live(group, run))

    async def hush(self) -> None:
        """Pry no more, and wait for what was asked."""
        self._is_told = False
        await asyncio.gather(*self._calls)

    async def _live(self, group: asyncio.TaskGroup, run: Run) -> None:
        await self._cluster.clock.sleep(run.at)
        await self._start(run)
        if run.run_id is None:
            return
        for _ in range(run.awaiters):
            group.create_task(self._await(run))
        for signal in run.signals:
            group.create_task(self._send(run, signal))
        if run.cancel_at is not None:
            group.create_task(self._cancel(run, run.cancel_at))

    async def _start(self, run: Run) -> None:
        start_at = None if run.delay is None else self._cluster.clock.now() + timedelta(seconds=run.delay)

        async def start(client: Client) -> Any:
            _, started = await client.start(
                script,
                (run.nonce, run.steps),
                run_id=None,
                idempotency_key=run.key,
                namespace="default",
                attributes=None,
                start_at=start_at,
            )
            return started

        tries = 10 if run.key is not None else 1  # who has no key dares not ask twice
        for _ in range(tries):
            try:
                started = await self._call(f"start {run.nonce} {run.steps}", start)
            except (CallLost, JournalUnavailable):
                continue
            known = self._cluster.store.runs.get(started.run_id)
            self._checker.expect(known is not None, f"start {run.nonce} was acknowledged as {started.run_id}, not there")
            run.run_id = started.run_id
            return

    async def _send(self, run: Run, signal: Signal) -> None:
        assert run.run_id is not None
        await self._cluster.clock.sleep(signal.at)
        self._sent += 1
        payload = f"s{self._sent}"
        was_accepted = False
        for _ in range(signal.times):
            verdict = await self.signal(run.run_id, signal.name, payload, signal.delivery_id)
            if verdict is None:
                continue
            self._checker.expect(
                verdict != "delivered" or not was_accepted, f"signal {payload} was delivered twice as {signal.delivery_id}"
            )
            was_accepted = was_accepted or verdict in {"delivered", "duplicate"}
            self._checker.expect(
                not was_accepted or verdict != "over", f"signal {payload} was accepted, its repetition refused"
            )

    async def signal(
        self, run_id: str, name: str, payload: str, delivery_id: str | None, *, node: Node | None = None
    ) -> str | None:
        """Send a signal once; return the answer, `over`, or None if it is not known."""
        delivery = None if delivery_id is None else f"{payload}/{delivery_id}"
        try:
            verdict = await self._call(
                f"signal {run_id[-6:]} {name} {payload} {delivery}",
                lambda client: client.signal(run_id, name, payload, delivery_id=delivery),
                node=node,
            )
        except (CallLost, JournalUnavailable):
            return None
        except RunNotActive:
            self._expect_ended(run_id, "a signal was refused")
            return "over"
        if verdict == "delivered":
            self._checker.promise(run_id, payload)
        return str(verdict)

    def pry(self, node: Node, run_id: str) -> None:
        """Signal a run through the node that is just busy with it: the moments between two of its steps are short."""
        draw = self._cluster.draw
        if self._prying >= PRYING_MAX or draw.random() > 0.15 or not self._is_told:
            return
        self._prying += 1
        name, payload = draw.choice(SIGNALS), f"p{self._prying}"
        delivery_id = "pry" if draw.random() < 0.2 else None

        def begin() -> None:
            call = asyncio.ensure_future(self.signal(run_id, name, payload, delivery_id, node=node))
            self._calls.append(call)

        self._cluster.clock.call_later(draw.uniform(0, 0.05) if draw.random() < 0.7 else 0.0, begin)

    async def _cancel(self, run: Run, at: float) -> None:
        run_id = run.run_id
        assert run_id is not None
        await self._cluster.clock.sleep(at)
        try:
            verdict = await self._call(f"cancel {run_id[-6:]}", lambda client: client.cancel(run_id))
        except (CallLost, JournalUnavailable):
            return
        except RunNotActive:
            self._expect_ended(run_id, "a cancel was refused")
            return
        if verdict == "requested":
            self._checker.record(run_id)
        else:
            state = self._cluster.store.runs[run_id].state
            self._checker.expect(state is RunState.CANCELLED, f"{run_id} was called cancelled, and is {state.value}")

    async def _await(self, run: Run) -> None:
        run_id = run.run_id
        assert run_id is not None
        while True:
            try:
                ending: Any = await self._call(
                    f"await {run_id[-6:]}",
                    lambda client: client.result(run_id, script, timeout=None, wait_blocked=True),
                    patience=None,
                )
            except (CallLost, JournalUnavailable):
                await self._cluster.clock.sleep(0.3)
                continue
            except RunFailed as error:
                ending = f"{error}"
                self._expect_ended(run_id, ending, RunState.FAILED)
            except RunCancelled:
                self._expect_ended(run_id, "told that it was cancelled", RunState.CANCELLED)
            else:
                self._expect_ended(run_id, "told a result", RunState.COMPLETED)
                row = self._cluster.store.runs[run_id]
                last = self._cluster.store.event_at(run_id, row.generation, row.last_seq)
                journaled = None if last is None else script.signature.result.decode(last.event.payload or b"null")
                self._checker.expect(ending == journaled, f"{run_id} was awaited as {ending}, it is {journaled}")
            return

    def _expect_ended(self, run_id: str, why: str, state: RunState | None = None) -> None:
        row = self._cluster.store.runs[run_id]
        is_so = row.state.has_ended if state is None else row.state is state
        self._checker.expect(is_so, f"{why}, but {run_id} is {row.state.value}")

    async def _call(
        self,
        what: str,
        verb: Callable[[Client], Awaitable[Any]],
        *,
        patience: float | None = PATIENCE_SECONDS,
        node: Node | None = None,
    ) -> Any:
        """Ask some node; what it answers is logged.

        Raises:
            CallLost: there is no node, it died, or never answered.
        """
        cluster = self._cluster
        node = node or cluster.some_node()
        if node is None or not node.is_reachable:
            await cluster.clock.sleep(0.5)
            raise CallLost
        cluster.note(f"client > {node.label} {what}")
        call = asyncio.ensure_future(verb(node.wiring.client))
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        alarm = cluster.clock.call_later(patience, lambda: over.done() or over.set_result(None)) if patience else None
        await asyncio.wait([call, node.death, over], return_when=asyncio.FIRST_COMPLETED)
        if alarm is not None:
            alarm.cancel()
        if not call.done():
            cluster.note(f"client < {node.label} {what}: lost")
            self._checker.expect(node.death.done(), f"{what} was never answered by {node.label}, which is alive")
            self._lost_calls.append(call)
            raise CallLost
        try:
            answer = call.result()
        except (InstanceDraining, InstanceNotStarted) as error:
            cluster.note(f"client < {node.label} {what}: {error!r}")
            raise CallLost from error
        except (JournalUnavailable, RunNotActive, RunFailed, RunCancelled, IdempotencyConflict) as error:
            cluster.note(f"client < {node.label} {what}: {type(error).__name__}")
            raise
        except Exception as error:
            self._checker.violate(f"client < {node.label} {what}: {error!r}")
            raise CallLost from error
        cluster.note(f"client < {node.label} {what}: {answer}")
        return answer

    # --- after the story ----------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Send what runs still wait for, so that all can end: only real nodes know what it is, so a little of each."""
        for run_id in tuple(self._cluster.store.active):
            for name in SIGNALS:
                self._sent += 1
                await self.signal(run_id, name, f"s{self._sent}", None)
