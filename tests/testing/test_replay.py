"""Offline replay: what a history came to with the code at hand, and nothing touched."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import continuum
from continuum import Drift, activity, workflow
from continuum.definitions.catalog import scoped_catalog
from continuum.definitions.workflow import Workflow
from continuum.testing import Environment, History, Replayed, Waiting, assert_replays, environment, replay

performed: list[str] = []


@activity(name="replay.charge")
async def charge(order: str, cents: int) -> str:
    performed.append(order)
    return f"charged {cents}"


@workflow(name="replay.fulfil")
async def fulfil(order: str) -> list[str]:
    paid = await charge(order, 5)
    note = await continuum.side_effect(lambda: f"noted {len(performed)}")
    draw = str(continuum.uuid4())
    await asyncio.sleep(60)
    verdict = await continuum.wait_signal("verdict", str)
    if verdict == "no":
        raise PermissionError(order)
    return [paid, note, draw, verdict]


@pytest.fixture
async def env() -> AsyncIterator[Environment]:
    performed.clear()
    async with environment() as env:
        yield env


async def a_history(env: Environment, verdict: str) -> tuple[History, Any]:
    run = await continuum.start(fulfil, "o-1")
    await env.advance(60)
    await run.signal("verdict", verdict)
    with contextlib.suppress(continuum.RunFailed):
        return await env.history(run), await run.result()
    return await env.history(run), None


def other(fn: Callable[..., Any], **options: Any) -> Workflow[..., Any]:
    """Another day's code of the same workflow."""
    with scoped_catalog():
        return workflow(name="replay.fulfil of another day", **options)(fn)


async def test_a_completed_history_comes_to_its_result(env: Environment) -> None:
    history, result = await a_history(env, "yes")
    assert replay(fulfil, history) == Replayed("completed", result=result)
    assert result[3] == "yes"


async def test_a_failed_history_comes_to_its_failure(env: Environment) -> None:
    history, _ = await a_history(env, "no")
    replayed = replay(fulfil, history)
    assert replayed.failure is not None
    assert (replayed.state, replayed.failure.type, replayed.failure.message) == (
        "failed",
        "builtins.PermissionError",
        "o-1",
    )


async def test_a_cancelled_history_comes_to_that(env: Environment) -> None:
    run = await continuum.start(fulfil, "o-1")
    await run.cancel()
    assert replay(fulfil, await env.history(run)) == Replayed("cancelled")


async def test_every_beginning_of_a_history_is_suspended_on_what_it_waits_for(env: Environment) -> None:
    """P53: a wait that history does not answer is a wait, not a question to somebody."""
    history, _ = await a_history(env, "yes")
    waits = [
        (event.type, [(wait.kind, wait.name) for wait in replay(fulfil, history.upto(event.seq)).waits_for])
        for event in history[:-2]
    ]
    assert waits == [
        ("started", [("activity", "replay.charge")]),
        ("activity_scheduled", [("activity", "replay.charge")]),
        ("activity_completed", []),  # a side effect is next, and is not made
        ("side_effect_recorded", [("timer", None)]),
        ("timer_started", [("timer", None)]),
        ("timer_fired", [("signal", "verdict")]),
    ]
    assert replay(fulfil, history.upto(7)).state == "completed"  # all that it needs is there


async def test_a_wait_says_what_was_asked_for(env: Environment) -> None:
    run = await continuum.start(fulfil, "o-1")
    history = await env.history(run)
    assert replay(fulfil, history.upto(2)).waits_for == (
        Waiting("activity", "replay.charge", 1, {"order": "o-1", "cents": 5}),
    )
    await env.advance(1)
    (timer,) = replay(fulfil, await env.history(run)).waits_for
    assert (timer.kind, timer.command_id, (timer.data - history.run.started_at).total_seconds()) == ("timer", 3, 60)


async def test_nothing_is_performed_and_nothing_is_asked(env: Environment) -> None:
    history, _ = await a_history(env, "yes")
    performed.clear()
    reads = 0

    async def grown(order: str) -> list[str]:
        def read() -> str:
            nonlocal reads
            reads += 1
            return "new"

        done = await fulfil.fn(order)
        return [*done, await continuum.side_effect(read)]

    replayed = replay(other(grown), history.upto(len(history) - 1))
    assert (performed, reads, replayed.state) == ([], 0, "suspended")


async def test_outside_of_any_loop_it_works_as_well(env: Environment) -> None:
    history, result = await a_history(env, "yes")
    assert (await asyncio.to_thread(replay, fulfil, history)).result == result


async def test_code_that_asks_for_more_at_the_end_of_an_open_history_fits(env: Environment) -> None:
    run = await continuum.start(fulfil, "o-1")
    await env.advance(60)

    async def grown(order: str) -> list[str]:
        task = asyncio.create_task(fulfil.fn(order))
        await asyncio.sleep(60)
        more = await charge(order, 7)
        return [*await task, more]

    async def same(order: str) -> list[str]:
        return await fulfil.fn(order)

    with pytest.raises(AssertionError, match="found timer_started"):
        assert_replays(other(grown), await env.history(run))
    assert assert_replays(other(same), await env.history(run)).more == ()


async def test_commands_beyond_the_history_are_told(env: Environment) -> None:
    history, _ = await a_history(env, "yes")

    async def grown(order: str) -> list[str]:
        done = await fulfil.fn(order)
        return [*done, await charge(order, 7)]

    replayed = assert_replays(other(grown), history.upto(len(history) - 1))
    assert [(event.type, event.name) for event in replayed.more] == [("activity_scheduled", "replay.charge")]
    assert [wait.name for wait in replayed.waits_for] == ["replay.charge"]
    with pytest.raises(Drift, match=r"expected completed with .*found activity_scheduled replay\.charge"):
        replay(other(grown), history)


async def test_code_that_does_not_fit_is_told_with_position_and_site(env: Environment) -> None:
    history, _ = await a_history(env, "yes")

    async def dearer(order: str) -> list[str]:
        return [await charge(order, 6)]

    with pytest.raises(Drift, match="at event 2: expected activity_scheduled") as drift:
        replay(other(dearer), history)
    assert drift.value.site is not None
    assert f"{__file__}:{dearer.__code__.co_firstlineno + 1}" in drift.value.site
    with pytest.raises(AssertionError, match="at event 2: expected activity_scheduled"):
        assert_replays(other(dearer), history)


@pytest.mark.parametrize(
    ("ending", "found"),
    [
        (lambda done: done[::-1], "found completed with"),
        (lambda done: 1 / 0, "found failed with builtins.ZeroDivisionError"),
        (lambda done: asyncio.Event().wait(), "found the workflow waits"),
    ],
)
async def test_another_ending_is_drift(env: Environment, ending: Callable[[Any], Any], found: str) -> None:
    history, _ = await a_history(env, "yes")

    async def ends(order: str) -> Any:
        made = ending(await fulfil.fn(order))
        return await made if asyncio.iscoroutine(made) else made

    with pytest.raises(Drift, match=found):
        replay(other(ends), history)


async def test_a_command_that_nobody_waits_for_is_found_behind_the_same_result(env: Environment) -> None:
    history, _ = await a_history(env, "yes")

    async def leaves_one_behind(order: str) -> list[str]:
        done = await fulfil.fn(order)
        left = asyncio.create_task(charge("left", 1))
        await asyncio.sleep(0)
        assert not left.done()
        return done

    with pytest.raises(Drift, match=r"found activity_scheduled replay\.charge"):
        replay(other(leaves_one_behind), history)


async def test_code_that_would_block_the_run_is_no_success(env: Environment) -> None:
    history, _ = await a_history(env, "yes")

    async def broken(order: str) -> list[str]:
        await fulfil.fn(order)
        raise NameError("typo")

    replayed = replay(other(broken), history)
    assert replayed.state == "blocked"
    assert replayed.reason is not None
    assert "NameError: typo" in replayed.reason
    with pytest.raises(AssertionError, match=r"would block the run: builtins\.NameError: typo"):
        assert_replays(other(broken), history)


@workflow(name="replay.set_of_letters")
async def set_of_letters(order: str) -> set[str]:
    return {await charge(letter, 1) for letter in sorted(order)}


async def test_results_are_compared_by_what_they_mean(env: Environment) -> None:
    """A set is written in the order of its members' hashes, another one in each process."""
    run = await continuum.start(set_of_letters, "abc")
    await run.result()
    history = await env.history(run)
    last = history.records[-1]
    flipped = type(last)(last.seq, last.type, last.at, payload=b'["charged 1"]')
    assert replay(set_of_letters, History(history.run, [*history.records[:-1], flipped])).state == "completed"
    wrong = type(last)(last.seq, last.type, last.at, payload=b'["charged 2"]')
    with pytest.raises(Drift):
        replay(set_of_letters, History(history.run, [*history.records[:-1], wrong]))
    unreadable = type(last)(last.seq, last.type, last.at, payload=b'{"a":1}')
    with pytest.raises(Drift):
        replay(set_of_letters, History(history.run, [*history.records[:-1], unreadable]))


@workflow(name="replay.draws")
async def draws() -> None:
    await charge(str(continuum.uuid4()), continuum.random().randrange(1000))


async def test_a_history_knows_whose_it_is(env: Environment) -> None:
    """What is drawn at random is drawn by run id; so a history without its run is not enough."""
    run = await continuum.start(draws)
    await run.result()
    history = await env.history(run)
    assert replay(draws, history).state == "completed"
    with pytest.raises(Drift):
        replay(draws, history.records)
    assert replay(set_of_letters, (await _letters(env)).records).state == "completed"


async def _letters(env: Environment) -> History:
    run = await continuum.start(set_of_letters, "ab")
    await run.result()
    return await env.history(run)


async def test_what_is_no_whole_history_is_refused_with_the_way_out(env: Environment) -> None:
    history, _ = await a_history(env, "yes")
    for wrong in (history[:3], [], [1]):
        with pytest.raises(continuum.ConfigurationError, match=r"history\.upto"):
            replay(fulfil, wrong)  # type: ignore[arg-type]


async def test_a_run_that_nobody_has_claimed_yet_waits() -> None:
    async with continuum.application(run_supervisor=False):
        run = await continuum.start(fulfil, "o-1")
        history = await continuum.history(run.run_id)
        assert replay(fulfil, history) == Replayed("suspended")
