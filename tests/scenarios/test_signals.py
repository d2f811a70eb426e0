"""Signals: kept from the start of a run until they are consumed, in order, once."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

import continuum
from continuum import (
    DurableValueError,
    InputInvalid,
    RunNotActive,
    RunNotFound,
    SignalInvalid,
    activity,
    telemetry,
    workflow,
)
from continuum.composition.instance import Instance
from tests.support.eventually import eventually
from tests.support.hosting import Place, evict, instance_of

NOBODY = "00000000-0000-4000-8000-000000000000"


class Verdict(BaseModel):
    ok: bool
    reasons: list[str] = []


@activity
async def nothing() -> None:
    return None


@workflow
async def collects(count: int) -> list[int]:
    await nothing()
    return [await continuum.wait_signal("n", int) for _ in range(count)]


@workflow
async def several() -> dict[str, int]:
    async with asyncio.TaskGroup() as group:
        waits = {
            f"{name}{n}": group.create_task(continuum.wait_signal(name, int)) for n in range(2) for name in ("a", "b")
        }
    return {key: task.result() for key, task in waits.items()}


@workflow
async def times_out() -> list[Any]:
    try:
        await continuum.wait_signal("n", int, timeout=0.02)
    except continuum.SignalTimedOut as error:
        first: Any = isinstance(error, TimeoutError)
    else:
        first = None
    return [first, await continuum.wait_signal("n", int, timeout=60)]


@workflow
async def one(kind: str) -> Any:
    if kind == "verdict":
        return await continuum.wait_signal("v", Verdict)
    return await continuum.wait_signal("v")


@workflow
async def misfit() -> list[Any]:
    try:
        await continuum.wait_signal("v", Verdict)
    except SignalInvalid as error:
        again = await continuum.wait_signal("v", Verdict)
        return [error.path, again.ok]
    return []


@workflow(signals={"v": Verdict, "n": int})
async def declared() -> bool:
    return (await continuum.wait_signal("v", Verdict)).ok


# P28, P94
async def test_signals_that_come_early_wait_in_order(app: Instance) -> None:
    run = await app.start(collects, 5)
    for n in range(5):
        assert await run.signal("n", n) == "delivered"
    assert await run.result(timeout=15) == [0, 1, 2, 3, 4]
    types = [event.type for event in await app.history(run.run_id)]
    assert types.count("signal_received") == 5
    assert "timer_started" not in types


async def test_waits_are_served_in_the_order_in_which_they_were_asked(app: Instance) -> None:
    run = await app.start(several)
    for name, value in (("b", 1), ("a", 2), ("a", 3), ("b", 4)):
        await run.signal(name, value)
    assert await run.result(timeout=15) == {"a0": 2, "b0": 1, "a1": 3, "b1": 4}


# P29
async def test_a_wait_that_timed_out_consumes_nothing(app: Instance) -> None:
    run = await app.start(times_out)

    async def has_timed_out() -> bool:
        return any(event.type == "timer_fired" for event in await app.history(run.run_id))

    await eventually(has_timed_out)
    await run.signal("n", 7)
    assert await run.result(timeout=15) == [True, 7]


async def test_a_delivery_id_is_accepted_once_and_remembered_beyond_the_end(app: Instance) -> None:
    run = await app.start(collects, 2)
    assert await run.signal("n", 1, delivery_id="d1") == "delivered"
    assert await run.signal("n", 1, delivery_id="d1") == "duplicate"
    assert await run.signal("n", 2, delivery_id="d2") == "delivered"
    assert await run.result(timeout=15) == [1, 2]
    assert await run.signal("n", 1, delivery_id="d1") == "duplicate"
    assert await run.signal("n", 2, delivery_id="d2") == "duplicate"
    with pytest.raises(RunNotActive):
        await run.signal("n", 3, delivery_id="d3")


async def test_a_delivery_id_counts_per_run_and_name(app: Instance) -> None:
    first, second = await app.start(collects, 1), await app.start(collects, 1)
    assert await first.signal("other", 1, delivery_id="same") == "delivered"
    assert await first.signal("n", 1, delivery_id="same") == "delivered"
    assert await second.signal("n", 2, delivery_id="same") == "delivered"
    assert [await first.result(timeout=15), await second.result(timeout=15)] == [[1], [2]]


async def test_twenty_deliveries_of_one_id_at_once_make_one_signal(app: Instance) -> None:
    run = await app.start(collects, 2)
    answers = await asyncio.gather(*[run.signal("n", n, delivery_id="twin") for n in range(20)])
    assert sorted(answers) == ["delivered"] + ["duplicate"] * 19
    await run.signal("n", 99)
    assert (await run.result(timeout=15))[1] == 99


# P26, P27, P95
async def test_signals_to_unknown_and_ended_runs_are_refused(app: Instance) -> None:
    run = await app.start(collects, 0)
    await run.result(timeout=15)
    with pytest.raises(RunNotActive) as over:
        await run.signal("n", 1)
    assert over.value.run_id == run.run_id
    for delivery_id in (None, "d"):
        with pytest.raises(RunNotFound) as unknown:
            await app.signal(NOBODY, "n", 1, delivery_id=delivery_id)
        assert unknown.value.run_id == NOBODY


# P24
async def test_signals_without_a_delivery_id_are_never_taken_for_the_same(place: Place) -> None:
    async with place.node() as app, place.node(client_only=True) as outside:
        run = await app.start(collects, 6)
        for _ in range(3):
            assert await outside.signal(run.run_id, "n", 1) == "delivered"
            assert await run.signal("n", 1) == "delivered"
        assert await run.result(timeout=15) == [1] * 6


async def test_payloads_cross_as_what_they_are_waited_for_as(app: Instance) -> None:
    typed, untyped, empty = [await app.start(one, kind) for kind in ("verdict", "any", "any")]
    await typed.signal("v", Verdict(ok=True, reasons=["r"]))
    await untyped.signal("v", Verdict(ok=False))
    await empty.signal("v")
    assert await typed.result(timeout=15) == {"ok": True, "reasons": ["r"]}
    assert await untyped.result(timeout=15) == {"ok": False, "reasons": []}
    assert await empty.result(timeout=15) is None


async def test_a_misfit_is_told_to_the_wait_and_consumed(app: Instance) -> None:
    run = await app.start(misfit)
    await run.signal("v", {"ok": "perhaps"})
    await run.signal("v", {"ok": True})
    assert await run.result(timeout=15) == ["/ok", True]


async def test_a_declared_signal_is_refused_at_the_door(app: Instance) -> None:
    run = await app.start(declared)
    with pytest.raises(SignalInvalid) as refused:
        await run.signal("v", {"ok": "perhaps"})
    assert (refused.value.path, refused.value.run_id) == ("/ok", run.run_id)
    with pytest.raises(SignalInvalid):
        await run.signal("n", "three")
    assert await run.signal("v", {"ok": True}) == "delivered"
    assert await run.result(timeout=15) is True


async def test_what_cannot_be_sent_is_refused_at_the_door(app: Instance) -> None:
    run = await app.start(collects, 1)
    for payload in (object(), {"deep": [object()]}, float, lambda: None):
        with pytest.raises(DurableValueError) as refused:
            await run.signal("n", payload)
        assert refused.value.run_id == run.run_id
    for name in ("", "x" * 201, "nul\x00", 7):
        with pytest.raises(InputInvalid):
            await app.signal(run.run_id, name)  # type: ignore[arg-type]
    with pytest.raises(InputInvalid, match="UUID"):
        await app.signal("not-an-id", "n")
    await run.cancel()


async def test_a_signal_reaches_a_run_that_has_left_memory(place: Place) -> None:
    children = place.another()
    async with children:
        app = instance_of(children)
        run = await app.start(collects, 1)
        await evict(app, run.run_id, waits_for="n")
        assert await run.signal("n", 4) == "delivered"
        assert await run.result(timeout=15) == [4]


async def test_a_signal_sent_while_a_run_is_coming_back_is_not_lost(place: Place) -> None:
    """Between its claim and its first turn an execution takes letters, and keeps them."""
    async with place.node() as app:
        run = await app.start(collects, 3)
        await evict(app, run.run_id, waits_for="n")
        sent: list[asyncio.Task[Any]] = []

        def send(event: telemetry.TelemetryEvent) -> None:
            if event.metadata["source"] == "journal":
                sent.append(asyncio.create_task(run.signal("n", 2)))
                sent.append(asyncio.create_task(run.signal("n", 3, delivery_id="d")))

        telemetry.attach(send, ["run.resumed"])
        try:
            await run.signal("n", 1)  # posted: it brings the run back
            assert await run.result(timeout=15) == [1, 2, 3]
        finally:
            telemetry.detach(send)
        assert await asyncio.gather(*sent) == ["delivered", "delivered"]
