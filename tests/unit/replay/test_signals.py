"""Signals: kept first in, first out per name; consumed once, by who asked first."""

import asyncio
from datetime import timedelta

import pytest
from pydantic import BaseModel

from continuum.errors import SignalInvalid, SignalTimedOut
from continuum.replay.context import wait_signal
from tests.unit.replay.builders import RUN_ID, ARun, CancelledOnArrival, a_flow, a_run, charge, done, signal


class Verdict(BaseModel):
    ok: bool


def test_signals_of_a_name_are_taken_in_the_order_of_their_arrival() -> None:
    async def flow() -> list[int]:
        await charge(1)
        return [await wait_signal("n", int), await wait_signal("n", int), await wait_signal("other", int)]

    run = a_run(flow)
    run.turn(signal("n", 1), signal("other", 9), signal("n", 2))
    run.turn(done(1))

    assert run.outcome == [1, 2, 9]


def test_several_waits_are_served_in_the_order_asked() -> None:
    async def flow() -> list[int]:
        return list(await asyncio.gather(*(wait_signal("n", int) for _ in range(3)), wait_signal("m", int)))

    run = a_run(flow)

    waits = [run.machine.waits_for]
    run.turn(signal("n", 1))
    run.turn(signal("m", 9), signal("n", 2))
    waits.append(run.machine.waits_for)
    run.turn(signal("n", 3))

    assert waits == [("n", "n", "n", "m"), ("n",)]
    assert run.outcome == [1, 2, 3, 9]


def test_a_cancelled_wait_consumes_nothing() -> None:
    async def flow() -> int:
        waiting = asyncio.create_task(wait_signal("n", int))
        await wait_signal("stop")
        waiting.cancel()
        await asyncio.wait([waiting])
        await wait_signal("again")
        return await wait_signal("n", int)

    run = a_run(flow)
    run.turn(signal("stop"))

    assert run.machine.waits_for == ("again",)
    run.turn(signal("n", 1))
    run.turn(signal("again"))
    assert run.outcome == 1


@pytest.mark.parametrize("others", [0, 1])
def test_a_wait_that_is_served_and_cancelled_in_the_same_drive_consumes_nothing(others: int) -> None:
    async def cancelled() -> None:
        await CancelledOnArrival(wait_signal("n", int))

    async def flow() -> list[int]:
        first = asyncio.create_task(cancelled())
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(wait_signal("n", int)) for _ in range(others)]
        await asyncio.wait([first])
        assert first.cancelled()
        await wait_signal("go")
        return [await task for task in waiting] + [await wait_signal("n", int), await wait_signal("n", int)]

    run = a_run(flow)
    run.turn(signal("n", 1))
    run.turn(signal("n", 2), signal("n", 3), signal("go"))
    run.turn(signal("n", 4))

    assert run.history[-1].payload == (b"[1,2,3]" if others else b"[1,2]")


def test_a_buffered_signal_makes_no_timer() -> None:
    async def flow() -> int:
        await charge(1)
        return await wait_signal("n", int, timeout=60)

    run = a_run(flow)
    run.turn(signal("n", 5))

    assert run.turn(done(1)) == ["activity_completed 1 0", "completed 5"]


def test_a_wait_with_a_timeout_is_a_durable_timer() -> None:
    async def flow() -> str:
        try:
            await wait_signal("n", int, timeout=timedelta(hours=24))
        except TimeoutError as error:
            return f"{error} {vars(error)['run_id'] == RUN_ID} {error.__cause__} {isinstance(error, SignalTimedOut)}"
        return ""

    run = a_run(flow)

    assert run.events == ["started", "timer_started 1 +86400"]
    run.turn(after=86400)
    assert run.outcome == "no signal 'n' came within 86400 s True None True"


def test_a_signal_in_time_leaves_no_deadline() -> None:
    async def flow() -> int:
        first = await wait_signal("n", int, timeout=60)
        return first + await wait_signal("n", int)

    run = a_run(flow)
    run.turn(signal("n", 1), after=59)

    assert run.last.deadline is None
    run.turn(signal("n", 2))
    assert run.outcome == 3


def test_a_timeout_around_the_wait_is_the_caller_s_own() -> None:
    async def flow() -> str:
        try:
            async with asyncio.timeout(5):
                await wait_signal("n", timeout=60)
        except SignalTimedOut:
            return "the signal's"
        except TimeoutError:
            return "the caller's"
        return ""

    run = a_run(flow)
    run.turn(after=5)

    assert run.outcome == "the caller's"


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), True, "5"])
def test_an_impossible_timeout_is_refused_also_when_a_signal_is_there(timeout: float) -> None:
    async def flow() -> None:
        await wait_signal("go")
        await wait_signal("n", timeout=timeout)

    run = a_run(flow)
    run.turn(signal("n"))
    run.turn(signal("go"))

    assert run.failure.startswith("continuum.errors.ConfigurationError: timeout must be")


def test_a_payload_that_does_not_fit_raises_at_the_wait_and_is_consumed() -> None:
    async def flow() -> list[object]:
        try:
            await wait_signal("verdict", Verdict)
        except SignalInvalid as error:
            problem = error.problems[0]
            verdict = await wait_signal("verdict", Verdict)
            return [error.path, error.run_id, problem.pointer, problem.message, verdict.ok]
        return []

    run = a_run(flow)
    run.turn(signal("verdict", {"ok": "perhaps"}))
    run.turn(signal("verdict", {"ok": True}))

    assert isinstance(run.outcome, list)
    path, run_id, pointer, message, ok = run.outcome
    assert (path, run_id, pointer, ok) == ("/ok", RUN_ID, "/ok", True)
    assert message.endswith("at /ok: Input should be a valid boolean, unable to interpret input")


def test_a_signal_without_payload_is_none() -> None:
    async def flow() -> list[object]:
        return [await wait_signal("a"), await wait_signal("b", int | None)]

    run = a_run(flow)
    run.turn(signal("a"), signal("b"))

    assert run.outcome == [None, None]


def test_an_unknown_signal_stays_and_disturbs_nobody() -> None:
    async def flow() -> int:
        return await wait_signal("n", int)

    run = a_run(flow)

    assert run.turn(signal("x", 1)) == ["signal_received x 1"]
    assert run.turn(signal("n", 2)) == ["signal_received n 2", "completed 2"]


# --- contracts --------------------------------------------------------------------------------------------------------


async def waits(name: str) -> object:
    return await wait_signal(name, timeout=60)


def test_a_wait_for_a_signal_that_the_contract_does_not_name_blocks_the_run() -> None:
    run = ARun(a_flow(waits, signals={"go": int, "stop": int}), "went")

    assert "waits for a signal 'went' that no sender could deliver: it declares go, stop" in run.reason


def test_a_workflow_that_declares_no_signals_at_all_waits_for_none() -> None:
    assert "it declares none" in ARun(a_flow(waits, signals={}), "go").reason


def test_a_wait_for_a_signal_that_the_contract_names_is_served() -> None:
    run = ARun(a_flow(waits, signals={"go": int}), "go")
    run.turn(signal("go", 1))

    assert run.outcome == 1


def test_a_wait_for_what_is_no_name_blocks_the_run() -> None:
    async def flow() -> None:
        await wait_signal(["go"])  # type: ignore[call-overload]

    assert "wait_signal() takes the name of a signal, a str, not ['go']" in a_run(flow).reason


def test_taking_signals_beside_many_that_nobody_takes_is_linear() -> None:
    many = 20_000

    async def flow() -> int:
        taken = 0
        while taken < many:
            await wait_signal("b")
            taken += 1
        return taken

    run = a_run(flow, alone=True)
    run.turn(*(signal(name) for name in ("a", "b") for _ in range(many)))

    assert run.outcome == many
