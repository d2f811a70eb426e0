"""Attributes that a workflow sets: in the turn's commit, once, without an event."""

from datetime import UTC, datetime

import pytest

from continuum import set_attributes
from continuum.errors import DurableValueError, NotInWorkflow
from continuum.model.attributes import ATTRIBUTES_MAX
from continuum.replay.context import wait_signal
from tests.unit.replay.builders import START, ARun, a_flow, a_run, charge, done, signal


async def labelled() -> None:
    set_attributes(step="charging", due=datetime(2026, 3, 1, tzinfo=UTC))
    await charge(5)
    set_attributes(step="waiting", due=None)
    set_attributes(paid=5)
    await wait_signal("go")
    set_attributes(step="done")


def test_a_turn_carries_what_its_code_set() -> None:
    run = a_run(labelled)

    assert run.last.attributes == {"step": "charging", "due": "2026-03-01T00:00:00Z"}
    run.turn(done(1))
    assert run.last.attributes == {"step": "waiting", "due": None, "paid": 5}
    run.turn(signal("go"))
    assert run.last.attributes == {"step": "done"}


def test_nothing_is_journaled_of_it() -> None:
    run = a_run(labelled)
    run.turn(done(1))

    assert [event.type.value for event in run.history] == ["started", "activity_scheduled", "activity_completed"]


def test_a_replay_sets_nothing_again() -> None:
    """Somebody outside may have changed it meanwhile."""
    run = a_run(labelled)
    run.turn(done(1))
    machine = run.replayed()

    assert machine.turn((), START).attributes is None
    assert machine.turn((signal("go"),), START).attributes == {"step": "done"}


def test_code_that_grew_at_its_end_brings_its_attributes() -> None:
    async def before() -> None:
        await charge(5)
        await wait_signal("go")

    async def after() -> None:
        await charge(5)
        set_attributes(step="new")
        await charge(6)
        set_attributes(step="never reached")

    run = ARun(a_flow(before), alone=True)
    run.turn(done(1))
    machine = run.replayed(a_flow(after))

    turn = machine.turn((), START)
    assert ([event.name for event in turn.events], turn.attributes) == (["charge"], {"step": "new"})


def test_a_turn_that_stuck_is_made_again_with_its_attributes() -> None:
    is_mended = False

    async def flow() -> None:
        await charge(5)
        set_attributes(step="new")
        if not is_mended:
            raise NotImplementedError
        await wait_signal("go")

    run = a_run(flow, alone=True)
    run.turn(done(1))
    assert "NotImplementedError" in run.reason
    is_mended = True
    machine = run.replayed()

    assert machine.turn((done(1),), START).attributes == {"step": "new"}


def test_what_cannot_be_an_attribute_is_refused_at_the_call_live_and_on_replay() -> None:
    async def flow() -> list[str]:
        paths = []
        for value in ({"a": 1}, float("nan")):
            try:
                set_attributes(x=value)  # type: ignore[arg-type]
            except DurableValueError as error:
                paths.append(error.path)
        await charge(5)
        half = "x" * (ATTRIBUTES_MAX // 2)
        set_attributes(a=half)
        try:
            set_attributes(b=half)
        except DurableValueError as error:
            paths.append(str(error))
        set_attributes(a=None, b=half)
        await wait_signal("go")
        return paths

    run = a_run(flow)
    run.turn(done(1))
    assert run.last.attributes == {"a": None, "b": "x" * (ATTRIBUTES_MAX // 2)}
    run.turn(signal("go"))
    assert run.outcome == [
        "/attributes/x",
        "/attributes/x",
        f"the attributes would take more than {ATTRIBUTES_MAX} bytes of JSON",
    ]


def test_code_that_is_given_up_sets_nothing() -> None:
    async def flow() -> None:
        try:
            await charge(5)
        finally:
            set_attributes(step="given up")

    run = a_run(flow, alone=True)
    run.machine.close()

    assert run.machine.turn((), START).attributes is None


def test_outside_of_a_workflow_a_run_must_be_named() -> None:
    with pytest.raises(NotInWorkflow, match=r"anywhere else say of which run: `await continuum.set_attributes\(run_id"):
        set_attributes(step="nowhere")
