"""Everyone who waits for a run's end: hears of it by pubsub if it ends here, from the run's owner if it does not.

Behind both stands one batched poll: however many wait, it is one query per pass. It starts quickly and slows down while
nothing ends, so that a short run elsewhere is seen soon and ten thousand long ones cost little. An owner is asked once,
and again every so often; what it tells is a hint to look at the database now.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

from continuum.errors import InstanceNotStarted, RunNotFound
from continuum.journal.port import ReadJournal
from continuum.model.runs import Ending
from continuum.model.states import RunState
from continuum.model.writes import Landed, Verdict
from continuum.runtime.component import Loop
from continuum.runtime.node import Node
from continuum.runtime.pubsub import PubSub
from continuum.runtime.wakes import Wakes

FIRST_SECONDS = 0.05
SLOWER = 1.5
EVERYONE_EVERY = 20  # passes: all are asked about, those that live here too, and whether they are there still
QUERY_MAX = 10_000  # run ids in one query
ASK_AGAIN_SECONDS = 25.0  # less than half of what an owner remembers us for


class Wait:
    """One caller who waits for the end of a run."""

    __slots__ = ("arrived", "until_drain", "wait_blocked")

    def __init__(self, arrived: asyncio.Future[Ending | None], *, wait_blocked: bool, until_drain: bool) -> None:
        self.arrived = arrived
        self.wait_blocked = wait_blocked
        self.until_drain = until_drain

    def hear(self, ending: Ending) -> bool:
        """Take the end of the run, or that it is blocked; False: that is not what is waited for."""
        if self.arrived.done() or (self.wait_blocked and ending.state is RunState.BLOCKED):
            return False
        self.arrived.set_result(ending)
        return True

    def fail(self, error: Exception) -> None:
        """Raise, instead of waiting for what cannot come."""
        if not self.arrived.done():
            self.arrived.set_exception(error)

    def give_up(self) -> None:
        """Wait no longer."""
        if not self.arrived.done():
            self.arrived.set_result(None)


class StartWait(Wait):
    """One who starts a run and waits for its end at once: nothing ends that wait before the start has landed, or failed.

    `arrived` then brings how the run ended, None as for everybody else, or the verdict that no run was started. An end
    that is heard before belongs to this run if its start lands (it was over with its first turn), and else to another
    one that has the id already.
    """

    __slots__ = ("_has_landed", "_landed", "_late")

    def __init__(self, arrived: asyncio.Future[Any], landed: Callable[[], object]) -> None:
        super().__init__(arrived, wait_blocked=False, until_drain=True)
        self._landed = landed
        self._has_landed = False
        self._late: Callable[[], object] | None = None  # what came too early

    def settled(self, verdict: Verdict) -> None:
        """Hear what became of the start."""
        if isinstance(verdict, Landed):
            self._has_landed = True
            self._landed()
            if self._late is not None:
                self._late()
        elif not self.arrived.done():
            arrived: asyncio.Future[Any] = self.arrived
            arrived.set_result(verdict)

    def hear(self, ending: Ending) -> bool:
        """Take the end of the run, once it is known to be this one."""
        if self._has_landed:
            return super().hear(ending)
        self._late = partial(super().hear, ending)
        return True

    def fail(self, error: Exception) -> None:
        """Raise, once it is known what became of the start."""
        if self._has_landed:
            super().fail(error)
        else:
            self._late = self._late or partial(super().fail, error)

    def give_up(self) -> None:
        """Wait for the start alone, and no longer."""
        if self._has_landed:
            super().give_up()
        else:
            self._late = self._late or super().give_up


class Awaiting(Loop):
    """Waits for endings; the poll behind it runs only while somebody waits."""

    def __init__(
        self,
        name: str,
        *,
        node: Node,
        journal: ReadJournal,
        pubsub: PubSub,
        wakes: Wakes,
        lives_here: Callable[[str], bool],
        interval: float | None,
        local_interval: float | None,
    ) -> None:
        super().__init__(name, interval=None, clock=node.clock, draw=node.draw, emit=node.emit, starts_at_once=False)
        self._node = node
        self._journal = journal
        self._wakes = wakes
        self._lives_here = lives_here
        self._slowest = interval
        self._local_interval = local_interval
        self._delay = FIRST_SECONDS
        self._passes = 0
        self._waiting: dict[str, list[Wait]] = {}
        self._owners: dict[str, str] = {}  # run waited for → who was asked to tell us
        self._asked_at = 0.0
        self._told: dict[str, None] = {}
        self._is_over = False
        pubsub.subscribe(self._hear)

    @property
    def waiters(self) -> int:
        """How many callers wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs that somebody waits for."""
        return tuple(self._waiting)

    async def ending(
        self,
        run_id: str,
        *,
        wait_blocked: bool,
        timeout_seconds: float | None,
        owner: str | None = None,
        until_drain: bool = False,
    ) -> Ending | None:
        """Wait until a run has ended (or is blocked, unless `wait_blocked`); None after the timeout.

        `owner` holds the run, as far as the caller knows, and will be asked to tell us. `until_drain`: None as well
        when the node begins to drain.

        Raises:
            RunNotFound: it has ended and was pruned before anybody here saw it.
            InstanceNotStarted: the instance was stopped, perhaps while the caller looked where the run stands.
        """
        wait = Wait(self._node.loop.create_future(), wait_blocked=wait_blocked, until_drain=until_drain)
        self.expect(run_id, wait)
        timer = self.clock.call_later(timeout_seconds, wait.give_up) if timeout_seconds is not None else None
        if owner is not None and run_id not in self._owners and not self._lives_here(run_id):
            self._owners[run_id] = owner
            self._wakes.watch_ending(run_id, owner)
        try:
            return await wait.arrived
        finally:
            if timer is not None:
                timer.cancel()
            self.forget(run_id, wait)

    def expect(self, run_id: str, wait: Wait) -> None:
        """Tell a wait of the run's end, until it is forgotten.

        Raises:
            InstanceNotStarted: the instance was stopped.
        """
        if self._is_over:
            raise self._stopped()
        self._waiting.setdefault(run_id, []).append(wait)
        if wait.until_drain and self._node.is_draining:
            wait.give_up()
        self._hurry(run_id)

    def forget(self, run_id: str, wait: Wait) -> None:
        """Tell a wait no more."""
        waiting = self._waiting[run_id]
        waiting.remove(wait)
        if not waiting:
            del self._waiting[run_id]
            self._owners.pop(run_id, None)

    def release(self) -> None:
        """Let go of everyone who waits until a drain: it begins."""
        for wait in self._waits():
            if wait.until_drain:
                wait.give_up()

    async def stop(self) -> None:
        """Stop asking, for good; whoever still waits, or comes late, is told that nobody will."""
        self._is_over = True
        await super().stop()
        self.disappoint(self._stopped)

    def disappoint(self, error: Callable[[], Exception]) -> None:
        """Let everyone who waits have an error."""
        for wait in self._waits():
            wait.fail(error())

    def _stopped(self) -> InstanceNotStarted:
        return InstanceNotStarted(
            f"instance {self._node.instance!r} was stopped while this waited; the run goes on: ask another node, or ask "
            "again when it is back"
        )

    def told(self, run_ids: Collection[str]) -> None:
        """Look at these runs soon: a peer says that they have ended."""
        told = [run_id for run_id in run_ids if run_id in self._waiting]
        if told:
            self._told.update(dict.fromkeys(told))
            self.nudge()

    def elsewhere(self, run_ids: Collection[str]) -> None:
        """Look at these runs soon, and leave them to the poll: they do not live where we asked."""
        for run_id in run_ids:
            self._owners.pop(run_id, None)
        self.told(run_ids)

    async def once(self) -> bool:
        """Ask for the endings of what is waited for; publish them; plan the next question."""
        if self._told and self._slowest is not None:
            told, self._told = list(self._told), {}
            await self._ask(told)
            if self._waiting:
                self.nudge(self._delay)  # this may have been the planned pass as well
            return False
        self._told.clear()
        self._passes += 1
        asked = [run_id for run_id in self._waiting if not self._lives_here(run_id)]
        elsewhere = bool(asked)
        is_thorough = self._passes % EVERYONE_EVERY == 0
        if not elsewhere or is_thorough:
            asked = list(self._waiting)
        await self._ask(asked)
        if is_thorough:
            await self._miss(asked)
        self._ask_owners_again()
        if self._waiting and self._slowest is not None:
            self._delay = min(self._delay * SLOWER, self._slowest)
            self.nudge(self._delay if elsewhere else self._local_interval or self._slowest)
        return False

    async def _ask(self, run_ids: list[str]) -> None:
        for start in range(0, len(run_ids), QUERY_MAX):
            for ending in await self._journal.endings(run_ids[start : start + QUERY_MAX]):
                if self._hear(ending):
                    self._delay = FIRST_SECONDS

    async def _miss(self, run_ids: list[str]) -> None:
        """Look for runs that ended and were pruned before anybody here had seen their end: it will not be seen any more."""
        for start in range(0, len(run_ids), QUERY_MAX):
            part = [run_id for run_id in run_ids[start : start + QUERY_MAX] if run_id in self._waiting]
            there = {standing.run_id for standing in await self._journal.standings(part)} if part else set()
            for run_id in part:
                if run_id not in there and not self._lives_here(run_id):
                    gone = (
                        f"run {run_id} has ended and was pruned while this waited: how it ended is not known any more"
                    )
                    for wait in self._waiting.get(run_id, ()):
                        wait.fail(RunNotFound(gone, run_id=run_id))

    def _hear(self, ending: Ending) -> bool:
        """Tell whoever waits for it; False: nobody does."""
        hearing = [wait.hear(ending) for wait in self._waiting.get(ending.run_id, ())]
        return any(hearing)

    def _waits(self) -> Iterable[Wait]:
        return itertools.chain.from_iterable(self._waiting.values())

    def _ask_owners_again(self) -> None:
        now = self.clock.monotonic()
        if now - self._asked_at >= ASK_AGAIN_SECONDS:
            self._asked_at = now
            for run_id, owner in tuple(self._owners.items()):
                self._wakes.watch_ending(run_id, owner)

    def _hurry(self, run_id: str) -> None:
        if self._slowest is None:
            if not self._lives_here(run_id):
                self.nudge()
            return
        if self._lives_here(run_id):
            self.nudge(self._local_interval or self._slowest)
        else:
            self._delay = FIRST_SECONDS
            self.nudge()
