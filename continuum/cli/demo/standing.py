"""What the journal says about all orders at one moment.

The parent reads what any client can: runs and histories; and, because the demo is about leases, who holds each run. Only
histories that have grown are read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from continuum.cli.demo.orders import Order
from continuum.client.reading import HistoryEvent
from continuum.composition.instance import Instance
from continuum.journal.port import RunFilter
from continuum.model.events import EventType
from continuum.model.runs import RunRow
from continuum.model.states import RunState

RUNS_MAX = 1_000  # far more than the orders


@dataclass(frozen=True, slots=True)
class Seen:
    """One order's run; `node` holds its lease, if anybody does."""

    order: Order
    run_id: str
    state: RunState
    node: str | None
    started_at: datetime
    ended_at: datetime | None
    events: tuple[HistoryEvent, ...]

    @property
    def last_seq(self) -> int:
        """The position of its last event."""
        return self.events[-1].seq if self.events else 0

    @property
    def performed(self) -> tuple[str, ...]:
        """The activities whose effect has been journaled."""
        return tuple(activity_of(event) for event in self.events if event.type == EventType.ACTIVITY_COMPLETED)


@dataclass(frozen=True, slots=True)
class Standing:
    """All runs that were started, by order number."""

    runs: tuple[Seen, ...]

    @property
    def performed(self) -> int:
        """How many activities have been performed."""
        return sum(len(run.performed) for run in self.runs)

    @property
    def ended(self) -> int:
        """How many runs have ended, well or not."""
        return sum(run.state.has_ended for run in self.runs)

    def held_by(self, node: str) -> list[Seen]:
        """Return the runs that a node holds and that have not ended."""
        return [run for run in self.runs if run.node == node and not run.state.has_ended]


class Watcher:
    """Looks at the journal through a client."""

    def __init__(self, client: Instance) -> None:
        self._client = client
        self._events: dict[str, tuple[HistoryEvent, ...]] = {}

    async def look(self, orders: Mapping[str, Order]) -> Standing:
        """Return how the runs of these orders, given by run id, stand."""
        assert self._client.wiring is not None, "the client is running"
        rows = await self._client.wiring.journal.list_runs(RunFilter(), limit=RUNS_MAX, before=None)
        seen = [await self._seen(row, orders[row.run_id]) for row in rows if row.run_id in orders]
        return Standing(tuple(sorted(seen, key=lambda run: run.order.number)))

    async def _seen(self, row: RunRow, order: Order) -> Seen:
        known = self._events.get(row.run_id, ())
        if row.last_seq != (known[-1].seq if known else 0):
            known = tuple(await self._client.history(row.run_id))
            self._events[row.run_id] = known
        node = None if row.lease_owner is None else row.lease_owner.partition("/")[0]
        return Seen(order, row.run_id, row.state, node, row.created_at, row.ended_at, known)


def activity_of(event: HistoryEvent) -> str:
    """Return the activity that an event is about, as the demo calls it."""
    return (event.name or "").removeprefix("demo.")
