"""Every documented event can be made to fire by public verbs, and carries what its row of the table says.

Scenes on an in-memory journal in virtual time, each a small story; what only befalls real connections and threads is made
by a journal that refuses, raises or keeps silent. No scene calls the emitter. At the end stands a table of what fired.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import continuum
from continuum import Retry, activity, telemetry, workflow
from continuum.clock import VirtualClock
from continuum.errors import JournalUnavailable
from continuum.journal.memory import MemoryJournal
from continuum.journal.port import Ambiguous, BadData, Contended
from continuum.telemetry import EVENTS, TelemetryEvent
from tests.components.test_peers import Wire, node_on
from tests.scenarios.test_transactional import other_writer
from tests.support.eventually import eventually
from tests.support.hosting import Place, instance_of, wiring_of
from tests.support.stage import TTL, Node, Stage, settled
from tests.support.telling import complaints

ONCE = Retry(max_attempts=1)


class Ledger:
    """Keeps what was told, scene by scene, and what of it is not as documented."""

    def __init__(self) -> None:
        self.scene = ""
        self.told: list[TelemetryEvent] = []
        self.fired: dict[str, Counter[str]] = {}
        self.wrong: list[str] = []

    def hear(self, event: TelemetryEvent) -> None:
        self.told.append(event)
        self.fired.setdefault(event.name, Counter())[self.scene] += 1
        self.wrong += [f"{self.scene}: {event.name} {complaint}" for complaint in complaints(event)]

    def names(self) -> list[str]:
        return [event.name for event in self.told]

    def last(self, name: str) -> TelemetryEvent:
        return next(event for event in reversed(self.told) if event.name == name)

    def table(self) -> str:
        rows = [
            f"{name:30} {sum(scenes.values()):5}  {', '.join(sorted(scenes))}"
            for name, scenes in sorted(self.fired.items())
        ]
        return "\n".join(rows)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    ledger = Ledger()
    telemetry.attach(ledger.hear)
    yield ledger
    telemetry.detach(ledger.hear)


# --- what is run ------------------------------------------------------------------------------------------------------

gate = asyncio.Event()


@activity(name="told.flaky", retry=Retry(max_attempts=2, initial=1.0))
async def flaky(failures: int) -> int:
    if continuum.activity_context().attempt <= failures:
        raise OSError("not yet")
    return failures


@activity(name="told.slow", timeout=5.0, retry=ONCE)
async def slow() -> None:
    await asyncio.Event().wait()


@activity(name="told.beats", retry=Retry(max_attempts=3, initial=1.0))
async def beats() -> None:
    continuum.activity_context().heartbeat({"page": 1})
    await gate.wait()


@activity(name="told.once_each", idempotency_key=lambda key: key)
async def once_each(key: str) -> str:
    return key


@activity(name="told.unbook", retry=ONCE)
async def unbook(booking: int) -> None:
    if booking == 2:
        raise OSError("gone")


@activity(name="told.book", compensate=unbook)
async def book(seat: int) -> int:
    return seat


@workflow(name="told.whole")
async def whole() -> int:
    await continuum.side_effect(lambda: 1)
    continuum.patched("new-tax")
    continuum.log("warning", "told once", order="o-1")
    await asyncio.sleep(1)
    return await flaky(1)


@workflow(name="told.fails")
async def fails() -> None:
    await flaky(2)


@workflow(name="told.times_out")
async def times_out() -> None:
    await slow()


@workflow(name="told.beating")
async def beating() -> None:
    await beats()


@workflow(name="told.keyed")
async def keyed() -> list[str]:
    return [await once_each("k"), await once_each("k")]


@workflow(name="told.books")
async def books() -> None:
    await asyncio.gather(book(1), book(2))
    await continuum.wait_signal("never")


@workflow(name="told.gives_up")
async def gives_up() -> None:
    with_limit = asyncio.create_task(_beats())
    await continuum.wait_signal("enough")
    with_limit.cancel()
    await asyncio.sleep(1)


async def _beats() -> None:
    await beats()


@workflow(name="told.waits")
async def waits(name: str = "go") -> object:
    return await continuum.wait_signal(name)


@workflow(name="told.kid")
async def kid(does: str) -> str:
    if does == "fail":
        raise continuum.ActivityError("the child failed")
    if does == "wait":
        await continuum.wait_signal("go")
    return does


@workflow(name="told.parent")
async def parent() -> list[str]:
    kids = [await continuum.start_child(kid, does, id=does) for does in ("work", "fail", "wait")]
    await continuum.cancel(kids[2].run_id)
    ends = await asyncio.gather(*kids, return_exceptions=True)
    return [type(end).__name__ for end in ends]


moods = ["good"]


def in_mood(value: int) -> int:
    if moods[0] == "bad":
        raise KeyError("nobody expected this")
    return value


@workflow(name="told.moody")
async def moody(value: Annotated[int, AfterValidator(in_mood)]) -> int:
    return value


@workflow(name="told.continues")
async def continues(n: int) -> int:
    if n == 0:
        await continuum.wait_signal("go")
        continuum.continue_as_new(1)
    return n


# --- scenes -----------------------------------------------------------------------------------------------------------


def failing(node: Node, method: str, *errors: Exception | float) -> None:
    """Let a node's database fail: each of the next calls raises, or answers so many seconds later."""
    fail_first(node.parts.journal, method, *errors, sleep=node.parts.node.clock.sleep)


def fail_first(
    target: Any, method: str, *errors: Exception | float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    really, left = getattr(target, method), list(errors)

    async def fails_first(*args: Any, **kwargs: Any) -> Any:
        error = left.pop(0) if left else None
        if isinstance(error, Exception):
            raise error
        if error is not None:
            await sleep(error)
        return await really(*args, **kwargs)

    setattr(target, method, fails_first)


async def a_run_from_start_to_end(stage: Stage, ledger: Ledger) -> None:
    node = await stage.node()
    run = await node.instance.start(whole)
    await stage.move(5)
    assert await run.result() == 1
    names = [
        name for name in ledger.names() if name.split(".")[0] in {"run", "timer", "activity", "side_effect", "lease"}
    ]
    assert names == [
        "lease.acquired", "run.started", "side_effect.recorded", "run.patched", "timer.scheduled", "run.logged", "run.suspended",
        "run.resumed", "timer.fired", "activity.scheduled", "activity.started", "run.suspended",
        "activity.retried", "activity.started", "activity.completed", "run.resumed", "run.completed",
    ]  # fmt: skip
    said = ledger.last("run.logged").metadata
    assert (said["level"], said["message"], said["run_id"]) == ("WARNING", "told once", run.run_id)
    assert ledger.last("run.completed").measurements["duration_seconds"] == pytest.approx(2.0, abs=0.2)
    assert ledger.last("timer.scheduled").measurements == {"delay_seconds": 1.0}
    assert ledger.last("timer.fired").measurements["lateness_seconds"] == pytest.approx(0.0, abs=0.01)
    assert ledger.last("activity.retried").metadata["next_attempt"] == 2


async def activities_that_end_badly(stage: Stage, ledger: Ledger) -> None:
    node = await stage.node()
    for flow in (fails, times_out):
        run = await node.instance.start(flow)
        await stage.move(10)
        with pytest.raises(continuum.RunFailed):
            await run.result()
    assert ledger.last("activity.timed_out").metadata["limit"] == "timeout"
    assert ledger.last("activity.failed").measurements == {"duration_seconds": 5.0}
    assert ledger.last("run.failed").metadata["error"].endswith("ActivityTimedOut")
    run = await node.instance.start(gives_up)
    await node.once("activity_supervisor")
    await run.signal("enough")
    await stage.move(2)
    again = await node.instance.start(keyed)
    await stage.move(1)
    assert await again.result() == ["k", "k"]
    assert ledger.last("activity.idempotency_hit").metadata["recorded_by"] == again.run_id


async def signals(stage: Stage, ledger: Ledger) -> None:
    node, other = await stage.node(), await stage.node(run_supervisor=False)
    run = await node.instance.start(waits, "second")
    await run.signal("first")
    assert ledger.last("signal.buffered").metadata["signal"] == "first"
    posted = await other.instance.signal(run.run_id, "second", delivery_id="d")
    await stage.move(1)
    await node.once("signal_router")
    assert (posted, await run.signal("second", delivery_id="d")) == ("delivered", "duplicate")
    await run.result()
    assert ledger.last("signal.received").measurements["waited_seconds"] == pytest.approx(1.0, abs=0.1)
    assert Counter(ledger.names())["signal.buffered"] == 1


async def children_and_messages(stage: Stage, ledger: Ledger) -> None:
    node = await stage.node()
    run = await node.instance.start(parent)
    await stage.move(5)
    assert await run.result() == ["str", "ChildFailed", "ChildCancelled"]
    assert Counter(name for name in ledger.names() if name.startswith("child.")) == {
        "child.started": 3, "child.completed": 1, "child.failed": 1, "child.cancelled": 1,
    }  # fmt: skip
    assert ledger.last("run.enqueued").metadata["parent_run_id"] == run.run_id
    ends = {event.name: event.metadata["workflow"] for event in ledger.told if event.name.startswith("run.ca")}
    assert ends == {"run.cancelled": "told.kid"}  # by its parent, as by anybody


async def what_is_owed_is_undone(stage: Stage, ledger: Ledger) -> None:
    node = await stage.node()
    run = await node.instance.start(books)
    await stage.move(1)
    await run.cancel(compensate=True)
    await stage.move(1)
    assert ledger.last("compensation.failed").metadata["undoes"] == "told.book"
    assert ledger.last("run.cancelled").metadata["compensated"] is True


async def every_cancel_is_told_alike(stage: Stage, ledger: Ledger) -> None:
    node = await stage.node()
    later = await node.instance.start(waits, start_at=node.parts.node.database_now() + timedelta(days=1))
    here = await node.instance.start(waits)
    await settled()
    elsewhere = await stage.node(client_only=True)
    for run_id in (later.run_id, here.run_id):  # one that was never claimed, one that lives on another node
        cancelling = asyncio.create_task(elsewhere.instance.cancel(run_id))
        await stage.move(3)
        await node.once("signal_router")
        await cancelling
    told = [event.metadata["run_id"] for event in ledger.told if event.name == "run.cancelled"]
    assert told == [later.run_id, here.run_id]


def changing(does: str) -> Any:
    """Define the same workflow anew, with other code."""

    @workflow(name="told.changes")
    async def flow() -> object:
        await (asyncio.sleep(1) if does == "sleep" else book(1))
        return await continuum.wait_signal("go")

    return flow


async def code_that_does_not_fit(stage: Stage, ledger: Ledger) -> None:
    node = await stage.node()
    run = await node.instance.start(changing("book"))
    await settled()
    assert node.parts.registry.get(run.run_id).evict()  # type: ignore[union-attr]
    await settled()
    assert ledger.last("lease.released").metadata["reason"] == "evicted"
    changing("sleep")
    await run.signal("go", 7)
    await node.once("dispatcher")
    told = [name for name in ledger.names() if name.startswith(("run.", "lease."))]
    assert told[-5:] == ["lease.acquired", "run.resumed", "run.drifted", "run.blocked", "lease.released"]
    changing("book")
    await node.once("dispatcher")
    await node.once("dispatcher")
    assert "runs.retried" in ledger.names()
    assert await run.result() == 7
    lost = await stage.still(workflows=[waits])
    found = await stage.still(workflows=[whole])
    one = await lost.instance.start(waits)
    lost.parts.registry.get(one.run_id).evict()  # type: ignore[union-attr]
    await settled()
    await one.signal("go")
    owner = found.owner
    claims = await found.parts.journal.claim_runs(owner, workflows=[("told.waits", 1)], limit=1)
    (loaded,) = await found.parts.journal.load_runs([claim.run_id for claim in claims.runs])
    found.parts.runs.resume(claims.runs[0], loaded, owner=owner)
    await settled()
    assert ledger.last("lease.released").metadata["reason"] == "unservable"


async def generations(stage: Stage, ledger: Ledger) -> None:
    node = await stage.node()
    run = await node.instance.start(continues, 0)
    await run.signal("go")
    assert await run.result() == 1
    assert ledger.last("run.continued").metadata["generation"] == 2
    assert Counter(ledger.names())["run.started"] == 1


async def crashes(stage: Stage, ledger: Ledger) -> None:
    dead, living = await stage.still(), await stage.still()
    run = await dead.instance.start(beating)
    await settled()
    await dead.once("activity_supervisor")
    assert ledger.last("activity.heartbeat").measurements["details_bytes"] > 0
    for _ in range(2):
        await stage.move(TTL / 2)
        await living.once("heartbeater")
    await stage.move(1)
    await living.once("recovery")
    assert ledger.last("owner.dead").metadata["owner"] == dead.owner
    await stage.move(2)
    await living.once("dispatcher")
    await living.once("activity_dispatcher")
    gate.set()
    await settled()
    await living.once("dispatcher")
    assert ledger.last("activity.fenced").metadata["reason"] == "superseded"  # what the dead had to say
    await living.instance.await_run(run.run_id)
    waiting = await dead.instance.start(waits)
    await settled()
    await living.parts.journal.retire(dead.owner)
    await dead.once("heartbeater")
    assert ledger.last("lease.lost").metadata["run_id"] == waiting.run_id
    assert ledger.last("owner.registered").metadata["owner"] == dead.owner
    await living.once("recovery")


async def little_room(stage: Stage, ledger: Ledger) -> None:
    node = await stage.node(run_supervisor={"cache": 1}, activity_supervisor={"max_concurrency": 1})
    runs = [await node.instance.start(beating) for _ in range(2)]
    await stage.move(1)
    await node.once("activity_dispatcher")
    assert ledger.last("activity_dispatcher.saturated").measurements["running"] == 1
    failing(node, "write", 5.0)
    busy = asyncio.create_task(node.instance.start(waits))
    await settled()
    await node.once("dispatcher")
    assert ledger.last("dispatcher.saturated").measurements["runs"] >= 1
    gate.set()
    await stage.move(20)
    await busy
    for run in runs:
        await run.result()
    assert {"run.evicted", "run.replayed", "dispatcher.claimed", "activity_dispatcher.claimed"} <= set(ledger.names())


async def histories(stage: Stage, ledger: Ledger) -> None:
    node = await stage.node(snapshotter={"threshold": 1})
    forever = await node.instance.start(waits)
    await node.once("snapshotter")
    assert ledger.last("snapshot.taken").metadata["run_id"] == forever.run_id
    failing(node, "history", continuum.DurableValueError("the key is gone"))
    await forever.signal("other")
    await settled()
    await node.once("snapshotter")
    assert ledger.last("snapshot.skipped").metadata["reason"] == "unreadable"
    brief = workflow(name="told.brief", retention=timedelta(seconds=1))(_brief)
    await (await node.instance.start(brief)).result()
    await stage.move(2)
    await node.once("pruner")


async def _brief() -> None:
    return None


@workflow(name="told.blocks", allow=("time",))
async def blocks() -> None:
    await continuum.wait_signal("go")
    time.sleep(0.7)


@activity(name="told.record", transactional=True)
async def record(session: AsyncSession) -> None:
    await session.execute(text("SELECT 1"))


@workflow(name="told.records")
async def records() -> None:
    await record()


async def threads(url: str, ledger: Ledger) -> None:
    """The heartbeat's own thread sees what the loop that stands still cannot."""
    ledger.scene, ledger.told = "threads", []
    engine = create_async_engine(url)
    place = Place("sqlite", engine)

    def flawed() -> Any:
        journal: Any = place.journal()
        really = journal.heart

        def heart() -> Any:
            owners = really()
            fail_first(owners, "renew", JournalUnavailable("away"))
            return owners

        journal.heart = heart
        return journal

    children = place.another(journal=flawed, lease_ttl=0.5, recovery=False)
    async with children:
        app = instance_of(children)
        run = await app.start(blocks)
        await run.signal("go")
        await run.result(timeout=15)
        fail_first(wiring_of(app).journal, "write", 0.8)
        await app.start(waits)
        await eventually(lambda: {"loop.blocked", "commit.blocked", "lease.renewal_failed"} <= set(ledger.names()))
    async with place.node() as app:
        with other_writer(SimpleNamespace(engine=engine)):  # type: ignore[arg-type]
            run = await app.start(records)
            await run.result(timeout=15)
    assert ledger.last("activity.collided").measurements == {"collisions": 1}
    await engine.dispose()
    empty = create_async_engine(url.replace("told.db", "empty.db"))
    async with Place("sqlite", empty).another("late", required=False):
        await eventually(lambda: "instance.late" in ledger.names())
    await empty.dispose()


async def schedules(stage: Stage, ledger: Ledger) -> None:
    node = await stage.node(schedule_runner={"attempts": 2, "backoff": 1})
    hour = timedelta(hours=1)
    await node.instance.schedule(waits, every=hour, id="skipping")
    await node.instance.schedule(waits, every=hour, id="buffering", overlap="buffer_one")
    await node.instance.schedule(moody, 1, every=hour, id="moody")
    await node.instance.trigger_schedule("skipping")
    moods[0] = "bad"
    await stage.move(2.1 * 3600)
    moods[0] = "good"
    assert ledger.last("schedule.fired").measurements["lateness_seconds"] < 1
    assert {event.metadata["reason"] for event in ledger.told if event.name == "schedule.skipped"} == {"overlap"}


async def a_database_in_bad_weather(stage: Stage, ledger: Ledger) -> None:
    node = await stage.node()
    failing(node, "write", Contended("locked"), JournalUnavailable("away"), Ambiguous("cut"), BadData("poison"))
    starting = [asyncio.create_task(node.instance.start(waits)) for _ in range(2)]
    await stage.move(10)
    await asyncio.gather(*starting, return_exceptions=True)
    failing(node, "write", BadData("poison"))
    with pytest.raises(continuum.DurableValueError):
        await node.instance.start(waits)
    assert ledger.last("commit.refused").metadata["reason"] == "unwritable"
    failing(node, "unread", JournalUnavailable("away"))
    node.parts.components["signal_router"].nudge()  # type: ignore[attr-defined]
    await stage.move(2)
    assert {"loop.crashed", "loop.restarted"} <= set(ledger.names())
    new = await stage.still()
    failing(new, "carry", JournalUnavailable("away"))
    await new.once("dispatcher")


async def notices(stage: Stage, ledger: Ledger) -> None:
    node = await stage.node(has_pollers=True, signal_router={"catch_up": 1})
    other = stage._made(has_pollers=True, run_supervisor=False)
    parts = iter(other.children)
    await next(parts).start()  # the journal: its connections break from now on

    async def cut() -> AsyncIterator[list[str]]:
        if "listener.lost" not in ledger.names():
            raise JournalUnavailable("cut")
        async for said in really():
            yield said

    journal: Any = other.parts.journal
    really, journal.listen = journal.listen, cut
    failing(other, "notify", JournalUnavailable("cut"))
    for part in parts:
        await part.start()
    run = await node.instance.start(waits)
    await settled()
    await other.instance.signal(run.run_id, "go")
    await stage.move(2)
    await run.result()
    deaf = "only a pooler is there"
    MemoryJournal.deafness = deaf
    try:
        await stage.node(has_pollers=True)
    finally:
        MemoryJournal.deafness = None
    assert ledger.last("listener.absent").metadata["reason"] == deaf


async def peers(stage: Stage, ledger: Ledger) -> None:
    wire = Wire()
    owner, other = await node_on(stage, wire), await node_on(stage, wire, run_supervisor=False)
    stranger = await node_on(stage, wire, run_supervisor=False, secret="another")
    run = await owner.instance.start(waits, "go")
    for node in (other, stranger):
        await node.instance.signal(run.run_id, "hint")
        await settled()
    assert ledger.last("peer.failed").metadata["reason"] == "refused"
    assert ledger.last("peer.refused").metadata["node"] == "n0"
    assert ledger.last("run.forwarded").metadata["to_node"] == "n0"
    assert ledger.last("peer.called").metadata["verbs"] == ("wake",)


async def leaving(stage: Stage, ledger: Ledger) -> None:
    node = await stage.node(drain_timeout=1.0)
    await node.instance.start(waits)
    await settled()
    failing(node, "retire", JournalUnavailable("away"))
    stopping = asyncio.create_task(node.children.stop())
    await stage.move(5)
    await stopping
    assert ledger.last("lease.released").metadata["reason"] == "drained"
    assert ledger.last("instance.drained").metadata["complete"] is True


async def a_handler_that_raises(stage: Stage, ledger: Ledger) -> None:
    def broken(event: TelemetryEvent) -> None:
        raise ValueError(event.name)

    telemetry.attach(broken, "run.*")
    node = await stage.node()
    run = await node.instance.start(waits)
    await run.signal("go")
    await run.result()
    assert ledger.last("handler.detached").metadata["event"] == "run.started"


SCENES: tuple[Callable[[Stage, Ledger], Awaitable[None]], ...] = (
    a_run_from_start_to_end, activities_that_end_badly, signals, children_and_messages, what_is_owed_is_undone,
    every_cancel_is_told_alike, code_that_does_not_fit, generations, crashes, little_room, histories, schedules,
    a_database_in_bad_weather, notices, peers, leaving, a_handler_that_raises,
)  # fmt: skip


async def play(scene: Callable[[Stage, Ledger], Awaitable[None]], ledger: Ledger) -> None:
    ledger.scene, ledger.told = scene.__name__, []
    gate.clear()
    stage = Stage(VirtualClock())
    try:
        await asyncio.wait_for(scene(stage, ledger), 20)
    finally:
        gate.set()
        await stage.clear()


async def test_every_documented_event_fires_and_says_what_its_row_says(
    ledger: Ledger, sqlite_template: Path, tmp_path: Path
) -> None:
    for scene in SCENES:
        await play(scene, ledger)
    shutil.copy(sqlite_template, tmp_path / "told.db")
    await threads(f"sqlite+aiosqlite:///{tmp_path / 'told.db'}", ledger)
    print(ledger.table())
    assert ledger.wrong == []
    assert sorted(set(EVENTS) - set(ledger.fired)) == []
