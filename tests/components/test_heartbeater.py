"""The owner row: renewed by a thread of its own, given up when the process cannot use it, made anew when it is lost."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

import continuum
from continuum import telemetry, workflow
from continuum.clock import SystemClock
from continuum.ids import uuid7
from continuum.journal.port import Contended
from continuum.model.owners import Owner
from continuum.runtime.heartbeater import HeartThread, Membership, ThreadedHeartbeater, _shared
from continuum.runtime.node import Node
from continuum.telemetry import Emitter
from tests.support.eventually import eventually
from tests.support.hosting import Place, instance_of, wiring_of
from tests.support.stage import TTL, Stage

Errors = list[Exception]


@workflow
async def waits() -> int:
    return await continuum.wait_signal("go", int)


class Heart:
    """The owner statements of a journal, some of which fail."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.renewals = 0
        self.failures: Errors = []
        self.threads: set[str] = set()

    def heart(self) -> "Heart":
        return self

    async def close_heart(self) -> None:
        self.threads.add(f"closed by {threading.current_thread().name}")

    async def register(self, owner: Owner, *, ttl_seconds: float) -> datetime:
        self._fail()
        self.rows[owner.owner] = 0
        return datetime.now(UTC)

    async def renew(self, owner: str, *, ttl_seconds: float) -> datetime | None:
        self.threads.add(threading.current_thread().name)
        self.renewals += 1
        self._fail()
        return datetime.now(UTC) if owner in self.rows else None

    async def retire(self, owner: str) -> None:
        self.rows.pop(owner, None)

    async def declare_dead(self) -> list[str]:
        return []

    async def owners(self) -> list[Owner]:
        return []

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


class Beating:
    """A heartbeater over such a journal."""

    def __init__(self, ttl: float = 0.3) -> None:
        self.heart = Heart()
        self.lost: list[str] = []
        self.unanswered: Callable[[], float | None] = lambda: None
        self.node = _node(ttl)
        self.membership = Membership(node=self.node, owners=self.heart, lost=self.lost.append)
        self.heartbeater = ThreadedHeartbeater(
            "test.heartbeater",
            node=self.node,
            journal=self.heart,
            membership=self.membership,
            interval=0.02,
            unanswered_since=lambda: self.unanswered(),  # noqa: PLW0108  # a test replaces it later
        )


def _node(ttl: float) -> Node:
    return Node(
        instance="test",
        name="n",
        clock=SystemClock(),
        draw=random.Random(0),
        new_id=uuid7,
        emit=Emitter(instance="test", node="n"),
        lease_ttl=ttl,
    )


@pytest.fixture
async def beating() -> AsyncIterator[Beating]:
    beating = Beating()
    await beating.membership.ensure()
    await beating.heartbeater.start()
    yield beating
    await asyncio.wait_for(beating.heartbeater.stop(), 10)


async def test_it_renews_on_a_thread_of_its_own(beating: Beating) -> None:
    await eventually(lambda: beating.heart.renewals > 3)
    assert beating.heart.threads == {"continuum-heartbeat"}
    assert beating.lost == []
    assert beating.node.may_declare_dead() or beating.heart.renewals < 10


# P6
@pytest.mark.parametrize(
    "failure", [continuum.JournalUnavailable("away"), Contended("locked"), OSError("no route"), RuntimeError("a bug")], ids=lambda failure: type(failure).__name__
)  # fmt: skip
async def test_whatever_a_renewal_fails_with_the_next_is_tried(beating: Beating, failure: Exception) -> None:
    heard: list[telemetry.TelemetryEvent] = []
    telemetry.attach(heard.append, ["lease.renewal_failed"])
    owner = beating.node.owner
    beating.heart.failures = [failure] * 2
    await eventually(lambda: not beating.heart.failures)
    seen = beating.heart.renewals
    await eventually(lambda: beating.heart.renewals > seen + 2)
    telemetry.detach(heard.append)
    assert (beating.node.owner, beating.lost, len(heard)) == (owner, [], 2)
    assert heard[0].metadata["instance"] == "test"


async def test_renewals_that_keep_failing_make_it_degraded(beating: Beating) -> None:
    beating.heart.failures = [OSError("away")] * 7
    await eventually(lambda: beating.heartbeater.is_degraded)
    await eventually(lambda: not beating.heartbeater.is_degraded)


async def test_a_row_that_is_gone_is_lost_once_and_a_new_one_made(beating: Beating) -> None:
    owner = beating.node.owner
    assert owner is not None
    beating.heart.rows.clear()
    await eventually(lambda: beating.node.owner not in (None, owner))
    assert beating.lost == [owner]
    seen = beating.heart.renewals
    await eventually(lambda: beating.heart.renewals > seen + 2)
    assert beating.lost == [owner]


async def test_coming_back_is_tried_until_it_succeeds(beating: Beating) -> None:
    owner = beating.node.owner
    beating.heart.rows.clear()
    await eventually(lambda: beating.lost)
    beating.heart.failures = [Contended("locked"), OSError("away"), continuum.JournalUnavailable("away")]
    await eventually(lambda: beating.node.owner not in (None, owner))


async def test_a_committer_that_is_not_answered_gives_the_leases_up(beating: Beating) -> None:
    heard: list[str] = []

    def note(event: telemetry.TelemetryEvent) -> None:
        heard.append(event.name)

    telemetry.attach(note, ["commit.blocked", "owner.lost"])
    owner = beating.node.owner
    began = beating.node.clock.monotonic()
    beating.unanswered = lambda: began
    await eventually(lambda: beating.lost == [owner])
    assert beating.node.owner is None  # and it does not come back while nothing it wrote would be answered
    beating.unanswered = lambda: None
    await eventually(lambda: beating.node.owner is not None)
    telemetry.detach(note)
    assert heard[0] == "commit.blocked"
    assert "owner.lost" in heard


async def test_a_stop_right_after_the_start_ends() -> None:
    for _ in range(20):
        beating = Beating()
        await beating.heartbeater.start()
        await asyncio.wait_for(beating.heartbeater.stop(), 5)


async def test_the_thread_is_shared_and_ends_with_its_last_user() -> None:
    first, second = Beating(), Beating()
    await first.heartbeater.start()
    await second.heartbeater.start()
    await first.heartbeater.start()  # harmless
    assert len(_shared) == 1
    assert isinstance(_shared[0], HeartThread)
    assert _shared[0].users == 2
    await first.heartbeater.stop()
    assert _shared[0].users == 1
    await second.heartbeater.stop()
    await second.heartbeater.stop()
    assert _shared == []
    await eventually(lambda: not any(thread.name == "continuum-heartbeat" for thread in threading.enumerate()))


async def test_renewals_without_a_thread_do_the_same(stage: Stage) -> None:
    node = await stage.still()
    run = await node.instance.start(waits)
    first = node.owner
    await node.once("heartbeater")
    assert node.owner == first
    await node.parts.journal.retire(first)
    await node.once("heartbeater")
    assert node.owner != first
    assert not node.holds(run.run_id)
    assert stage.store.owners[node.owner].owner.instance == "stage"


async def test_a_draining_node_does_not_come_back(stage: Stage) -> None:
    node = await stage.still()
    await node.parts.journal.retire(node.owner)
    node.parts.node.is_draining = True
    await node.once("heartbeater")
    assert node.parts.node.owner is None


async def test_leases_last_one_ttl_without_a_heartbeat(stage: Stage) -> None:
    silent, other = await stage.still(heartbeater=False), await stage.still()
    for _ in range(4):
        await other.once("heartbeater")
        await stage.move(TTL / 3)
    owner = silent.owner
    await other.once("recovery")
    assert owner not in stage.store.owners


async def test_a_real_instance_beats_on_its_own_connection(engine: Any) -> None:
    children = Place("sqlite", engine).another(heartbeater={"interval": 0.02}, lease_ttl=6.0)
    renewed: list[Any] = []
    async with children:
        node = wiring_of(instance_of(children)).node
        before = node._renewed_at
        await eventually(lambda: node._renewed_at != before)
        renewed.append(node.owner)
    assert renewed[0] is not None
