"""`POST …/runs`."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

import continuum
import continuum.http
from continuum import workflow
from continuum.definitions.catalog import scoped_catalog
from continuum.errors import JournalUnavailable
from continuum.ids import uuid7
from tests.http.hosts import BASE, asked, caller, doubled, endless, failing, kind, pointers, reviewed, start, started
from tests.support.hosting import wiring_of

WAIT = {"Prefer": "wait=20"}


async def test_a_start_is_answered_with_202_and_where_the_run_is(http: httpx.AsyncClient) -> None:
    answer = await start(http, asked, attributes={"customer": "c1"}, namespace="shop")
    run_id = answer.json()["run_id"]
    assert (answer.status_code, answer.json()) == (
        202,
        {
            "run_id": run_id,
            "workflow": "http.asked",
            "version": 1,
            "namespace": "shop",
            "state": "running",
            "blocked_reason": None,
        },
    )
    assert UUID(run_id).version == 7
    assert answer.headers["location"] == f"/continuum/app/runs/{run_id}"
    assert answer.headers["retry-after"] == "1"
    assert "idempotency-replayed" not in answer.headers
    run = (await http.get(f"/runs/{run_id}")).json()
    assert (run["namespace"], run["attributes"]) == ("shop", {"customer": "c1"})


async def test_prefer_wait_answers_with_the_result(http: httpx.AsyncClient) -> None:
    answer = await start(http, doubled, n=3, headers=WAIT)
    assert (answer.status_code, answer.json()) == (
        200,
        {"run_id": answer.json()["run_id"], "state": "completed", "result": 12},
    )
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.headers["location"].endswith(answer.json()["run_id"])


async def test_the_same_key_and_input_are_the_same_run(http: httpx.AsyncClient) -> None:
    first = await start(http, asked, count=1, headers={"Idempotency-Key": "k 1"})
    again = await start(http, asked, count=1, headers={"Idempotency-Key": '"k 1"'})
    other = await start(http, asked, count=2, headers={"Idempotency-Key": "k 1"})
    assert again.status_code == 202
    assert again.json()["run_id"] == first.json()["run_id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert kind(other) == (422, "idempotency-conflict")
    assert other.json()["run_id"] == first.json()["run_id"]
    elsewhere = await start(http, asked, count=2, namespace="other", headers={"Idempotency-Key": "k 1"})
    assert elsewhere.status_code == 202


async def test_a_key_finds_a_run_that_has_ended(http: httpx.AsyncClient) -> None:
    keyed = WAIT | {"Idempotency-Key": "k"}
    first = await start(http, doubled, n=1, headers=keyed)
    again = await start(http, doubled, n=1, headers=keyed)
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    at_once = await start(http, doubled, n=1, headers={"Idempotency-Key": "k"})
    assert (at_once.status_code, at_once.json()["state"]) == (202, "completed")


async def test_racing_starts_of_one_key_make_one_run(http: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(start(http, doubled, n=1, headers={"Idempotency-Key": "k"}) for _ in range(10)))
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers].count("true") == 9


async def test_a_run_id_of_ones_own_is_taken_once(http: httpx.AsyncClient) -> None:
    mine = uuid7()
    assert await started(http, asked, run_id=mine) == mine
    answer = await start(http, asked, run_id=mine)
    assert kind(answer) == (409, "run-exists")
    assert answer.json()["run_id"] == mine


async def test_a_run_may_start_later(http: httpx.AsyncClient) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    answer = await start(http, doubled, n=1, start_at=later.isoformat())
    assert (answer.status_code, answer.json()["state"]) == (202, "pending")


async def test_a_failed_run_is_a_successful_answer(memory: httpx.AsyncClient) -> None:
    answer = await start(memory, failing, message="no", headers=WAIT)
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "run_id": answer.json()["run_id"],
            "state": "failed",
            "error": {"type": "builtins.ValueError", "message": "no", "details": None},
        },
    )


async def test_a_run_that_is_started_is_202_though_the_database_goes_away_while_it_is_waited_for(
    memory: httpx.AsyncClient,
) -> None:
    """A client that hears of a 503 may start it again."""
    journal = wiring_of(continuum.instance("continuum")).journal
    reads = journal.run

    async def away(run_id: str) -> object:
        raise JournalUnavailable("the database does not answer")

    journal.run = away  # type: ignore[method-assign, assignment]
    later = datetime.now(UTC) + timedelta(hours=1)
    answers = [
        await start(memory, asked, headers={"Prefer": "wait=0"}),
        await start(memory, asked, start_at=later.isoformat()),
    ]
    journal.run = reads  # type: ignore[method-assign]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert [(await memory.get(f"/runs/{answer.json()['run_id']}")).status_code for answer in answers] == [200, 200]


async def test_what_has_not_ended_within_the_preference_is_answered_with_202(memory: httpx.AsyncClient) -> None:
    answer = await start(memory, asked, headers={"Prefer": "respond-async, WAIT=0; strict"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=0")
    ignored = await start(memory, asked, headers={"Prefer": "wait=soon, handling=lenient"})
    assert "preference-applied" not in ignored.headers


async def test_the_wait_is_bounded_by_the_router(memory: httpx.AsyncClient) -> None:
    host = FastAPI()
    host.include_router(continuum.http.router(wait_max=0.05))
    async with caller(host, f"{BASE}/continuum") as client:
        answer = await start(client, asked, headers={"Prefer": "wait=3600"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=0.05")


async def test_a_result_that_json_cannot_say_is_null(memory: httpx.AsyncClient) -> None:
    assert (await start(memory, endless, headers=WAIT)).json()["result"] is None


async def test_versions_are_chosen_by_number(host: FastAPI) -> None:
    with scoped_catalog():

        async def old() -> str:
            return "old"

        async def new() -> str:
            return "new"

        versioned = workflow(name="http.versioned")(old)
        workflow(name="http.versioned", version=2)(new)
        async with continuum.application(), caller(host, f"{BASE}/continuum") as client:
            assert (await start(client, versioned, headers=WAIT)).json()["result"] == "new"
            assert (await start(client, versioned, version=1, headers=WAIT)).json()["result"] == "old"


async def test_unknown_names_are_404(memory: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"workflow": "http.doubled", "input": {"n": 1}}
    assert kind(await memory.post("/runs", json=body | {"workflow": "no.such"})) == (404, "workflow-not-found")
    assert kind(await memory.post("/runs", json=body | {"version": 9})) == (404, "workflow-not-found")
    answer = await memory.post("http://host/continuum/nobody/runs", json=body)
    assert kind(answer) == (404, "instance-not-found")


async def test_misfits_of_the_input_are_pointed_at(memory: httpx.AsyncClient) -> None:
    answer = await start(memory, reviewed, order=["o"], cents="many", extra=1)
    assert kind(answer) == (422, "input-invalid")
    assert pointers(answer) == ["/input/order", "/input/cents"]
    assert pointers(await start(memory, reviewed, order="o", extra=1)) == ["/input/extra"]


async def test_misfits_of_the_request_are_pointed_at(memory: httpx.AsyncClient) -> None:
    answer = await memory.post(
        "/runs",
        json={"input": [], "version": 0, "run_id": "x", "start_at": "2026-01-01T00:00:00", "namespace": "", "what": 1},
        headers=[(b"Idempotency-Key", b"\xc3\xa9")],
    )
    assert kind(answer) == (422, "input-invalid")
    assert sorted(pointers(answer)) == sorted(
        ["Idempotency-Key", "/workflow", "/input", "/version", "/run_id", "/start_at", "/namespace", "/what"]
    )


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
async def test_a_time_beyond_the_calendar_is_refused(memory: httpx.AsyncClient, moment: str) -> None:
    assert pointers(await start(memory, doubled, n=1, start_at=moment)) == ["/start_at"]


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"n": NaN}', b'"\\ud800"', b"[" * 100_000], ids=str)
async def test_what_is_not_json_is_refused(memory: httpx.AsyncClient, body: bytes) -> None:
    answer = await memory.post("/runs", content=body, headers={"Content-Type": "application/json"})
    assert kind(answer) == (422, "body-unreadable")


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "text/plain", ""])
async def test_a_body_must_say_that_it_is_json(memory: httpx.AsyncClient, media_type: str) -> None:
    answer = await memory.post("/runs", content=b'{"workflow": "http.asked"}', headers={"Content-Type": media_type})
    assert kind(answer) == (415, "not-json")


async def test_a_kind_of_json_is_json(memory: httpx.AsyncClient) -> None:
    answer = await memory.post(
        "/runs", content=b'{"workflow": "http.asked"}', headers={"Content-Type": "application/ld+json; charset=utf-8"}
    )
    assert answer.status_code == 202


async def test_the_location_counts_what_stands_before_the_router(memory: httpx.AsyncClient) -> None:
    inner, outer = FastAPI(), FastAPI()
    inner.include_router(continuum.http.router(prefix="/c"), prefix="/api")
    outer.mount("/shop", inner)
    async with caller(outer, "http://host/shop/api/c/continuum") as client:
        answer = await start(client, asked)
        run_id = answer.json()["run_id"]
        assert answer.headers["location"] == f"/shop/api/c/continuum/runs/{run_id}"
        assert (await client.get(f"http://host{answer.headers['location']}")).json()["run_id"] == run_id


async def test_a_draining_node_starts_nothing_and_answers_reads(memory: httpx.AsyncClient) -> None:
    run_id = await started(memory, asked)
    await continuum.drain()
    answer = await start(memory, asked)
    assert kind(answer) == (503, "draining")
    assert answer.headers["retry-after"] == "1"
    assert (await memory.get(f"/runs/{run_id}")).status_code == 200


async def test_an_instance_that_is_not_running_is_503(host: FastAPI) -> None:
    async with continuum.application():
        pass
    async with caller(host, f"{BASE}/continuum") as client:
        answer = await start(client, asked)
        assert kind(answer) == (503, "instance-not-started")
        assert answer.headers["retry-after"] == "1"
        async with continuum.application():
            assert (await start(client, asked)).status_code == 202


async def test_a_start_belongs_to_the_trace_that_its_headers_name(http: httpx.AsyncClient) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    wanted = {parent: {"traceparent": parent}, f"{parent} a=1": {"traceparent": parent, "tracestate": "a=1"}}
    for kept, headers in wanted.items():
        answer = await start(http, traced, headers=WAIT | headers)
        assert answer.json()["result"] == kept
    for nonsense in ("", "x", parent + "0", "0" * 55):
        answer = await start(http, traced, headers=WAIT | {"traceparent": nonsense})
        assert answer.json()["result"] is None, "W3C has the receiver begin anew"


@workflow(name="http.traced")
async def traced() -> str | None:
    return continuum.info().trace_context


# --- POST …/batches ---------------------------------------------------------------------------------------------------


def call(flow: Any, /, **given: Any) -> dict[str, Any]:
    return {"workflow": flow.name, "input": given}


async def test_a_batch_is_started_in_one_commit_and_answered_in_its_order(http: httpx.AsyncClient) -> None:
    runs = [call(doubled, n=1), call(asked, count=0), call(doubled, n=2)]
    answer = await http.post("/batches", json={"runs": runs, "namespace": "shop", "attributes": {"batch": 7}})
    assert answer.status_code == 202
    items = answer.json()["items"]
    assert [item["workflow"] for item in items] == ["http.doubled", "http.asked", "http.doubled"]
    assert {(item["version"], item["namespace"], item["state"]) for item in items} == {(1, "shop", "pending")}
    ended = [await http.get(f"/runs/{item['run_id']}/await", params={"timeout": 20}) for item in items]
    assert [end.json()["result"] for end in ended] == [4, [], 8]
    found = (await http.get("/runs", params={"namespace": "shop", "attr.batch": "7"})).json()["items"]
    assert {run["run_id"] for run in found} == {item["run_id"] for item in items}
    assert len({run["started_at"] for run in found}) == 1


async def test_a_batch_waits_for_its_time_and_may_be_empty(http: httpx.AsyncClient) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    answer = await http.post("/batches", json={"runs": [call(doubled, n=1)], "start_at": later})
    run_id = answer.json()["items"][0]["run_id"]
    assert (await http.get(f"/runs/{run_id}/await", params={"timeout": 0.2})).json()["state"] == "pending"
    empty = await http.post("/batches", json={"runs": []})
    assert (empty.status_code, empty.json()) == (202, {"items": []})


async def test_a_batch_of_which_one_run_does_not_fit_starts_none(memory: httpx.AsyncClient) -> None:
    fits = call(doubled, n=1)
    misfit = await memory.post("/batches", json={"runs": [fits, call(doubled, n="two")]})
    assert kind(misfit) == (422, "input-invalid")
    assert pointers(misfit) == ["/runs/1/input/n"]
    unknown = await memory.post("/batches", json={"runs": [fits, {"workflow": "http.unheard_of"}]})
    assert kind(unknown) == (404, "workflow-not-found")
    known_by_now = await memory.post("/batches", json={"runs": [fits | {"run_id": str(uuid7())}]})
    assert pointers(known_by_now) == ["/runs/0/run_id"]
    keyed = await memory.post("/batches", json={"runs": [fits]}, headers={"Idempotency-Key": "k"})
    assert (kind(keyed), pointers(keyed)) == ((422, "input-invalid"), ["Idempotency-Key"])
    assert (await memory.get("/runs")).json()["items"] == []
