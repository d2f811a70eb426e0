"""Slots, queues and priorities of attempts; tasks claimed and begun, heartbeats, results that come too late."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest

import continuum
from continuum import Retry, activity, telemetry, workflow
from continuum.journal.port import Contended
from tests.support.stage import TTL, Node, Stage, settled

gates: dict[str, asyncio.Event] = {}
running: list[str] = []
ended: list[str] = []


@pytest.fixture(autouse=True)
async def _afresh() -> AsyncIterator[None]:
    gates.clear()
    running.clear()
    ended.clear()
    yield
    for gate in gates.values():
        gate.set()


@activity(timeout=None, retry=Retry(max_attempts=3, initial=1.0, jitter=0.0))
async def works(name: str) -> str:
    running.append(name)
    try:
        await gates.setdefault(name, asyncio.Event()).wait()
        return f"{name} by attempt {continuum.activity_context().attempt}"
    finally:
        running.remove(name)
        ended.append(name)


@workflow
async def one(name: str, queue: str = "default", priority: int = 0) -> str:
    return await works.options(queue=queue, priority=priority)(name)


@workflow
async def gives_up() -> str:
    try:
        async with asyncio.timeout(10):
            return await works("given up")
    except TimeoutError:
        return "gave up"


@workflow
async def stays_after_giving_up() -> str:
    try:
        async with asyncio.timeout(10):
            return await works("given up")
    except TimeoutError:
        return await continuum.wait_signal("go", str)


@workflow
async def many(names: list[str]) -> list[str]:
    return list(await asyncio.gather(*[works(name) for name in names]))


def slots(node: Node) -> int:
    return node.parts.attempts._taken_in_all


async def open_gate(name: str) -> None:
    gates.setdefault(name, asyncio.Event()).set()
    await settled()


# P70
async def test_no_more_attempts_are_begun_than_there_are_slots(stage: Stage) -> None:
    node = await stage.node(activity_supervisor={"max_concurrency": 2})
    await node.instance.start(many, ["a", "b", "c", "d", "e"])
    await settled()
    assert (sorted(running), slots(node)) == (["a", "b"], 2)
    await open_gate("a")
    assert (sorted(running), slots(node)) == (["b", "c"], 2)
    for name in ("b", "c", "d", "e"):
        await open_gate(name)
    assert (running, slots(node), node.parts.attempts._known) == ([], 0, {})


# P71
async def test_a_queue_with_a_limit_cannot_take_the_slots_of_the_others(stage: Stage) -> None:
    node = await stage.node(activity_supervisor={"max_concurrency": 3, "queues": {"slow": 1}})
    for name in ("s1", "s2", "s3"):
        await node.instance.start(one, name, "slow")
    for name in ("d1", "d2"):
        await node.instance.start(one, name)
    await settled()
    assert sorted(running) == ["d1", "d2", "s1"]
    await open_gate("s1")
    assert sorted(running) == ["d1", "d2", "s2"]


# P71
async def test_who_is_more_urgent_goes_first(stage: Stage) -> None:
    host = await stage.still(activity_supervisor=False)
    for name, priority in (("low", -1), ("first", 5), ("middle", 0), ("second", 5)):
        await host.instance.start(one, name, "default", priority)
    worker = await stage.still(run_supervisor=False, activity_supervisor={"max_concurrency": 1})
    order = []
    for _ in range(4):
        await worker.once("activity_dispatcher")
        order.extend(running)
        await open_gate(running[0])
    assert order == ["first", "second", "middle", "low"]


async def test_a_pass_claims_only_what_has_a_slot(stage: Stage) -> None:
    host = await stage.still(activity_supervisor=False)
    await host.instance.start(many, [f"t{n}" for n in range(10)])
    worker = await stage.still(activity_supervisor={"max_concurrency": 4})
    assert await worker.once("activity_dispatcher") is True
    assert await worker.once("activity_dispatcher") is False
    held = [task for tasks in stage.store.tasks.values() for task in tasks.values() if task.owner == worker.owner]
    assert (len(held), len(running)) == (4, 4)


async def test_tasks_of_activities_that_are_not_served_here_are_left(stage: Stage) -> None:
    host = await stage.still(activity_supervisor=False)
    await host.instance.start(one, "elsewhere")
    ignorant = await stage.still(activities=[])
    await ignorant.once("activity_dispatcher")
    assert (running, slots(ignorant)) == ([], 0)
    knowing = await stage.still(activities=[works])
    await knowing.once("activity_dispatcher")
    assert running == ["elsewhere"]


# P1, P30: the result reaches its run by the inbox alone, without any nudge
async def test_a_late_result_of_an_earlier_attempt_changes_nothing(stage: Stage) -> None:
    heard: list[telemetry.TelemetryEvent] = []
    telemetry.attach(heard.append, ["activity.fenced"])
    host = await stage.still(activity_supervisor=False)
    run = await host.instance.start(one, "twice")
    first, second = await stage.still(run_supervisor=False), await stage.still(run_supervisor=False)
    await first.once("activity_dispatcher")
    late = gates.pop("twice")
    await first.parts.journal.retire(first.owner)  # it is taken for dead, and goes on
    await second.once("recovery")
    await stage.move(5)
    await second.once("activity_dispatcher")
    assert running == ["twice", "twice"]
    late.set()
    await settled()
    assert (await host.instance.get_run(run.run_id)).state == "suspended"
    await open_gate("twice")
    await host.once("signal_router")
    assert await run.result() == "twice by attempt 2"
    telemetry.detach(heard.append)
    assert [event.metadata["attempt"] for event in heard] == [1]


async def test_an_attempt_that_nobody_waits_for_is_told_and_its_task_goes(stage: Stage) -> None:
    node = await stage.node()
    run = await node.instance.start(gives_up)
    await settled()
    assert running == ["given up"]
    await stage.move(11)
    assert await run.result() == "gave up"
    assert (running, ended, slots(node), node.parts.attempts._known) == ([], ["given up"], 0, {})
    assert stage.store.tasks.get(run.run_id, {}) == {}


async def test_a_result_that_nobody_waits_for_any_more_is_forgotten_whole(stage: Stage) -> None:
    """It arrives in the mailbox together with what made it void: no commit, and nothing left behind."""
    node = await stage.node()
    run = await node.instance.start(stays_after_giving_up)
    await settled()
    attempts = node.parts.attempts
    (attempt,) = attempts._attempts.values()
    await stage.move(11)
    node.parts.attempts.returned(attempt, b'"too late"')  # as if it had returned just then
    await settled()
    assert (attempts._known, slots(node)) == ({}, 0)
    await run.signal("go", "on")
    assert await run.result() == "on"


async def test_heartbeats_of_all_attempts_go_in_one_statement(stage: Stage) -> None:
    node = await stage.still()
    for name in "abc":
        await node.instance.start(one, name)
    await settled()
    calls: list[int] = []
    journal: Any = node.parts.journal
    really = journal.heartbeat_tasks

    async def counting(beats: Any) -> Any:
        calls.append(len(beats))
        return await really(beats)

    journal.heartbeat_tasks = counting
    await node.once("activity_supervisor")
    assert calls == [3]
    for name in "abc":
        await open_gate(name)
    await node.once("activity_supervisor")
    assert calls == [3]


async def test_an_attempt_whose_task_is_gone_is_cancelled_by_its_heartbeat(stage: Stage) -> None:
    host, worker = await stage.still(activity_supervisor=False), await stage.still(run_supervisor=False)
    run = await host.instance.start(one, "orphan")
    await worker.once("activity_dispatcher")
    assert running == ["orphan"]
    await host.instance.cancel(run.run_id)
    await worker.once("activity_supervisor")
    assert (running, ended, slots(worker)) == ([], ["orphan"], 0)


# P6
async def test_a_heartbeat_that_fails_cancels_nobody(stage: Stage) -> None:
    node = await stage.node(has_pollers=True)
    await node.instance.start(one, "steady")
    await settled()
    journal: Any = node.parts.journal
    really, failures = journal.heartbeat_tasks, 0

    async def failing(beats: Any) -> Any:
        nonlocal failures
        failures += 1
        if failures <= 2:
            raise Contended("locked")
        return await really(beats)

    journal.heartbeat_tasks = failing
    await stage.move(TTL)
    assert failures > 2
    assert running == ["steady"]
    await open_gate("steady")


async def test_a_retry_is_due_when_its_policy_says(stage: Stage) -> None:
    node = await stage.node()
    run = await node.instance.start(fails_twice)
    for second, begun in ((0.0, 1), (0.9, 1), (0.2, 2), (1.8, 2), (0.3, 3)):
        await stage.move(second)
        assert len(tries) == begun
    assert await run.result() == 3


tries: list[int] = []


@activity(retry=Retry(max_attempts=3, initial=1.0, backoff=2.0, jitter=0.0))
async def fails_at_first() -> int:
    tries.append(1)
    if len(tries) < 3:
        raise OSError("again")
    return len(tries)


@workflow(allow=("module-state",))
async def fails_twice() -> int:
    tries.clear()
    return await fails_at_first()


async def test_every_word_of_an_attempts_life_is_told(stage: Stage) -> None:
    heard: list[telemetry.TelemetryEvent] = []
    telemetry.attach(heard.append)
    node = await stage.node()
    run = await node.instance.start(fails_twice)
    await stage.move(10)
    await run.result()
    telemetry.detach(heard.append)
    names = [event.name for event in heard if event.name.startswith("activity.")]
    assert names == [
        "activity.scheduled", "activity.started", "activity.retried", "activity.started", "activity.retried",
        "activity.started", "activity.completed",
    ]  # fmt: skip
    assert {event.metadata["run_id"] for event in heard if event.name.startswith("activity.")} == {run.run_id}


asked_by: ContextVar[str] = ContextVar("asked_by", default="nobody")


@activity
async def who_async() -> str:
    return asked_by.get()


@activity
def who_def() -> str:
    return asked_by.get()


@workflow
async def who() -> list[str]:
    return [await who_async(), await who_def()]


async def test_attempts_see_the_context_of_the_instance_and_not_of_some_caller(stage: Stage) -> None:
    asked_by.set("the host")
    node = await stage.node()

    async def request(name: str) -> list[str]:
        asked_by.set(name)
        return await (await node.instance.start(who)).result()

    assert await asyncio.gather(*[asyncio.create_task(request(name)) for name in "ab"]) == [["the host"] * 2] * 2
