"""What clients do: they start, signal, cancel and await through whichever node they find, and remember what they were told.

A client whose node dies, or whose call fails for want of a database, does not know what became of it; everything else
that it was told counts, and is checked against the tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any, Protocol

from continuum.client.client import Client
from continuum.clock import VirtualClock
from continuum.errors import (
    InstanceDraining,
    InstanceNotStarted,
    JournalUnavailable,
    RunCancelled,
    RunExists,
    RunFailed,
    RunNotActive,
)
from continuum.journal.memory import MemoryStore
from continuum.model.states import RunState
from continuum.model.writes import Verdict, Write
from tests.simulation.checker import Checker
from tests.simulation.hosts import HostTransaction
from tests.simulation.plans import SIGNALS, Late, Run, Signal
from tests.simulation.telling import line_of
from tests.simulation.workflows import script
from tests.simulation.world import Node

PATIENCE_SECONDS = 40.0  # of a client with one call
PRYING_MAX = 60  # signals by the nosy client


class CallLost(Exception):
    """The client will never know."""


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


class Clients:
    """Plays the story."""

    def __init__(self, cluster: Cluster, stories: list[list[Run]]) -> None:
        self.stories = stories
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
            for runs in self.stories:
                group.create_task(self._live(group, runs))

    async def hush(self) -> None:
        """Pry no more, and wait for what was asked."""
        self._is_told = False
        await asyncio.gather(*self._calls)

    async def _live(self, group: asyncio.TaskGroup, runs: list[Run]) -> None:
        await self._cluster.clock.sleep(runs[0].at)
        if len(runs) > 1:
            await self._start_together(runs)
        else:
            await self._start(runs[0])
        for run in runs:
            if run.run_id is not None:
                self._live_on(group, run)

    def _live_on(self, group: asyncio.TaskGroup, run: Run) -> None:
        for _ in range(run.awaiters):
            group.create_task(self._await(run))
        for signal in run.signals:
            group.create_task(self._send(run, signal))
        if run.cancel_at is not None:
            group.create_task(self._cancel(run, run.cancel_at))

    async def _within(self, what: str, verb: Callable[[Client, Any], Awaitable[Any]], late: Late) -> tuple[Any, bool]:
        """Ask some node within a transaction of its process; return the answer, and whether that was committed."""
        cluster, node = self._cluster, self._cluster.some_node()

        def surfaced(write: Write, verdict: Verdict) -> None:
            cluster.note(f"host {line_of('write', ([write],), [verdict])}")
            self._checker.look("write", ([write],), [verdict])

        transaction = HostTransaction(cluster.store, surfaced)
        answer = await self.call(f"{what} in a transaction", lambda client: verb(client, transaction), node=node)
        assert node is not None
        waits = asyncio.ensure_future(node.clock.sleep(late.seconds))
        await asyncio.wait([waits, node.death], return_when=asyncio.FIRST_COMPLETED)
        if node.death.done() or not late.commits:
            self._lost_calls.append(waits)
            transaction.rollback()
            return answer, False
        transaction.commit()
        return answer, True

    async def _start(self, run: Run) -> None:
        start_at = None if run.delay is None else self._cluster.clock.now() + timedelta(seconds=run.delay)

        async def start(client: Client, session: Any = None) -> Any:
            _, starting = client.start(
                script,
                (run.nonce, run.steps),
                run_id=run.chosen,
                idempotency_key=run.key,
                namespace="default",
                attributes=None,
                start_at=start_at,
                session=session,
            )
            return (await starting).run_id

        if run.late is not None:
            with suppress(CallLost, JournalUnavailable):
                run_id, is_there = await self._within(f"start {run.nonce} {run.steps}", start, run.late)
                if is_there:
                    self._acknowledge(run, run_id)
            return
        tries = 10 if run.key or run.chosen else 1  # who has neither key nor id dares not ask twice
        for _ in range(tries):
            try:
                run_id = await self.call(f"start {run.nonce} {run.steps}", start)
            except (CallLost, JournalUnavailable):
                continue
            except RunExists:
                run_id = run.chosen  # by an earlier try, or by this one if its lease was lost before its answer came
            self._acknowledge(run, run_id)
            return

    def _acknowledge(self, run: Run, run_id: str) -> None:
        first = self._cluster.store.event_at(run_id, 1, 1)
        payload = first.event.payload if first is not None else None
        nonce = None if payload is None else script.signature.parameters.decode(payload)["nonce"]
        self._checker.expect(nonce == run.nonce, f"start {run.nonce} was acknowledged as {run_id}, which is {nonce}")
        run.run_id = run_id

    async def _start_together(self, runs: list[Run]) -> None:
        async def start(client: Client) -> Any:
            calls = [script.bound(run.nonce, run.steps) for run in runs]
            started = await client.start_many(calls, None, namespace="default", attributes=None, start_at=None)
            return [one.run_id for _, one in started]

        try:
            run_ids = await self.call(f"start together {[run.nonce for run in runs]}", start)
        except (CallLost, JournalUnavailable):
            return
        for run, run_id in zip(runs, run_ids, strict=True):
            self._acknowledge(run, run_id)

    async def _send(self, run: Run, signal: Signal) -> None:
        assert run.run_id is not None
        await self._cluster.clock.sleep(signal.at)
        self._sent += 1
        payload = f"s{self._sent}"
        if signal.late is not None:
            await self._send_within(run.run_id, signal.name, payload, signal.late)
            return
        was_accepted = False
        for _ in range(signal.times):
            verdict = await self.signal(run.run_id, signal.name, payload, signal.delivery_id)
            if verdict is None:
                continue
            self._checker.expect(
                verdict != "delivered" or not was_accepted,
                f"signal {payload} was delivered twice as {signal.delivery_id}",
            )
            was_accepted = was_accepted or verdict in {"delivered", "duplicate"}
            self._checker.expect(
                not was_accepted or verdict != "over", f"signal {payload} was accepted, its repetition refused"
            )

    async def _send_within(self, run_id: str, name: str, payload: str, late: Late) -> None:
        def signal(client: Client, session: Any) -> Awaitable[Any]:
            return client.signal(run_id, name, payload, delivery_id=None, session=session)

        with suppress(CallLost, JournalUnavailable, RunNotActive):
            verdict, is_there = await self._within(f"signal {run_id[-6:]} {name} {payload}", signal, late)
            self._checker.expect(verdict == "delivered", f"signal {payload} was answered {verdict}")
            if is_there:
                self._checker.promise(run_id, payload)

    async def signal(
        self, run_id: str, name: str, payload: str, delivery_id: str | None, *, node: Node | None = None
    ) -> str | None:
        """Send a signal once; return the answer, `over`, or None if it is not known."""
        delivery = None if delivery_id is None else f"{payload}/{delivery_id}"
        try:
            verdict = await self.call(
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
        if self._prying >= PRYING_MAX or draw.random() > 0.25 or not self._is_told:
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
        if run.cancel_late is not None:
            await self._cancel_within(run_id, undoes=run.undoes, late=run.cancel_late)
            return
        try:
            verdict = await self.call(
                f"cancel {run_id[-6:]} {run.undoes}", lambda client: client.cancel(run_id, compensate=run.undoes)
            )
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

    async def _cancel_within(self, run_id: str, *, undoes: bool, late: Late) -> None:
        def cancel(client: Client, session: Any) -> Awaitable[Any]:
            return client.cancel(run_id, compensate=undoes, session=session)

        with suppress(CallLost, JournalUnavailable, RunNotActive):
            verdict, is_there = await self._within(f"cancel {run_id[-6:]} {undoes}", cancel, late)
            self._checker.expect(verdict == "requested", f"a cancel in a transaction was answered {verdict}")
            if is_there:
                self._checker.record(run_id)

    async def _await(self, run: Run) -> None:
        run_id = run.run_id
        assert run_id is not None
        while True:
            try:
                ending: Any = await self.call(
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

    async def call(
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
        alarm = None if patience is None else cluster.clock.call_later(patience, over.cancel)
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
        except (JournalUnavailable, RunNotActive, RunExists, RunFailed, RunCancelled) as error:
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
