"""Attempts that take too long, or fall silent: over at once, whatever the function goes on doing."""

import asyncio
import threading
from typing import Any

import pytest

import continuum
from continuum import ActivityFailed, ActivityTimedOut, NotAllowedHere, Retry, activity, activity_context, workflow
from continuum.composition.instance import Instance
from tests.support.eventually import eventually
from tests.support.hosting import Place, wiring_of

ONCE = Retry(max_attempts=1)
TWICE = Retry(max_attempts=2, initial=0.01)

release = threading.Event()
ended: list[str] = []
contexts: list[continuum.ActivityContext] = []


@pytest.fixture(autouse=True)
def _begin_afresh() -> None:
    release.clear()
    ended.clear()
    contexts.clear()


@activity(timeout=0.05, retry=ONCE)
async def never_ends() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("cancelled")


@activity(timeout=0.05, retry=TWICE)
def blocks_once() -> str:
    if activity_context().attempt == 1:
        contexts.append(activity_context())
        release.wait(30)
        ended.append("first")
        return "late"
    return "second"


@activity(timeout=0.05, retry=ONCE)
def blocks() -> None:
    release.wait(30)
    ended.append("blocks")


@activity
def waits_for_release() -> str:
    release.wait(30)
    return "released"


@activity
def quick() -> str:
    return "quick"


@activity(timeout=None, heartbeat_timeout=0.1, retry=TWICE)
async def falls_silent() -> Any:
    context = activity_context()
    if context.attempt == 1:
        for step in range(3):
            context.heartbeat({"step": step})
            await asyncio.sleep(0.05)
        await asyncio.Event().wait()
    return context.last_heartbeat


@activity(retry=TWICE)
async def beats_and_fails() -> Any:
    context = activity_context()
    if context.attempt == 1:
        context.heartbeat([1, {"two": None}])
        raise OSError("just after a heartbeat")
    return context.last_heartbeat


@activity(retry=TWICE)
def beats_from_a_thread_and_fails() -> Any:
    context = activity_context()
    if context.attempt == 1:
        threads = [threading.Thread(target=context.heartbeat, args=("from a thread",)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        raise OSError("just after")
    return context.last_heartbeat


@activity
async def tells() -> list[Any]:
    context = activity_context()
    return [context.run_id, context.attempt, context.idempotency_key, context.instance, context.state]


@activity(idempotency_key=lambda order: f"order-{order}")
async def tells_key(order: str) -> str:
    return activity_context().idempotency_key


@activity(retry=ONCE)
async def beats_too_much(kind: str) -> str:
    try:
        activity_context().heartbeat("x" * 20_000 if kind == "large" else object())
    except continuum.DurableValueError as error:
        return str(error)
    return ""


@workflow
async def too_long() -> list[Any]:
    try:
        await never_ends()
    except ActivityTimedOut as error:
        return [isinstance(error, TimeoutError), isinstance(error, ActivityFailed), error.attempts, str(error)]
    return []


@workflow
async def blocked_once() -> str:
    return await blocks_once()


@workflow
async def blocking() -> str:
    try:
        await blocks()
    except ActivityTimedOut:
        return "timed out"
    return "no"


@workflow
async def waiting_for_release() -> str:
    return await waits_for_release()


@workflow
async def being_quick() -> str:
    return await quick()


@workflow
async def silent() -> Any:
    return await falls_silent()


@workflow
async def failing_after_a_beat() -> list[Any]:
    return [await beats_and_fails(), await beats_from_a_thread_and_fails()]


@workflow
async def telling() -> list[Any]:
    return [await tells(), await tells_key("a"), await tells_key.options(idempotency_key=None)("b")]


@workflow
async def beating_too_much(kind: str) -> str:
    return await beats_too_much(kind)


@workflow(allow=("continuum.activity_context",))
async def asks_for_the_context() -> bool:
    try:
        activity_context()
    except NotAllowedHere:
        return True
    return False


async def test_an_async_attempt_is_cancelled_at_its_timeout(app: Instance) -> None:
    run = await app.start(too_long)
    is_timeout_error, is_failed, attempts, message = await run.result(timeout=15)
    assert (is_timeout_error, is_failed, attempts) == (False, True, 1)
    assert "timeout of 0.05 s" in message
    assert ended == ["cancelled"]


async def test_a_blocking_attempt_that_outlives_its_timeout_is_fenced(app: Instance) -> None:
    run = await app.start(blocked_once)
    assert await run.result(timeout=15) == "second"
    attempts = wiring_of(app).attempts
    assert attempts._taken_in_all == 1  # the thread is still busy: its slot stays taken, and is counted
    assert contexts[0].cancelled
    release.set()
    await eventually(lambda: ended == ["first"])
    await eventually(lambda: attempts._taken_in_all == 0)
    history = await app.history(run.run_id)
    assert [event.data for event in history if event.type == "activity_completed"] == ["second"]


# P70
async def test_threads_that_never_return_leave_the_work_to_other_nodes(place: Place) -> None:
    async with place.node(activity_supervisor={"threads": 2}) as app:
        hung = [await app.start(blocking) for _ in range(2)]
        assert [await run.result(timeout=15) for run in hung] == ["timed out", "timed out"]
        run = await app.start(being_quick)
        with pytest.raises(TimeoutError):  # none is begun to wait for a thread, while its timeout runs
            await run.result(timeout=0.2)
        attempts = wiring_of(app).attempts
        assert (attempts.running, attempts._taken_in_all) == (0, 2)
        async with place.node():
            assert await run.result(timeout=15) == "quick"
        release.set()
        await eventually(lambda: attempts._taken_in_all == 0)
        again = await app.start(being_quick)
        assert await again.result(timeout=15) == "quick"


async def test_a_full_queue_is_not_polled_for_its_tasks(place: Place) -> None:
    async with place.node(
        activity_supervisor={"queues": {"default": 1}}, activity_dispatcher={"interval": 60.0}
    ) as app:
        journal, asked = wiring_of(app).journal, 0
        claim = journal.claim_tasks

        async def counting(*args: Any, **kwargs: Any) -> Any:
            nonlocal asked
            asked += 1
            return await claim(*args, **kwargs)

        journal.claim_tasks = counting  # type: ignore[method-assign]
        first, second = await app.start(waiting_for_release), await app.start(waiting_for_release)
        with pytest.raises(TimeoutError):
            await second.result(timeout=0.3)
        assert asked < 10
        release.set()
        assert await first.result(timeout=15) == await second.result(timeout=15) == "released"


async def test_silence_beyond_the_heartbeat_timeout_ends_the_attempt(app: Instance) -> None:
    run = await app.start(silent)
    assert await run.result(timeout=15) == {"step": 2}


async def test_the_next_attempt_finds_the_last_heartbeats_details(app: Instance) -> None:
    run = await app.start(failing_after_a_beat)
    assert await run.result(timeout=15) == [[1, {"two": None}], "from a thread"]


async def test_the_context_tells_an_attempt_who_it_is(place: Place) -> None:
    state = {"http": "client"}
    async with place.node(state=state) as app:
        run = await app.start(telling)
        told, key, none = await run.result(timeout=15)
        assert told == [run.run_id, 1, f"{run.run_id}/1/1", "app", state]
        assert key == "order-a"
        assert none == f"{run.run_id}/1/3"


@pytest.mark.parametrize(("kind", "said"), [("large", "16384"), ("object", "JSON")])
async def test_heartbeat_details_have_a_limit_and_are_json(app: Instance, kind: str, said: str) -> None:
    run = await app.start(beating_too_much, kind)
    assert said in await run.result(timeout=15)


async def test_a_workflow_has_no_activity_context(app: Instance) -> None:
    run = await app.start(asks_for_the_context)
    assert await run.result(timeout=15) is True
    with pytest.raises(NotAllowedHere):
        activity_context()


# P7, P8
async def test_an_attempt_may_last_longer_than_the_lease(place: Place) -> None:
    async with place.node(lease_ttl=0.6) as app:
        run = await app.start(long)
        assert await run.result(timeout=15) == [1, "done"]


@activity(retry=ONCE)
async def lasts() -> list[Any]:
    await asyncio.sleep(1.0)  # the thing itself: more than one and a half lease_ttl
    return [activity_context().attempt, "done"]


@workflow
async def long() -> list[Any]:
    return await lasts()
