"""`GET …/await`: how a run ended, without holding anything while it has not."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI

import continuum
from continuum.composition.instance import Instance
from continuum.ids import uuid7
from tests.http.hosts import asked, buggy, doubled, failing, kind, pointers, served, started
from tests.support.eventually import eventually
from tests.support.hosting import Place, wiring_of


async def test_a_run_that_has_ended_is_answered_at_once(http: httpx.AsyncClient) -> None:
    run_id = await started(http, doubled, n=1)
    answer = await http.get(f"/runs/{run_id}/await", params={"timeout": 20})
    assert (answer.status_code, answer.json()) == (200, {"run_id": run_id, "state": "completed", "result": 4})
    assert (await http.get(f"/runs/{run_id}/await", params={"timeout": 0})).json() == answer.json()


async def test_the_end_releases_everyone_who_waits(http: httpx.AsyncClient, app: Instance) -> None:
    run_id = await started(http, asked)
    waiting = [asyncio.create_task(http.get(f"/runs/{run_id}/await")) for _ in range(50)]
    await eventually(lambda: wiring_of(app).awaiting.waiters == 50)
    assert (await http.get(f"/runs/{run_id}")).status_code == 200  # nobody of them holds the line to the database
    await http.post(f"/runs/{run_id}/signals/go", json="now")
    answers = await asyncio.gather(*waiting)
    assert {answer.status_code for answer in answers} == {200}
    assert answers[0].json() == {"run_id": run_id, "state": "completed", "result": ["now"]}
    assert wiring_of(app).awaiting.waiters == 0


async def test_an_end_on_another_node_is_seen(http: httpx.AsyncClient, place: Place) -> None:
    run_id = uuid7()
    async with place.node(node="there") as there:
        await there.start(asked, run_id=run_id)
        waiting = asyncio.create_task(http.get(f"/runs/{run_id}/await"))
        await asyncio.sleep(0.05)
        await there.signal(run_id, "go", 1)
        answer = await waiting
    assert (answer.status_code, answer.json()["result"]) == (200, [1])


async def test_what_has_not_ended_in_time_is_answered_with_202(http: httpx.AsyncClient) -> None:
    run_id = await started(http, asked)
    answer = await http.get(f"/runs/{run_id}/await", params={"timeout": 0.05})
    assert (answer.status_code, answer.headers["retry-after"]) == (202, "1")
    assert answer.json()["run_id"] == run_id
    assert answer.json()["state"] in {"running", "suspended"}


async def test_a_run_that_ends_as_the_wait_runs_out_is_answered_with_its_result(
    http: httpx.AsyncClient, app: Instance
) -> None:
    run_id = await started(http, asked)
    journal = wiring_of(app).journal
    reads = journal.run

    async def ends_first(run: str) -> object:
        journal.run = reads  # type: ignore[method-assign]
        await app.signal(run, "go", 7)
        assert await app.await_run(run) == [7]
        return await reads(run)

    journal.run = ends_first  # type: ignore[method-assign, assignment]
    answer = await http.get(f"/runs/{run_id}/await", params={"timeout": 0})
    assert (answer.status_code, answer.json()) == (200, {"run_id": run_id, "state": "completed", "result": [7]})


async def test_a_failed_and_a_cancelled_run_are_successful_answers(memory: httpx.AsyncClient) -> None:
    failed, cancelled = await started(memory, failing, message="no"), await started(memory, asked)
    await memory.post(f"/runs/{cancelled}/cancel")
    answers = [await memory.get(f"/runs/{run_id}/await") for run_id in (failed, cancelled)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (
            200,
            {
                "run_id": failed,
                "state": "failed",
                "error": {"type": "builtins.ValueError", "message": "no", "details": None},
            },
        ),
        (200, {"run_id": cancelled, "state": "cancelled"}),
    ]


async def test_a_blocked_run_does_not_keep_anybody_waiting(memory: httpx.AsyncClient) -> None:
    run_id = await started(memory, buggy)
    answer = await memory.get(f"/runs/{run_id}/await")
    assert (answer.status_code, answer.json()["state"]) == (202, "blocked")
    assert "nobody has written this yet" in answer.json()["blocked_reason"]
    assert answer.headers["retry-after"] == "30"


@pytest.mark.parametrize("timeout", ["31", "-1", "nan", "soon"])
async def test_a_timeout_is_between_0_and_30_seconds(memory: httpx.AsyncClient, timeout: str) -> None:
    answer = await memory.get(f"/runs/{uuid7()}/await", params={"timeout": timeout})
    assert (answer.status_code, pointers(answer)) == (422, ["timeout"])


async def test_nobody_waits_for_what_is_not_there(memory: httpx.AsyncClient) -> None:
    assert kind(await memory.get(f"/runs/{uuid7()}/await")) == (404, "run-not-found")


async def test_a_drain_releases_who_waits_at_once(memory: httpx.AsyncClient) -> None:
    run_id = await started(memory, asked)
    waits = [
        memory.get(f"/runs/{run_id}/await"),
        memory.post(
            "/runs",
            json={"workflow": "http.asked"},
            headers={"Prefer": "wait=30"},
        ),
    ]
    waiting = [asyncio.create_task(wait) for wait in waits]
    awaiting = wiring_of(continuum.instance("continuum")).awaiting
    await eventually(lambda: awaiting.waiters == 2)
    async with asyncio.timeout(5):
        await continuum.drain()
        answers = await asyncio.gather(*waiting)
    assert [answer.status_code for answer in answers] == [202, 202]
    assert [answer.headers["retry-after"] for answer in answers] == ["1", "1"]
    late = await memory.get(f"/runs/{run_id}/await")
    assert late.status_code == 202


async def test_who_waits_in_a_verb_is_not_released_by_a_drain(memory: httpx.AsyncClient) -> None:
    run_id = await started(memory, asked)
    waiting = asyncio.create_task(continuum.await_run(run_id, timeout=0.3))
    await eventually(lambda: wiring_of(continuum.instance("continuum")).awaiting.waiters == 1)
    await continuum.drain()
    with pytest.raises(continuum.ResultTimedOut):
        await waiting


async def test_a_client_that_has_gone_is_not_waited_for(host: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continuum.http.desk.PROBE_SECONDS", 0.05)
    async with continuum.application() as app, served(host) as url:
        async with httpx.AsyncClient(base_url=f"{url}/continuum/continuum") as client:
            run_id = await started(client, asked)
            waiting = asyncio.create_task(client.get(f"/runs/{run_id}/await", timeout=30))
            await eventually(lambda: wiring_of(app).awaiting.waiters == 1)
            waiting.cancel()
        await eventually(lambda: wiring_of(app).awaiting.waiters == 0)


async def test_a_stop_of_uvicorn_does_not_wait_for_who_waits(host: FastAPI) -> None:
    async with continuum.application() as app, httpx.AsyncClient() as client:
        async with served(host) as url:
            run_id = (await client.post(f"{url}/continuum/continuum/runs", json={"workflow": "http.asked"})).json()[
                "run_id"
            ]
            waiting = asyncio.create_task(client.get(f"{url}/continuum/continuum/runs/{run_id}/await", timeout=40))
            await eventually(lambda: wiring_of(app).awaiting.waiters == 1)
            await continuum.drain()
            async with asyncio.timeout(5):
                assert (await waiting).status_code == 202
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{url}/continuum/continuum/health/live")


async def test_waiting_does_not_need_the_database(http: httpx.AsyncClient, app: Instance) -> None:
    """One look when it comes, then silence: whoever waits for a run that lives here asks nothing."""
    run_id = await started(http, asked)
    asked_for: list[str] = []
    reads = wiring_of(app).journal.run

    async def counted(run: str) -> object:
        asked_for.append(run)
        return await reads(run)

    wiring_of(app).journal.run = counted  # type: ignore[method-assign, assignment]
    waiting = asyncio.create_task(http.get(f"/runs/{run_id}/await", params={"timeout": 0.5}))
    await eventually(lambda: wiring_of(app).awaiting.waiters == 1)
    await asyncio.sleep(0.3)
    assert asked_for == []
    await waiting
    assert asked_for == [run_id]
