"""`…/events` as a stream."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

import continuum
from continuum.client.wire import Position
from continuum.composition.instance import Instance
from continuum.ids import uuid7
from continuum.model.runs import Standing
from tests.http.hosts import asked, data, doubled, events, generations, kind, served, started
from tests.support.eventually import eventually
from tests.support.hosting import Place, wiring_of

STREAM = {"Accept": "text/event-stream"}


async def test_a_stream_of_an_ended_run_is_its_history_and_an_end(http: httpx.AsyncClient) -> None:
    run_id = await started(http, doubled, n=1)
    await http.get(f"/runs/{run_id}/await", params={"timeout": 20})
    whole = (await http.get(f"/runs/{run_id}/events")).json()["items"]
    answer = await http.get(f"/runs/{run_id}/events", headers=STREAM)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
    *told, end = [event async for event in events(answer)]
    assert [data(event) for event in told] == whole
    assert [(event["id"], event["event"]) for event in told] == [(event["id"], event["type"]) for event in whole]
    assert end == {"event": "end", "data": "{}"}
    again = await http.get(f"/runs/{run_id}/events", headers=STREAM | {"Last-Event-ID": "3"})
    *rest, end = [event async for event in events(again)]
    assert [data(event) for event in rest] == whole[3:]
    assert end["event"] == "end"


async def test_a_stream_and_pages_go_through_the_generations(http: httpx.AsyncClient) -> None:
    run_id = await started(http, generations, left=3)
    await http.get(f"/runs/{run_id}/await", params={"timeout": 20})
    answer = await http.get(f"/runs/{run_id}/events", headers=STREAM)
    *told, end = [data(event) | {"is": event["event"]} async for event in events(answer)]
    assert [(event["generation"], event["type"]) for event in told] == [
        (generation, kind)
        for generation in (1, 2, 3, 4)
        for kind in ("started", "begun", "completed" if generation == 4 else "continued")
    ]
    assert end["is"] == "end"
    seen: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await http.get(f"/runs/{run_id}/events", params={"limit": 2, "cursor": cursor})).json()
        seen += page["items"]
        cursor = page["next_cursor"]
    assert [event["id"] for event in seen] == [event["id"] for event in told]


async def test_who_has_seen_everything_is_told_the_end(memory: httpx.AsyncClient) -> None:
    run_id = await started(memory, doubled, n=1)
    await memory.get(f"/runs/{run_id}/await")
    answer = await memory.get(f"/runs/{run_id}/events", headers=STREAM | {"Last-Event-ID": "999"})
    assert [event async for event in events(answer)] == [{"event": "end", "data": "{}"}]


async def test_a_stream_tells_what_happens_as_it_happens(host: FastAPI, app: Instance) -> None:
    async with served(host) as url, httpx.AsyncClient(base_url=f"{url}/continuum/app", timeout=30) as client:
        run_id = await started(client, asked, count=2)
        async with client.stream("GET", f"/runs/{run_id}/events", headers=STREAM) as answer:
            told = events(answer)
            assert (await anext(told))["event"] == "started"
            for n in (1, 2):
                await client.post(f"/runs/{run_id}/signals/go", json=n)
                heard = await anext(told)
                assert (heard["event"], data(heard)["data"]) == ("signal_received", n)
            assert [event["event"] async for event in told] == ["completed", "end"]
        assert wiring_of(app).awaiting.waiters == 0


async def test_a_run_on_another_node_is_followed(host: FastAPI, app: Instance, place: Place) -> None:
    run_id = uuid7()
    async with place.node(node="there") as there, served(host) as url:
        await there.start(asked, run_id=run_id)
        async with (
            httpx.AsyncClient(base_url=f"{url}/continuum/app", timeout=30) as client,
            client.stream("GET", f"/runs/{run_id}/events", headers=STREAM) as answer,
        ):
            told = events(answer)
            assert (await anext(told))["event"] == "started"
            await there.signal(run_id, "go", 1)
            assert [event["event"] async for event in told] == ["signal_received", "completed", "end"]


async def test_all_who_follow_come_to_look_in_the_same_moments(app: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [await app.start(asked) for _ in range(30)]
    wiring, asked_about = wiring_of(app), list[int]()
    standings = wiring.journal.standings

    async def counted(run_ids: Sequence[str]) -> Sequence[Standing]:
        asked_about.append(len(run_ids))
        return await standings(run_ids)

    monkeypatch.setattr(wiring.journal, "standings", counted)

    async def look_again(run_id: str, comes_after: float) -> None:
        await asyncio.sleep(comes_after)
        looks = app.wire.follow(run_id, after=Position(1, 99))
        for _ in range(5):
            await anext(looks)
        await looks.aclose()  # type: ignore[attr-defined]

    await asyncio.gather(*(look_again(run.run_id, 0.004 * place) for place, run in enumerate(runs)))
    assert sum(asked_about) == 150
    first, then = 30, 4  # looks; and moments after them, two apart for who came before a moment and after it
    assert len(asked_about) <= first + then * 12


async def test_a_drain_ends_every_stream_at_once(host: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continuum.client.wire.FOLLOW_FIRST_SECONDS", 60.0)
    monkeypatch.setattr("continuum.client.wire.FOLLOW_SLOWEST_SECONDS", 60.0)
    async with continuum.application() as app, served(host) as url:
        base = f"{url}/continuum/continuum"
        async with httpx.AsyncClient(base_url=base, timeout=30) as client:
            run_id = await started(client, asked)
            async with client.stream("GET", f"/runs/{run_id}/events", headers=STREAM) as answer:
                told = events(answer)
                assert (await anext(told))["event"] == "started"
                async with asyncio.timeout(5):
                    app.begin_drain()
                    assert [event async for event in told] == [{"event": "drain", "retry": "500", "data": "{}"}]


async def test_a_client_that_has_gone_leaves_nothing_behind(host: FastAPI) -> None:
    async with continuum.application() as app, served(host) as url:
        async with httpx.AsyncClient(base_url=f"{url}/continuum/continuum", timeout=30) as client:
            run_id = await started(client, asked)
            async with client.stream("GET", f"/runs/{run_id}/events", headers=STREAM) as answer:
                await anext(events(answer))
                assert wiring_of(app).awaiting.waiters == 1
        await eventually(lambda: wiring_of(app).awaiting.waiters == 0)


async def test_silence_is_broken_for_the_sake_of_proxies(host: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continuum.http.following.LOOKS_PER_PING", 1)
    async with (
        continuum.application(),
        served(host) as url,
        httpx.AsyncClient(base_url=f"{url}/continuum/continuum", timeout=30) as client,
    ):
        run_id = await started(client, asked)
        async with client.stream("GET", f"/runs/{run_id}/events", headers=STREAM) as answer:
            lines = answer.aiter_lines()
            async with asyncio.timeout(10):
                while await anext(lines) != ": still here":
                    pass


async def test_what_is_not_there_is_refused_before_a_stream_begins(memory: httpx.AsyncClient) -> None:
    answer = await memory.get(f"/runs/{uuid7()}/events", headers=STREAM)
    assert kind(answer) == (404, "run-not-found")
