"""What a run did is undone: by its own code, and by a cancel that says so."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

import continuum
from continuum import ActivityError, Retry, RunCancelled, Workflow, activity, workflow
from continuum.composition.instance import Instance
from continuum.ids import uuid7
from continuum.model.messages import Message, MessageKind
from continuum.model.writes import Post
from tests.support.eventually import eventually
from tests.support.hosting import Place, crash, evict, instance_of, wiring_of

log: list[str] = []
gate: list[asyncio.Event] = []


@pytest.fixture(autouse=True)
def _begin_afresh() -> None:
    log.clear()
    gate[:] = [asyncio.Event()]


@activity(retry=Retry(max_attempts=2, initial=0.01))
async def release(seat: str) -> None:
    if seat == "ticket-stuck":
        log.append("try")
        raise ActivityError("stuck")
    log.append(f"release {seat}")


@activity
async def release_at_the_gate(seat: str) -> None:
    log.append("at the gate")
    await gate[0].wait()
    log.append(f"release {seat}")


@activity(compensate=release)
async def book(seat: str) -> str:
    log.append(f"book {seat}")
    return f"ticket-{seat}"


@workflow
async def trip(seats: list[str], then: str) -> int:
    for seat in seats:
        await book(seat)
    if then == "fail":
        failures = await continuum.compensate_all()
        raise RuntimeError(f"{len(failures)} stuck")
    await continuum.wait_signal("never")
    return 1


@workflow
async def slow_trip() -> None:
    await book.options(compensate=release_at_the_gate)("slow")
    await book("quick")
    await continuum.wait_signal("never")


@workflow
async def parent_of_trips() -> None:
    await book("own")
    await (await continuum.start_child(trip, ["a"], "wait", id="trip"))


UNDONE = ["release ticket-b", "release ticket-a"]


async def test_failing_code_undoes_newest_first_and_one_that_fails_does_not_stop_the_rest(app: Instance) -> None:
    run = await app.start(trip, ["a", "stuck", "b"], "fail")
    with pytest.raises(continuum.RunFailed, match="1 stuck"):
        await run.result(timeout=15)
    assert log[3:] == ["release ticket-b", "try", "try", "release ticket-a"]


async def booked(app: Instance, count: int) -> None:
    await eventually(lambda: len(log) == count)


async def test_a_cancel_with_compensation_undoes_and_then_ends(app: Instance) -> None:
    run = await app.start(trip, ["a", "b"], "wait")
    await booked(app, 2)
    await run.cancel(compensate=True)
    with pytest.raises(RunCancelled):
        await run.result(timeout=15)
    assert log[2:] == UNDONE
    assert [event.type for event in await app.history(run.run_id)][-1] == "cancelled"


async def test_a_plain_cancel_undoes_nothing(app: Instance) -> None:
    run = await app.start(trip, ["a", "b"], "wait")
    await booked(app, 2)
    assert await run.cancel() == "cancelled"
    assert log == ["book a", "book b"]


async def test_a_run_that_left_memory_is_undone_too(app: Instance) -> None:
    run = await app.start(trip, ["a", "b"], "wait")
    await booked(app, 2)
    await evict(app, run.run_id, waits_for="never")
    await run.cancel(compensate=True)
    with pytest.raises(RunCancelled):
        await run.result(timeout=15)
    assert log[2:] == UNDONE


async def test_a_run_that_never_began_is_cancelled_at_once(app: Instance) -> None:
    run = await app.start(trip, ["a"], "wait", start_at=datetime.now(UTC) + timedelta(days=1))
    await run.cancel(compensate=True)
    with pytest.raises(RunCancelled):
        await run.result(timeout=15)
    assert log == []


async def test_while_it_undoes_it_is_cancelling_and_takes_no_second_cancel_amiss(app: Instance) -> None:
    run = await app.start(slow_trip)
    await booked(app, 2)
    cancelling = asyncio.ensure_future(run.cancel(compensate=True))
    await eventually(lambda: "at the gate" in log)
    assert (await run.status()).state == "cancelling"
    gate[0].set()
    await cancelling
    with pytest.raises(RunCancelled):
        await run.result(timeout=15)
    assert log[2:] == ["release ticket-quick", "at the gate", "release ticket-slow"]


async def test_a_plain_cancel_ends_a_run_that_is_cancelling(app: Instance) -> None:
    run = await app.start(slow_trip)
    await booked(app, 2)
    cancelling = asyncio.ensure_future(run.cancel(compensate=True))
    await eventually(lambda: "at the gate" in log)
    assert await run.cancel() == "cancelled"
    gate[0].set()
    await asyncio.wait([cancelling])
    assert "release ticket-slow" not in log


async def test_a_process_that_dies_while_undoing_is_followed_by_one_that_goes_on(place: Place) -> None:
    first = place.another()
    await first.start()
    run = await instance_of(first).start(slow_trip)
    await eventually(lambda: len(log) == 2)
    cancelling = asyncio.ensure_future(run.cancel(compensate=True))
    await eventually(lambda: "at the gate" in log)
    cancelling.cancel()
    await crash(first)
    gate[0].set()
    async with place.node() as second:
        with pytest.raises(RunCancelled):
            await second.await_run(run.run_id, timeout=30)
    assert log.count("release ticket-quick") == 1
    assert log[-1] == "release ticket-slow"


async def test_children_of_a_run_that_is_undone_are_undone_too(app: Instance) -> None:
    run = await app.start(parent_of_trips)
    await booked(app, 2)
    await run.cancel(compensate=True)
    with pytest.raises(RunCancelled):
        await run.result(timeout=15)
    await eventually(lambda: len(log) == 4)
    assert sorted(log[2:]) == ["release ticket-a", "release ticket-own"]


def turning(*, at_once: bool) -> Workflow[[int], None]:
    """Return one day's code of a workflow, or the next day's, which continues where the other one waits."""

    @workflow(name="sagas.turning")
    async def turns(generation: int) -> None:
        if generation == 1:
            await book("a")
            if at_once:
                continuum.continue_as_new(2)
        await continuum.wait_signal("never")

    return turns


async def test_a_cancel_that_meets_new_code_which_continues_at_once_is_honoured_by_the_next_generation(
    place: Place,
) -> None:
    first = place.another()
    await first.start()
    run = await instance_of(first).start(turning(at_once=False), 1)
    await eventually(lambda: _has_completed(instance_of(first), run.run_id))
    await crash(first)
    async with place.node(client_only=True) as client:
        message = Message(message_id=str(uuid7()), run_id=run.run_id, kind=MessageKind.COMPENSATE)
        await wiring_of(client).committer.put(Post(message))
    turning(at_once=True)
    async with place.node() as second:
        with pytest.raises(RunCancelled):
            await second.await_run(run.run_id, timeout=30)
        assert (await second.get_run(run.run_id)).generation == 2
    assert log == ["book a", "release ticket-a"]


async def _has_completed(app: Instance, run_id: str) -> bool:
    return any(event.type == "activity_completed" for event in await app.history(run_id))
