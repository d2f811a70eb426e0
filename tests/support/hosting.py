"""Places to host instances: a database of each kind, and any number of nodes on it in this process."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

import continuum
from continuum.clock import SystemClock
from continuum.composition.building import memory_instance, real_world
from continuum.composition.children import Children, children_of
from continuum.composition.instance import Instance
from continuum.composition.instances import Instances
from continuum.composition.options import settings_of
from continuum.composition.transacting import no_transactions, transactions_on
from continuum.composition.wiring import Wiring, World
from continuum.journal.memory import MemoryJournal, MemoryStore
from continuum.journal.port import Journal
from continuum.journal.sealing import sealed
from continuum.journal.sql import SqlJournal
from tests.support.eventually import eventually

NAME = "app"
TABLES = ("runs", "events", "inbox", "tasks", "owners", "snapshots", "activity_results", "schedules")

# Everything polls often, so that what is only found by polling is found soon; leases outlast a stalled machine.
QUICK: dict[str, Any] = {
    "node": "here",
    "lease_ttl": 6.0,
    "drain_timeout": 3.0,
    "dispatcher": {"interval": 0.05},
    "activity_dispatcher": {"interval": 0.05},
    "recovery": {"interval": 0.1},
    "signal_router": {"catch_up": 0.1},
    "timer_wheel": {"horizon": 2.0},
    "schedule_runner": {"interval": 0.05},
    "snapshotter": {"interval": 0.05},
    "pruner": {"interval": 0.1},
}


class Place:
    """A database: in memory (`engine` None), SQLite or PostgreSQL; `codec` seals what instances here store."""

    def __init__(self, kind: str, engine: AsyncEngine | None, *, codec: Any = None) -> None:
        self.kind = kind
        self.engine = engine
        self.codec = codec
        self.store = MemoryStore(SystemClock())

    def __repr__(self) -> str:
        return f"<Place {self.kind}>"

    def children(self, name: str = NAME, **options: Any) -> Children:
        """Return the children of an instance that is registered under its name."""
        chosen = {**QUICK, **options}
        if self.engine is not None:
            return continuum.children(name=name, engine=self.engine, payload_codec=self.codec, **chosen)
        if self.codec is None:
            return children_of(memory_instance(settings_of(name, chosen), self.store, real_world))
        return self.another(name, **options)

    def another(self, name: str = NAME, *, journal: Callable[[], Journal] | None = None, **options: Any) -> Children:
        """Return the children of one more node of an instance, which only its own object knows."""
        settings = settings_of(name, {**QUICK, **options})
        is_threaded = self.engine is not None
        transactions = no_transactions if self.engine is None else transactions_on(self.engine)
        return children_of(
            Instance(
                settings,
                make_journal=journal or self.journal,
                prepare=_nothing,
                world=lambda: replace(
                    real_world(), is_threaded=is_threaded, draw=random.Random(0), transactions=transactions
                ),
                instances=Instances(),
            )
        )

    def journal(self) -> Journal:
        """Return a journal on this database, not opened."""
        bare: Journal = MemoryJournal(self.store) if self.engine is None else SqlJournal(self.engine)
        return sealed(bare, self.codec)

    @asynccontextmanager
    async def node(self, name: str = NAME, **options: Any) -> AsyncIterator[Instance]:
        """Run one more node of an instance while the block lasts."""
        node = self.another(name, **options)
        async with node:
            yield instance_of(node)

    async def count(self, table: str) -> int:
        """Return how many rows a table has."""
        if self.engine is None:
            stored = getattr(self.store, table)
            return sum(len(rows) if isinstance(rows, list | dict) else 1 for rows in stored.values())
        async with self.engine.connect() as connection:
            return int((await connection.execute(text(f"SELECT count(*) FROM continuum_{table}"))).scalar_one())

    async def everything(self) -> bytes:
        """Return all that is stored, to search it for what should not be there."""
        if self.engine is None:
            return repr({name: getattr(self.store, name) for name in TABLES}).encode()
        found: list[bytes] = []
        async with self.engine.connect() as connection:
            for table in TABLES:
                for row in await connection.execute(text(f"SELECT * FROM continuum_{table}")):
                    found.extend(value if isinstance(value, bytes) else str(value).encode() for value in row)
        return b"\n".join(found)


async def _nothing() -> None:
    """Prepare nothing: whoever made the place has migrated it."""


def instance_of(children: Children) -> Instance:
    """Return the instance of one instance's children."""
    assert children.instance is not None
    return children.instance


def wiring_of(instance: Instance) -> Wiring:
    """Return the parts of a running instance."""
    assert instance.wiring is not None
    return instance.wiring


async def evict(instance: Instance, run_id: str, *, waits_for: str) -> None:
    """Let a run leave memory, once it waits for a signal and for nothing else."""

    def is_leaving() -> bool:
        execution = wiring_of(instance).registry.get(run_id)
        machine = execution.machine if execution is not None else None
        return execution is not None and machine is not None and waits_for in machine.waits_for and execution.evict()

    await eventually(is_leaving)
    await eventually(lambda: run_id not in wiring_of(instance).registry)


async def crash(children: Children) -> None:
    """End a node without any farewell; its owner row is gone at once, as if it had been declared dead."""
    instance = instance_of(children)
    instance._drained = "yes"  # so that nothing is handed over
    await children.stop()


__all__ = ["NAME", "QUICK", "Place", "World", "crash", "evict", "instance_of", "wiring_of"]
