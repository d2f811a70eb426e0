"""Renews this process's owner row: one UPDATE per instance and interval keeps every lease that the process holds.

On SQL journals the renewals of all instances run on one thread with a loop and connections of its own, so that a blocked
host loop does not lose its leases at once. It is not trusted for ever either: the host's loop ticks, the committer gets
answers, and after three TTLs of silence the thread deletes the owner row, for a process that cannot run its executions
or cannot write what they do must let others have them.

An owner row that is gone means that everything leased to it is lost: executions are discarded, and the process comes
back under a new owner id.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

from continuum.errors import ContinuumError
from continuum.journal.port import Contended, OwnerJournal
from continuum.model.owners import Owner
from continuum.runtime.component import DEGRADED_AFTER, Component, Loop
from continuum.runtime.node import Node

T = TypeVar("T")

CONTENDED_MAX, CONTENDED_SECONDS = 5, 0.1  # each has waited for the lock already, as long as the database lets it
RETRY_SECONDS = 1.0  # after a failed renewal: sooner than the interval, the row still lives
SILENCE_TTLS = 3.0  # of the host's loop or its committer, until its leases are given up


class HeartJournal(OwnerJournal, Protocol):
    """What the heartbeat needs of a journal: the owner statements, and the same for another thread."""

    def heart(self) -> OwnerJournal:
        """Return the owner statements on a connection of their own."""
        ...

    async def close_heart(self) -> None:
        """Close that connection, on the loop that used it."""
        ...


class Membership:
    """Registers, renews and retires this process's owner; says when it was lost. Runs on the host's loop."""

    def __init__(self, *, node: Node, owners: OwnerJournal, lost: Callable[[str], object]) -> None:
        self._node = node
        self._owners = owners
        self._lost = lost

    async def ensure(self) -> None:
        """Be an owner; a client without workers becomes one only when it must take a lease."""
        if self._node.owner is None:
            await self.register(self._owners)

    async def register(self, owners: OwnerJournal) -> None:
        """Become an owner, under an id that was never used."""
        node = self._node
        owner = node.next_owner()
        row = Owner(owner, node.instance, node.name, node.advertise_url)
        node.stamp(await self._insist(lambda: owners.register(row, ttl_seconds=node.lease_ttl)))
        node.owner = owner
        node.renewed()
        node.emit("owner.registered", owner=owner)

    async def retire(self) -> None:
        """Be no owner any more; what is still leased to this process will be swept."""
        owner = self._node.owner
        if owner is not None:
            await self._insist(lambda: self._owners.retire(owner))

    async def _insist(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask again while somebody else holds a lock: on SQLite every other writer does."""
        for _ in range(CONTENDED_MAX):
            with contextlib.suppress(Contended):
                return await ask()
            await self._node.clock.sleep(CONTENDED_SECONDS)
        return await ask()

    def renewed(self, owner: str, now: datetime, seconds: float) -> None:
        """Take note of a renewal, and how long it took."""
        self._node.stamp(now)
        self._node.renewed()
        self._node.emit("lease.renewed", {"duration_seconds": seconds}, owner=owner)

    def lost(self) -> None:
        """Give up everything: the row is gone."""
        owner, self._node.owner = self._node.owner, None
        if owner is not None:
            self._node.emit("owner.lost", owner=owner)
            self._lost(owner)


class LeaseHeartbeater(Loop):
    """Renews on the host's loop: for journals without I/O, and for tests by hand."""

    def __init__(
        self, name: str, *, node: Node, owners: OwnerJournal, membership: Membership, interval: float | None
    ) -> None:
        super().__init__(
            name, interval=interval, clock=node.clock, draw=node.draw, emit=node.emit, starts_at_once=False
        )
        self._node = node
        self._owners = owners
        self._membership = membership

    async def once(self) -> bool:
        """Renew; register anew if the row is gone."""
        owner = self._node.owner
        if owner is not None:
            began = self._node.clock.monotonic()
            now = await self._owners.renew(owner, ttl_seconds=self._node.lease_ttl)
            if now is not None:
                self._membership.renewed(owner, now, self._node.clock.monotonic() - began)
                return False
            self._membership.lost()
        if not self._node.is_draining:
            await self._membership.register(self._owners)
        return False


class ThreadedHeartbeater(Component):
    """Renews on the process's heartbeat thread, and watches the host's loop from there."""

    def __init__(
        self,
        name: str,
        *,
        node: Node,
        journal: HeartJournal,
        membership: Membership,
        interval: float,
        unanswered_since: Callable[[], float | None],
    ) -> None:
        super().__init__(name)
        self._node = node
        self._journal = journal
        self._membership = membership
        self._interval = interval
        self._unanswered_since = unanswered_since  # since when the committer waits for an answer, if it does
        self._failures = 0
        self._host: asyncio.AbstractEventLoop | None = None
        self._thread: HeartThread | None = None
        self._beating: asyncio.Future[Any] | None = None
        self._ticked_at = 0.0
        self._tick: asyncio.TimerHandle | None = None
        self._stop = asyncio.Event()
        self._rejoining: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin beating."""
        if self._beating is not None:
            return
        self._host = asyncio.get_running_loop()
        self._ticking()
        self._stop = asyncio.Event()  # it will belong to the thread's loop
        self._thread = HeartThread.shared()
        self._beating = self._thread.run(self._beat())

    async def stop(self) -> None:
        """Stop beating; the owner row stays for whoever retires it."""
        beating, self._beating = self._beating, None
        if beating is None or self._thread is None:
            return
        if self._tick is not None:
            self._tick.cancel()
        self._thread.call(self._stop.set)
        await asyncio.wait([beating])
        self._thread.release()
        if self._rejoining is not None:
            self._rejoining.cancel()
            await asyncio.gather(self._rejoining, return_exceptions=True)

    @property
    def is_degraded(self) -> bool:
        """Whether renewals keep failing."""
        return self._failures >= DEGRADED_AFTER

    def _ticking(self) -> None:
        assert self._host is not None
        self._ticked_at = self._node.clock.monotonic()
        self._tick = self._host.call_later(min(self._interval, 1.0) / 2, self._ticking)

    # --- on the heartbeat thread --------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        owners = self._journal.heart()
        pause = self._interval
        try:
            while not await self._stopped_within(pause):
                try:
                    pause = await self._renew(owners)
                    self._failures = 0
                except Exception as error:  # noqa: BLE001  # whatever it is, the row may live: the heart must not stop
                    self._failures += 1
                    failed = {"owner": self._node.owner} if self._node.owner is not None else {}
                    self._tell(partial(self._node.emit, "lease.renewal_failed", **failed, error=repr(error)))
                    pause = min(RETRY_SECONDS, self._interval)
        finally:
            with contextlib.suppress(ContinuumError):
                await self._journal.close_heart()

    async def _renew(self, owners: OwnerJournal) -> float:
        owner = self._node.owner
        if owner is None:
            return min(RETRY_SECONDS, self._interval)
        loop_silence, commit_silence = self._silences()
        if loop_silence > self._node.lease_ttl:
            self._node.emit("loop.blocked", {"silence_seconds": loop_silence})
        if commit_silence > self._node.lease_ttl:
            self._tell(partial(self._node.emit, "commit.blocked", {"silence_seconds": commit_silence}))
        if max(loop_silence, commit_silence) > SILENCE_TTLS * self._node.lease_ttl:
            await owners.retire(owner)
            self._tell(partial(self._lost, owner))
            return self._interval
        began = self._node.clock.monotonic()
        now = await owners.renew(owner, ttl_seconds=self._node.lease_ttl)
        seconds = self._node.clock.monotonic() - began
        self._tell(
            partial(self._lost, owner) if now is None else partial(self._membership.renewed, owner, now, seconds)
        )
        return self._interval

    def _silences(self) -> tuple[float, float]:
        """Return for how long the host's loop has not ticked, and its committer not been answered."""
        now, unanswered = self._node.clock.monotonic(), self._unanswered_since()
        return now - self._ticked_at, 0.0 if unanswered is None else now - unanswered

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True

    def _tell(self, callback: Callable[[], object]) -> None:
        assert self._host is not None
        with contextlib.suppress(RuntimeError):  # the host's loop is closed: nobody is left to tell
            self._host.call_soon_threadsafe(callback)

    # --- back on the host's loop --------------------------------------------------------------------------------------

    def _lost(self, owner: str) -> None:
        if self._node.owner != owner or self._host is None:
            return
        self._membership.lost()
        self._rejoining = self._host.create_task(self._rejoin())

    async def _rejoin(self) -> None:
        """Come back under a new owner id, once what is written is answered again."""
        while self._beating is not None and self._node.owner is None and not self._node.is_draining:
            if self._silences()[1] <= self._node.lease_ttl:
                try:
                    await self._membership.register(self._journal)
                except Exception as error:  # noqa: BLE001  # until it is back, this node holds nothing: it goes on trying
                    self._node.emit("lease.renewal_failed", error=repr(error))
            if self._node.owner is None:
                await self._node.clock.sleep(min(RETRY_SECONDS, self._interval))


class HeartThread:
    """One thread and loop per process, for the heartbeats of all instances; it ends with the last of them."""

    def __init__(self) -> None:
        self.users = 0
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._live, name="continuum-heartbeat", daemon=True).start()

    def _live(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    @staticmethod
    def shared() -> HeartThread:
        """Return the process's thread, started on first use; `release` it afterwards."""
        with _lock:
            if not _shared:
                _shared.append(HeartThread())
            _shared[0].users += 1
            return _shared[0]

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Run a coroutine there; the future belongs to the caller's loop."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def call(self, callback: Callable[[], object]) -> None:
        """Call something there."""
        self._loop.call_soon_threadsafe(callback)

    def release(self) -> None:
        """End the thread when nobody uses it any more."""
        with _lock:
            self.users -= 1
            if self.users == 0:
                _shared.clear()
                self._loop.call_soon_threadsafe(self._loop.stop)


_lock = threading.Lock()
_shared: list[HeartThread] = []  # at most one
