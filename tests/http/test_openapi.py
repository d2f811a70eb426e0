"""The schema: complete, committed, and true."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

import continuum.http
from continuum.definitions.catalog import Catalog
from tests.http.hosts import doubled, reviewed
from tools.print_openapi import document

COMMITTED = Path("docs/openapi.json")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    host = FastAPI()
    host.include_router(continuum.http.router(peer_secret="s"))
    return host.openapi()


def operations(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{method} {path}": one for path, item in schema["paths"].items() for method, one in item.items()}


def test_the_committed_document_is_todays() -> None:
    assert COMMITTED.read_text() == document(), "python -m tools.print_openapi docs/openapi.json"


def test_clients_see_these_operations_and_no_peers(schema: dict[str, Any]) -> None:
    base = "/continuum/{instance}"
    assert {name: one["operationId"] for name, one in operations(schema).items()} == {
        f"post {base}/runs": "continuum_start_run",
        f"post {base}/batches": "continuum_start_batch",
        f"get {base}/runs": "continuum_list_runs",
        f"get {base}/runs/{{run_id}}": "continuum_get_run",
        f"get {base}/runs/{{run_id}}/await": "continuum_await_run",
        f"get {base}/runs/{{run_id}}/events": "continuum_list_events",
        f"post {base}/runs/{{run_id}}/signals/{{name}}": "continuum_signal_run",
        f"post {base}/runs/{{run_id}}/cancel": "continuum_cancel_run",
        f"get {base}/health/live": "continuum_is_live",
        f"get {base}/health/ready": "continuum_is_ready",
    }


def test_operation_ids_are_unique_however_often_a_router_is_mounted(
    recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Catalog()  # not all that a whole suite has defined
    for flow in (doubled, reviewed):
        few.add_workflow(flow)
    monkeypatch.setattr("continuum.definitions.catalog._catalog", few)
    host = FastAPI()
    for prefix in ("/continuum", "/other"):
        host.include_router(continuum.http.router(prefix=prefix, typed=True))
    host.include_router(continuum.http.router(prefix="/continuum"), prefix="/api")
    ids = [one["operationId"] for one in operations(host.openapi()).values()]
    assert len(ids) == len(set(ids))
    assert {"continuum_get_run", "other_get_run", "api_continuum_get_run"} <= set(ids)
    assert not recwarn.list


def test_every_answer_is_typed_and_every_refusal_a_problem(schema: dict[str, Any]) -> None:
    for name, one in operations(schema).items():
        assert one["summary"], name
        assert one["description"], name
        for code, answer in one["responses"].items():
            assert answer["description"], (name, code)
            kinds = answer["content"]
            if int(code) < 400 or "health" in name:
                assert kinds.get("application/json", kinds.get("application/problem+json"))["schema"], (name, code)
            else:
                assert kinds.keys() == {"application/problem+json"}, (name, code)
                assert kinds["application/problem+json"]["schema"]["required"] == ["type", "title", "status", "detail"]
            if code == "503":
                assert "Retry-After" in answer["headers"]


def test_bodies_and_answers_have_examples(schema: dict[str, Any]) -> None:
    starts = operations(schema)["post /continuum/{instance}/runs"]
    assert set(starts["requestBody"]["content"]["application/json"]["examples"]) == {"order", "later"}
    ours = {name: model for name, model in schema["components"]["schemas"].items() if name.startswith("Run")}
    assert all(model.get("examples") for name, model in ours.items() if name not in WITHOUT_EXAMPLES)
    assert all("ValidationError" not in name for name in schema["components"]["schemas"])


WITHOUT_EXAMPLES = {"RunState", "RunFailure", "RunPage", "RunEventPage", "RunCancel"}


def test_our_models_do_not_rename_the_hosts(schema: dict[str, Any]) -> None:
    assert all(name.startswith(("Run", "Instance")) for name in schema["components"]["schemas"])


def test_a_router_may_stay_out_of_the_schema() -> None:
    host = FastAPI()
    host.include_router(continuum.http.router(include_in_schema=False, typed=True))
    assert host.openapi()["paths"] == {}
