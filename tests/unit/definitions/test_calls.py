"""Calling definitions: in a workflow, outside of one, with options, captured."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from continuum.definitions.activity import activity
from continuum.definitions.calls import Call
from continuum.definitions.handles import RunHandle, resolve_verbs_with, verbs_of
from continuum.definitions.workflow import workflow
from continuum.errors import ActivityFailed, ActivityTimedOut, DurableValueError, InputInvalid, NotAllowedHere
from continuum.model.failure import Failure
from continuum.model.policy import Retry
from continuum.model.tasks import TaskOptions
from continuum.replay.machine import Machine
from continuum.replay.turns import Completed
from tests.unit.replay.builders import START, ARun, a_flow, an_info, broken, done, no_machine_outlives

RUN_ID = "01900000-0000-7000-8000-000000000001"


class Order(BaseModel):
    id: str
    cents: int = 0


@activity(name="pay", timeout=30, queue="money", idempotency_key=lambda order, **_: order.id)
async def charge(order: Order, *, currency: str = "EUR") -> Order:
    return order.model_copy(update={"cents": order.cents + 1})


@activity(name="slow")
def slow(cents: int) -> int:
    return cents + 1


@workflow(name="child")
async def child(order: Order, *, express: bool = False) -> Order:
    return order


@pytest.fixture(autouse=True)
def _machines_end() -> Any:
    with no_machine_outlives():
        yield


def a_run(fn: Any) -> ARun:
    return ARun(a_flow(fn))


# --- outside of a workflow --------------------------------------------------------------------------------------------


async def test_an_activity_called_outside_runs_its_function_once() -> None:
    order = Order(id="a")

    assert await charge(order) == Order(id="a", cents=1)
    assert await charge(order, currency="USD") == Order(id="a", cents=1)
    assert await slow(1) == 2


async def test_fn_is_the_undecorated_function() -> None:
    assert slow.fn(1) == 2
    assert await charge.fn(Order(id="a")) == Order(id="a", cents=1)
    assert await child.fn(Order(id="a")) == Order(id="a")


def test_a_workflow_is_not_called_directly() -> None:
    with pytest.raises(NotAllowedHere) as caught:
        _ = child(Order(id="a"))
    assert str(caught.value) == (
        "child is a workflow: `await continuum.start(child, …)` runs it durably, "
        "`await child.fn(…)` calls the bare function in a unit test"
    )


def test_a_workflow_is_not_called_in_a_workflow_either() -> None:
    async def flow() -> None:
        await child(Order(id="a"))

    assert a_run(flow).reason.startswith(
        "continuum.errors.NotAllowedHere: child is a workflow: `await continuum.start_child(child, …)` runs it as a child"
    )


# --- in a workflow ----------------------------------------------------------------------------------------------------


def test_a_call_in_a_workflow_is_a_command() -> None:
    async def flow() -> Order:
        return await charge(Order(id="a", cents=5))

    run = a_run(flow)

    assert run.events == [
        "started",
        'activity_scheduled 1 pay {"order":{"id":"a","cents":5},"currency":"EUR"} a',
    ]
    assert run.last.scheduled[0].options == TaskOptions(timeout_seconds=30.0, queue="money")
    run.turn(done(1, {"id": "b"}))
    assert run.outcome == Order(id="b")


def test_arguments_are_bound_and_checked_at_the_call() -> None:
    problems: list[tuple[str, str]] = []

    async def flow() -> None:
        for call in (
            lambda: charge({"id": "a", "cents": "many"}),  # type: ignore[arg-type]
            lambda: charge(Order(id="a"), currency=5),  # type: ignore[arg-type]
            lambda: charge(),  # type: ignore[call-arg]  # noqa: PLW0108
            lambda: charge(Order(id="a"), 5),  # type: ignore[call-arg, arg-type]
            lambda: charge(Order(id="a"), price=5),  # type: ignore[call-arg]
        ):
            with pytest.raises(InputInvalid) as caught:
                _ = call()  # type: ignore[no-untyped-call]
            problems.append((caught.value.path, caught.value.message))

    assert a_run(flow).outcome is None
    assert problems[:5] == [
        (
            "/order/cents",
            "the arguments do not fit charge(): /order/cents: Input should be a valid integer, unable to parse string as an integer",
        ),
        ("/currency", "the arguments do not fit charge(): /currency: Input should be a valid string"),
        ("", "charge() was given wrong arguments: missing a required argument: 'order'"),
        ("", "charge() was given wrong arguments: too many positional arguments"),
        ("", "charge() was given wrong arguments: got an unexpected keyword argument 'price'"),
    ]


def test_what_cannot_cross_the_journal_is_refused_at_the_call_with_its_path() -> None:
    @activity(name="any")
    async def anything(value: object) -> None: ...

    async def flow() -> str:
        with pytest.raises(DurableValueError) as caught:
            _ = anything({"a": [1, {"b": object()}]})
        return caught.value.path

    assert a_run(flow).outcome == "/value/a/1/b"


def test_a_failure_arrives_as_data() -> None:
    async def flow() -> list[object]:
        seen: list[object] = []
        for number in range(2):
            try:
                await slow(number)
            except ActivityFailed as error:
                seen += [type(error).__name__, isinstance(error, TimeoutError), error.caused_by(LookupError)]
                seen += [error.type, error.details, error.attempts, error.activity, error.run_id, str(error)]
        return seen

    run = a_run(flow)
    causes = ("builtins.KeyError", "builtins.LookupError", "builtins.Exception")
    run.turn(broken(1, Failure("builtins.KeyError", "'x'", causes, details={"a": 1}, attempts=3)))
    run.turn(broken(2, Failure("continuum.errors.ActivityTimedOut", "30 s", attempts=1, timed_out=True)))

    assert ActivityTimedOut.__mro__[1] is ActivityFailed
    assert run.outcome == [
        *("ActivityFailed", False, True),
        *("builtins.KeyError", {"a": 1}, 3, "slow", RUN_ID),
        "activity slow failed after 3 attempt(s): builtins.KeyError: 'x'",
        *("ActivityTimedOut", False, False),
        *("continuum.errors.ActivityTimedOut", None, 1, "slow", RUN_ID),
        "activity slow failed after 1 attempt(s): continuum.errors.ActivityTimedOut: 30 s",
    ]


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_inherit_what_is_left_out_and_none_means_none() -> None:
    other = charge.options(timeout=None, retry=Retry(max_attempts=1), priority=3)

    assert other.task_options == TaskOptions(Retry(max_attempts=1), None, None, "money", 3)
    assert other.options(timeout=timedelta(minutes=1)).task_options.timeout_seconds == 60.0
    assert charge.task_options == TaskOptions(timeout_seconds=30.0, queue="money")  # unharmed
    assert type(other) is type(charge)
    assert (other.name, other.fn, repr(other)) == ("pay", charge.fn, "<activity pay>")


def test_options_may_take_the_key_away_or_fix_it() -> None:
    async def flow() -> None:
        await charge.options(idempotency_key="fixed")(Order(id="a"))
        await charge.options(idempotency_key=None)(Order(id="a"))
        await charge.options(timeout=1)(Order(id="a"))

    run = a_run(flow)
    for command_id in (1, 2, 3):
        run.turn(done(command_id, {"id": "a"}))

    assert [event.key for event in run.history if event.name == "pay"] == ["fixed", None, "a"]


def test_a_key_is_a_str() -> None:
    async def flow() -> None:
        await charge.options(idempotency_key=lambda order: 5)(Order(id="a"))  # type: ignore[arg-type,return-value]

    reason = a_run(flow).reason
    assert "activity pay: idempotency_key must be a str or None, not 5; say str(…)" in reason


def test_bound_captures_a_call() -> None:
    order = Order(id="a")

    assert charge.bound(order, currency="USD") == Call(charge, (order,), {"currency": "USD"})
    assert child.bound(order, express=True) == Call(child, (order,), {"express": True})


# --- the body, as the machine sees it ---------------------------------------------------------------------------------


def test_a_parameter_added_in_the_middle_does_not_shift_the_others() -> None:
    async def grown(a: int, new: int = 7, b: int = 2) -> list[int]:
        return [a, new, b]

    machine = Machine(a_flow(grown), an_info())
    turn = machine.begin(b'{"a":1,"b":5}', START)  # as written before `new` was there

    assert turn.outcome == Completed(b"[1,7,5]")


def test_positional_only_and_keyword_only_parameters_are_called_as_written() -> None:
    async def flow(a: int, /, b: int = 2, *, c: int, d: int = 4) -> list[int]:
        return [a, b, c, d]

    run = ARun(a_flow(flow), 1, c=3)

    assert run.outcome == [1, 2, 3, 4]


# --- handles ----------------------------------------------------------------------------------------------------------


class FakeVerbs:
    set_to: tuple[Any, ...] | None = None

    def __init__(self, name: str | None) -> None:
        self.name = name

    async def result_of(self, *args: Any, **kwargs: Any) -> Any:
        return ("result", self.name, args, kwargs)

    async def signal(self, *args: Any, **kwargs: Any) -> Any:
        return ("signal", self.name, args, kwargs)

    async def cancel(self, *args: Any, **kwargs: Any) -> Any:
        return ("cancel", self.name, args, kwargs)

    async def set_attributes(self, *args: Any) -> None:
        FakeVerbs.set_to = (self.name, args)

    async def get_run(self, *args: Any) -> Any:
        return ("get_run", self.name, args)


async def test_a_handle_asks_its_instance_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continuum.definitions.handles._resolve", None)
    handle: Any = child.handle(RUN_ID.upper(), instance="billing")
    resolve_verbs_with(FakeVerbs)

    assert (handle.run_id, handle.existing, repr(handle)) == (RUN_ID, True, f"RunHandle('{RUN_ID}')")
    options = {"timeout": 5, "wait_blocked": True}
    assert await handle.result(timeout=5, wait_blocked=True) == ("result", "billing", (RUN_ID, child), options)
    assert await handle.signal("go", 1, delivery_id="d") == (
        "signal",
        "billing",
        (RUN_ID, "go", 1),
        {"delivery_id": "d", "session": None},
    )
    assert await handle.cancel() == ("cancel", "billing", (RUN_ID,), {"compensate": False, "session": None})
    await handle.set_attributes({"a": 1})
    assert FakeVerbs.set_to == ("billing", (RUN_ID, {"a": 1}))
    assert await handle.status() == ("get_run", "billing", (RUN_ID,))


def test_a_handle_of_a_new_run_says_so() -> None:
    assert RunHandle(RUN_ID, child, verbs_of(None)).existing is False


def test_a_handle_needs_a_uuid() -> None:
    with pytest.raises(ValueError, match="badly formed"):
        child.handle("nonsense")
