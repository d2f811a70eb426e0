"""Children: known by their key, asked for once, their endings kept for whoever waits."""

import asyncio
import pickle
from uuid import UUID, uuid5

import pytest

from continuum.definitions.children import start_child
from continuum.errors import (
    ChildCancelled,
    ChildFailed,
    IdempotencyConflict,
    InputInvalid,
    NotAllowedHere,
    NotInWorkflow,
)
from continuum.model.events import Answer, EventType
from tests.unit.replay.builders import (
    FIRST_CHILD,
    RUN_ID,
    a_run,
    an_info,
    audit,
    charge,
    done,
    drift_of,
    ended,
    settle,
    signal,
)


def cancelled(run_id: str) -> Answer:
    return Answer(EventType.CHILD_CANCELLED, name=run_id)


async def one() -> int:
    child = await start_child(settle, 5)
    return await child


def test_a_child_is_asked_for_in_the_turn_and_known_by_its_position() -> None:
    run = a_run(one)
    assert run.events == ["started", 'child_started 1 settle {"cents":5,"times":1} 1/1']
    (child,) = run.last.children
    assert (child.run_id, child.workflow, child.version, child.arguments) == (
        FIRST_CHILD,
        "settle",
        1,
        b'{"cents":5,"times":1}',
    )
    assert run.turn(ended(FIRST_CHILD, 7)) == [f"child_completed 1 {FIRST_CHILD} 7", "completed 7"]


def test_a_key_names_the_child() -> None:
    async def flow() -> str:
        return (await start_child(settle, 5, id="order-1")).run_id

    run = a_run(flow)
    assert run.outcome == str(uuid5(UUID(RUN_ID), "order-1"))


@pytest.mark.parametrize("key", ["1/2", "=1/2"])
def test_a_key_is_never_that_of_a_child_without_one(key: str) -> None:
    async def flow() -> int:
        named, unnamed = await start_child(settle, 5, id=key), await start_child(settle, 6)
        again = await start_child(settle, 5, id=key)
        assert named.run_id == again.run_id
        return len({named.run_id, unnamed.run_id, str(uuid5(UUID(RUN_ID), "=1/2" if key == "=1/2" else key))})

    run = a_run(flow)
    assert run.outcome == (3 if key == "=1/2" else 2)


async def the_same_twice() -> bool:
    first = await start_child(settle, 5, id="k")
    second = await start_child(settle.bound(cents=5), id="k")
    return first.run_id == second.run_id


def test_the_same_key_and_input_are_the_same_child() -> None:
    run = a_run(the_same_twice)
    assert (run.outcome, len(run.last.children)) == (True, 1)


@pytest.mark.parametrize("other", [(settle, 6), (audit, 5)], ids=["input", "workflow"])
def test_the_same_key_with_something_else_is_a_conflict_at_the_call(other: tuple[object, int]) -> None:
    async def flow() -> str:
        await start_child(settle, 5, id="k")
        try:
            await start_child(other[0], other[1], id="k")  # type: ignore[call-overload]
        except IdempotencyConflict as conflict:
            return str(conflict.run_id)
        return "none"

    assert a_run(flow).outcome == str(uuid5(UUID(RUN_ID), "k"))


def test_a_failed_child_raises_with_what_it_raised() -> None:
    async def flow() -> list[object]:
        child = await start_child(settle, 5)
        try:
            await child
        except ChildFailed as failed:
            again = pickle.loads(pickle.dumps(failed))
            return [again.type, again.child == child.run_id, again.caused_by(ValueError), again.caused_by(KeyError)]
        return []

    run = a_run(flow)
    run.turn(ended(FIRST_CHILD, error=ValueError("no")))
    assert run.outcome == ["builtins.ValueError", True, True, False]


def test_a_cancelled_child_raises() -> None:
    async def flow() -> str:
        try:
            await one()
        except ChildCancelled as gone:
            return gone.child
        return ""

    run = a_run(flow)
    run.turn(cancelled(FIRST_CHILD))
    assert run.outcome == FIRST_CHILD


def test_an_ending_is_kept_for_every_wait_whenever_it_asks() -> None:
    async def flow() -> list[int]:
        child = await start_child(settle, 5)
        both = await asyncio.gather(child.result(), child.result())
        return [*both, await child, await child]

    run = a_run(flow)
    run.turn(ended(FIRST_CHILD, 3))
    assert run.outcome == [3, 3, 3, 3]


def test_a_wait_that_is_cancelled_leaves_the_child() -> None:
    async def flow() -> int:
        child = await start_child(settle, 5)
        try:
            await child.result(timeout=10)
        except TimeoutError:
            return await child
        return 0

    run = a_run(flow)
    assert run.turn(after=10) == ["timer_fired 2"]
    run.turn(ended(FIRST_CHILD, 4))
    assert run.outcome == 4


def test_endings_are_delivered_in_the_order_of_events() -> None:
    async def flow() -> list[int]:
        children = [await start_child(settle, number) for number in range(3)]
        return [await first for first in asyncio.as_completed([child.result() for child in children])]

    run = a_run(flow)
    ids = [child.run_id for child in run.last.children]
    run.turn(ended(ids[2], 2))
    run.turn(ended(ids[0], 0), ended(ids[1], 1))
    assert run.outcome == [2, 0, 1]


def test_a_second_ending_and_a_strangers_ending_change_nothing() -> None:
    async def flow() -> int:
        child = await start_child(settle, 5)
        result = await child
        await charge(result)
        return result

    run = a_run(flow)
    assert run.turn(ended(RUN_ID, 1)) == []
    run.turn(ended(FIRST_CHILD, 3))
    assert run.turn(ended(FIRST_CHILD, 9)) == []
    run.turn(done(2))
    assert run.outcome == 3


async def other_child() -> int:
    return await (await start_child(audit, 5))


async def other_input() -> int:
    return await (await start_child(settle, 6))


async def other_key() -> int:
    return await (await start_child(settle, 5, id="k"))


@pytest.mark.parametrize("code", [other_child, other_input, other_key])
def test_another_child_is_drift(code: object) -> None:
    assert drift_of(a_run(one), code).expected.startswith("child_started")  # type: ignore[arg-type]


def test_a_new_parameter_with_a_default_is_no_drift() -> None:
    run = a_run(one)
    first, asked = run.history
    run.history = [
        first,
        type(asked)(**{**{f: getattr(asked, f) for f in asked.__struct_fields__}, "payload": b'{"cents":5}'}),
    ]
    assert run.replayed().open_activities == frozenset()


def test_too_many_ancestors_block_the_run_at_the_call() -> None:
    run = a_run(one, info=an_info(depth=10))
    assert "max_child_depth=10" in run.reason


@pytest.mark.parametrize("key", ["", "x" * 201, 5, "a\x00b", "\ud800"])
def test_a_key_is_a_short_string(key: object) -> None:
    async def flow() -> str:
        try:
            await start_child(settle, 5, id=key)  # type: ignore[call-overload]
        except InputInvalid as invalid:
            return invalid.problems[0].pointer
        return ""

    assert a_run(flow).outcome == "/id"


def test_what_is_no_workflow_is_no_child() -> None:
    async def flow() -> None:
        await start_child(charge, 5)

    assert "is no workflow" in a_run(flow).reason


async def test_a_child_needs_a_parent() -> None:
    with pytest.raises(NotInWorkflow, match="start_child"):
        await start_child(settle, 5)


def test_a_handle_says_which_child_it_is() -> None:
    async def flow() -> str:
        return repr(await start_child(settle, 5))

    assert a_run(flow).outcome == f"ChildHandle({FIRST_CHILD!r})"


def test_an_execution_that_is_given_up_starts_nothing() -> None:
    heard: list[str] = []

    async def flow() -> None:
        try:
            await charge(1)
        finally:
            try:
                await start_child(settle, 5)
            except NotAllowedHere as error:
                heard.append(str(error))
            await (await start_child(settle, 5))

    run = a_run(flow, alone=True)
    run.machine.close()
    assert len(heard) == 1
    assert "compensate" in heard[0]
    assert run.machine.turn((), run.at).children == ()


def test_signals_and_children_mix() -> None:
    async def flow() -> int:
        from continuum.replay import context

        child = await start_child(settle, 5)
        more = await context.wait_signal("more", int)
        return more + await child

    run = a_run(flow)
    run.turn(ended(FIRST_CHILD, 1))
    run.turn(signal("more", 2))
    assert run.outcome == 3


def test_a_child_cannot_be_started_by_calling_it() -> None:
    async def flow() -> None:
        await settle(1)

    assert "is a workflow" in a_run(flow).reason
    assert issubclass(NotAllowedHere, Exception)
