"""`POST …/runs`: start a run by its workflow's name, and perhaps wait for its end. `POST …/batches`: start many at once."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Header
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from continuum.client.inputs import Json, Named
from continuum.client.starting import Until
from continuum.client.wire import Wire
from continuum.errors import JournalUnavailable
from continuum.http.desk import PROBE_SECONDS, Desk
from continuum.http.headers import Key, idempotency_key, path_of, preferred_wait, trace_of, values_of
from continuum.http.parameters import ABSENT, InstanceName
from continuum.http.problems import INVALID, Refusal
from continuum.http.shapes import RUN_ID, RunBatch, RunStart, RunStartOptions
from continuum.http.writing import answer, begun, ending, standing
from continuum.model.runs import Ending, RunRow
from continuum.model.states import RunState

RETRY_SECONDS = "1"  # until a client asks again for a run's end, when it did not wait for it here

StartKey = Annotated[
    Key,
    Header(
        alias="Idempotency-Key",
        description="The same key and input give the same run, per namespace and workflow, for as long as it is kept.",
        examples=["order-17"],
    ),
]
Prefer = Annotated[
    str,
    Header(description="`wait=N` waits up to N seconds for the run's end (RFC 7240).", examples=["wait=5"]),
]

EXAMPLES: Any = {
    "order": {
        "summary": "An order, found again by its customer",
        "value": {
            "workflow": "orders.fulfil",
            "input": {"order": {"id": "o-17", "cents": 4200}},
            "attributes": {"customer": "c-3"},
        },
    },
    "later": {
        "summary": "An older version, under an id of your own, tomorrow",
        "value": {
            "workflow": "orders.remind",
            "input": {"order_id": "o-17"},
            "version": 1,
            "run_id": RUN_ID,
            "start_at": "2026-03-02T08:00:00Z",
        },
    },
}


class Starting:
    """Starts runs."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def start_run(
        self,
        request: Request,
        instance: InstanceName,
        start: Annotated[RunStart, Body(openapi_examples=EXAMPLES)],
        key: StartKey = ABSENT,
        prefer: Prefer = ABSENT,  # noqa: ARG002  # declared for the schema, read from the request: it may come twice
    ) -> Response:
        """Start a run.

        Answers once the run is durable, with 202; or, with `Prefer: wait=N`, with 200 and its result if it has ended in
        time. A start that is repeated with the same `Idempotency-Key` and input finds the run that is there.
        """
        named = Named(start.workflow, start.version, Json(to_json(start.input), at="/input"))
        return await self.begin(request, instance, named, start, key, location=path_of(request))

    async def start_batch(
        self,
        request: Request,
        instance: InstanceName,
        batch: RunBatch,
    ) -> Response:
        """Start many runs in one commit, all or none.

        They are inserted for whichever node has room. A batch has no `Idempotency-Key`: what may have to be repeated is
        started run by run.
        """
        if "idempotency-key" in request.headers:
            only = "a batch has no key: start these runs one by one, each with a key of its own"
            raise Refusal(INVALID, only, errors=[{"detail": only, "parameter": "Idempotency-Key", "in": "header"}])
        calls = [
            Named(run.workflow, run.version, Json(to_json(run.input), at=f"/runs/{place}/input"))
            for place, run in enumerate(batch.runs)
        ]
        async with self._desk.patience():
            runs = await self._desk.wire(instance).start_many(
                calls,
                namespace=batch.namespace,
                attributes=batch.attributes,
                start_at=batch.start_at,
                trace_context=trace_of(request),
            )
        return answer({"items": [begun(run) for run in runs]}, 202)

    async def begin(
        self,
        request: Request,
        instance: str,
        named: Named,
        options: RunStartOptions,
        key: str | None,
        *,
        location: str,
    ) -> Response:
        """Start, wait if asked to, and answer; `location` is the path to runs."""
        wire = self._desk.wire(instance)
        wait = preferred_wait(values_of(request, "prefer"), self._desk.wait_max)
        async with self._desk.patience() as patience:
            run = await wire.start(
                named,
                run_id=options.run_id,
                idempotency_key=None if key is None else idempotency_key(key),
                namespace=options.namespace,
                attributes=options.attributes,
                start_at=options.start_at,
                trace_context=trace_of(request),
                until=Until(min(wait, PROBE_SECONDS), patience.release) if wait else None,
            )
        headers = {"Location": f"{location}/{run.run_id}"}
        if run.existing:
            headers["Idempotency-Replayed"] = "true"
        body = begun(run)
        if wait is not None:
            headers["Preference-Applied"] = f"wait={wait:g}"
        if wait is not None or run.state is RunState.BLOCKED:
            rest = max((wait or 0.0) - patience.elapsed, 0.0)
            at = run.ending or await self._outcome(request, wire, run.run_id, rest)
            if isinstance(at, Ending) and at.state.has_ended and wait is not None:
                return answer(ending(at), 200, headers)
            body |= {} if at is None else standing(at)
        return answer(body, 202, headers | {"Retry-After": RETRY_SECONDS})

    async def _outcome(self, request: Request, wire: Wire, run_id: str, seconds: float) -> Ending | RunRow | None:
        """Wait for the end of a run that is started; None: nothing can be read of it now, and it must not be started again."""
        try:
            return await self._desk.outcome(request, wire, run_id, seconds)
        except (JournalUnavailable, Refusal):
            return None
