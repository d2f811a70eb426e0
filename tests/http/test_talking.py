"""Signals and cancels."""

from urllib.parse import quote

import httpx
import pytest

from continuum.ids import uuid7
from tests.http.hosts import asked, doubled, indebted, kind, pointers, reviewed, started, undone
from tests.support.eventually import eventually

WAIT = {"timeout": 20}


async def test_a_signal_is_delivered(http: httpx.AsyncClient) -> None:
    run_id = await started(http, reviewed, order="o-1")
    answer = await http.post(f"/runs/{run_id}/signals/review", json={"ok": True})
    assert (answer.status_code, answer.json()) == (202, {"status": "delivered"})
    ended = await http.get(f"/runs/{run_id}/await", params=WAIT)
    assert ended.json()["result"] == {"order": "o-1", "cents": 0, "ok": True, "by": "nobody"}


async def test_a_key_is_a_delivery_id(http: httpx.AsyncClient) -> None:
    run_id = await started(http, asked, count=2)
    keyed = {"Idempotency-Key": "webhook 1"}
    answers = [await http.post(f"/runs/{run_id}/signals/go", json=n, headers=keyed) for n in (1, 2)]
    assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [
        (202, "delivered"),
        (202, "duplicate"),
    ]
    await http.post(f"/runs/{run_id}/signals/go", json=3)
    assert (await http.get(f"/runs/{run_id}/await", params=WAIT)).json()["result"] == [1, 3]
    late = await http.post(f"/runs/{run_id}/signals/go", json=1, headers={"Idempotency-Key": '"webhook 1"'})
    assert (late.status_code, late.json()) == (202, {"status": "duplicate"})


@pytest.mark.parametrize("payload", [None, 0, "", [1, {"a": None}], {"n": 1.5}, "\u00e9\u2028", 2**70], ids=str)
async def test_any_json_is_a_payload(memory: httpx.AsyncClient, payload: object) -> None:
    run_id = await started(memory, asked)
    assert (await memory.post(f"/runs/{run_id}/signals/go", json=payload)).status_code == 202
    assert (await memory.get(f"/runs/{run_id}/await")).json()["result"] == [payload]


@pytest.mark.parametrize("name", ["a/b", "/", "a b?c#d%", "go/", "..", "ünï"])
async def test_any_name_of_a_signal_can_stand_in_the_path(memory: httpx.AsyncClient, name: str) -> None:
    run_id = await started(memory, asked)
    path = quote(name, safe="").replace(".", "%2E")
    assert (await memory.post(f"/runs/{run_id}/signals/{path}", json=1)).status_code == 202
    history = (await memory.get(f"/runs/{run_id}/events")).json()["items"]
    assert [event["name"] for event in history if event["type"] == "signal_received"] == [name]


async def test_no_body_is_null(memory: httpx.AsyncClient) -> None:
    run_id = await started(memory, asked)
    assert (await memory.post(f"/runs/{run_id}/signals/go")).status_code == 202
    assert (await memory.get(f"/runs/{run_id}/await")).json()["result"] == [None]


async def test_a_payload_that_breaks_its_contract_is_refused_at_the_door(memory: httpx.AsyncClient) -> None:
    run_id = await started(memory, reviewed, order="o")
    answer = await memory.post(f"/runs/{run_id}/signals/review", json={"ok": "perhaps"})
    assert kind(answer) == (422, "input-invalid")
    assert pointers(answer) == ["/ok"]
    assert answer.json()["run_id"] == run_id


async def test_a_signal_that_the_contract_does_not_name_is_refused(http: httpx.AsyncClient) -> None:
    run_id = await started(http, reviewed, order="o")
    answer = await http.post(f"/runs/{run_id}/signals/reveiw", json={"ok": True})
    assert kind(answer) == (422, "signal-unknown")
    body = answer.json()
    assert body["errors"] == [{"detail": "must be one of: review", "parameter": "name", "in": "path"}]
    assert body["run_id"] == run_id


async def test_a_name_that_no_index_takes_is_refused(memory: httpx.AsyncClient) -> None:
    run_id = await started(memory, asked)
    assert kind(await memory.post(f"/runs/{run_id}/signals/a%00b")) == (422, "input-invalid")
    assert kind(await memory.post(f"/runs/{run_id}/signals/{'a' * 201}")) == (422, "input-invalid")


async def test_who_has_ended_or_never_was_hears_nothing(http: httpx.AsyncClient) -> None:
    run_id = await started(http, doubled, n=1)
    await http.get(f"/runs/{run_id}/await", params=WAIT)
    for path in ("signals/go", "cancel"):
        answer = await http.post(f"/runs/{run_id}/{path}")
        assert kind(answer) == (409, "run-not-active")
        assert answer.json()["run_id"] == run_id
        assert kind(await http.post(f"/runs/{uuid7()}/{path}")) == (404, "run-not-found")
        assert pointers(await http.post(f"/runs/7/{path}")) == ["run_id"]


async def test_a_cancel_ends_the_run(http: httpx.AsyncClient) -> None:
    run_id = await started(http, asked)
    answer = await http.post(f"/runs/{run_id}/cancel", json={"compensate": False})
    assert (answer.status_code, answer.json()) == (202, {"status": "cancelled"})
    assert (await http.get(f"/runs/{run_id}")).json()["state"] == "cancelled"
    assert kind(await http.post(f"/runs/{run_id}/cancel")) == (409, "run-not-active")


async def test_a_cancel_may_undo_first(http: httpx.AsyncClient) -> None:
    undone.clear()
    run_id = await started(http, indebted, n=7)

    async def owes() -> bool:
        events = (await http.get(f"/runs/{run_id}/events")).json()["items"]
        return any(event["type"] == "activity_completed" for event in events)

    await eventually(owes)
    answer = await http.post(f"/runs/{run_id}/cancel", json={"compensate": True})
    assert answer.status_code == 202
    ended = await http.get(f"/runs/{run_id}/await", params={"timeout": 20})
    assert (ended.json()["state"], undone) == ("cancelled", [7])


async def test_a_cancel_takes_no_other_fields(memory: httpx.AsyncClient) -> None:
    run_id = await started(memory, asked)
    assert pointers(await memory.post(f"/runs/{run_id}/cancel", json={"reason": "none"})) == ["/reason"]
