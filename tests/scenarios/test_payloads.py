"""Payloads: limits at every door, and a codec around everything that is stored."""

from typing import Any

import pytest

import continuum
from continuum import (
    ActivityFailed,
    PayloadContext,
    PayloadTooLarge,
    Retry,
    RunBlocked,
    RunFailed,
    activity,
    workflow,
)
from continuum.runtime import ledger
from tests.support.eventually import eventually
from tests.support.hosting import Place, crash, evict, instance_of, wiring_of

LIMIT = 2_000
SECRET = "the-secret-of-the-run"


class Toy:
    """A codec that can be told apart from plain text, and whose key can be wrong."""

    def __init__(self, key: int = 7) -> None:
        self.key = key

    def encode(self, payload: bytes, context: PayloadContext) -> bytes:
        head = f"{context.run_id}|".encode()
        return bytes(byte ^ self.key for byte in head + payload)

    def decode(self, payload: bytes, context: PayloadContext) -> bytes:
        plain = bytes(byte ^ self.key for byte in payload)
        head = f"{context.run_id}|".encode()
        if not plain.startswith(head):
            raise ValueError("wrong key, or another run's payload")
        return plain[len(head) :]


@activity(retry=Retry(max_attempts=1))
async def makes(size: int) -> str:
    return "x" * size


@activity(retry=Retry(max_attempts=2, initial=0.01))
async def confides(secret: str) -> str:
    context = continuum.activity_context()
    if context.attempt == 1:
        context.heartbeat({"so far": secret})
        raise continuum.ActivityError(secret, details={"the": secret})
    return f"{context.last_heartbeat['so far']}!"


class Closed(Toy):
    """A codec whose keys cannot be reached while heartbeats are sealed."""

    def encode(self, payload: bytes, context: PayloadContext) -> bytes:
        if context.kind == "heartbeat":
            raise ConnectionError("the key server does not answer")
        return super().encode(payload, context)


@activity(retry=Retry(max_attempts=2, initial=0.01))
async def confides_in_vain() -> int:
    context = continuum.activity_context()
    if context.attempt == 1:
        context.heartbeat("a secret")
        raise OSError("the first attempt fails")
    return context.attempt


@workflow
async def tells_in_vain() -> int:
    return await confides_in_vain()


@workflow
async def echoes(text: str) -> str:
    return text


@workflow
async def makes_much(size: int) -> int:
    try:
        return len(await makes(size))
    except ActivityFailed as error:
        return -1 if error.caused_by(PayloadTooLarge) else -2


@activity
async def measures(text: str) -> int:
    return len(text)


@workflow
async def asks_for_much(kind: str, size: int) -> int:
    if kind == "arguments":
        return await measures("x" * size)
    return len(await continuum.side_effect(lambda: "x" * size))


@workflow
async def returns_much(size: int) -> str:
    return "x" * size


@workflow
async def waits() -> int:
    return len(await continuum.wait_signal("go", str))


@workflow
async def confiding(secret: str) -> list[str]:
    told = await confides(secret)
    heard = await continuum.wait_signal("go", str)
    return [told, heard, await continuum.side_effect(lambda: SECRET)]


@workflow
async def fails_with(secret: str) -> None:
    raise ValueError(secret)


async def test_an_input_and_a_signal_beyond_the_limit_are_refused_at_the_door(place: Place) -> None:
    async with place.node(payload_max=LIMIT) as app:
        with pytest.raises(PayloadTooLarge, match="payload_max"):
            await app.start(echoes, "x" * LIMIT)
        with pytest.raises(PayloadTooLarge):
            await app.start_many(echoes, ["small", "x" * LIMIT])
        assert await place.count("runs") == 0
        run = await app.start(waits)
        with pytest.raises(PayloadTooLarge):
            await run.signal("go", "x" * LIMIT)
        await run.signal("go", "x" * (LIMIT - 2))
        assert await run.result(timeout=15) == LIMIT - 2


async def test_results_beyond_the_limit_are_failures_with_a_reason(place: Place) -> None:
    async with place.node(payload_max=LIMIT) as app:
        assert await (await app.start(returns_much, LIMIT - 2)).result(timeout=15) == "x" * (LIMIT - 2)
        with pytest.raises(RunFailed, match="payload_max") as caught:
            await (await app.start(returns_much, LIMIT)).result(timeout=15)
        assert caught.value.caused_by(PayloadTooLarge)
        assert await (await app.start(makes_much, LIMIT - 2)).result(timeout=15) == LIMIT - 2
        assert await (await app.start(makes_much, LIMIT)).result(timeout=15) == -1


@pytest.mark.parametrize("kind", ["arguments", "side effect"])
async def test_what_a_workflow_asks_for_beyond_the_limit_blocks_it_until_the_limit_is_raised(
    place: Place, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "BLOCKED_BACKOFF_SECONDS", 0.1)
    async with place.node(payload_max=LIMIT) as app:
        run = await app.start(asks_for_much, kind, LIMIT)
        with pytest.raises(RunBlocked, match=f"payload_max={LIMIT}"):
            await run.result(timeout=15)
        assert [event.type for event in await app.history(run.run_id)] == ["started"]
    async with place.node(payload_max=2 * LIMIT) as app:
        assert await app.await_run(run.run_id, timeout=15, wait_blocked=True) == LIMIT


@pytest.mark.parametrize("kind", ["input", "activity", "signal"])
async def test_a_payload_just_below_a_mebibyte_crosses_unharmed(place: Place, kind: str) -> None:
    size = (1 << 20) - 100
    async with place.node() as app:
        match kind:
            case "input":
                run = await app.start(echoes, "é" * (size // 2))
                assert await run.result(timeout=15) == "é" * (size // 2)
            case "activity":
                made = await app.start(makes_much, size)
                assert await made.result(timeout=15) == size
            case _:
                waiting = await app.start(waits)
                await waiting.signal("go", "x" * size, delivery_id="d")
                assert await waiting.result(timeout=15) == size


async def test_text_of_every_kind_crosses_unharmed(place: Place) -> None:
    async with place.node() as app:
        for text in ("", "\x00", "\U0001f600", "a\u2028b", '"\\', "\x7f\x01"):
            assert await (await app.start(echoes, text)).result(timeout=15) == text


async def test_with_a_codec_nothing_readable_is_stored(place: Place) -> None:
    place.codec = Toy()
    async with place.node(snapshotter={"threshold": 2, "interval": 0.02}) as app:
        run, failed = await app.start(confiding, SECRET), await app.start(fails_with, SECRET)
        with pytest.raises(RunFailed, match=SECRET):
            await failed.result(timeout=15)
        await evict(app, run.run_id, waits_for="go")
        await run.signal("go", SECRET, delivery_id="d")
        assert await run.result(timeout=15) == [f"{SECRET}!", SECRET, SECRET]
        parked = await app.start(confiding, SECRET)
        await parked.signal("other", SECRET, delivery_id="e")
        await evict(app, parked.run_id, waits_for="go")
        await eventually(lambda: _has_snapshot(place))
        assert SECRET.encode() not in await place.everything()
        events = await app.history(run.run_id)
        assert any(SECRET in str(event.data) for event in events)  # who has the key reads it
        await parked.cancel()


async def _has_snapshot(place: Place) -> bool:
    return await place.count("snapshots") > 0


async def test_with_the_wrong_key_a_run_is_blocked_and_not_failed(place: Place, monkeypatch: Any) -> None:
    monkeypatch.setattr(ledger, "BLOCKED_BACKOFF_SECONDS", 0.2)
    place.codec = Toy(7)
    right = place.another()
    await right.start()
    runs = [await instance_of(right).start(confiding, SECRET) for _ in range(3)]
    for run in runs:
        await evict(instance_of(right), run.run_id, waits_for="go")
    await crash(right)
    place.codec = Toy(8)
    async with place.node() as wrong:
        fine = await wrong.start(echoes, "with the wrong key")  # what it wrote itself, it reads
        for run in runs:
            await wrong.signal(run.run_id, "go", "unreadable for the others")
            with pytest.raises(RunBlocked, match="codec"):
                await wrong.await_run(run.run_id, timeout=15)
        assert await fine.result(timeout=15) == "with the wrong key"
        assert wrong.readiness().state == "ready"
        assert await wrong.cancel(runs[2].run_id) == "cancelled"
    place.codec = Toy(7)
    async with place.node() as mended:
        row = await wiring_of(mended).journal.run(runs[0].run_id)
        assert row is not None
        assert row.state == "blocked"
        with pytest.raises(RunBlocked, match="codec"):  # the signal itself was sealed with the other key
            await mended.await_run(runs[0].run_id, timeout=15)


async def test_an_attempt_whose_details_cannot_be_sealed_is_retried_all_the_same(place: Place) -> None:
    place.codec = Closed()
    async with place.node() as app:
        run = await app.start(tells_in_vain)
        assert await run.result(timeout=5) == 2
