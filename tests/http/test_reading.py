"""Reading runs, one by one and by pages."""

from typing import Any

import httpx
import pytest

from continuum.ids import uuid7
from tests.http.hosts import asked, doubled, failing, kind, pointers, started


async def test_a_run_is_described(http: httpx.AsyncClient) -> None:
    run_id = await started(http, failing, message="no", attributes={"customer": "c1"})
    await http.get(f"/runs/{run_id}/await", params={"timeout": 20})
    answer = await http.get(f"/runs/{run_id}")
    body = answer.json()
    assert (answer.status_code, body) == (
        200,
        {
            "run_id": run_id,
            "workflow": "http.failing",
            "version": 1,
            "namespace": "default",
            "state": "failed",
            "generation": 1,
            "attributes": {"customer": "c1"},
            "started_at": body["started_at"],
            "ended_at": body["ended_at"],
            "blocked_reason": None,
            "error": {"type": "builtins.ValueError", "message": "no", "details": None},
            "parent": None,
        },
    )
    assert body["started_at"].endswith("Z")
    assert body["started_at"] <= body["ended_at"]


async def test_any_writing_of_a_uuid_finds_its_run(memory: httpx.AsyncClient) -> None:
    run_id = await started(memory, asked)
    assert (await memory.get(f"/runs/{run_id.upper()}")).json()["run_id"] == run_id


async def test_what_is_not_there_is_404_and_what_is_no_id_422(memory: httpx.AsyncClient) -> None:
    assert kind(await memory.get(f"/runs/{uuid7()}")) == (404, "run-not-found")
    assert pointers(await memory.get("/runs/first")) == ["run_id"]
    assert kind(await memory.get("http://host/continuum/nobody/runs")) == (404, "instance-not-found")


async def test_runs_are_listed_newest_first_and_by_pages(http: httpx.AsyncClient) -> None:
    made = [await started(http, asked) for _ in range(5)]
    seen: list[str] = []
    answer = await http.get("/runs", params={"limit": 2, "state": "suspended"})
    while True:
        seen += [run["run_id"] for run in answer.json()["items"]]
        if "next" not in answer.links:
            break
        assert "cursor" in answer.links["next"]["url"]
        answer = await http.get(f"http://host{answer.links['next']['url']}")
    assert answer.json()["next_cursor"] is None
    assert len(answer.json()["items"]) == 1
    assert [run for run in seen if run in made] == made[::-1]


async def test_runs_are_found_by_what_they_are(http: httpx.AsyncClient) -> None:
    one = await started(http, asked, namespace="shop", attributes={"customer": "c1", "count": 3, "vip": True})
    two = await started(http, doubled, n=1, attributes={"customer": "42", "count": 4})
    await http.get(f"/runs/{two}/await", params={"timeout": 20})

    async def found(query: str) -> list[str]:
        return [run["run_id"] for run in (await http.get(f"/runs?{query}")).json()["items"]]

    assert await found("state=completed") == [two]
    assert await found("workflow=http.asked") == [one]
    assert await found("namespace=shop") == [one]
    assert await found("attr.customer=c1") == [one]
    assert await found("attr.count=3&attr.vip=true") == [one]
    assert await found("attr.count=3&attr.vip=false") == []
    assert await found('attr.customer="42"') == [two]
    assert await found("attr.customer=42") == []
    assert await found("attr.customer={}") == []
    assert await found("attr.customer=null") == []
    assert await found("workflow=nothing") == []


# P81
async def test_a_value_in_a_query_is_json_if_it_can_be(http: httpx.AsyncClient) -> None:
    values: dict[str, Any] = {
        "4": 4,
        '"4"': "4",
        "true": True,
        '"true"': "true",
        "four": "four",
        '"null"': "null",
        "NaN": "NaN",
        '["a", "b"]': ["b", "a"],
        "2026-01-01T00:00:00Z": "2026-01-01T00:00:00Z",
        "-0.5": -0.5,
        "a,b": "a,b",
    }
    runs = {text: await started(http, asked, attributes={"v/~": value}) for text, value in values.items()}
    for text, run_id in runs.items():
        answer = await http.get("/runs", params={"attr.v/~": text})
        assert [run["run_id"] for run in answer.json()["items"]] == [run_id], text


async def test_a_cursor_belongs_to_its_filters(http: httpx.AsyncClient) -> None:
    for _ in range(2):
        await started(http, asked, attributes={"a": 1})
    first = (await http.get("/runs", params={"attr.a": "1", "limit": 1})).json()
    with_others = await http.get("/runs", params={"attr.a": "2", "cursor": first["next_cursor"]})
    assert kind(with_others) == (422, "input-invalid")
    assert pointers(with_others) == ["cursor"]
    assert "begin without one" in with_others.json()["detail"]


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ({"state": "odd"}, "state"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"workflow": "a\x00b"}, "workflow"),
        ({"namespace": ""}, "namespace"),
        ({"attr.a": "\x00"}, "attr.a"),
        ({"attr.a/~1": "[1, null]"}, "attr.a/~1"),
        ({"attr.a": str(2**63)}, "attr.a"),
        ({"attr.a": "1e400"}, "attr.a"),
        ({"attr.": "1"}, "attr."),
        ({"attr.a": ["1", "2"]}, "attr.a"),
    ],
    ids=str,
)
async def test_filters_that_cannot_be_are_pointed_at(
    memory: httpx.AsyncClient, query: dict[str, Any], wrong: str
) -> None:
    answer = await memory.get("/runs", params=query)
    assert kind(answer) == (422, "input-invalid")
    assert pointers(answer) == [wrong]


async def test_a_history_is_read_by_pages(http: httpx.AsyncClient) -> None:
    run_id = await started(http, doubled, n=1)
    await http.get(f"/runs/{run_id}/await", params={"timeout": 20})
    whole = (await http.get(f"/runs/{run_id}/events")).json()
    assert whole["next_cursor"] is None
    assert [event["id"] for event in whole["items"]] == [str(n + 1) for n in range(len(whole["items"]))]
    assert (whole["items"][0]["type"], whole["items"][-1]["type"]) == ("started", "completed")
    assert (whole["items"][0]["data"], whole["items"][-1]["data"]) == ({"n": 1}, 4)
    assert all(event["at"].endswith("Z") for event in whole["items"])
    paged: list[Any] = []
    answer = await http.get(f"/runs/{run_id}/events?limit=2")
    while "next" in answer.links:
        paged += answer.json()["items"]
        answer = await http.get(f"http://host{answer.links['next']['url']}")
    assert paged + answer.json()["items"] == whole["items"]
    after = await http.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": "2"})
    assert after.json()["items"] == whole["items"][2:]


async def test_a_position_that_cannot_be_is_refused(memory: httpx.AsyncClient) -> None:
    run_id = await started(memory, asked)
    assert pointers(await memory.get(f"/runs/{run_id}/events?cursor=first")) == ["cursor"]
    assert (await memory.get(f"/runs/{run_id}/events?cursor=7.1")).json()["items"] == []
    assert kind(await memory.get(f"/runs/{uuid7()}/events")) == (404, "run-not-found")
