"""patched(): decided once per run and name, and that is journaled."""

from typing import Any

import pytest

from continuum.errors import NotInWorkflow
from continuum.model.events import EventType
from continuum.replay.context import patched
from tests.unit.replay.builders import ARun, a_flow, a_run, charge, done, drift_of, ping, refund


async def before() -> int:
    await charge(1)
    await refund(1)
    return 1


async def changed() -> int:
    await charge(1)
    if patched("ping instead"):
        await ping()
        return 2
    await refund(1)
    return 1


def test_a_new_run_takes_the_change_and_journals_it() -> None:
    run = a_run(changed)
    assert run.turn(done(1)) == ["activity_completed 1 0", "patched ping instead", "activity_scheduled 2 ping {}"]
    run.turn(done(2))
    assert (run.outcome, run.machine.patches) == (2, {"ping instead": True})


def test_a_run_that_went_the_old_way_stays_on_it() -> None:
    run = a_run(before)
    run.turn(done(1))
    machine = run.replayed(a_flow(changed))
    assert machine.patches == {"ping instead": False}
    turn = machine.turn([done(2)], run.at)
    assert [event.type for event in turn.events] == [EventType.ACTIVITY_COMPLETED, EventType.COMPLETED]


def test_a_run_that_had_not_got_there_takes_the_change() -> None:
    run = a_run(before)
    machine = run.replayed(a_flow(changed))
    turn = machine.turn([done(1)], run.at)
    assert [event.type for event in turn.events][1] is EventType.PATCHED
    machine.close()


async def asked_often() -> list[bool]:
    answers = [patched("x")]
    await charge(1)
    answers.append(patched("x"))
    await charge(2)
    return [*answers, patched("x"), patched("y")]


async def asked_never() -> int:
    await charge(1)
    await charge(2)
    return 1


def test_a_decision_holds_for_the_whole_run_wherever_it_is_asked_again() -> None:
    run = a_run(asked_often)
    run.turn(done(1))
    run.turn(done(2))
    assert run.outcome == [True, True, True, True]
    old = a_run(asked_never)
    old.turn(done(1))
    machine = old.replayed(a_flow(asked_often))
    machine.turn([done(2)], old.at)
    assert machine.patches == {"x": False, "y": True}


def test_code_that_no_longer_asks_passes_the_marker_by() -> None:
    async def settled() -> int:
        await charge(1)
        await ping()
        return 2

    run = a_run(changed)
    run.turn(done(1))
    machine = run.replayed(a_flow(settled))
    turn = machine.turn([done(2)], run.at)
    assert (turn.outcome is not None, turn.events[-1].seq) == (True, 7)


def test_removing_the_old_way_too_early_is_drift() -> None:
    async def settled() -> int:
        await charge(1)
        await ping()
        return 2

    run = a_run(before)
    run.turn(done(1))
    assert "ping" in drift_of(run, settled).found


def test_an_execution_that_is_given_up_decides_nothing() -> None:
    seen: list[bool] = []

    async def flow() -> None:
        try:
            await charge(1)
        finally:
            seen.append(patched("x"))

    run = ARun(a_flow(flow), alone=True)
    run.machine.close()
    assert (seen, run.machine.patches) == ([False], {})


async def test_it_belongs_into_a_workflow() -> None:
    with pytest.raises(NotInWorkflow, match="patched"):
        patched("x")


@pytest.mark.parametrize("name", ["", "a\x00b", "x" * 201, 5, "\ud800"])
def test_a_change_has_a_name_that_can_be_journaled(name: Any) -> None:
    async def flow() -> bool:
        return patched(name)

    assert "patched() takes the name of a change" in a_run(flow).reason
