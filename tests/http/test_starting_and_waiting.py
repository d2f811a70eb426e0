"""`POST …/runs` with `Prefer: wait=N`: whoever starts a run and waits for its end is called once, for the end.

So a start that has not landed keeps its caller whatever else happens, until the database has had its time.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

import continuum
from continuum.errors import InstanceNotStarted
from continuum.http import desk
from continuum.model.runs import Ending
from continuum.model.states import RunState
from continuum.model.writes import LANDED, REFUSED, Verdict, Write
from continuum.runtime.awaiting import StartWait
from tests.http.hosts import asked, buggy, doubled, endless, kind, start
from tests.support.eventually import eventually
from tests.support.hosting import wiring_of

WAIT = {"Prefer": "wait=20"}
ENDED = Ending("r", RunState.COMPLETED, b"1")


@asynccontextmanager
async def held_writes() -> AsyncIterator[asyncio.Event]:
    """Let no batch arrive until the event is set, which it is in the end."""
    journal, arrives = wiring_of(continuum.instance("continuum")).journal, asyncio.Event()
    write = journal.write

    async def held(lane: int, batch: Sequence[Write]) -> Sequence[Verdict]:
        await arrives.wait()
        return await write(lane, batch)

    journal.write = held  # type: ignore[method-assign]
    try:
        yield arrives
    finally:
        arrives.set()


def waiters() -> int:
    return wiring_of(continuum.instance("continuum")).awaiting.waiters


@pytest.mark.parametrize("flow", [doubled, endless], ids=["with activities", "over with its first turn"])
async def test_a_start_that_waits_reads_nothing(memory: httpx.AsyncClient, flow: Any) -> None:
    journal = wiring_of(continuum.instance("continuum")).journal
    for verb in ("run", "endings", "standings"):
        setattr(journal, verb, lambda *_, verb=verb, **__: pytest.fail(f"{verb} is asked"))
    answer = await start(memory, flow, headers=WAIT, **({"n": 3} if flow is doubled else {}))
    assert (answer.status_code, answer.json()["state"]) == (200, "completed")
    assert waiters() == 0


async def test_a_start_that_does_not_arrive_is_503_and_may_come_to_pass(
    memory: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "PATIENCE_SECONDS", 0.1)
    keyed = {"Idempotency-Key": "k", **WAIT}
    async with held_writes() as arrives:
        assert kind(await start(memory, doubled, n=1, headers=keyed)) == (503, "database-unavailable")
        assert waiters() == 0
        arrives.set()
    again = await start(memory, doubled, n=1, headers=keyed)
    assert (again.status_code, again.json()["result"]) == (200, 4)
    assert again.headers["idempotency-replayed"] == "true"


async def test_the_limit_of_a_start_is_none_of_the_wait(
    memory: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "PATIENCE_SECONDS", 0.1)
    waiting = asyncio.create_task(start(memory, asked, headers=WAIT))
    await eventually(lambda: waiters() == 1)
    (run_id,) = wiring_of(continuum.instance("continuum")).awaiting.run_ids
    await asyncio.sleep(0.3)
    await continuum.signal(run_id, "go", 1)
    assert ((await waiting).status_code, waiting.result().json()["result"]) == (200, [1])


async def test_the_wait_goes_on_after_the_first_look_for_the_client(
    memory: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("continuum.http.starting.PROBE_SECONDS", 0.05)
    monkeypatch.setattr(desk, "PROBE_SECONDS", 0.05)
    waiting = asyncio.create_task(start(memory, asked, headers=WAIT))
    await eventually(lambda: waiters() == 1)
    (run_id,) = wiring_of(continuum.instance("continuum")).awaiting.run_ids
    await asyncio.sleep(0.2)
    await continuum.signal(run_id, "go", 1)
    assert ((await waiting).status_code, waiting.result().json()["result"]) == (200, [1])


async def test_a_drain_releases_nobody_before_his_start_has_landed(memory: httpx.AsyncClient) -> None:
    async with held_writes() as arrives:
        waiting = asyncio.create_task(start(memory, asked, headers=WAIT))
        await eventually(lambda: waiters() == 1)
        draining = asyncio.create_task(continuum.drain())
        await eventually(lambda: wiring_of(continuum.instance("continuum")).node.is_draining)
        assert not (await asyncio.wait({waiting}, timeout=0.1))[0]
        arrives.set()
        async with asyncio.timeout(5):
            answer, _ = await asyncio.gather(waiting, draining)
    assert answer.status_code == 202
    assert (await memory.get(f"/runs/{answer.json()['run_id']}")).status_code == 200


async def test_a_blocked_run_does_not_keep_its_starter(memory: httpx.AsyncClient) -> None:
    answer = await start(memory, buggy, headers=WAIT)
    assert (answer.status_code, answer.json()["state"]) == (202, "blocked")
    assert "nobody has written this yet" in answer.json()["blocked_reason"]


async def test_of_two_starts_under_one_key_both_hear_the_end(memory: httpx.AsyncClient) -> None:
    keyed = {"Idempotency-Key": "k", **WAIT}
    answers = await asyncio.gather(*(start(memory, doubled, n=2, headers=keyed) for _ in range(5)))
    assert [(answer.status_code, answer.json()["result"]) for answer in answers] == [(200, 8)] * 5
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert sorted(answer.headers.get("idempotency-replayed", "") for answer in answers) == ["", *["true"] * 4]


async def test_a_caller_who_goes_leaves_no_wait_behind_and_the_run_goes_on(memory: httpx.AsyncClient) -> None:
    waiting = asyncio.create_task(start(memory, asked, headers=WAIT))
    await eventually(lambda: waiters() == 1)
    (run_id,) = wiring_of(continuum.instance("continuum")).awaiting.run_ids
    waiting.cancel()
    await eventually(lambda: waiters() == 0)
    await continuum.signal(run_id, "go", 5)
    assert await continuum.await_run(run_id) == [5]


# --- the wait by itself -----------------------------------------------------------------------------------------------


@pytest.fixture
async def wait() -> StartWait:
    return StartWait(asyncio.get_running_loop().create_future(), lambda: None)


async def test_what_ends_a_wait_is_kept_until_the_start_has_landed(wait: StartWait) -> None:
    wait.give_up()
    assert not wait.arrived.done()
    wait.settled(LANDED)
    assert wait.arrived.result() is None


async def test_an_instance_that_stops_does_not_hide_what_became_of_the_start(wait: StartWait) -> None:
    wait.fail(InstanceNotStarted("it was stopped"))
    assert not wait.arrived.done()
    wait.settled(LANDED)
    with pytest.raises(InstanceNotStarted):
        wait.arrived.result()


async def test_a_start_that_was_refused_is_no_end(wait: StartWait) -> None:
    wait.give_up()
    wait.settled(REFUSED)
    assert wait.arrived.result() is REFUSED  # type: ignore[comparison-overlap]


async def test_the_end_may_be_told_before_the_start(wait: StartWait) -> None:
    """A run that ends with its first turn is over when its start lands."""
    assert wait.hear(ENDED)
    wait.give_up()
    wait.settled(LANDED)
    assert wait.arrived.result() is ENDED


async def test_the_end_of_a_run_that_has_the_id_already_is_not_taken_for_ones_own(memory: httpx.AsyncClient) -> None:
    first = await start(memory, doubled, n=1, headers=WAIT)
    taken = first.json()["run_id"]
    async with held_writes() as arrives:
        waiting = asyncio.create_task(start(memory, doubled, n=2, run_id=taken, headers=WAIT))
        await eventually(lambda: waiters() == 1)
        wiring_of(continuum.instance("continuum")).awaiting.told([taken])  # so it is asked for
        assert not (await asyncio.wait({waiting}, timeout=0.2))[0]
        arrives.set()
        assert kind(await waiting) == (409, "run-exists")
