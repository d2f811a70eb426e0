"""Asking about runs: one, many, and how one ended."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from continuum.client.inputs import attribute_of_text, wanted_of
from continuum.client.reading import CURSOR_PATTERN, PAGE_MAX
from continuum.errors import DurableValueError, InputInvalid
from continuum.http.desk import WAIT_MAX_SECONDS, Desk
from continuum.http.headers import next_link, path_of
from continuum.http.parameters import ABSENT, InstanceName, RunId
from continuum.http.problems import INVALID, Refusal
from continuum.http.shapes import ShortName
from continuum.http.writing import answer, detail, ending, standing
from continuum.model.runs import Ending
from continuum.model.states import RunState

Cursor = Annotated[str, Field(pattern=f"^({CURSOR_PATTERN})?$")]  # an empty one is none
Seconds = Annotated[float, Field(ge=0, le=WAIT_MAX_SECONDS)]

ATTRIBUTE = "attr."
RETRY_SECONDS = {"Retry-After": "1"}
RETRY_BLOCKED_SECONDS = {"Retry-After": "30"}  # code must be mended and deployed


class Reading:
    """Reads runs."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def get_run(self, instance: InstanceName, run_id: RunId) -> Response:
        """Read a run."""
        async with self._desk.patience():
            return answer(detail(await self._desk.instance(instance).get_run(run_id)))

    async def await_run(
        self,
        request: Request,
        instance: InstanceName,
        run_id: RunId,
        timeout: Annotated[Seconds, Query(description="Seconds to wait.")] = WAIT_MAX_SECONDS,
    ) -> Response:
        """Wait for a run's end.

        Answers 200 when it has ended, and how: a failed run is a successful answer. Answers 202 when it has not within
        the time, when this node begins to shut down, and when the run is blocked until its code is mended.
        """
        wire = self._desk.wire(instance)
        at = await self._desk.outcome(request, wire, str(run_id), min(timeout, self._desk.wait_max))
        if isinstance(at, Ending) and at.state.has_ended:
            return answer(ending(at))
        retry = RETRY_BLOCKED_SECONDS if at.state is RunState.BLOCKED else RETRY_SECONDS
        return answer(standing(at), 202, retry)

    async def list_runs(
        self,
        request: Request,
        instance: InstanceName,
        state: Annotated[RunState, Query(description="Only those in this state.")] = ABSENT,
        workflow: Annotated[ShortName, Query(description="Only those of this workflow.")] = ABSENT,
        namespace: Annotated[ShortName, Query(description="Only those of this namespace.")] = ABSENT,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="How many at most.")] = 100,
        cursor: Annotated[Cursor, Query(description="A `next_cursor`: the page after that one.")] = ABSENT,
    ) -> Response:
        """List runs, newest first.

        `attr.k=v` lists those whose attribute `k` is `v`; several must all be so. A value that is JSON (`3`, `true`,
        `"42"`) means that value, any other the text as it stands; a list (`["a"]`) finds lists that have all of it.
        `Link` leads to the next page.
        """
        try:
            async with self._desk.patience():
                page = await self._desk.instance(instance).list_runs(
                    workflow=workflow,
                    state=state,
                    namespace=namespace,
                    attributes=_attributes(request),
                    limit=limit,
                    cursor=cursor or None,
                )
        except InputInvalid as error:
            raise _unfit(error.path.removeprefix("/"), error.message) from error
        headers = {}
        if page.next_cursor is not None:
            headers["Link"] = next_link(path_of(request), dict(request.query_params), page.next_cursor)
        return answer({"items": [detail(run) for run in page.items], "next_cursor": page.next_cursor}, 200, headers)


def _attributes(request: Request) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for parameter, text in request.query_params.multi_items():
        name = parameter.removeprefix(ATTRIBUTE)
        if parameter.startswith(ATTRIBUTE) and name in found:
            raise _unfit(parameter, f"{parameter} is given twice: a list that must have both is [1, 2]")
        if parameter.startswith(ATTRIBUTE):
            found[name] = attribute_of_text(text)
    try:
        return wanted_of(found)
    except DurableValueError as error:
        _, _, token = error.path.removeprefix("/").partition("/")
        name = token.partition("/")[0].replace("~1", "/").replace("~0", "~")
        raise _unfit(ATTRIBUTE + name, error.message) from error


def _unfit(parameter: str, message: str) -> Refusal:
    return Refusal(INVALID, message, errors=[{"detail": message, "parameter": parameter, "in": "query"}])
