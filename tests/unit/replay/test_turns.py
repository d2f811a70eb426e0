"""What a turn takes and gives, and what it leaves alone."""

import asyncio
import contextvars
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from types import FrameType

import pytest

from continuum.model.events import PENDING, Answer, Event, EventType
from continuum.model.tasks import TaskOptions
from continuum.replay import context
from continuum.replay.machine import Machine
from continuum.replay.matching import Drift
from continuum.replay.turns import Completed, ScheduledActivity, Turn
from tests.unit.replay.builders import (
    START,
    ARun,
    CancelledOnArrival,
    a_flow,
    a_run,
    an_info,
    broken,
    charge,
    done,
    lines,
    ping,
    refund,
    signal,
)


def test_a_turn_is_events_tasks_and_a_deadline() -> None:
    async def flow(cents: int) -> int:
        async with asyncio.timeout(60):
            return await charge.options(idempotency_key="k", queue="slow")(cents)

    machine = Machine(a_flow(flow), an_info())

    assert machine.begin(b'{"cents":5}', START) == Turn(
        events=(
            Event(1, EventType.STARTED, START, None, None, "flow", b'{"cents":5}'),
            Event(2, EventType.TIMER_STARTED, START, 1, None, None, b'"2026-01-01T00:01:00+00:00"'),
            Event(3, EventType.ACTIVITY_SCHEDULED, START, 2, None, "charge", b'{"cents":5}', "k"),
        ),
        scheduled=(ScheduledActivity(2, 3, "charge", b'{"cents":5}', TaskOptions(queue="slow"), "k"),),
        resolved=(),
        deadline=START + timedelta(seconds=60),
        outcome=None,
    )
    later = START + timedelta(seconds=1)
    assert machine.turn((Answer(EventType.ACTIVITY_COMPLETED, 2, "m-1", "charge", b"7"),), later) == Turn(
        events=(
            Event(4, EventType.ACTIVITY_COMPLETED, later, 2, "m-1", "charge", b"7"),
            Event(5, EventType.COMPLETED, later, payload=b"7"),
        ),
        scheduled=(),
        resolved=(2,),
        deadline=None,
        outcome=Completed(b"7"),
    )


def test_a_turn_reports_each_change_once() -> None:
    async def flow() -> None:
        await asyncio.gather(charge(1), asyncio.sleep(9))

    run = a_run(flow)

    assert run.turn(signal("x")) == ["signal_received x"]
    assert run.last == Turn(run.last.events, (), (), START + timedelta(seconds=9), None)
    assert run.turn() == []


@pytest.mark.parametrize("together", [True, False])
def test_answers_in_one_turn_or_in_many_give_the_same_history(together: bool) -> None:
    async def flow() -> list[int]:
        first, second = await asyncio.gather(charge(1), charge(2))
        third = await context.wait_signal("n", int)
        async with asyncio.timeout(5):
            return [first, second, third, await charge(3)]

    run = a_run(flow)
    answers = [signal("n", 30), done(2, 20), done(1, 10), done(4, 40)]
    run.turn(*answers) if together else [run.turn(answer) for answer in answers]

    assert run.events == [
        "started",
        'activity_scheduled 1 charge {"cents":1}',
        'activity_scheduled 2 charge {"cents":2}',
        "signal_received n 30",
        "activity_completed 2 20",
        "activity_completed 1 10",
        "timer_started 3 +5",
        'activity_scheduled 4 charge {"cents":3}',
        "activity_completed 4 40",
        "completed [10,20,30,40]",
    ]


def test_an_activity_withdrawn_in_the_turn_that_asked_for_it_makes_no_task() -> None:
    async def flow() -> None:
        task = asyncio.create_task(charge(1))
        kept = asyncio.create_task(charge(2))
        await asyncio.sleep(0)
        task.cancel()
        await kept

    run = a_run(flow)

    assert run.events == [
        "started",
        'activity_scheduled 1 charge {"cents":1}',
        'activity_scheduled 2 charge {"cents":2}',
    ]
    assert run.scheduled == ['2 charge {"cents":2}']
    assert run.last.resolved == ()


def test_late_answers_are_dropped_without_a_trace() -> None:
    async def flow() -> int:
        task = asyncio.create_task(charge(1))
        await context.wait_signal("stop")
        task.cancel()
        return await charge(2)

    run = a_run(flow)

    run.turn(signal("stop"))
    assert run.turn(done(1, 10)) == []
    assert run.turn(broken(1, ValueError("no"))) == []
    assert run.turn(Answer(EventType.TIMER_FIRED, 1)) == []
    assert run.turn(Answer(EventType.STARTED, payload=b"{}")) == []
    assert run.turn(done(2, 20), done(2, 21)) == ["activity_completed 2 20", "completed 20"]
    assert run.turn(done(2, 22), signal("late")) == []


def test_nothing_arrives_before_the_start() -> None:
    async def flow() -> None: ...

    machine = Machine(a_flow(flow), an_info())

    assert machine.turn((signal("x"), done(1)), START) == Turn((), (), (), None, None)


def test_answers_go_before_the_timers_that_are_due() -> None:
    async def flow() -> object:
        try:
            return await asyncio.wait_for(charge(1), 5)
        except TimeoutError:
            return "late"

    run = a_run(flow)
    run.turn(done(run.last.scheduled[0].command_id, 10), after=60)

    assert run.outcome == 10


def test_a_timer_that_a_timer_cancels_does_not_fire() -> None:
    async def flow() -> list[str]:
        loop, fired = asyncio.get_running_loop(), list[str]()
        second = loop.call_later(6, fired.append, "second")
        loop.call_later(5, second.cancel)
        await asyncio.sleep(7)
        return fired

    run = a_run(flow)

    assert run.turn(after=60) == ["timer_fired 2", "timer_fired 3", "completed []"]


def test_an_answer_that_arrives_as_its_wait_is_cancelled_is_journaled_and_resolved_once() -> None:
    async def flow() -> str:
        await CancelledOnArrival(charge(1))
        return "paid"

    run = a_run(flow)

    assert run.turn(done(1))[0] == "activity_completed 1 0"
    assert run.failure.startswith("asyncio.exceptions.CancelledError")
    assert run.last.resolved == (1,)


def test_a_cancelled_deadline_is_forgotten() -> None:
    async def flow() -> None:
        handle = asyncio.get_running_loop().call_later(5, print)
        asyncio.get_running_loop().call_later(9, print)
        await context.wait_signal("go")
        handle.cancel()
        await context.wait_signal("never")

    run = a_run(flow)
    assert run.last.deadline == START + timedelta(seconds=5)
    run.turn(signal("go"))

    assert run.last.deadline == START + timedelta(seconds=9)


def test_an_answer_to_a_wait_that_was_cancelled_by_hand_does_no_harm() -> None:
    async def flow() -> None:
        coroutines = [charge(1), context.wait_signal("x")]
        for coroutine in coroutines:
            coroutine.send(None).cancel()
        await context.wait_signal("go")
        for coroutine in coroutines:
            coroutine.close()

    run = a_run(flow)

    assert run.machine.waits_for == ("go",)
    run.turn(done(1), signal("x"))
    assert run.turn(signal("go"))[-1] == "completed null"


# --- runs that wait to be claimed -------------------------------------------------------------------------------------


def test_a_run_that_was_left_for_others_begins_with_its_first_turn() -> None:
    async def flow() -> list[datetime]:
        started = context.now()
        await asyncio.sleep(5)
        return [started, context.now(), context.info().started_at]

    machine = Machine(a_flow(flow), an_info())
    machine.replay([Event(1, EventType.STARTED, START, name="flow", payload=b"{}", key=PENDING)])
    assert (machine.has_more, machine.deadline, machine.waits_for) == (False, None, ())

    day = START + timedelta(days=1)
    first = machine.turn((), day)
    assert lines(first.events) == ["begun", "timer_started 1 +86405"]
    second = machine.turn((signal("x"),), day + timedelta(seconds=5))
    assert machine.outcome == second.outcome
    assert second.events[-1].payload == b'["2026-01-02T00:00:00Z","2026-01-02T00:00:05Z","2026-01-01T00:00:00Z"]'

    again = Machine(a_flow(flow), an_info())
    again.replay([Event(1, EventType.STARTED, START, name="flow", payload=b"{}", key=PENDING), *first.events])
    assert again.deadline == first.deadline
    again.close()
    machine.close()


def test_what_arrived_before_a_run_began_is_there_when_it_begins() -> None:
    async def flow() -> int:
        return await context.wait_signal("n", int)

    history = [
        Event(1, EventType.STARTED, START, name="flow", payload=b"{}", key=PENDING),
        Event(2, EventType.SIGNAL_RECEIVED, START, name="n", payload=b"5"),
    ]
    machine = Machine(a_flow(flow), an_info())
    machine.replay(history)

    assert lines(machine.turn((), START).events) == ["begun", "completed 5"]
    machine.close()


def test_a_run_begins_once() -> None:
    async def flow() -> None:
        await context.wait_signal("n")

    run = a_run(flow)

    assert run.turn(Answer(EventType.BEGUN)) == []
    run.history.append(Event(2, EventType.BEGUN, START))
    with pytest.raises(Drift, match=r"expected begun, .*; found no such command open"):
        run.replayed()


# --- the host ---------------------------------------------------------------------------------------------------------

request_id = contextvars.ContextVar("request_id", default="none")


async def test_a_turn_leaves_the_host_s_loop_context_and_hooks_alone() -> None:
    seen: list[object] = []

    async def pages() -> object:
        yield 1
        yield 2

    async def flow() -> None:
        seen.append(request_id.get())
        request_id.set("the workflow's")
        async for _ in pages():  # type: ignore[attr-defined]
            break
        await ping()
        seen.append(request_id.get())
        await asyncio.create_task(beside())

    async def beside() -> None:
        seen.append(request_id.get())

    host = asyncio.get_running_loop()
    hooks = sys.get_asyncgen_hooks()
    finished = host.create_future()

    def turns() -> None:
        request_id.set("the host's")
        run = a_run(flow)
        run.turn(done(1))
        finished.set_result((asyncio.get_running_loop(), request_id.get(), sys.get_asyncgen_hooks(), run.outcome))

    host.call_soon(turns)

    assert await finished == (host, "the host's", hooks, None)
    assert seen[:1] + seen[-3:] == ["none", "none", "the workflow's", "the workflow's"]
    assert request_id.get() == "none"
    assert asyncio.current_task() is not None


def test_without_a_host_s_loop_there_is_none_afterwards() -> None:
    async def flow() -> None:
        await ping()

    a_run(flow)

    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


async def test_a_turn_may_be_driven_from_within_a_host_s_task() -> None:
    async def flow() -> str:
        return (asyncio.current_task() or asyncio.create_task(ping())).get_name()

    task = asyncio.current_task()

    assert a_run(flow).outcome == "workflow"
    assert asyncio.current_task() is task


# --- cost -------------------------------------------------------------------------------------------------------------


def steps_of(work: Callable[[], object]) -> int:
    """Count the lines that the package executes: time would measure the machine."""
    steps = 0

    def trace(frame: FrameType, event: str, _argument: object) -> object:
        nonlocal steps
        if "/continuum/" not in frame.f_code.co_filename:
            return None
        steps += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        work()
    finally:
        sys.settrace(before)
    return steps


def a_long_history(rounds: int) -> ARun:
    async def flow() -> int:
        total = 0
        for number in range(rounds):
            total += await charge(number)
            total += await context.wait_signal("n", int, timeout=60)
        return total

    run = ARun.__new__(ARun)
    run.flow, run.info = a_flow(flow), an_info()
    machine = run.fresh()
    run.history = list(machine.begin(b"{}", START).events)
    command = 1
    for _ in range(rounds):
        run.history += machine.turn((signal("n", 1),), START).events
        run.history += machine.turn((done(command, 1),), START).events
        command += 1
    assert machine.outcome == Completed(b"%d" % (2 * rounds))
    machine.close()
    return run


def test_replay_of_ten_thousand_events_is_linear() -> None:
    short, long = a_long_history(333), a_long_history(3_333)
    assert (len(short.history), len(long.history)) == (1_001, 10_001)

    ratio = steps_of(long.replayed) / steps_of(short.replayed)

    assert ratio == pytest.approx(10, rel=0.05)


def test_withdrawing_what_was_just_asked_for_is_linear() -> None:
    def withdrawing(count: int) -> Callable[[], object]:
        async def flow() -> None:
            tasks = [asyncio.create_task(refund(number)) for number in range(count)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

        machine = Machine(a_flow(flow), an_info())
        return lambda: machine.begin(b"{}", START)

    ratio = steps_of(withdrawing(1_000)) / steps_of(withdrawing(100))

    assert ratio == pytest.approx(10, rel=0.2)


def test_tasks_that_ended_are_forgotten() -> None:
    async def flow() -> int:
        for _ in range(1_000):
            await asyncio.create_task(asyncio.sleep(0))
        await context.wait_signal("go")
        return 0

    run = a_run(flow)

    assert len(run.machine._loop._tasks) < 65
    assert lines(run.history) == ["started"]


async def _naps() -> None:
    await asyncio.gather(asyncio.sleep(1), asyncio.sleep(3), asyncio.sleep(9))


def test_a_turn_tells_which_deadlines_it_met() -> None:
    run = a_run(_naps)
    run.turn(after=4)
    assert run.last.fired == (START + timedelta(seconds=1), START + timedelta(seconds=3))
    assert run.replayed().turn((), run.at).fired == ()


def test_a_signal_is_kept_until_the_code_takes_it() -> None:
    async def flow() -> None:
        await context.wait_signal("first")
        await context.wait_signal("second")

    run = a_run(flow)
    early, late = (
        Answer(EventType.SIGNAL_RECEIVED, None, str(number), name) for number, name in enumerate(["second", "first"])
    )
    run.turn(early)
    kept = [run.machine.keeps_signal("0"), run.machine.keeps_signal("1")]
    run.turn(late)
    assert [*kept, run.machine.keeps_signal("0")] == [True, False, False]


def test_what_is_said_on_replay_and_on_the_way_out_is_silent() -> None:
    heard: list[tuple[str, bool]] = []

    def says(word: str) -> None:
        machine = context.current_machine()
        assert machine is not None
        heard.append((word, machine.is_silent))

    async def flow() -> None:
        says("first")
        try:
            await ping()
            says("second")
            await ping()
        finally:
            says("last")

    run = a_run(flow, alone=True)
    run.turn(done(1))
    again = run.replayed()
    again.turn((done(2),), run.at)
    run.machine.close()
    assert heard == [
        ("first", False), ("second", False),  # as they were said
        ("first", True), ("second", True), ("last", False),  # replayed, and then live
        ("last", True),  # given up
    ]  # fmt: skip
