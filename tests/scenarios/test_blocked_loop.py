"""Workflow code that holds up the host's loop: leases survive a while, are given up after it, and come back."""

import time

import pytest

import continuum
from continuum import telemetry, workflow
from tests.support.eventually import eventually
from tests.support.hosting import Place, wiring_of

TTL = 0.5


@pytest.fixture(autouse=True)
def _only_databases(place: Place) -> None:
    if place.kind == "memory":
        pytest.skip("an in-memory journal has no heartbeat thread, and nobody to lose a lease to")


@workflow(allow=("time.sleep",))
async def blocks_the_loop(seconds: float) -> str:
    await continuum.wait_signal("go")
    time.sleep(seconds)  # the fault that this is about
    return "went on"


@workflow
async def parked() -> str:
    return await continuum.wait_signal("go", str)


async def test_a_loop_that_stands_still_beyond_the_ttl_keeps_its_leases_and_is_told(place: Place) -> None:
    heard: list[telemetry.TelemetryEvent] = []
    telemetry.attach(heard.append, ["loop.blocked", "owner.lost", "lease.lost"])
    try:
        async with place.node(lease_ttl=TTL, recovery=False) as app:
            owner = wiring_of(app).node.owner
            run, other = await app.start(blocks_the_loop, 2.2 * TTL), await app.start(parked)
            await run.signal("go")
            assert await run.result(timeout=15) == "went on"
            await other.signal("go", "still here")
            assert await other.result(timeout=15) == "still here"
            assert wiring_of(app).node.owner == owner
    finally:
        telemetry.detach(heard.append)
    assert {event.name for event in heard} == {"loop.blocked"}
    assert all(event.measurements["silence_seconds"] > TTL for event in heard)
    assert {event.metadata["instance"] for event in heard} == {"app"}


async def test_a_loop_that_stands_still_for_too_long_gives_up_and_comes_back_anew(place: Place) -> None:
    names: list[str] = []

    def note(event: telemetry.TelemetryEvent) -> None:
        names.append(event.name)

    telemetry.attach(note, ["owner.lost", "owner.registered", "lease.lost"])
    try:
        async with place.node(lease_ttl=TTL) as app:
            before = wiring_of(app).node.owner
            run, other = await app.start(blocks_the_loop, 5 * TTL), await app.start(parked)
            await run.signal("go")
            await eventually(lambda: "owner.lost" in names)
            after = await eventually(lambda: wiring_of(app).node.owner)
            assert after != before
            await other.signal("go", "came back")
            assert await other.result(timeout=30) == "came back"
    finally:
        telemetry.detach(note)
    assert names.count("owner.lost") >= 1
    assert "lease.lost" in names
