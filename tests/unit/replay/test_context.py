"""What workflow code can ask for besides activities."""

# ruff: noqa: BLE001  # workflows do here what they should not

import asyncio
import contextlib
import logging
from datetime import UTC, date, datetime, timedelta, timezone
from random import Random
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from continuum.errors import ConfigurationError, DurableValueError, NotInWorkflow, SideEffectFailed
from continuum.replay import context
from continuum.replay.turns import LogLine
from tests.unit.replay.builders import (
    RUN_ID,
    START,
    ARun,
    a_flow,
    a_run,
    an_info,
    charge,
    done,
    lines,
    ping,
    signal,
)


class Quote(BaseModel):
    cents: int


# --- time, chance, facts ----------------------------------------------------------------------------------------------


def test_now_is_the_time_of_the_turn() -> None:
    async def flow() -> list[datetime]:
        seen = [context.now()]
        await asyncio.sleep(10)
        seen.append(context.now())
        await ping()
        return [*seen, context.now()]

    run = a_run(flow)
    run.turn(after=12)
    run.turn(done(2), after=1)

    assert run.outcome == [START + timedelta(seconds=seconds) for seconds in (0, 12, 13)]


def test_time_never_goes_back() -> None:
    async def flow() -> list[datetime]:
        await ping()
        seen = context.now()
        await ping()
        return [seen, context.now()]

    run = a_run(flow)
    run.turn(done(1), after=10)
    run.turn(done(2), after=-5)

    assert run.outcome == [START + timedelta(seconds=10)] * 2


def test_the_loop_s_time_is_the_time_of_the_turn() -> None:
    async def flow() -> float:
        await ping()
        return asyncio.get_running_loop().time()

    run = a_run(flow)
    run.turn(done(1), after=10)

    assert run.outcome == START.timestamp() + 10


def test_today_depends_on_the_time_zone() -> None:
    async def flow() -> list[date]:
        return [context.today(), context.today(timezone(-timedelta(hours=1)))]

    assert a_run(flow).outcome == [date(2026, 1, 1), date(2025, 12, 31)]


def test_chance_belongs_to_the_run_and_its_generation() -> None:
    async def flow() -> list[object]:
        draw = [context.random().random(), str(context.uuid4())]
        await ping()
        return [*draw, context.random().random(), str(context.uuid4())]

    def drawn(**changes: object) -> object:
        run = ARun(a_flow(flow), info=an_info(**changes))
        run.turn(done(1))
        return run.outcome

    expected = Random(f"{RUN_ID}/1")
    first = [expected.random(), str(UUID(int=expected.getrandbits(128), version=4))]
    assert drawn() == [*first, expected.random(), str(UUID(int=expected.getrandbits(128), version=4))]
    assert drawn() == drawn()
    assert drawn() != drawn(generation=2)
    assert drawn() != drawn(run_id="01900000-0000-7000-8000-000000000002")


def test_uuids_are_of_version_4() -> None:
    async def flow() -> UUID:
        return context.uuid4()

    made = a_run(flow).outcome
    assert isinstance(made, UUID)
    assert (made.version, made.variant) == (4, "specified in RFC 4122")


def test_info_is_what_the_machine_was_given() -> None:
    facts = an_info(generation=3, parent="parent", namespace="eu")
    seen: list[object] = []

    async def flow() -> bool:
        seen.append(context.info())
        return context.in_workflow()

    run = ARun(a_flow(flow), info=facts)

    assert run.outcome is True
    assert seen == [facts] * 2  # live and replayed


def test_the_free_gifts_cost_no_event() -> None:
    async def flow() -> None:
        context.now(), context.today(), context.random().random(), context.uuid4(), context.info()
        context.log("INFO", "said")

    assert a_run(flow).events == ["started", "completed null"]


@pytest.mark.parametrize(
    "asked",
    [context.now, context.today, context.random, context.uuid4, context.info, lambda: context.log("INFO", "x")],
)
def test_outside_of_a_workflow_there_is_no_run_to_ask(asked: object) -> None:
    with pytest.raises(NotInWorkflow, match="belongs into a workflow"):
        asked()  # type: ignore[operator]


async def test_on_the_host_s_loop_there_is_no_run_to_ask_either() -> None:
    assert not context.in_workflow()
    with pytest.raises(NotInWorkflow, match=r"continuum\.wait_signal\(\)"):
        await context.wait_signal("x")
    with pytest.raises(NotInWorkflow, match=r"continuum\.side_effect\(\)"):
        await context.side_effect(lambda: 1)


# --- side effects -----------------------------------------------------------------------------------------------------


def test_a_side_effect_happens_once_and_its_value_crosses_the_codec() -> None:
    happened: list[int] = []

    def quote() -> Quote:
        happened.append(1)
        return Quote(cents=len(happened))

    async def flow() -> list[object]:
        untyped = await context.side_effect(lambda: (1, 2))
        typed = await context.side_effect(quote)
        await ping()
        return [untyped, typed.cents, type(typed).__name__]

    run = a_run(flow)
    assert run.events[1:] == [
        "side_effect_recorded 1 [1,2]",
        'side_effect_recorded 2 {"cents":1}',
        "activity_scheduled 3 ping {}",
    ]
    run.turn(done(3))

    assert run.outcome == [[1, 2], 1, "Quote"]
    assert happened == [1]


def test_a_side_effect_that_raises_is_journaled_as_such() -> None:
    # Not journaled, a failure that the code catches would be missing on replay: the run could never go on.
    happened: list[int] = []

    def fail() -> int:
        happened.append(1)
        raise LookupError(f"try {len(happened)}")

    async def flow() -> list[object]:
        try:
            await context.side_effect(fail)
        except SideEffectFailed as error:
            await ping()
            return [error.message, error.type, error.caused_by(LookupError), error.caused_by(OSError), error.run_id]
        return []

    run = a_run(flow)
    assert run.events[2:] == ["activity_scheduled 2 ping {}"]
    run.turn(done(2))

    message = "a side effect failed: builtins.LookupError: try 1"
    assert run.outcome == [message, "builtins.LookupError", True, False, RUN_ID]
    assert happened == [1]


def test_a_side_effect_that_raises_fails_the_run_if_nobody_catches_it() -> None:
    async def flow() -> None:
        await context.side_effect(lambda: next(iter(())))

    assert a_run(flow).failure.startswith(
        "continuum.errors.SideEffectFailed: a side effect failed: builtins.StopIteration"
    )


@pytest.mark.parametrize("error", [NameError("oops"), SystemExit(3), KeyError("only ValueError fails the run")])
def test_a_bug_in_a_side_effect_blocks_the_run_even_if_it_is_caught(error: BaseException) -> None:
    def fail() -> None:
        raise error

    async def flow() -> None:
        try:
            await context.side_effect(fail)
        except BaseException:
            await ping()

    run = ARun(a_flow(flow, fails_on=(ValueError,) if isinstance(error, KeyError) else None))

    assert "in fail" in run.reason
    assert run.history == []


def test_a_side_effect_that_cannot_be_stored_says_where_also_on_replay() -> None:
    async def flow() -> list[object]:
        try:
            await context.side_effect(lambda: {"a": [1, object()]})
        except DurableValueError as error:
            await ping()
            return [error.path, error.run_id, error.message.partition(";")[0]]
        return []

    run = a_run(flow)
    run.turn(done(2))

    assert run.outcome == [
        "/a/1",
        RUN_ID,
        "the value at /a/1 cannot be journaled: Unable to serialize unknown type: <class 'object'>",
    ]


def test_an_unreadable_side_effect_blocks_the_run() -> None:
    def quote() -> Quote:
        return Quote(cents=1)

    def quote_of_today() -> int:
        return 1

    def flow_with(fn: object) -> object:
        async def flow() -> None:
            try:
                await context.side_effect(fn)  # type: ignore[arg-type]
            except Exception:
                context.log("INFO", "caught")
            await ping()

        return flow

    run = a_run(flow_with(quote))  # type: ignore[arg-type]
    machine = run.fresh(a_flow(flow_with(quote_of_today)))  # type: ignore[arg-type]
    machine.replay(run.history)
    turn = machine.turn((), run.at)

    assert "the journaled value of a side effect cannot be read by this code" in turn.outcome.reason  # type: ignore[union-attr]


# --- log --------------------------------------------------------------------------------------------------------------


def test_what_is_logged_is_said_once() -> None:
    async def flow() -> None:
        context.log("info", "started", order=1)
        await ping()
        context.log(logging.ERROR, "paid")

    run = a_run(flow)
    assert run.last.logs == (LogLine(logging.INFO, "started", {"order": 1}),)
    machine = run.replayed()
    assert machine.turn((signal("x"),), run.at).logs == ()

    run.turn(done(1))
    assert run.last.logs == (LogLine(logging.ERROR, "paid", {}),)


def test_an_unknown_level_is_a_value_error() -> None:
    async def flow() -> None:
        context.log("LOUD", "x")

    assert a_run(flow).failure == "builtins.ValueError: no logging level is named 'LOUD'"


# --- answers ----------------------------------------------------------------------------------------------------------


def test_results_are_what_decoding_gives() -> None:
    async def flow() -> list[str]:
        return [type(await charge(1)).__name__]

    run = a_run(flow)
    run.turn(done(1, "7"))  # as an older version wrote it

    assert run.outcome == ["int"]


def test_an_unreadable_result_blocks_the_run_even_if_it_is_caught() -> None:
    async def flow() -> None:
        try:
            await charge(1)
        except Exception:
            await ping()

    run = a_run(flow)
    run.turn(done(1, {"cents": 1}))

    assert run.reason == (
        "the journaled result of charge cannot be read by this code: "
        "the value does not fit <class 'int'> at /: Input should be a valid integer"
    )
    assert lines(run.history) == ["started", 'activity_scheduled 1 charge {"cents":1}']


def test_a_bad_option_is_the_workflow_s_error() -> None:
    async def flow() -> None:
        try:
            await charge.options(timeout=-1)(1)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error

    assert a_run(flow).failure.startswith("builtins.ValueError: timeout must be a finite duration")


def test_time_zones_are_utc() -> None:
    async def flow() -> bool:
        return context.now().tzinfo is UTC

    assert a_run(flow).outcome is True


@pytest.mark.parametrize(
    "take",
    [
        lambda: str(context.uuid4()),
        lambda: context.random().random(),
        lambda: context.patched("new"),
        lambda: context.set_own_attributes({"a": 1}),
        lambda: charge(1),
        lambda: asyncio.get_running_loop().create_future(),
        lambda: asyncio.get_running_loop().call_later(1, print),
    ],
)
def test_a_side_effect_takes_nothing_from_its_run_for_a_replay_would_not(take: Any) -> None:
    async def flow() -> None:
        with contextlib.suppress(Exception):
            await context.side_effect(take)

    run = a_run(flow)

    assert "a side effect asked its run for " in run.reason
    assert run.history == []


def test_a_side_effect_may_read_what_stays_as_it_is_and_is_no_workflow_code() -> None:
    async def flow() -> list[Any]:
        def look() -> list[object]:
            context.log("info", "looked")
            return [context.now() == START, str(context.today()), context.info().run_id, context.in_workflow()]

        return [*await context.side_effect(look), str(context.uuid4())]

    run = a_run(flow)

    assert [one.message for one in run.last.logs] == ["looked"]
    outcome: Any = run.outcome
    *seen, drawn = outcome
    assert seen == [True, "2026-01-01", RUN_ID, False]
    assert drawn == str(UUID(int=Random(f"{RUN_ID}/1").getrandbits(128), version=4))


def test_a_side_effect_cannot_bring_a_loop_of_its_own() -> None:
    async def flow() -> None:
        await context.side_effect(lambda: asyncio.run(nothing))

    async def nap() -> None: ...

    nothing = nap()
    nothing.close()
    assert "asyncio.run() cannot be called from a running event loop" in a_run(flow).failure


def test_a_side_effect_does_not_wait() -> None:
    async def fetch() -> int:
        return 1

    async def flow() -> Any:
        return await context.side_effect(fetch)

    assert "side_effect() takes a `def`, for it cannot wait: make " in a_run(flow).reason
