"""How a run ends, and when its code must be mended first."""

# ruff: noqa: BLE001, RUF006  # workflows do here what they should not

import asyncio
import os
import subprocess
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from pydantic import BaseModel, model_validator

from continuum.definitions.activity import activity
from continuum.errors import NondeterminismError
from continuum.model.events import EventType
from continuum.replay import context
from continuum.replay.machine import Machine
from continuum.replay.turns import Completed, Stuck
from tests.unit.replay.builders import START, ARun, a_flow, a_run, an_info, charge, done, ping, signal

Code = Callable[[], Coroutine[Any, Any, object]]


@activity(name="write")
async def write(text: str) -> None:
    raise AssertionError("workflow tests perform no activity")


def test_a_result_ends_the_run() -> None:
    async def flow() -> int:
        return 3

    run = a_run(flow)

    assert run.last.outcome == Completed(b"3")
    assert run.events == ["started", "completed 3"]


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyError("no"), OSError("no"), ZeroDivisionError("no"), RecursionError("no")]
)
def test_an_exception_fails_the_run(error: Exception) -> None:
    async def flow() -> None:
        raise type(error)(*error.args)

    run = a_run(flow)

    assert run.failure == f"builtins.{type(error).__name__}: {error}"
    assert run.history[-1].type is EventType.FAILED


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("no"),
        NameError("no"),
        TypeError("no"),
        ImportError("no"),
        NotImplementedError("no"),
        GeneratorExit("no"),
    ],
)
def test_a_programming_error_blocks_the_run(error: BaseException) -> None:
    async def flow() -> None:
        await charge(1)
        raise type(error)(*error.args)

    run = a_run(flow)
    run.turn(done(1))

    assert run.reason.startswith(f"builtins.{type(error).__name__}: no\nTraceback")
    assert run.last.scheduled == ()
    assert run.last.deadline is None
    assert run.events == ["started", 'activity_scheduled 1 charge {"cents":1}']  # nothing of that turn was written


def test_mended_code_goes_on_where_the_bug_was() -> None:
    async def buggy() -> int:
        return await charge(1) + None  # type: ignore[operator]

    async def mended() -> int:
        return await charge(1) + 1

    run = a_run(buggy)
    run.turn(done(1, 10))
    assert run.reason.startswith("builtins.TypeError")

    machine = run.replayed(a_flow(mended))
    assert machine.turn((done(1, 10),), START).outcome == Completed(b"11")


def test_a_workflow_that_is_stuck_on_replay_says_so_in_its_next_turn() -> None:
    async def fine() -> None:
        await charge(1)
        await ping()

    async def broken() -> None:
        await charge(1)
        raise NameError("oops")

    async def waiting() -> None:
        await charge(1)
        await context.wait_signal("go")

    run = a_run(waiting)
    run.turn(done(1))
    machine = run.replayed(a_flow(broken))

    assert machine.has_more
    outcome = machine.turn((signal("go"),), START).outcome
    assert isinstance(outcome, Stuck)
    assert outcome.reason.startswith("builtins.NameError: oops")


def test_fails_on_chooses_what_fails_the_run() -> None:
    async def lookup() -> None:
        raise KeyError("x")

    async def attribute() -> None:
        raise AttributeError("x")

    assert ARun(a_flow(lookup, fails_on=(LookupError,))).failure == "builtins.KeyError: 'x'"
    assert ARun(a_flow(attribute, fails_on=(Exception,))).failure == "builtins.AttributeError: x"
    assert ARun(a_flow(lookup, fails_on=(OSError,))).reason.startswith("builtins.KeyError: 'x'")


async def in_a_group(*errors: Exception) -> None:
    async def fails(error: Exception) -> None:
        raise error

    async with asyncio.TaskGroup() as group:
        for error in errors:
            group.create_task(fails(error))


def test_what_a_task_group_raises_is_judged_by_what_its_tasks_raised() -> None:
    async def refused() -> None:
        await in_a_group(ValueError("no"), KeyError("x"))

    async def buggy() -> None:
        await in_a_group(ValueError("no"), TypeError("oops"))

    async def nested() -> None:
        raise BaseExceptionGroup("deep", [ExceptionGroup("er", [NameError("oops")])])

    failure = ARun(a_flow(refused)).failure
    assert failure.startswith("builtins.ExceptionGroup: unhandled errors in a TaskGroup (2 sub-exceptions); ")
    assert failure.endswith("; builtins.ValueError: no; builtins.KeyError: 'x'")
    assert "TypeError: oops" in a_run(buggy).reason
    assert "NameError: oops" in a_run(nested).reason
    assert ARun(a_flow(refused, fails_on=(ValueError, KeyError))).failure == failure
    assert "KeyError: 'x'" in ARun(a_flow(refused, fails_on=(ValueError,))).reason
    assert ARun(a_flow(buggy, fails_on=(Exception,))).failure.startswith("builtins.ExceptionGroup")


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1,), {"currency": "EUR"}), ((1, 2), {})])
def test_a_call_with_arguments_that_are_not_there_is_a_bug_as_in_python(args: Any, kwargs: Any) -> None:
    async def flow() -> None:
        await charge(*args, **kwargs)

    assert "charge() was given wrong arguments: " in a_run(flow).reason


def test_a_forgotten_await_is_asked_for() -> None:
    async def nap() -> int:
        return 1

    forgotten = nap()

    async def returned() -> int:
        return forgotten  # type: ignore[return-value]

    async def handed_on() -> None:
        await charge(forgotten)  # type: ignore[arg-type]

    for flow in (returned, handed_on):
        assert "; this is a coroutine, was its `await` forgotten?" in ARun(a_flow(flow)).failure
    forgotten.close()


def test_a_call_with_a_value_that_does_not_fit_fails_the_run() -> None:
    async def flow() -> None:
        await charge("much")  # type: ignore[arg-type]

    assert a_run(flow).failure.startswith("continuum.errors.InputInvalid: the arguments do not fit charge()")


def test_a_result_that_cannot_be_stored_fails_the_run() -> None:
    async def flow() -> object:
        return {"a": [1, object()]}

    async def misfit() -> int:
        return "many"  # type: ignore[return-value]

    assert a_run(flow).failure.startswith("continuum.errors.DurableValueError: the value at /a/1 cannot be journaled")
    assert a_run(misfit).failure.startswith("continuum.errors.DurableValueError: the value does not fit <class 'int'>")
    assert ARun(a_flow(flow, fails_on=())).failure.startswith("continuum.errors.DurableValueError")


class Moody(BaseModel):
    cents: int

    @model_validator(mode="after")
    def _check(self) -> "Moody":
        if self.cents < 0:
            raise KeyError("not a ValueError, so pydantic lets it through")
        return self


def test_a_validator_that_breaks_on_the_result_blocks_the_run() -> None:
    async def flow() -> Moody:
        return {"cents": -1}  # type: ignore[return-value]

    assert a_run(flow).reason.startswith("builtins.KeyError")


@pytest.mark.parametrize("value", ['{"order":{"cents":"x"}}', "{}", "nonsense", '{"order":{"cents":-1}}'])
def test_an_input_that_today_s_code_cannot_read_blocks_the_run(value: str) -> None:
    async def flow(order: Moody) -> int:
        return order.cents

    run = ARun(a_flow(flow), Moody(cents=1))
    machine = run.fresh()
    turn = machine.begin(value.encode(), START)

    assert isinstance(turn.outcome, Stuck)
    assert turn.outcome.reason.startswith("the journaled input cannot be read by this code: ")
    again = run.fresh()
    again.replay(turn.events)
    assert again.turn((), START).outcome == turn.outcome
    again.close()


def test_system_exit_blocks_the_run_and_ends_no_process() -> None:
    async def flow() -> None:
        raise SystemExit(3)

    async def task() -> None:
        beside = asyncio.create_task(flow())
        await asyncio.sleep(0)
        await beside

    assert a_run(flow).reason == "the workflow tried to end the process: SystemExit(3)"
    assert a_run(task).reason == "the workflow tried to end the process: SystemExit(3)"


def test_a_spinning_workflow_is_blocked() -> None:
    async def flow() -> None:
        while True:
            await asyncio.sleep(0)

    assert a_run(flow).reason.startswith("the workflow never waits")


def test_a_workflow_that_cancels_itself_fails() -> None:
    async def flow() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await charge(1)

    async def raises() -> None:
        raise asyncio.CancelledError

    assert a_run(flow).failure == "asyncio.exceptions.CancelledError: the workflow cancelled itself"
    assert a_run(raises).failure == "asyncio.exceptions.CancelledError: the workflow cancelled itself"


def test_what_other_tasks_wanted_ends_with_the_workflow() -> None:
    async def flow() -> str:
        asyncio.create_task(charge(1))
        asyncio.create_task(asyncio.sleep(10))
        await asyncio.sleep(0)
        return "over"

    run = a_run(flow)

    assert run.events[-1] == 'completed "over"'
    assert (run.last.scheduled, run.last.deadline) == ((), None)
    assert run.turn(done(1), signal("x"), after=60) == []


# --- reaching for the real world --------------------------------------------------------------------------------------


async def to_thread() -> None:
    await asyncio.to_thread(os.getpid)


async def run_in_executor() -> None:
    await asyncio.get_running_loop().run_in_executor(None, os.getpid)


async def open_connection() -> None:
    await asyncio.open_connection("127.0.0.1", 1)


async def subprocess_exec() -> None:
    await asyncio.create_subprocess_exec("true", stdout=subprocess.PIPE)


async def subprocess_shell() -> None:
    await asyncio.create_subprocess_shell("true")


async def add_signal_handler() -> None:
    asyncio.get_running_loop().add_signal_handler(2, print)


async def call_soon_threadsafe() -> None:
    asyncio.get_running_loop().call_soon_threadsafe(print)


async def sock_connect() -> None:
    await asyncio.get_running_loop().sock_connect(None, ("127.0.0.1", 1))  # type: ignore[arg-type]


async def getaddrinfo() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 1)


@pytest.mark.parametrize(
    ("code", "method", "hint"),
    [
        (
            to_thread,
            "run_in_executor",
            "put work for threads or processes (asyncio.to_thread too) into a `def` activity",
        ),
        (run_in_executor, "run_in_executor", "put work for threads or processes"),
        (open_connection, "create_connection", "put network access into an activity"),
        (subprocess_exec, "subprocess_exec", "put subprocesses into an activity"),
        (subprocess_shell, "subprocess_shell", "put subprocesses into an activity"),
        (add_signal_handler, "add_signal_handler", "operating system signals belong to the host"),
        (call_soon_threadsafe, "call_soon_threadsafe", "threads reach a workflow by signals only"),
        (sock_connect, "sock_connect", "put network access into an activity"),
        (getaddrinfo, "getaddrinfo", "do it in an activity and await that"),
    ],
)
def test_who_reaches_for_the_real_world_is_blocked_even_if_the_error_is_caught(
    code: Code, method: str, hint: str
) -> None:
    caught: list[BaseException] = []

    async def stubborn() -> str:
        try:
            await code()
        except BaseException as error:
            caught.append(error)
        await ping()
        return "unharmed"

    run = a_run(stubborn)

    assert run.reason.startswith(f"a workflow has no loop.{method}(): {hint}")
    assert f"test_outcomes.py:{code.__code__.co_firstlineno + 1} in {code.__name__})" in run.reason
    assert [type(error) for error in caught] == [NondeterminismError]
    assert run.history == []


def test_only_the_first_reason_is_told() -> None:
    async def flow() -> None:
        for reach in (to_thread, open_connection):
            try:
                await reach()
            except NondeterminismError:
                continue

    assert "run_in_executor" in a_run(flow).reason


def test_a_run_that_was_blocked_on_replay_has_no_second_chance_in_this_machine() -> None:
    async def waiting() -> None:
        await context.wait_signal("go")

    run = a_run(waiting, info=an_info())
    machine = run.replayed(a_flow(to_thread))
    first = machine.turn((signal("go"),), START).outcome

    assert isinstance(first, Stuck)
    assert machine.turn((), START).outcome == first


@pytest.mark.parametrize("bulky", ["activity", "side effect"])
def test_a_payload_beyond_the_limit_blocks_the_run_where_it_was_asked_for(bulky: str) -> None:
    async def flow() -> int:
        try:
            if bulky == "activity":
                await write("x" * 100)
            else:
                await context.side_effect(lambda: "x" * 100)
        except Exception:
            return -1  # an error that was caught would be missing once the limit has been raised
        return 1

    small = Machine(a_flow(flow), an_info(), payload_max=50)
    turn = small.begin(b"{}", START)

    assert isinstance(turn.outcome, Stuck)
    assert "takes 1" in turn.outcome.reason
    assert "payload_max=50" in turn.outcome.reason
    assert "test_outcomes.py" in turn.outcome.reason
    assert len(turn.events) == 1, "nothing too large is among what might be written"
    assert Machine(a_flow(flow), an_info(), payload_max=200).begin(b"{}", START).outcome != turn.outcome


def test_a_machine_that_only_replays_says_why_it_is_stuck() -> None:
    async def flow() -> int:
        return await charge(5)

    async def broken() -> int:
        await charge(5)
        raise NameError("typo")

    run = a_run(flow)
    run.turn(done(1, 7))
    before = run.history[:-1]
    fits, stuck = run.fresh(), run.fresh(a_flow(broken))
    fits.replay(before)
    stuck.replay(before)

    assert fits.stuck is None
    assert stuck.stuck is not None
    assert stuck.stuck.startswith("builtins.NameError: typo")
