"""Workflows that signal and cancel other runs: commands, sent once whatever happens."""

import pytest
from pydantic import BaseModel, field_validator

import continuum
from continuum import NotAllowedHere, RunNotActive, RunNotFound, workflow
from continuum.composition.instance import Instance
from tests.support.eventually import eventually
from tests.support.hosting import Place, crash, instance_of

NOBODY = "00000000-0000-4000-8000-000000000000"


@workflow
async def counter(wanted: int) -> list[int]:
    return [await continuum.wait_signal("n", int) for _ in range(wanted)]


@workflow
async def sends(run_id: str, numbers: list[int]) -> list[str]:
    return [await continuum.signal(run_id, "n", number) for number in numbers]


@workflow
async def sends_by_handle(run_id: str) -> str:
    return await counter.handle(run_id).signal("n", 1)


@workflow
async def cancels(run_id: str) -> str:
    try:
        return await continuum.cancel(run_id)
    except (RunNotFound, RunNotActive) as error:
        return type(error).__name__


@workflow(purity="off")
async def starts_another() -> str:
    try:
        await continuum.start(counter, 1)
    except NotAllowedHere as error:
        return error.message
    return ""


async def test_a_signal_from_a_workflow_arrives(app: Instance) -> None:
    target = await app.start(counter, 3)
    sender = await app.start(sends, target.run_id, [1, 2, 3])
    assert await sender.result(timeout=15) == ["delivered"] * 3
    assert await target.result(timeout=15) == [1, 2, 3]


async def test_a_handle_of_a_workflow_works_in_a_workflow(app: Instance) -> None:
    target = await app.start(counter, 1)
    sender = await app.start(sends_by_handle, target.run_id)
    with pytest.raises(continuum.RunBlocked, match="instance"):  # a handle means the default instance unless told
        await sender.result(timeout=15)
    await target.signal("n", 1)
    assert await target.result(timeout=15) == [1]


async def test_refusals_are_raised_in_the_workflow(app: Instance) -> None:
    over = await app.start(counter, 0)
    await over.result(timeout=15)
    for run_id, name in ((NOBODY, "RunNotFound"), (over.run_id, "RunNotActive")):
        run = await app.start(cancels, run_id)
        assert await run.result(timeout=15) == name


async def test_a_workflow_cancels_another_run(app: Instance) -> None:
    target = await app.start(counter, 1)
    run = await app.start(cancels, target.run_id)
    assert await run.result(timeout=15) == "cancelled"
    assert (await target.status()).state == "cancelled"


async def test_other_verbs_say_what_to_use_instead(app: Instance) -> None:
    run = await app.start(starts_another)
    assert "use an activity" in await run.result(timeout=15)


async def test_a_message_is_sent_again_by_whoever_resumes_the_run_and_arrives_once(place: Place) -> None:
    """The sender's process dies after its commit; the next one cannot know whether the message had been sent."""
    first = place.another()
    await first.start()
    app = instance_of(first)
    target = await app.start(counter, 2)
    sender = await app.start(sends, target.run_id, [1])
    await eventually(lambda: _has_event(app, target.run_id, "signal_received"))
    await crash(first)
    async with place.node() as second:
        assert await second.await_run(sender.run_id, timeout=30) == ["delivered"]
        await second.signal(target.run_id, "n", 2)
        assert await second.await_run(target.run_id, timeout=30) == [1, 2]


async def _has_event(app: Instance, run_id: str, kind: str) -> bool:
    return any(event.type == kind for event in await app.history(run_id))


class Picky(BaseModel):
    """A type of the host's whose validator has a bug."""

    number: int

    @field_validator("number")
    @classmethod
    def _look_it_up(cls, number: int) -> int:
        return {1: 1}[number]


@workflow(signals={"n": Picky})
async def picky() -> int:
    return (await continuum.wait_signal("n", Picky)).number


@workflow
async def tells_picky(run_id: str) -> str:
    try:
        return await continuum.signal(run_id, "n", {"number": 2})
    except continuum.ContinuumError as error:
        return error.message


async def test_a_bug_in_a_signals_type_is_an_answer_to_the_workflow_that_sends_it(app: Instance) -> None:
    target = await app.start(picky)
    run = await app.start(tells_picky, target.run_id)
    assert await run.result(timeout=15) == "2"
    assert await target.signal("n", Picky(number=1)) == "delivered"
    assert await target.result(timeout=15) == 1
