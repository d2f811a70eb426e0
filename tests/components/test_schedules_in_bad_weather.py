"""Three nodes, lost answers, an absent database, crashes and restarts: each fire time still has its one run, or its reason."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from continuum import FIRE_TIME, workflow
from continuum.clock import VirtualClock
from continuum.composition.children import Children, children_of
from continuum.composition.instance import Instance
from continuum.composition.instances import Instances
from continuum.composition.options import settings_of
from continuum.composition.wiring import World
from continuum.definitions.catalog import catalog, scoped_catalog
from continuum.errors import JournalUnavailable
from continuum.ids import uuid7
from continuum.journal.memory import MemoryJournal, MemoryStore
from continuum.journal.port import Ambiguous, Contended
from continuum.model.schedules import Overlap
from tests.support.hosting import crash, instance_of
from tests.support.stage import settled

START = datetime(2026, 1, 1, tzinfo=UTC)
TEN_MINUTES = timedelta(minutes=10)
STORMY = {"fire", "due_schedules"}


class Weather:
    """Goes wrong around the steps that schedules take, at random."""

    def __init__(self, draw: Random) -> None:
        self._draw = draw
        self.lost = 0

    async def before(self, step: str) -> None:
        for _ in range(self._draw.randrange(4)):  # the others go on meanwhile
            await asyncio.sleep(0)
        if step in STORMY and self._draw.random() < 0.15:
            raise self._draw.choice([JournalUnavailable("no connection"), Contended("a lock was not to be had")])

    async def after(self, step: str) -> None:
        if step == "fire" and self._draw.random() < 0.25:
            self.lost += 1
            raise Ambiguous("the connection ended before the answer")


class Cluster:
    """Nodes that come and go over one store; nothing polls, so that days pass in a moment."""

    def __init__(self, draw: Random) -> None:
        self.clock = VirtualClock()
        self.store = MemoryStore(self.clock)
        self.draw = draw
        self.weather = Weather(draw)
        self.nodes: list[Children] = []
        self._count = 0

    async def boot(self) -> Instance:
        self._count += 1
        node = children_of(
            Instance(
                settings_of("stormy", {"node": f"n{self._count}", "schedule_runner": {"backoff": 1.0}}),
                make_journal=lambda: MemoryJournal(self.store, faults=self.weather),
                prepare=_nothing,
                world=lambda: World(
                    clock=self.clock,
                    draw=random.Random(self._count),
                    new_id=uuid7,
                    catalog=catalog(),
                    is_threaded=False,
                    has_pollers=False,
                ),
                instances=Instances(),
            )
        )
        await node.start()
        self.nodes.append(node)
        return instance_of(node)

    async def lose_one(self) -> None:
        node = self.nodes.pop(self.draw.randrange(len(self.nodes)))
        instance_of(node).settings.values["drain_timeout"] = 0.0
        await crash(node)

    async def move(self, by: timedelta) -> None:
        target = self.clock.monotonic() + by.total_seconds()
        await settled()
        while (due := self.clock.next_deadline()) is not None and due <= target:
            self.clock.move_to(due)
            await settled()
        self.clock.move_to(target)
        await settled()


async def _nothing() -> None:
    """Nothing is to be prepared."""


@pytest.fixture(params=range(4))
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    with scoped_catalog():
        cluster = Cluster(Random(request.param))
        yield cluster
        while cluster.nodes:
            await cluster.lose_one()


@pytest.mark.parametrize("overlap", [Overlap.ALLOW, Overlap.SKIP, Overlap.BUFFER_ONE])
async def test_no_fire_time_is_lost_and_none_has_two_runs(cluster: Cluster, overlap: Overlap) -> None:
    @workflow(name="test.stormy")
    async def stormy(at: datetime) -> str:
        return at.isoformat()

    first = await cluster.boot()
    await first.schedule(stormy, FIRE_TIME, every=TEN_MINUTES, id="stormy", overlap=overlap, catch_up=timedelta(days=9))
    for _ in range(2):
        await cluster.boot()
    for _ in range(12):
        await cluster.move(timedelta(minutes=cluster.draw.randrange(60, 180)))
        await cluster.lose_one()
        await cluster.boot()
    await cluster.move(timedelta(minutes=9, seconds=59))
    node = instance_of(cluster.nodes[0])
    schedule = await node.get_schedule("stormy")
    assert schedule.next_at is not None
    due = (schedule.next_at - START) // TEN_MINUTES - 1
    assert schedule.next_at > cluster.clock.now()
    assert schedule.fired + schedule.skipped == due
    page = await node.list_runs(limit=1000)
    times = [run.attributes["continuum.scheduled_at"] for run in page.items]
    assert len(set(times)) == len(times) == schedule.fired
    assert cluster.weather.lost > 0
    if overlap is Overlap.ALLOW:
        assert sorted(map(datetime.fromisoformat, times)) == [START + n * TEN_MINUTES for n in range(1, due + 1)]
