"""Messages to other runs: commands with an answer."""

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest

from continuum.definitions.children import start_child
from continuum.errors import InputInvalid, NotAllowedHere, RunNotActive, RunNotFound, SignalInvalid
from continuum.model.events import Answer, EventType
from continuum.model.failure import failure_of
from continuum.model.messages import MessageKind
from continuum.replay.context import cancel_run, signal_run
from continuum.replay.machine import RAISED
from continuum.replay.turns import Errand
from tests.unit.replay.builders import CANCEL, FIRST_CHILD, RUN_ID, ARun, a_run, charge, done, drift_of, ended, settle

OTHER = "01900000-0000-7000-8000-000000000002"


def answered(command_id: int, word: str | Exception) -> Answer:
    if isinstance(word, str):
        return Answer(EventType.MESSAGE_ANSWERED, command_id, payload=json.dumps(word).encode())
    return Answer(EventType.MESSAGE_ANSWERED, command_id, name=RAISED, payload=failure_of(word).encode())


async def telling(value: object = 5) -> str:
    return await signal_run(OTHER, "go", value)


def test_a_signal_is_a_command_and_what_came_of_it_the_answer() -> None:
    run = a_run(telling)
    assert run.events[1:] == [f"message_sent 1 signal/go 5 {OTHER}"]
    assert run.last.errands == (Errand(1, MessageKind.SIGNAL, OTHER, "go", b"5"),)
    assert run.last.has_errands
    run.turn(answered(1, "delivered"))
    assert (run.outcome, run.last.has_errands) == ("delivered", False)


def test_whoever_resumes_the_run_sends_it_again() -> None:
    run = a_run(telling)
    again = run.replayed()
    assert (again.open_errands, run.machine.open_errands) == (run.last.errands, run.last.errands)
    again.close()


def test_what_is_new_is_in_the_turn_and_not_among_what_is_sent_again() -> None:
    async def later() -> str:
        await charge(1)
        return await telling()

    async def before() -> None:
        await charge(1)

    del before
    run = a_run(later)
    run.machine.close()
    machine = run.fresh()
    machine.replay(run.history)
    assert machine.open_errands == ()
    turn = machine.turn([done(1)], run.at)
    assert (len(turn.errands), len(machine.open_errands)) == (1, 1)
    machine.close()


@pytest.mark.parametrize("refusal", [RunNotFound("none"), RunNotActive("over"), SignalInvalid("misfit")])
def test_a_refusal_is_raised_in_the_workflow(refusal: Exception) -> None:
    async def flow() -> str:
        try:
            return await telling()
        except type(refusal) as error:
            return f"{type(error).__name__} {error}"

    run = a_run(flow)
    run.turn(answered(1, refusal))
    assert run.outcome == f"{type(refusal).__name__} {refusal}"


@pytest.mark.parametrize(("compensate", "kind"), [(False, MessageKind.CANCEL), (True, MessageKind.COMPENSATE)])
def test_a_cancel_is_a_command_too(compensate: bool, kind: MessageKind) -> None:
    async def flow() -> str:
        return await cancel_run(UUID(OTHER), compensate=compensate)

    run = a_run(flow)
    assert run.last.errands == (Errand(1, kind, OTHER),)
    run.turn(answered(1, "cancelled"))
    assert run.outcome == "cancelled"


def test_a_child_is_signalled_and_cancelled_by_its_handle() -> None:
    async def flow() -> list[str]:
        child = await start_child(settle, 5)
        return [await child.signal("go"), await child.cancel()]

    run = a_run(flow)
    assert run.last.errands[0].run_id == FIRST_CHILD
    run.turn(answered(2, "delivered"))
    run.turn(answered(3, "requested"))
    assert run.outcome == ["delivered", "requested"]


def test_a_wait_that_is_cancelled_does_not_unsend() -> None:
    async def flow() -> str:
        try:
            async with asyncio.timeout(1):
                return await telling()
        except TimeoutError:
            await charge(1)
            return "late"

    run = a_run(flow)
    run.turn(after=1)
    assert run.last.has_errands
    assert run.turn(answered(2, "delivered")) == ['message_answered 2 "delivered"']
    assert run.turn(answered(2, "delivered")) == []
    run.turn(done(3))
    assert run.outcome == "late"


def test_a_cancelled_run_hears_no_answers() -> None:
    run = a_run(telling)
    run.turn(CANCEL)
    assert run.turn(answered(1, "delivered")) == []


def test_another_message_is_drift() -> None:
    async def other() -> str:
        return await telling(6)

    assert drift_of(a_run(telling), other).expected.startswith("message_sent")


def refused(flow: Any) -> ARun:
    return a_run(flow)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: cancel_run(RUN_ID), NotAllowedHere),
        (lambda: signal_run(OTHER, "go", 1, delivery_id="d"), NotAllowedHere),
        (lambda: signal_run(OTHER, "go", 1, instance="billing"), NotAllowedHere),
        (lambda: signal_run("x", "go", 1), InputInvalid),
        (lambda: signal_run(OTHER, "nul\x00", 1), InputInvalid),
        (lambda: signal_run(OTHER, "x" * 201, 1), InputInvalid),
        (lambda: signal_run(OTHER, 7, 1), InputInvalid),  # type: ignore[arg-type]
        (lambda: signal_run(OTHER, "go", object()), SignalInvalid),
    ],
)
def test_bad_use_is_an_error_at_the_call(call: Any, error: type[Exception]) -> None:
    async def flow() -> str:
        try:
            await call()
        except error as caught:
            return type(caught).__name__
        return "none"

    assert a_run(flow).outcome == error.__name__


def test_an_execution_that_is_given_up_sends_nothing() -> None:
    async def flow() -> None:
        try:
            await charge(1)
        finally:
            await telling()

    run = a_run(flow, alone=True)
    run.machine.close()
    assert run.machine.turn((), run.at).errands == ()
    assert ended(FIRST_CHILD, 1).name == FIRST_CHILD
