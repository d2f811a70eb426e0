"""Activities that fail: tried again by their policy, until a last word."""

import sys
from datetime import timedelta
from typing import Any

import pytest

import continuum
from continuum import ActivityError, ActivityFailed, Retry, RunFailed, activity, workflow
from continuum.composition.instance import Instance
from continuum.testing import environment
from tests.support.hosting import Place, wiring_of

seen: dict[str, list[int]] = {}

QUICKLY = Retry(max_attempts=3, initial=0.01, jitter=0.0)


class Declined(ValueError):
    """A user's error with a base of its own."""


def note(key: str) -> int:
    """Note the attempt that runs, and return how many there have been."""
    seen.setdefault(key, []).append(continuum.activity_context().attempt)
    return len(seen[key])


@activity(retry=QUICKLY)
async def declines(key: str) -> None:
    note(key)
    raise Declined("no funds")


@activity(retry=QUICKLY)
async def says_more(key: str, retryable: bool) -> None:
    note(key)
    raise ActivityError("told", details={"code": 7, "list": [1, None]}, retryable=retryable, retry_after=0.0)


@activity(retry=Retry(max_attempts=2, initial=60.0))
async def asks_for_soon(key: str) -> int:
    if note(key) == 1:
        raise ActivityError("busy", retry_after=timedelta(milliseconds=10))
    return len(seen[key])


@activity(retry=Retry(max_attempts=9, initial=0.01, non_retryable=(Declined, "builtins.KeyError")))
async def gives_up(key: str, kind: str) -> None:
    note(key)
    raise Declined("never") if kind == "class" else KeyError("name")


@activity(retry=QUICKLY)
def stutters(key: str) -> str:
    if note(key) < 3:
        raise OSError("again")
    return "at last"


@activity(retry=QUICKLY)
async def returns_what_cannot_be_stored(key: str) -> Any:
    note(key)
    return {"handle": object()}


class Unspeakable(Exception):
    """An error that cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@activity(retry=Retry(max_attempts=1))
async def raises_something_impossible(size: int) -> None:
    if size:
        raise RuntimeError("\ud800" + "x" * size)
    raise Unspeakable(object())


@activity(retry=Retry(max_attempts=1))
async def exits() -> None:
    sys.exit(3)


@activity(retry=Retry(max_attempts=1))
def exits_in_a_thread() -> None:
    sys.exit(3)


@workflow
async def survives(threaded: bool) -> str:
    try:
        await (exits_in_a_thread() if threaded else exits())
    except ActivityFailed as error:
        return str(error)
    return "nothing happened"


@workflow
async def catches(key: str) -> dict[str, Any]:
    try:
        await declines(key)
    except ActivityFailed as error:
        return {
            "type": error.type,
            "message": str(error),
            "attempts": error.attempts,
            "self": error.caused_by(Declined),
            "base": error.caused_by(ValueError),
            "name": error.caused_by("builtins.Exception"),
            "other": error.caused_by(KeyError),
            "run_id": error.run_id,
            "where": "declines" in (error.remote_traceback or ""),
        }
    return {}


@workflow
async def catches_details(key: str, retryable: bool) -> dict[str, Any]:
    try:
        await says_more(key, retryable)
    except ActivityFailed as error:
        return {"details": error.details, "attempts": error.attempts}
    return {}


@workflow
async def does_not_catch(key: str) -> None:
    await declines(key)


@workflow
async def soon(key: str) -> int:
    return await asks_for_soon(key)


@workflow
async def giving_up(key: str, kind: str) -> int:
    with pytest.raises(ActivityFailed) as caught:
        await gives_up(key, kind)
    return caught.value.attempts


@workflow
async def stuttering(key: str) -> str:
    return await stutters(key)


@workflow
async def unstorable(key: str) -> list[Any]:
    try:
        await returns_what_cannot_be_stored(key)
    except ActivityFailed as error:
        return [error.attempts, error.caused_by(continuum.DurableValueError), "/handle" in str(error)]
    return []


@workflow
async def impossible(size: int) -> list[int]:
    try:
        await raises_something_impossible(size)
    except ActivityFailed as error:
        return [len(str(error)), len(error.remote_traceback or "")]
    return []


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


async def test_a_final_failure_says_what_it_was_and_how_often_it_was_tried(app: Instance) -> None:
    run = await app.start(catches, "final")
    told = await run.result(timeout=15)
    assert told.pop("message").endswith("no funds")
    assert told == {
        "type": f"{__name__}.Declined",
        "attempts": 3,
        "self": True,
        "base": True,
        "name": True,
        "other": False,
        "run_id": run.run_id,
        "where": True,
    }
    assert seen["final"] == [1, 2, 3]


async def test_an_uncaught_activity_failure_fails_the_run_with_its_story(app: Instance) -> None:
    run = await app.start(does_not_catch, "uncaught")
    with pytest.raises(RunFailed, match="no funds") as caught:
        await run.result(timeout=15)
    # P77: what a waiter hears, and what a later reader finds, is the same.
    later = await app.get_run(run.run_id)
    assert later.error is not None
    assert (caught.value.type, caught.value.causes) == (later.error.type, later.error.causes)
    assert caught.value.caused_by(ActivityFailed)
    assert caught.value.run_id == run.run_id
    with pytest.raises(RunFailed) as again:
        await app.await_run(run.run_id)
    assert str(again.value) == str(caught.value)
    assert "Traceback" not in str(again.value)


async def test_details_cross_and_not_retryable_gives_up_at_once(app: Instance) -> None:
    once = await app.start(catches_details, "not-retryable", False)
    thrice = await app.start(catches_details, "retryable", True)
    details = {"code": 7, "list": [1, None]}
    assert await once.result(timeout=15) == {"details": details, "attempts": 1}
    assert await thrice.result(timeout=15) == {"details": details, "attempts": 3}


async def test_retry_after_replaces_the_policys_delay(app: Instance) -> None:
    run = await app.start(soon, "soon")
    assert await run.result(timeout=15) == 2  # the policy's own delay is a minute


@pytest.mark.parametrize("kind", ["class", "name"])
async def test_what_is_not_retryable_is_tried_once(app: Instance, kind: str) -> None:
    run = await app.start(giving_up, kind, kind)
    assert await run.result(timeout=15) == 1
    assert seen[kind] == [1]


async def test_a_blocking_activity_is_retried_like_any_other(app: Instance) -> None:
    run = await app.start(stuttering, "stutter")
    assert await run.result(timeout=15) == "at last"
    assert seen["stutter"] == [1, 2, 3]


# P68
async def test_a_result_that_cannot_be_stored_fails_at_once_and_names_the_place(app: Instance) -> None:
    run = await app.start(unstorable, "unstorable")
    assert await run.result(timeout=15) == [1, True, True]


# P67
@pytest.mark.parametrize("size", [0, 200_000])
async def test_errors_of_any_kind_and_size_can_be_recorded(app: Instance, size: int) -> None:
    run = await app.start(impossible, size)
    message, traceback = await run.result(timeout=15)
    assert 0 < message < 5_000
    assert 0 < traceback <= 16_384


# P74
async def test_the_testing_environment_fails_like_production_does() -> None:
    async with environment():
        run = await continuum.start(catches, "virtual")
        assert (await run.result())["attempts"] == 3


async def test_no_attempt_and_no_slot_is_left_behind(app: Instance, place: Place) -> None:
    runs = [await app.start(catches, f"left-{n}") for n in range(20)]
    for run in runs:
        await run.result(timeout=15)
    attempts = wiring_of(app).attempts
    assert (attempts.running, attempts._taken_in_all, len(attempts._known)) == (0, 0, 0)
    assert await place.count("tasks") == 0


class Uncommon(BaseException):
    """As some libraries' timeouts, and pytest's own outcomes."""


@activity(retry=Retry(max_attempts=1))
async def raises_uncommonly(grouped: bool) -> None:
    raise BaseExceptionGroup("both", [Uncommon("odd"), ValueError("bad")]) if grouped else Uncommon("odd")


@activity(retry=Retry(max_attempts=1))
def takes_from_nothing() -> int:
    return next(iter([]))


@workflow
async def tries(what: str) -> str:
    try:
        if what == "exhausted":
            await takes_from_nothing()
        await raises_uncommonly(what == "grouped")
    except ActivityFailed as error:
        return str(error)
    return "nothing"


@pytest.mark.parametrize(
    ("what", "said"), [("single", "Uncommon: odd"), ("grouped", "both"), ("exhausted", "StopIteration")]
)
async def test_an_activity_that_raises_what_is_no_exception_has_failed_and_left_its_slot(what: str, said: str) -> None:
    async with Place("memory", None).node() as app:
        run = await app.start(tries, what)
        assert said in await run.result(timeout=5)
        assert wiring_of(app).attempts._taken_in_all == 0


@pytest.mark.parametrize("threaded", [False, True])
async def test_an_activity_that_wants_to_end_the_process_has_failed(place: Place, threaded: bool) -> None:
    async with place.node() as app:
        assert "SystemExit" in await (await app.start(survives, threaded)).result(timeout=15)
