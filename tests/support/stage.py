"""Nodes on an in-memory journal in virtual time, whose loops pass only when a test says so."""

import asyncio
import random
from typing import Any

from continuum.clock import VirtualClock
from continuum.composition.children import Children, children_of
from continuum.composition.instance import Instance
from continuum.composition.instances import Instances
from continuum.composition.options import settings_of
from continuum.composition.wiring import Wiring, World
from continuum.definitions.catalog import catalog
from continuum.ids import uuid7
from continuum.journal.memory import MemoryJournal, MemoryStore
from continuum.runtime.component import Loop
from tests.support.hosting import instance_of, wiring_of

TTL = 30.0
STANDING = {"journal", "pubsub", "registry", "run_supervisor", "activity_supervisor"}


class Node:
    """One node: its instance and its parts."""

    def __init__(self, children: Children) -> None:
        self.children = children
        self.instance = instance_of(children)

    @property
    def parts(self) -> Wiring:
        return wiring_of(self.instance)

    @property
    def owner(self) -> str:
        owner = self.parts.node.owner
        assert owner is not None
        return owner

    async def once(self, part: str) -> bool:
        """Let one loop do one pass, as if it had been asked to."""
        loop = self.parts.components[part]
        assert isinstance(loop, Loop)
        loop.was_asked = True
        again = await loop.once()
        await settled()
        return again

    def holds(self, run_id: str) -> bool:
        return run_id in self.parts.registry


class Stage:
    """A database and its nodes."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.store = MemoryStore(clock)
        self.nodes: list[Node] = []

    async def node(self, *, has_pollers: bool = False, **options: Any) -> Node:
        """Start a node; `has_pollers` lets its loops run by the clock, which still stands until it is moved."""
        node = self._made(has_pollers=has_pollers, **options)
        await node.children.start()
        await settled()
        return node

    def _made(self, *, has_pollers: bool, **options: Any) -> Node:
        children = children_of(
            Instance(
                settings_of("stage", {"node": f"n{len(self.nodes)}", "lease_ttl": TTL, **options}),
                make_journal=lambda: MemoryJournal(self.store),
                prepare=_nothing,
                world=lambda: World(
                    clock=self.clock,
                    draw=random.Random(0),
                    new_id=uuid7,
                    catalog=catalog(),
                    is_threaded=False,
                    has_pollers=has_pollers,
                ),
                instances=Instances(),
            )
        )
        node = Node(children)
        self.nodes.append(node)
        return node

    async def still(self, **options: Any) -> Node:
        """Start a node none of whose loops passes, nudged or not, but by `once`."""
        node = self._made(has_pollers=False, **options)
        for part in node.children:
            if part.name.partition(".")[2] in STANDING:
                await part.start()
        await settled()
        return node

    async def move(self, seconds: float) -> None:
        """Move time on, letting everything happen in between."""
        target = self.clock.monotonic() + seconds
        await settled()
        while (due := self.clock.next_deadline()) is not None and due <= target:
            self.clock.move_to(due)
            await settled()
        self.clock.move_to(target)
        await settled()

    async def clear(self) -> None:
        """Stop every node."""
        for node in self.nodes:
            if node.instance.wiring is not None:
                node.instance.settings.values["drain_timeout"] = 0.0
                stopping = asyncio.ensure_future(node.children.stop())
                while not stopping.done():
                    await settled()
                    due = self.clock.next_deadline()
                    if due is not None and not stopping.done():
                        self.clock.move_to(due)
                await stopping


async def _nothing() -> None:
    """Prepare nothing."""


async def settled() -> None:
    """Let everything that can happen without time happen."""
    for _ in range(60):
        await asyncio.sleep(0)
