"""What is owed is undone newest first, once, whatever happens in between."""

import asyncio
import contextlib
from typing import Any

import pytest
from msgspec.structs import replace

from continuum.definitions.activity import activity
from continuum.definitions.compensating import compensate, compensate_all, saga
from continuum.definitions.continuing import continue_as_new
from continuum.errors import ActivityFailed, DefinitionError, NotAllowedHere, NotInWorkflow
from continuum.model.events import PENDING, EventType
from continuum.replay import context
from continuum.replay.saga import Debt
from continuum.replay.turns import Cancelled, Undone
from tests.unit.replay.builders import CANCEL, ARun, a_run, broken, done, drift_of, lines, ping, signal


@activity(name="give_back")
async def give_back(ticket: str, *, fast: bool = False) -> None:
    raise AssertionError("workflow tests perform no activity")


@activity(name="seat.book", compensate=give_back)
async def book(seat: int) -> str:
    raise AssertionError("workflow tests perform no activity")


async def three(then: str = "all") -> Any:
    for seat in (1, 2, 3):
        await book(seat)
    if then == "all":
        return [failure.activity for failure in await compensate_all()]
    if then == "parallel":
        return [failure.activity for failure in await compensate_all(parallel=True)]
    return await context.wait_signal("go")


def booked(*args: object, flow: Any = three) -> ARun:
    run = a_run(flow, *args)
    for number in (1, 2, 3):
        run.turn(done(number, f"t{number}"))
    return run


def undone(number: int) -> str:
    return f'activity_scheduled {number + 3} give_back {{"ticket":"t{4 - number}"}}'


def test_the_newest_is_answeredfirst_each_with_its_result() -> None:
    run = booked()
    assert run.events[-1] == undone(1)
    assert run.turn(done(4))[-1] == undone(2)
    assert run.turn(done(5))[-1] == undone(3)
    run.turn(done(6))
    assert run.outcome == []


def test_all_at_once_is_newest_first_too() -> None:
    run = booked("parallel")
    assert run.events[-3:] == [undone(1), undone(2), undone(3)]
    run.turn(done(5), done(4), done(6))
    assert run.outcome == []


def test_one_that_finally_fails_is_told_and_the_rest_go_on() -> None:
    run = booked()
    run.turn(done(4))
    run.turn(broken(5, RuntimeError("no")))
    run.turn(done(6))
    assert run.outcome == ["give_back"]


def test_resuming_in_the_middle_goes_on_with_the_next() -> None:
    run = booked()
    run.turn(done(4))
    again = run.replayed()
    turn = again.turn([done(5)], run.at)
    assert [one.arguments for one in turn.scheduled] == [b'{"ticket":"t1"}']
    again.close()


def test_what_did_not_complete_is_not_owed() -> None:
    async def flow() -> list[object]:
        await book(1)
        with contextlib.suppress(ActivityFailed):
            await book(2)
        return list(await compensate_all())

    run = a_run(flow)
    run.turn(done(1, "t1"))
    assert run.turn(broken(2, RuntimeError("full")))[-1] == 'activity_scheduled 3 give_back {"ticket":"t1"}'


async def bound() -> list[object]:
    with contextlib.suppress(ActivityFailed):
        await book.options(compensate=give_back.bound("seat-1", fast=True))(1)
    return list(await compensate_all())


def test_what_is_bound_is_owed_from_scheduling_on() -> None:
    run = a_run(bound)
    asked = 'activity_scheduled 2 give_back {"ticket":"seat-1","fast":true}'
    assert run.turn(broken(1, TimeoutError("silent")))[-1] == asked
    run.turn(done(2))
    assert run.outcome == []


def test_what_is_bound_is_answeredonce_when_the_call_succeeded_too() -> None:
    run = a_run(bound)
    assert len(run.turn(done(1, "t1"))) == 2
    run.turn(done(2))
    assert run.outcome == []


def test_none_means_none() -> None:
    async def flow() -> list[object]:
        await book.options(compensate=None)(1)
        return list(await compensate_all())

    run = a_run(flow)
    run.turn(done(1, "t1"))
    assert run.outcome == []


def test_options_of_a_compensation_are_those_given() -> None:
    async def flow() -> list[object]:
        await book.options(compensate=give_back.options(queue="slow"))(1)
        return list(await compensate_all())

    run = a_run(flow)
    run.turn(done(1, "t1"))
    assert [one.options.queue for one in run.last.scheduled] == ["slow"]


def test_one_call_can_be_answeredby_its_activity_or_by_its_result() -> None:
    async def flow() -> list[bool]:
        tickets = [await book(seat) for seat in (1, 2, 3)]
        return [
            await compensate(book, tickets[0]),
            await compensate(book),
            await compensate(book, "t9"),
            await compensate(book),
            await compensate(book),
        ]

    run = booked(flow=flow)
    assert run.events[-1] == 'activity_scheduled 4 give_back {"ticket":"t1"}'
    assert run.turn(done(4))[-1] == 'activity_scheduled 5 give_back {"ticket":"t3"}'
    assert run.turn(done(5))[-1] == 'activity_scheduled 6 give_back {"ticket":"t2"}'
    run.turn(done(6))
    assert run.outcome == [True, True, False, True, False]


def test_a_single_compensation_that_fails_raises() -> None:
    async def flow() -> str:
        await book(1)
        try:
            await compensate(book)
        except ActivityFailed as failed:
            return failed.type
        return ""

    run = a_run(flow)
    run.turn(done(1, "t1"))
    run.turn(broken(2, RuntimeError("no")))
    assert run.outcome == "builtins.RuntimeError"


def test_nothing_is_answeredtwice() -> None:
    async def flow() -> int:
        await book(1)
        await compensate(book)
        return len(await compensate_all())

    run = a_run(flow)
    run.turn(done(1, "t1"))
    run.turn(done(2))
    assert run.outcome == 0


def test_a_wait_for_a_compensation_that_is_cancelled_leaves_it_going_on() -> None:
    async def flow() -> int:
        await book(1)
        try:
            async with asyncio.timeout(10):
                await compensate_all()
        except TimeoutError:
            await compensate_all()
        return 1

    run = a_run(flow)
    run.turn(done(1, "t1"))
    assert run.turn(after=10) == ["timer_fired 2"]
    assert run.last.resolved == ()
    assert run.turn(done(3)) == ["activity_completed 3 0", "completed 1"]


async def guarded(how: str) -> str:
    await book(1)
    try:
        async with saga():
            await book(2)
            await book(3)
            if how == "raise":
                raise ValueError(how)
    except ValueError:
        return "raised"
    return "kept"


def test_a_saga_undoes_what_its_body_did_if_it_raises() -> None:
    run = booked("raise", flow=guarded)
    assert run.events[-1] == undone(1)
    assert run.turn(done(4))[-1] == undone(2)
    run.turn(done(5))
    assert run.outcome == "raised"
    assert len(run.machine.debts.newest_first()) == 1


def test_a_saga_that_ends_well_undoes_nothing() -> None:
    run = booked("fine", flow=guarded)
    assert (run.outcome, len(run.machine.debts.newest_first())) == ("kept", 3)


def test_a_saga_whose_task_is_cancelled_undoes_too() -> None:
    async def flow() -> str:
        try:
            async with asyncio.timeout(10):
                async with saga(parallel=True):
                    await book(1)
                    await ping()
        except TimeoutError:
            return "late"
        return ""

    run = a_run(flow)
    run.turn(done(2, "t1"))
    assert run.turn(after=10)[-1] == 'activity_scheduled 4 give_back {"ticket":"t1"}'
    run.turn(done(4))
    assert run.outcome == "late"


async def beside_another() -> str:
    async def fails() -> None:
        async with saga():
            await book(1)
            await ping()
            raise ValueError("no")

    async def goes_well() -> None:
        async with saga():
            await asyncio.gather(book(2))
            await ping()

    await asyncio.gather(fails(), goes_well(), return_exceptions=True)
    return "over"


def test_a_saga_leaves_alone_what_another_one_did_at_the_same_time() -> None:
    run = a_run(beside_another)
    run.turn(done(1, "t1"), done(2, "t2"))
    assert run.turn(done(3))[1:] == ['activity_scheduled 5 give_back {"ticket":"t1"}']
    run.turn(done(5), done(4))
    assert run.outcome == "over"
    assert [debt.result for debt in run.machine.debts.newest_first()] == [b'"t2"']


def test_a_saga_undoes_what_its_body_did_also_if_something_older_was_undone_meanwhile() -> None:
    async def flow() -> None:
        await book(1)
        async with saga():
            await book(2)
            await compensate(book, "t1")
            raise ValueError("no")

    run = a_run(flow)
    run.turn(done(1, "t1"))
    run.turn(done(2, "t2"))
    assert run.turn(done(3))[-1] == 'activity_scheduled 4 give_back {"ticket":"t2"}'


def test_a_saga_undoes_what_tasks_did_that_its_body_started() -> None:
    async def flow() -> None:
        async with saga(), asyncio.TaskGroup() as group:
            group.create_task(book(1))
            group.create_task(book(2))
            group.create_task(ping())

    run = a_run(flow)
    run.turn(done(1, "t1"))
    assert run.turn(broken(3, RuntimeError("no")))[-1] == 'activity_scheduled 4 give_back {"ticket":"t1"}'


def test_a_finally_block_that_would_continue_as_new_does_not_hinder_a_cancel() -> None:
    async def flow() -> None:
        await book(1)
        try:
            await context.wait_signal("go")
        finally:
            continue_as_new()

    run = a_run(flow, alone=True)
    run.turn(done(1, "t1"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("continuum.definitions.continuing.catalog", lambda: _Catalog(run.flow))
        assert run.turn(CANCEL)[-1] == 'activity_scheduled 2 give_back {"ticket":"t1"}'
        run.turn(done(2))
    assert run.outcome == Cancelled()


def test_a_saga_is_left_by_continue_as_new_with_its_debts() -> None:
    async def flow() -> None:
        async with saga():
            await book(1)
            continue_as_new()

    run = a_run(flow, alone=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("continuum.definitions.continuing.catalog", lambda: _Catalog(run.flow))
        run.turn(done(1, "t1"))
    assert [event.type for event in run.last.carried] == [EventType.STARTED, EventType.COMPENSATION_OWED]


class _Catalog:
    def __init__(self, flow: Any) -> None:
        self._flow = flow

    def workflow(self, _name: str) -> Any:
        return self._flow


def test_a_debt_survives_being_written() -> None:
    debt = Debt("book", "give_back", give_back.task_options, arguments=b'{"ticket":"t1"}', result=b'"t1"')
    again = Debt.decode("give_back", debt.encode())
    assert (again.activity, again.arguments, again.result, again.options) == (
        "book",
        debt.arguments,
        debt.result,
        debt.options,
    )
    assert Debt.decode("x", Debt("book", "x", give_back.task_options).encode()).arguments is None


# --- cancelled with compensations ---------------------------------------------------------------------------------------


def test_a_cancel_shuts_the_code_and_undoes_what_is_owed() -> None:
    run = booked("wait")
    assert run.turn(CANCEL)[1:] == [undone(1)]
    assert (run.last.is_cancelling, run.machine.is_cancelling) == (True, True)
    run.turn(done(4))
    run.turn(broken(5, RuntimeError("no")))
    assert run.turn(done(6)) == ["activity_completed 6 0", "cancelled null"]
    assert run.last.outcome == Cancelled()


def test_a_second_cancel_and_other_messages_find_nobody() -> None:
    run = booked("wait")
    run.turn(CANCEL)
    assert run.turn(CANCEL, signal("go")) == ["signal_received go"]


def test_a_run_that_owes_nothing_is_cancelled_at_once() -> None:
    async def flow() -> None:
        await ping()

    run = a_run(flow)
    assert run.turn(CANCEL)[1:] == ["cancelled null"]
    assert run.last.resolved == (1,)


def test_open_activities_are_withdrawn_and_compensations_in_progress_are_waited_for() -> None:
    async def flow() -> None:
        await book(1)
        await asyncio.gather(compensate_all(), ping())

    run = a_run(flow)
    run.turn(done(1, "t1"))
    assert run.turn(CANCEL) == ["cancel_requested"]
    assert run.last.resolved == (2,)
    assert run.turn(done(3)) == ["activity_completed 3 0", "cancelled null"]


def test_what_finally_blocks_try_then_has_no_effect() -> None:
    async def flow() -> None:
        try:
            await book(1)
            await context.wait_signal("go")
        finally:
            context.log("INFO", "leaving")
            await ping()

    run = a_run(flow)
    run.turn(done(1, "t1"))
    assert run.turn(CANCEL)[1:] == ['activity_scheduled 2 give_back {"ticket":"t1"}']
    assert run.last.logs == ()
    run.turn(done(2))
    assert run.last.outcome == Cancelled()


def test_timers_of_the_code_do_not_fire_any_more() -> None:
    async def flow() -> None:
        await book(1)
        await asyncio.sleep(5)

    run = a_run(flow)
    run.turn(done(1, "t1"))
    run.turn(CANCEL)
    assert (run.turn(after=10), run.last.deadline) == ([], None)


def test_other_code_than_that_which_was_answeredis_drift() -> None:
    run = booked("wait")
    run.turn(CANCEL)

    async def other(then: str) -> None:
        await book(1)
        await ping()

    assert drift_of(run, other).expected.startswith("activity_")


# --- bad use ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("undo", [5, three, ping])
def test_what_cannot_undo_is_refused_at_the_decorator(undo: Any) -> None:
    async def work(seat: int) -> str:
        return ""

    with pytest.raises(DefinitionError, match="compensate"):
        activity(name="work", compensate=undo)(work)


async def test_compensating_belongs_into_a_workflow() -> None:
    with pytest.raises(NotInWorkflow, match="compensate_all"):
        await compensate_all()
    with pytest.raises(NotInWorkflow, match="compensate"):
        await compensate(book)
    with pytest.raises(NotInWorkflow, match="saga"):
        saga()


def test_only_activities_are_undone() -> None:
    async def flow() -> None:
        await compensate(three)  # type: ignore[arg-type]

    assert "takes the activity" in a_run(flow).reason
    assert issubclass(NotAllowedHere, Exception)


def test_a_run_that_has_not_begun_owes_nothing() -> None:
    run = a_run(three)
    run.machine.close()
    started = replace(run.history[0], key=PENDING)
    machine = run.fresh()
    machine.replay([started])
    turn = machine.turn([CANCEL], run.at)
    assert lines(turn.events) == ["cancel_requested", "cancelled null"]
    again = run.fresh()
    again.replay([started, *turn.events])
    assert again.outcome == Cancelled()


def test_a_turn_tells_what_it_undoes_and_what_is_undone() -> None:
    run = booked()
    (asked,) = run.last.scheduled
    assert (asked.activity, asked.undoes) == ("give_back", "seat.book")
    run.turn(done(4))
    assert run.last.undone == (Undone(4, "give_back", "seat.book", None),)
    run.turn(broken(5, RuntimeError("no")))
    (answered,) = run.last.undone
    assert (answered.command_id, answered.failure and answered.failure.message) == (5, "no")
    assert run.replayed().turn((), run.at).undone == ()
