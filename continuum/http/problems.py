"""Refusals as `application/problem+json` (RFC 9457), on the routes of this package only.

A router cannot give its host exception handlers and should not: the host's own 422 stays the host's. So the class of our
routes catches what our handlers raise, and `problem_of` says what a client is told. What is not listed here is a bug or
the host's own, and goes on to the host. `type` is a URN that never changes; `detail` is for people.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import HTTPException, RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from continuum.errors import (
    ContinuumError,
    DurableValueError,
    IdempotencyConflict,
    InputInvalid,
    InstanceDraining,
    InstanceNotRegistered,
    InstanceNotStarted,
    JournalUnavailable,
    PayloadTooLarge,
    RunExists,
    RunNotActive,
    RunNotFound,
    SignalUnknown,
    WorkflowNotFound,
)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1  # a drain is over in seconds, and another node is asked at once; a database's restart takes a few
ERRORS_MAX = 100  # misfits told of one request


class RunProblemError(BaseModel):
    """One thing that is wrong with a request: `pointer` (JSON pointer) into its body, or `parameter` `in` elsewhere."""

    model_config = ConfigDict(extra="forbid")

    detail: str
    pointer: str | None = None
    parameter: str | None = None
    in_: str | None = Field(None, alias="in")


class RunProblem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:continuum:problem:run-not-found",
                    "title": "No such run",
                    "status": 404,
                    "detail": "there is no run 0198f3c2-7d3e-7c62-a7a4-0d5f0f8b7a11 in this instance",
                    "run_id": "0198f3c2-7d3e-7c62-a7a4-0d5f0f8b7a11",
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    detail: str
    run_id: str | None = None
    errors: list[RunProblemError] | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of refusal: its status, the end of its URN, its title."""

    status: HTTPStatus
    name: str
    title: str


class Refusal(HTTPException):
    """A request that we refuse; an HTTPException, because FastAPI lets nothing else pass while a body is read."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        run_id: str | None = None,
        errors: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__(kind.status, detail)
        self.kind = kind
        self.text = detail
        self.run_id = run_id
        self.errors = errors


UNREADABLE = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "body-unreadable", "The body is not JSON")
INVALID = Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "input-invalid", "The input is not acceptable")
TOO_LARGE = Kind(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-large", "The body is too large")
NOT_JSON = Kind(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not-json", "The body must be JSON")
NO_SUCH_METHOD = Kind(HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", "This is not how it is called")
DATABASE_AWAY = Kind(HTTPStatus.SERVICE_UNAVAILABLE, "database-unavailable", "The database does not answer")

# The first class that fits decides, so the narrow ones come first.
KINDS: tuple[tuple[type[ContinuumError], Kind], ...] = (
    (InstanceNotRegistered, Kind(HTTPStatus.NOT_FOUND, "instance-not-found", "No such instance")),
    (WorkflowNotFound, Kind(HTTPStatus.NOT_FOUND, "workflow-not-found", "No such workflow")),
    (RunNotFound, Kind(HTTPStatus.NOT_FOUND, "run-not-found", "No such run")),
    (RunNotActive, Kind(HTTPStatus.CONFLICT, "run-not-active", "The run has ended")),
    (RunExists, Kind(HTTPStatus.CONFLICT, "run-exists", "The run id is taken")),
    (IdempotencyConflict, Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency-conflict", "The key was used otherwise")),
    (PayloadTooLarge, TOO_LARGE),
    (SignalUnknown, Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "signal-unknown", "The workflow takes no such signal")),
    (DurableValueError, INVALID),
    (InstanceDraining, Kind(HTTPStatus.SERVICE_UNAVAILABLE, "draining", "This node is shutting down")),
    (InstanceNotStarted, Kind(HTTPStatus.SERVICE_UNAVAILABLE, "instance-not-started", "The instance is not running")),
    (JournalUnavailable, DATABASE_AWAY),
)


def problem_schema() -> dict[str, Any]:
    """Return the schema of a problem without references: a router cannot give its host's schema components."""
    schema = RunProblem.model_json_schema()
    item = schema.pop("$defs")["RunProblemError"]
    for one in (schema, item):
        for name, described in one["properties"].items():
            kinds = described.pop("anyOf", [])
            one["properties"][name] = next((kind for kind in kinds if kind != {"type": "null"}), described)
    schema["properties"]["errors"] = {"type": "array", "items": item}
    return schema


def problem_of(error: Exception) -> Response | None:
    """Return what a client is told of an error, or None if that is not for us to say."""
    if isinstance(error, Refusal):
        return _response(error)
    if isinstance(error, RequestValidationError):
        errors = [_misfit(item) for item in error.errors()[:ERRORS_MAX]]
        detail = "; ".join(f"{_place(item)}: {item['detail']}" for item in errors[:5])
        return _response(Refusal(INVALID, f"the request is not acceptable: {detail}", errors=errors))
    for kind_of_error, kind in KINDS:
        if isinstance(error, kind_of_error):
            return _response(Refusal(kind, error.message, run_id=error.run_id, errors=_errors_of(error)))
    return None


def refused_method(method: str, allowed: str) -> Response:
    """Return what a client is told whose method a path does not take."""
    return _response(Refusal(NO_SUCH_METHOD, f"{method} is not possible here; {allowed} is"))


def _errors_of(error: ContinuumError) -> list[dict[str, Any]]:
    match error:
        case SignalUnknown():
            return [{"detail": problem.message, "parameter": "name", "in": "path"} for problem in error.problems]
        case InputInvalid():
            problems = error.problems[:ERRORS_MAX]
            return [{"detail": problem.message, "pointer": problem.pointer} for problem in problems]
        case DurableValueError():
            return [{"detail": error.message, "pointer": error.path}]
        case _:
            return []


def _misfit(item: dict[str, Any]) -> dict[str, Any]:
    where, *path = item["loc"]
    if where == "body":
        pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
        return {"detail": item["msg"], "pointer": pointer}
    return {"detail": item["msg"], "parameter": ".".join(map(str, path)), "in": where}


def _place(item: dict[str, Any]) -> str:
    return item.get("pointer") or item.get("parameter") or "the body"


def _response(refusal: Refusal) -> Response:
    kind = refusal.kind
    body: dict[str, Any] = {
        "type": f"urn:continuum:problem:{kind.name}",
        "title": kind.title,
        "status": kind.status,
        "detail": refusal.text,
    }
    if refusal.run_id is not None:
        body["run_id"] = refusal.run_id
    if refusal.errors:
        body["errors"] = list(refusal.errors)
    away = kind.status is HTTPStatus.SERVICE_UNAVAILABLE
    headers = {"Retry-After": str(RETRY_SECONDS)} if away else None
    return Response(json.dumps(body), kind.status, headers=headers, media_type=MEDIA_TYPE)
