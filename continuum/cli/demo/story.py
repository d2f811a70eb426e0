"""The course of events.

The parent is a client of the database: customers' orders come one by one and are inserted unleased, whichever node polls
next claims them. When half of the activities have been performed, the node that holds most runs is killed, by SIGKILL,
so it can tell nobody. Its lease passes; the other node declares it dead, frees its runs, replays their histories and goes
on. The parent looks at the journal several times a second, plays the fraud team, and keeps the evidence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import continuum
from continuum.cli.demo import orders as shop
from continuum.cli.demo.ledger import read_ledger
from continuum.cli.demo.orders import Order, Receipt
from continuum.cli.demo.places import Place
from continuum.cli.demo.processes import NodeProcess, Nodes
from continuum.cli.demo.screen import Screen
from continuum.cli.demo.standing import Seen, Standing, Watcher
from continuum.cli.demo.verify import Evidence
from continuum.clock import SystemClock
from continuum.composition.instance import Instance
from continuum.definitions.handles import RunHandle
from continuum.errors import ContinuumError

LOOK_SECONDS = 0.1  # between two looks at the journal
ORDER_EVERY_SECONDS = 0.12  # so that at half-time some orders ship while others are being charged
REVIEW_AFTER = timedelta(seconds=0.5)  # how long the fraud team thinks
PATIENCE_SECONDS = 45.0  # for each part of the story: several times what it takes
RESULTS_SECONDS = 10.0  # all runs have ended by then, so results are there at once


class StoryFailed(ContinuumError):
    """Something that was to happen did not happen in time."""


class Story:
    """One telling; `nodes` are running, `client` is entered."""

    def __init__(self, *, place: Place, client: Instance, nodes: Nodes, screen: Screen, count: int) -> None:
        self._place = place
        self._nodes = nodes
        self._screen = screen
        self._clock = SystemClock()
        self._to_come = shop.the_orders(count)
        self._count = count
        self._orders: dict[str, Order] = {}
        self._handles: list[RunHandle[Receipt]] = []
        self._signalled: set[str] = set()
        self._watcher = Watcher(client)
        self._half = sum(len(shop.expected_activities(order)) for order in self._to_come) // 2

    async def play(self) -> Evidence:
        """Tell it from the first order to the last, and return the evidence.

        Raises:
            StoryFailed, NodeFailed: with what to look at.
        """
        self._screen.say(f"{self._count} orders are coming in; each is nobody's until a node claims it")
        self._begun_at = self._clock.monotonic()
        standing = await self._until(self._is_half_way, "half of the activities being performed")
        victim = max(self._nodes.all, key=lambda node: len(standing.held_by(node.name)))
        killed_at = self._clock.now()
        await victim.kill()
        held = {run.run_id: run for run in (await self._look()).held_by(victim.name)}
        self._tell_of_death(victim, list(held.values()), standing)
        standing = await self._until(lambda now: _went_on(now, held), "the other node taking over")
        self._tell_of_takeover([run for run in standing.runs if _has_grown(run, held)])
        standing = await self._until(lambda now: now.ended == self._count, "every order's end")
        self._screen.say("all orders have ended; verifying")
        results = await asyncio.gather(
            *(handle.result(timeout=RESULTS_SECONDS) for handle in self._handles), return_exceptions=True
        )
        return Evidence(
            count=self._count,
            standing=standing,
            results={handle.run_id: result for handle, result in zip(self._handles, results, strict=True)},
            ledger=read_ledger(self._place.ledger),
            killed_pid=victim.pid,
            killed_at=killed_at,
            held={run_id: run.last_seq for run_id, run in held.items()},
        )

    def _is_half_way(self, standing: Standing) -> bool:
        return standing.performed >= self._half and any(standing.held_by(node.name) for node in self._nodes.all)

    async def _until(self, claim: Callable[[Standing], bool], what: str) -> Standing:
        deadline = self._clock.monotonic() + PATIENCE_SECONDS
        while not claim(standing := await self._look()):
            if self._clock.monotonic() > deadline:
                raise StoryFailed(f"{what} did not come within {PATIENCE_SECONDS:g} s. {self._whereabouts(standing)}")
            self._nodes.check()
            await self._customers_order()
            await self._fraud_team_reviews(standing)
            await self._clock.sleep(LOOK_SECONDS)
        return standing

    async def _look(self) -> Standing:
        standing = await self._watcher.look(self._orders)
        self._screen.show(standing)
        return standing

    async def _customers_order(self) -> None:
        due = int((self._clock.monotonic() - self._begun_at) / ORDER_EVERY_SECONDS) + 1
        while self._to_come and len(self._handles) < due:
            order = self._to_come.pop(0)
            run = await continuum.start(shop.fulfil, order, attributes={"order": order.number})
            self._handles.append(run)
            self._orders[run.run_id] = order

    async def _fraud_team_reviews(self, standing: Standing) -> None:
        for run in standing.runs:
            if not shop.is_reviewed(run.order) or run.run_id in self._signalled or "charge" not in run.performed:
                continue
            if self._clock.now() - run.events[-1].at >= REVIEW_AFTER:
                self._signalled.add(run.run_id)
                await continuum.signal(run.run_id, shop.SIGNAL, shop.verdict_on(run.order), delivery_id=run.run_id)

    # --- what is said of it -------------------------------------------------------------------------------------------

    def _tell_of_death(self, victim: NodeProcess, held: list[Seen], standing: Standing) -> None:
        self._screen.died(victim.name)
        self._screen.say(
            f"SIGKILL for {victim.name} (pid {victim.pid}) after {standing.performed} activities; "
            f"it held {_listed(held)}, whose lease has up to 3 s to go"
        )

    def _tell_of_takeover(self, grown: list[Seen]) -> None:
        nodes = sorted({run.node for run in grown if run.node is not None})
        self._screen.say(f"{' and '.join(nodes) or 'the other node'} goes on with {_listed(grown)}")

    def _whereabouts(self, standing: Standing) -> str:
        open_runs = [run for run in standing.runs if not run.state.has_ended]
        lines = [
            f"    order {run.order.number}: {run.state.value}, held by {run.node}, run {run.run_id}"
            for run in open_runs
        ]
        listed = "\n".join(lines) or "    none"
        logs = "\n".join(node.end_of_log() for node in self._nodes.all)
        return f"Orders that have not ended:\n{listed}\n{logs}"


def _has_grown(run: Seen, held: dict[str, Seen]) -> bool:
    return run.run_id in held and run.last_seq > held[run.run_id].last_seq


def _went_on(standing: Standing, held: dict[str, Seen]) -> bool:
    return not held or any(_has_grown(run, held) for run in standing.runs)


def _listed(runs: list[Seen]) -> str:
    numbers = ", ".join(str(run.order.number) for run in runs)
    return f"order {numbers}" if len(runs) == 1 else f"orders {numbers}" if runs else "nothing"
