"""A machine for looking causes nothing."""

from continuum.replay.context import side_effect
from continuum.replay.offline import OfflineMachine
from tests.unit.replay.builders import a_flow, a_run, charge, done

made: list[int] = []


def make() -> int:
    made.append(1)
    return len(made)


async def flow() -> int:
    first = await side_effect(make)
    await charge(first)
    return await side_effect(make)


async def longer() -> int:
    first = await side_effect(make)
    later = await side_effect(make)
    return first + later


def test_what_history_holds_comes_back_and_what_it_does_not_hold_is_never_made() -> None:
    made.clear()
    run = a_run(flow)
    assert made == [1]
    machine = OfflineMachine(run.flow, run.info)
    machine.replay(run.history)
    turn = machine.turn((done(2),), run.at)
    assert (made, machine.outcome, [event.type.value for event in turn.events]) == ([1], None, ["activity_completed"])
    machine.close()


def test_code_that_grew_a_side_effect_at_its_end_waits_there() -> None:
    made.clear()
    run = a_run(flow)
    machine = OfflineMachine(a_flow(longer), run.info)
    machine.replay(run.history[:2])
    assert (made, machine.outcome) == ([1], None)
    machine.close()
