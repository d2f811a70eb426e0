"""Who this process is within its instance, and what time the database has.

The lease owner changes whenever its row was lost; whoever writes under a lease keeps the owner it was given. The
database's time is known from its last stamp plus what has passed since on our own monotonic clock: good to a round trip,
used to pace things and as the time of turns, never to judge a lease.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import NamedTuple

from continuum.clock import Clock
from continuum.ids import IdSource
from continuum.telemetry import Emitter

WHILE_SECONDS = 300.0  # many renewals, one of which at least comes back without delay


class Seen(NamedTuple):
    """What time the database had, when our monotonic clock showed `at`."""

    now: datetime
    at: float

    def time(self, at: float) -> datetime:
        """Return what it has when ours shows this."""
        return self.now + timedelta(seconds=at - self.at)


class Node:
    """This process's share in one instance."""

    def __init__(
        self,
        *,
        instance: str,
        name: str,
        clock: Clock,
        draw: Random,
        new_id: IdSource,
        emit: Emitter,
        lease_ttl: float,
        advertise_url: str | None = None,
    ) -> None:
        self.instance = instance
        self.name = name
        self.loop = (
            asyncio.get_running_loop()
        )  # that the instance lives on; asking for it is a system call in Python 3.11
        self.clock = clock
        self.draw = draw
        self.new_id = new_id
        self.emit = emit
        self.lease_ttl = lease_ttl
        self.advertise_url = advertise_url
        self.owner: str | None = None
        self.is_draining = False
        self._process = f"{name}/{instance}/{new_id()}"
        self._registrations = 0
        self._truest: Seen | None = None
        self._seen: Seen | None = None  # the truest of this while, and of the one before
        self._seen_before: Seen | None = None
        self._while_ends = -math.inf
        self._renewed_at: float | None = None
        self._resumed_at: float | None = None
        self.on_lost: Callable[[str], object] = lambda _owner: None

    def next_owner(self) -> str:
        """Return an owner id that was never used."""
        self._registrations += 1
        return f"{self._process}/{self._registrations}"

    @property
    def address(self) -> str:
        """What peers call this process: its owner id; for one that holds no leases, an id that no row has."""
        return self.owner or f"{self._process}/{self._registrations}"

    def is_me(self, owner: str) -> bool:
        """Tell whether an owner id is this process's, now or before its row was lost."""
        return owner.rpartition("/")[0] == self._process

    # --- the database's clock -----------------------------------------------------------------------------------------

    def stamp(self, now: datetime) -> None:
        """Take note of the database's time, just read.

        An answer is late by its way here, so of all that came in a while the one that says the latest time is the truest:
        nothing goes back for an answer that was long on its way. If none of a while says so late a time any more, the
        database's clock has been set back, or ours runs too fast; then it does, or we should be wrong for ever.
        """
        at = self.clock.monotonic()
        seen = Seen(now, at)
        if at >= self._while_ends:
            self._seen_before, self._seen, self._while_ends = self._seen, seen, at + WHILE_SECONDS
        elif self._seen is None or now >= self._seen.time(at):
            self._seen = seen
        before = self._seen_before
        self._truest = self._seen if before is None or self._seen.time(at) >= before.time(at) else before

    def database_now(self) -> datetime:
        """Return the database's time, as far as it can be known here."""
        if self._truest is None:
            return self.clock.now()
        return self._truest.time(self.clock.monotonic())

    def seconds_until(self, moment: datetime) -> float:
        """Return how long until the database's clock shows `moment`; negative if it has passed."""
        seen = self._truest  # reckoned in numbers: making a timedelta of seconds takes five times as long
        if seen is None:
            return (moment - self.clock.now()).total_seconds()
        return (moment - seen.now).total_seconds() - (self.clock.monotonic() - seen.at)

    def seconds_since(self, moment: datetime) -> float:
        """Return how long ago the database's clock showed `moment`; 0 if it is still to come."""
        return max(-self.seconds_until(moment), 0.0)

    # --- the heartbeat's history --------------------------------------------------------------------------------------

    def renewed(self) -> None:
        """Take note of a renewal; after a gap nobody is declared dead for a while.

        An outage longer than the TTL lets every row expire: the first node back must not bury all the others.
        """
        now = self.clock.monotonic()
        if self._renewed_at is None or now - self._renewed_at > self.lease_ttl / 2:
            self._resumed_at = now
        self._renewed_at = now

    def may_declare_dead(self) -> bool:
        """Tell whether this node's own renewals are regular enough to judge others."""
        if self._renewed_at is None or self._resumed_at is None:
            return False
        now = self.clock.monotonic()
        return now - self._renewed_at <= self.lease_ttl / 2 and now - self._resumed_at >= self.lease_ttl / 3


def node_of(owner: str) -> str:
    """Return the node's name in an owner id."""
    return owner.rsplit("/", 3)[0]
