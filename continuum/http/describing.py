"""What OpenAPI says of the routes: every answer with its model and headers, every refusal as a problem."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Coroutine, Sequence
from http import HTTPStatus
from typing import Any, Literal

from fastapi import APIRouter, params
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from continuum.http.problems import MEDIA_TYPE, problem_schema, refused_method
from continuum.http.shapes import (
    InstanceLive,
    InstanceReady,
    RunBatchStarted,
    RunCancelled,
    RunDetail,
    RunEnding,
    RunEventPage,
    RunPage,
    RunSignalled,
    RunStarted,
    RunWaiting,
)

Answers = dict[int | str, dict[str, Any]]


def _header(meaning: str, kind: str = "string", **more: Any) -> dict[str, Any]:
    return {"description": meaning, "schema": {"type": kind, **more}}


RETRY = {"Retry-After": _header("Seconds after which to ask again.", "integer")}
LINK = {"Link": _header('`rel="next"` leads to the next page.')}
START_HEADERS = {
    "Location": _header("The run.", format="uri-reference"),
    "Idempotency-Replayed": _header("`true`: the run was there already."),
    "Preference-Applied": _header("`wait=N`: how long was waited at most."),
}

STARTED: Answers = {
    200: {"model": RunEnding, "description": "It has ended, within `Prefer: wait=N`.", "headers": START_HEADERS},
    202: {"model": RunStarted, "description": "It is under way.", "headers": START_HEADERS | RETRY},
}
BATCH_STARTED: Answers = {202: {"model": RunBatchStarted, "description": "All of them are durable."}}
LISTED: Answers = {200: {"model": RunPage, "description": "A page of runs.", "headers": LINK}}
READ: Answers = {200: {"model": RunDetail, "description": "The run."}}
AWAITED: Answers = {
    200: {"model": RunEnding, "description": "It has ended."},
    202: {"model": RunWaiting, "description": "It has not ended yet, or is blocked.", "headers": RETRY},
}
STREAM = {"schema": {"type": "string"}, "example": 'id: 1\nevent: started\ndata: {"id": "1", "seq": 1, ...}\n\n'}
EVENTS: Answers = {
    200: {
        "model": RunEventPage,
        "description": "A page of its history, or the stream.",
        "headers": LINK,
        "content": {"text/event-stream": STREAM},
    }
}
SIGNALLED: Answers = {202: {"model": RunSignalled, "description": "It is durable."}}
CANCELLED: Answers = {202: {"model": RunCancelled, "description": "It is cancelled, or will be."}}
LIVE: Answers = {200: {"model": InstanceLive, "description": "The process answers."}}
READY: Answers = {
    200: {"model": InstanceReady, "description": "It takes work."},
    503: {"model": InstanceReady, "description": "It takes no work.", "headers": RETRY},
}

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
READS, WRITES, PROBES = (404, 422, 503), (404, 409, 413, 415, 422, 503), (404, 422)
REFUSALS = {
    404: "There is no such instance, workflow or run.",
    409: "The state of the run does not allow it.",
    413: "The body is too large.",
    415: "The body does not say that it is JSON.",
    422: "The input is not acceptable; `errors` says where.",
    503: "This node is shutting down, or its database does not answer: ask again.",
}


class Adding:
    """Adds routes to a router, with their answers described."""

    def __init__(self, api: APIRouter, dependencies: Sequence[params.Depends], *, include_in_schema: bool) -> None:
        self._api = api
        self._dependencies = dependencies
        self._include_in_schema = include_in_schema
        self._methods: dict[str, list[str]] = {}

    def __call__(
        self,
        method: Literal["GET", "POST"],
        path: str,
        handle: Callable[..., Any],
        answers: Answers,
        refused: Collection[int],
        *,
        name: str | None = None,
        summary: str | None = None,
    ) -> None:
        """Add a route; the greatest of the answers' codes is the usual one of a POST, the least that of a GET."""
        self._methods.setdefault(path, []).append(method)
        successes = [code for code in answers if code in (HTTPStatus.OK, HTTPStatus.ACCEPTED)]
        self._api.add_api_route(
            f"/{{instance}}{path}",
            handle,
            methods=[method],
            name=name,
            summary=summary,
            dependencies=self._dependencies,
            status_code=max(successes) if method == "POST" else min(successes),
            responses=described(answers, refused),
            response_model=None,
            response_class=JSONResponse,
            include_in_schema=self._include_in_schema,
        )

    def refuse_other_methods(self) -> None:
        """Answer other methods with 405 and all that a path takes: a router alone would tell those of one route."""
        for path, methods in self._methods.items():
            others = [method for method in METHODS if method not in methods]
            self._api.add_route(
                f"{self._api.prefix}/{{instance}}{path}", refusing(methods), methods=others, include_in_schema=False
            )


def refusing(methods: Sequence[str]) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Return a handler that names the methods that there are."""
    allowed = ", ".join(sorted(methods))

    async def refuse(request: Request) -> Response:
        answer = refused_method(request.method, allowed)
        answer.headers["Allow"] = allowed
        return answer

    return refuse


def operation_id(route: APIRoute) -> str:
    """Name an operation for its mount: `continuum_start_run` below `/continuum`."""
    mount = route.path_format.partition("/{instance}")[0]
    return "_".join(filter(None, (re.sub(r"\W+", "_", mount).strip("_"), route.name)))


def described(answers: Answers, refused: Collection[int]) -> Answers:
    """Describe a route's answers: what it gives, and each of its refusals as a problem."""
    problem = {"schema": problem_schema()}
    found: Answers = {code: dict(one) for code, one in answers.items()}
    for code in refused:
        found[code] = {"description": REFUSALS[code], "content": {MEDIA_TYPE: problem}}
        if code == HTTPStatus.SERVICE_UNAVAILABLE:
            found[code]["headers"] = RETRY
    return found
