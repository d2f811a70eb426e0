"""continue_as_new: the generation ends, and the next one opens with what must not be lost."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from continuum.definitions.activity import activity
from continuum.definitions.catalog import scoped_catalog
from continuum.definitions.compensating import compensate_all
from continuum.definitions.continuing import continue_as_new
from continuum.definitions.workflow import Workflow, workflow
from continuum.errors import InputInvalid, NotAllowedHere, NotInWorkflow
from continuum.model.events import PENDING, Answer, Event, EventType
from continuum.replay import context
from continuum.replay.machine import Machine
from continuum.replay.matching import Drift
from continuum.replay.signals import Signal, Signals
from continuum.replay.turns import Continued
from tests.unit.replay.builders import ARun, an_info, charge, done, lines, ping, refund, signal


@pytest.fixture(autouse=True)
def _own_catalog() -> Iterator[None]:
    with scoped_catalog():
        yield


def a_loop(fn: Any, version: int = 1) -> Workflow[..., Any]:
    return workflow(name="flow", version=version, purity="off")(fn)


def a_loop_of_another_day(fn: Any) -> Workflow[..., Any]:
    with scoped_catalog():
        return workflow(name="flow", version=9)(fn)


async def counting(number: int, limit: int = 3) -> int:
    await charge(number)
    if number < limit:
        continue_as_new(number + 1)
    return number


def next_generation(run: ARun, flow: Workflow[..., Any] | None = None) -> Machine:
    """Return a machine that stands where the next generation begins."""
    outcome = run.last.outcome
    assert isinstance(outcome, Continued)
    info = an_info(generation=run.info.generation + 1, version=outcome.version)
    machine = Machine(flow or run.flow, info)
    machine.replay(run.last.carried)
    return machine


def test_the_generation_ends_with_its_successors_input() -> None:
    run = ARun(a_loop(counting), 1)
    assert run.turn(done(1))[-1] == 'continued {"number":2,"limit":3}'
    assert run.last.outcome == Continued(1, b'{"number":2,"limit":3}')
    (started,) = run.last.carried
    assert (started.seq, started.type, started.key, started.payload) == (
        1,
        EventType.STARTED,
        PENDING,
        b'{"number":2,"limit":3}',
    )


def test_the_next_generation_begins_with_its_first_turn() -> None:
    run = ARun(a_loop(counting), 1)
    run.turn(done(1))
    machine = next_generation(run)
    turn = machine.turn((), run.at)
    assert lines(turn.events) == ["begun", 'activity_scheduled 1 charge {"cents":2}']
    machine.close()


def test_open_activities_and_timers_do_not_go_along() -> None:
    async def flow() -> None:
        asyncio.create_task(asyncio.wait_for(ping(), 5))  # noqa: RUF006
        await charge(1)
        continue_as_new()

    run = ARun(a_loop(flow))
    run.turn(done(2))
    assert (run.last.deadline, len(run.last.carried)) == (None, 1)


async def reading(count: int = 0) -> object:
    first = await context.wait_signal("s", object)
    if first == "on":
        continue_as_new(1)
    return [first, await context.wait_signal("s", object)]


def a_message(name: str, value: object, number: int) -> Answer:
    answer = signal(name, value)
    return Answer(answer.type, None, f"00000000-0000-4000-8000-{number:012}", answer.name, answer.payload)


def test_unconsumed_signals_go_along_in_order_with_their_ids() -> None:
    run = ARun(a_loop(reading))
    run.turn(a_message("other", 1, 1), a_message("s", "on", 2), a_message("s", "a", 3), a_message("s", "b", 4))
    ids = [event.message_id for event in run.last.carried[1:]]
    assert [identity[-1] for identity in ids if identity] == ["1", "3", "4"]
    machine = next_generation(run)
    turn = machine.turn((), run.at)
    assert lines(turn.events)[-1] == 'completed ["a","b"]'


def test_what_is_no_signal_is_dropped_after_the_end() -> None:
    run = ARun(a_loop(counting), 1)
    run.turn(done(1), done(1, 9), a_message("s", 1, 1))
    assert [event.type for event in run.last.carried] == [EventType.STARTED, EventType.SIGNAL_RECEIVED]


def test_a_signal_that_was_given_to_a_wait_whose_code_never_ran_again_is_not_lost() -> None:
    signals = Signals()
    loop = asyncio.new_event_loop()
    take = signals.take("s", asyncio.Future(loop=loop))
    take.send(None)
    signals.receive(Signal("s", b"1"))
    signals.receive(Signal("s", b"2"))
    assert [signal.payload for signal in signals.unconsumed] == [b"1", b"2"]
    with pytest.raises(StopIteration):
        take.send(None)
    assert [signal.payload for signal in signals.unconsumed] == [b"2"]
    loop.close()


def test_the_newest_version_takes_over_and_checks_the_arguments() -> None:
    async def first(number: int) -> str:
        await charge(number)
        try:
            continue_as_new("x")
        except InputInvalid:
            continue_as_new(5)

    async def second(number: int, fresh: bool = True) -> int:
        return number

    run = ARun(a_loop(first), 1)
    newest = a_loop(second, version=2)
    run.turn(done(1))
    assert run.last.outcome == Continued(2, b'{"number":5,"fresh":true}')
    machine = next_generation(run, newest)
    assert lines(machine.turn((), run.at).events)[-1] == "completed 5"


def test_keyword_arguments_go_by_bound() -> None:
    async def flow(number: int = 0, *, fast: bool = False) -> bool:
        await charge(1)
        continue_as_new(me[0].bound(2, fast=True))

    me = [a_loop(flow)]
    run = ARun(me[0])
    run.turn(done(1))
    assert run.last.outcome == Continued(1, b'{"number":2,"fast":true}')


def test_a_run_continues_as_itself_only() -> None:
    async def flow() -> None:
        continue_as_new(charge.bound(1))

    assert "continues as itself" in ARun(a_loop(flow)).reason


def test_it_belongs_into_the_workflows_own_task() -> None:
    async def flow() -> str:
        async def leave() -> None:
            continue_as_new()

        try:
            await asyncio.gather(leave())
        except NotAllowedHere as error:
            return error.message[:15]
        return ""

    assert ARun(a_loop(flow)).outcome == "continue_as_new"


def test_except_exception_does_not_catch_it() -> None:
    async def flow(number: int = 0) -> None:
        with contextlib.suppress(Exception):
            continue_as_new(1)

    assert isinstance(ARun(a_loop(flow)).last.outcome, Continued)


def test_swallowing_it_blocks_the_run() -> None:
    async def flow(number: int = 0) -> str:
        try:
            continue_as_new(1)
        except BaseException:  # noqa: BLE001
            return "swallowed"

    assert "must get through" in ARun(a_loop(flow)).reason


def test_awaiting_on_the_way_out_blocks_the_run() -> None:
    async def flow(number: int = 0) -> None:
        try:
            continue_as_new(1)
        finally:
            await ping()

    assert "nothing may be awaited on the way out" in ARun(a_loop(flow)).reason


def test_a_finally_block_without_effects_is_fine() -> None:
    left: list[bool] = []

    async def flow(number: int = 0) -> None:
        try:
            continue_as_new(1)
        finally:
            left.append(True)

    assert isinstance(ARun(a_loop(flow), alone=True).last.outcome, Continued)
    assert left == [True]


def test_what_is_owed_goes_along_and_can_be_undone_there() -> None:
    work = activity(name="work", compensate=refund)(_work)

    async def flow(number: int = 0) -> int:
        if number == 0:
            await work(7)
            continue_as_new(1)
        return len(await compensate_all())

    run = ARun(a_loop(flow), alone=True)
    run.turn(done(1, 70))
    assert [event.type for event in run.last.carried] == [EventType.STARTED, EventType.COMPENSATION_OWED]
    machine = next_generation(run)
    turn = machine.turn((), run.at)
    assert lines(turn.events)[-1] == 'activity_scheduled 1 refund {"cents":70}'
    machine.close()


async def _work(cents: int) -> int:
    return cents


def test_another_continuation_is_drift() -> None:
    run = ARun(a_loop(counting), 1)
    run.turn(done(1))

    async def other(number: int, limit: int = 3) -> int:
        await charge(number)
        continue_as_new(number + 2)

    machine = Machine(a_loop_of_another_day(other), run.info)
    with pytest.raises(Drift, match="expected continued"):
        machine.replay(run.history)
    machine.close()


async def test_it_belongs_into_a_workflow() -> None:
    with pytest.raises(NotInWorkflow, match="continue_as_new"):
        continue_as_new()


def test_generations_draw_differently() -> None:
    flow = a_loop(counting)
    draws = {Machine(flow, an_info(generation=number)).random.random() for number in (1, 2, 3)}
    assert len(draws) == 3
    assert Event(1, EventType.CONTINUED, an_info().started_at).format == 1
