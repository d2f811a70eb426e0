"""One match-or-append: what the code asks for must be what history says it asked for."""

# ruff: noqa: BLE001, RUF006  # workflows do here what they should not

import asyncio
import itertools
import types
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from pydantic import BaseModel

from continuum.definitions.activity import activity
from continuum.model.events import Event, EventType
from continuum.replay import context
from continuum.replay.machine import Machine
from continuum.replay.matching import Command, Drift, difference
from tests.unit.replay.builders import (
    START,
    ARun,
    a_flow,
    a_run,
    broken,
    charge,
    done,
    drift_of,
    lines,
    ping,
    refund,
    signal,
)

Code = Callable[[], Awaitable[object]]


async def pay_twice() -> int:
    first = await charge(1)
    return first + await charge(2)


def paid_once() -> ARun:
    run = a_run(pay_twice)
    run.turn(done(1, 10))
    return run


async def other_activity() -> None:
    await refund(1)


async def other_arguments() -> None:
    await charge(3)


async def other_order() -> None:
    second = asyncio.create_task(charge(2))
    await charge(1)
    await second


async def other_number() -> None:
    ping().close()
    await charge(1)


async def another_kind() -> None:
    await asyncio.sleep(1)


async def another_key() -> None:
    await charge.options(idempotency_key="mine")(1)


async def a_missing_command() -> None:
    await charge(1)
    await context.wait_signal("go")


async def a_command_in_between() -> None:
    await charge(1)
    await ping()
    await charge(2)


async def a_return_too_early() -> None:
    return


async def a_failure_too_early() -> None:
    raise ValueError("no")


@pytest.mark.parametrize(
    ("code", "seq", "expected", "found"),
    [
        (other_activity, 2, "activity_scheduled charge (command 1)", "activity_scheduled refund (command 1)"),
        (
            other_arguments,
            2,
            "activity_scheduled charge (command 1)",
            "activity_scheduled charge (command 1), with another cents",
        ),
        (other_order, 2, "activity_scheduled charge (command 1)", "activity_scheduled charge (command 2)"),
        (other_number, 2, "activity_scheduled charge (command 1)", "activity_scheduled charge (command 2)"),
        (another_kind, 2, "activity_scheduled charge (command 1)", "timer_started (command 1)"),
        (
            another_key,
            2,
            "activity_scheduled charge (command 1)",
            "activity_scheduled charge (command 1), under another key",
        ),
        (a_missing_command, 4, "activity_scheduled charge (command 2)", "nothing more of the code"),
        (a_command_in_between, 4, "activity_scheduled charge (command 2)", "activity_scheduled ping (command 2)"),
        (a_return_too_early, 2, "activity_scheduled charge (command 1)", "the workflow completed with b'null'"),
    ],
)
def test_code_that_asks_for_something_else_drifts(code: Code, seq: int, expected: str, found: str) -> None:
    drift = drift_of(paid_once(), code)

    assert (drift.seq, drift.expected, drift.found) == (seq, expected, found)


def test_failing_too_early_drifts() -> None:
    drift = drift_of(paid_once(), a_failure_too_early)

    assert drift.found.startswith('the workflow failed with b\'{"type":"builtins.ValueError"')


def test_drift_says_what_where_and_what_to_do() -> None:
    drift = drift_of(paid_once(), other_arguments)

    assert drift.site is not None
    assert __file__ in drift.site
    assert drift.site.endswith("in other_arguments")
    assert str(drift) == (
        "the code does not fit the history at event 2: expected activity_scheduled charge (command 1), journaled at "
        f"{START:%Y-%m-%d %H:%M:%S} UTC; found activity_scheduled charge (command 1), with another cents (asked for at "
        f"{drift.site}). The run is blocked, nothing was written; deploy code that fits, or register the change as a new version."
    )


async def waits_for_two() -> None:
    await charge(1)
    await asyncio.gather(context.wait_signal("one"), context.wait_signal("two"))


async def asks_deep_down() -> None:
    async def below() -> None:
        await context.wait_signal("go")

    await charge(1)
    await below()


@pytest.mark.parametrize(("code", "line"), [(waits_for_two, "in waits_for_two"), (asks_deep_down, "in below")])
def test_drift_of_code_that_asks_for_nothing_says_where_it_waits(code: Code, line: str) -> None:
    drift = drift_of(paid_once(), code)

    assert drift.site is not None
    assert drift.site.startswith(__file__)
    assert drift.site.endswith(line)
    assert f"nothing more of the code (it waits at {drift.site})" in str(drift)


def test_drift_of_code_that_has_ended_knows_no_line() -> None:
    drift = drift_of(paid_once(), a_return_too_early)

    assert drift.site is None
    assert "b'null'. The run is blocked" in str(drift)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'{"a":1,"b":2}', b'{"a":1,"b":3,"c":4}', ", with another b, c"),
        (b'{"a":1,"b":2}', b'{"a":1}', ", with another b"),
        (b"[1]", b'{"a":1}', ", with another input"),
        (b'{"a":1}', None, ", with another input"),
        (None, b'{"a":1}', ", with another input"),
        (b"\xff", b'{"a":1}', ", with an input that is not JSON"),
    ],
)
def test_what_is_different_about_an_input_is_said_by_name_and_never_by_value(
    old: bytes | None, new: bytes | None, said: str
) -> None:
    kind = EventType.ACTIVITY_SCHEDULED
    assert difference(Command(kind, 1, "charge", new), Event(2, kind, START, 1, name="charge", payload=old)) == said


def test_a_site_is_told_for_code_without_a_file_and_for_a_task_alone_it_is_where_the_workflow_waits() -> None:
    made: dict[str, Code] = {}
    exec(compile("async def typed():\n    await ping()\n", "<notebook>", "exec"), {"ping": ping}, made)

    async def by_a_task_alone() -> None:
        asyncio.create_task(refund(1))
        await asyncio.sleep(0)

    assert drift_of(paid_once(), made["typed"]).site == "<notebook>:2 in typed"
    assert str(drift_of(paid_once(), by_a_task_alone).site).endswith("in by_a_task_alone")


def test_drift_cannot_be_caught_by_workflow_code() -> None:
    went_on: list[str] = []

    async def stubborn() -> int:
        while True:
            try:
                async with asyncio.timeout(5):  # drifts here, before anything is awaited
                    went_on.append("entered")
                    await charge(1)
                    went_on.append("paid")
            except BaseException:
                went_on.append("caught")
                return 0
            finally:
                went_on.append("finally")

    machine = paid_once().fresh(a_flow(stubborn))
    with pytest.raises(Drift):
        machine.replay(paid_once().history)

    assert went_on == ["entered"]
    machine.turn((signal("x"),), START)
    assert went_on == ["entered"]


def test_after_a_drift_nothing_has_an_effect() -> None:
    effects: list[str] = []

    async def other() -> None:
        try:
            asyncio.create_task(refund(1))
            asyncio.get_running_loop().call_later(5, effects.append, "called")  # drifts
            asyncio.get_running_loop().call_later(6, effects.append, "called")
            await context.side_effect(lambda: effects.append("made"))
        finally:
            context.log("INFO", "over")

    drift = drift_of(paid_once(), other)

    assert drift.found == "timer_started (command 2)"
    assert effects == []


def test_an_answer_that_the_code_never_asked_for_drifts() -> None:
    run = paid_once()
    run.history.insert(2, Event(3, EventType.ACTIVITY_COMPLETED, START, 7, payload=b"1"))

    assert drift_of(run, pay_twice).found == "no such command open"


def test_a_timer_that_was_never_started_drifts() -> None:
    run = paid_once()
    run.history.insert(2, Event(3, EventType.TIMER_FIRED, START, 1))

    assert drift_of(run, pay_twice).expected == "timer_fired (command 1)"


def test_a_run_starts_once_and_first() -> None:
    async def waiting() -> None:
        await context.wait_signal("go")

    run = a_run(waiting)
    started = run.history[0]

    run.history[:] = [started, started]
    assert drift_of(run, waiting).expected == "started flow"
    run.history[:] = [Event(1, EventType.SIGNAL_RECEIVED, START, name="go"), started]
    assert drift_of(run, waiting).expected == "signal_received go"


def test_another_result_drifts() -> None:
    async def generous() -> int:
        return await pay_twice() + 1

    run = paid_once()
    run.turn(done(2, 20))

    assert drift_of(run, generous).found == "the workflow completed with b'31'"


def test_another_error_drifts_but_not_another_line() -> None:
    def failing(error: Exception, lines_above: int) -> Code:
        code = (
            "async def failing():\n"
            + "    pass\n" * lines_above
            + "    await ping()\n    raise type(error)(*error.args)\n"
        )
        made: dict[str, Code] = {}
        exec(code, {"error": error, "ping": ping}, made)
        return made["failing"]

    run = a_run(failing(ValueError("no"), 0))
    run.turn(done(1))

    assert run.replayed(a_flow(failing(ValueError("no"), 10))).outcome is not None
    assert drift_of(run, failing(ValueError("yes"), 0)).expected == "failed"
    assert drift_of(run, failing(KeyError("no"), 0)).expected == "failed"


def test_an_ending_that_the_code_does_not_reach_drifts() -> None:
    async def longer() -> int:
        total = await pay_twice()
        await context.wait_signal("go")
        return total

    run = paid_once()
    run.turn(done(2, 20))

    assert drift_of(run, longer).found == "nothing more of the code"


def test_history_beyond_its_ending_drifts() -> None:
    run = paid_once()
    run.turn(done(2, 20))
    run.history.append(Event(7, EventType.SIGNAL_RECEIVED, START, name="go"))

    assert drift_of(run, pay_twice).found == "the end of the workflow"


def test_code_that_grew_at_the_end_of_history_is_live() -> None:
    async def grown() -> int:
        first = await charge(1)
        notice = ping()
        second, _ = await asyncio.gather(charge(2), notice)
        return first + second

    async def shorter() -> int:
        return await charge(1) + await context.wait_signal("go", int)

    run = a_run(shorter)
    run.turn(done(1, 10))
    assert lines(run.history) == ["started", 'activity_scheduled 1 charge {"cents":1}', "activity_completed 1 10"]

    machine = run.replayed(a_flow(grown))
    assert (machine.has_more, machine.unwritten) == (True, 2)
    turn = machine.turn((), run.at)
    assert lines(turn.events) == ['activity_scheduled 3 charge {"cents":2}', "activity_scheduled 2 ping {}"]
    assert [scheduled.seq for scheduled in turn.scheduled] == [4, 5]


def test_code_that_shrank_at_the_end_of_history_ends_at_once() -> None:
    async def shrunk() -> int:
        return await charge(1)

    async def longer() -> int:
        await charge(1)
        return await context.wait_signal("go", int)

    run = a_run(longer)
    run.turn(done(1, 10))
    machine = run.replayed(a_flow(shrunk))

    assert machine.has_more
    assert lines(machine.turn((), run.at).events) == ["completed 10"]


def test_what_has_caught_up_has_no_more() -> None:
    machine = paid_once().replayed()

    assert (machine.has_more, machine.unwritten) == (False, 0)


# --- what is no drift -------------------------------------------------------------------------------------------------


def test_a_changed_duration_is_no_drift_and_the_journaled_deadline_stands() -> None:
    def nap(seconds: float) -> Code:
        async def flow() -> str:
            await asyncio.sleep(seconds)
            return "awake"

        return flow

    run = a_run(nap(60))
    machine = run.replayed(a_flow(nap(3600)))

    assert machine.deadline == START + timedelta(seconds=60)
    assert lines(machine.turn((), START + timedelta(seconds=60)).events) == ["timer_fired 1", 'completed "awake"']


def activity_like(fn: Callable[..., object]) -> Callable[..., Awaitable[object]]:
    fn.__qualname__ = "book"  # the same function, of another day
    return activity(name="book")(fn)


def test_a_new_parameter_with_a_default_is_no_drift_and_a_new_one_without_is() -> None:
    async def old(cents: int) -> None: ...
    async def new(cents: int, currency: str = "EUR") -> None: ...
    async def strict(cents: int, currency: str) -> None: ...

    run = a_run(calling(activity_like(old), 5))

    assert run.replayed(a_flow(calling(activity_like(new), 5))).open_activities == {1}
    assert drift_of(run, calling(activity_like(new), 6)).seq == 2
    assert drift_of(run, calling(activity_like(new), 5, "USD")).seq == 2
    assert drift_of(run, calling(activity_like(strict), 5, "USD")).seq == 2


def test_a_new_field_with_a_default_is_no_drift_and_a_changed_value_is() -> None:
    def order_of(field: object) -> type[BaseModel]:
        body: dict[str, object] = {"__annotations__": {"id": str}, "__module__": __name__, "__qualname__": "Order"}
        if field is not None:
            body |= {"__annotations__": {"id": str, "note": str}, "note": field}
        return types.new_class("Order", (BaseModel,), exec_body=lambda namespace: namespace.update(body))

    def booking(order: type[BaseModel]) -> Callable[..., Awaitable[object]]:
        async def book(order) -> None: ...  # type: ignore[no-untyped-def]

        book.__annotations__["order"] = order
        return activity_like(book)

    old, new = order_of(None), order_of("none")
    run = a_run(calling(booking(old), old(id="a")))

    assert run.replayed(a_flow(calling(booking(new), new(id="a")))).open_activities == {1}
    assert drift_of(run, calling(booking(new), new(id="a", note="x"))).seq == 2


def test_a_set_is_the_same_in_whatever_order_it_was_written() -> None:
    @activity(name="grant")
    async def grant(rights: set[str]) -> None: ...

    rights = ["".join(letters) for letters in itertools.permutations("abc")]
    run = a_run(calling(grant, set(rights)))
    written = run.history[1].payload
    assert written is not None
    for shift in range(1, 6):  # as other processes, whose strings hash otherwise, would have written it
        rights = [*rights[1:], rights[0]]
        other = b'{"rights":[' + b",".join(b'"%s"' % right.encode() for right in rights) + b"]}"
        run.history[1] = Event(2, EventType.ACTIVITY_SCHEDULED, START, 1, None, "grant", other)
        assert run.replayed().open_activities == {1}, shift

    assert drift_of(run, calling(grant, {*rights[1:], "cba ".strip()[::-1] + "x"})).seq == 2


def test_a_list_in_another_order_is_another_list() -> None:
    @activity(name="grant")
    async def grant(rights: list[str]) -> None: ...

    assert drift_of(a_run(calling(grant, ["a", "b"])), calling(grant, ["b", "a"])).seq == 2


def test_other_options_are_no_drift() -> None:
    async def patient() -> int:
        return await charge.options(timeout=None, queue="slow", priority=3)(1)

    assert paid_once_only().replayed(a_flow(patient)).open_activities == frozenset()


def paid_once_only() -> ARun:
    async def once() -> int:
        return await charge(1)

    run = a_run(once)
    run.turn(done(1, 10))
    return run


def calling(definition: Callable[..., Awaitable[object]], *args: object) -> Code:
    async def flow() -> None:
        await definition(*args)

    return flow


def test_an_activity_without_journaled_arguments_drifts() -> None:
    run = paid_once()
    run.history[1] = Event(2, EventType.ACTIVITY_SCHEDULED, START, 1, None, "charge", None)

    assert drift_of(run, pay_twice).seq == 2


def test_a_failure_is_replayed_as_the_same_failure() -> None:
    async def flow() -> str:
        try:
            await charge(1)
        except Exception as error:
            return f"{type(error).__name__} {await ping()}"
        return ""

    run = a_run(flow)
    run.turn(broken(1, KeyError("x")))
    run.turn(done(2, 5))

    assert run.outcome == "ActivityFailed 5"


def test_a_machine_needs_no_io_for_a_history_that_ends_in_a_wait() -> None:
    machine = paid_once().replayed()

    assert machine.outcome is None
    assert machine.open_activities == {2}
    assert isinstance(machine, Machine)
