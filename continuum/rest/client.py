# long: every verb with its types, twice where they are overloaded
"""The client: each verb is a request or two."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, TypeVarTuple, Unpack, overload
from urllib.parse import quote
from uuid import UUID

from continuum.client.contracts import encoded
from continuum.client.inputs import run_id_of, short_name, wanted_of
from continuum.client.reading import HistoryEvent, Page
from continuum.clock import Clock, SystemClock
from continuum.codec import shape_of
from continuum.definitions.calls import Call
from continuum.definitions.handles import HostSession, RunHandle
from continuum.definitions.workflow import Workflow
from continuum.errors import (
    InputInvalid,
    NotAllowedHere,
    ResultTimedOut,
    RunBlocked,
    SessionInvalid,
    SignalInvalid,
)
from continuum.model.attributes import AttributeValue
from continuum.model.policy import Duration, seconds
from continuum.model.runs import Run
from continuum.model.states import RunState
from continuum.rest.answers import body_of, event_of, result_of, run_of
from continuum.rest.requests import each_named, given, named, setting
from continuum.rest.sending import Sender
from continuum.runtime.tracing import TraceContext, trace_context_of
from continuum.runtime.transport import HttpClient

A = TypeVar("A")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")
Flow = Callable[[Unpack[Ts]], Coroutine[Any, Any, R]]

POLL_SECONDS = 25.0  # of one long poll: below the 30 s that servers allow, and the 60 s of most proxies
SLACK_SECONDS = 10.0  # for an answer, on top of what a request asks to wait
PAUSE_SECONDS = 1.0  # before asking again, when a server answers early: it shuts down, or the run is blocked
EVENTS_PAGE = 1_000


class Client:
    """The verbs of the instances that a server hosts.

    Args:
        base_url: where the server has mounted `continuum.http.router`, prefix included.
        instance: the one that a verb means which is not told otherwise.
        http: an `httpx.AsyncClient` of your own, or what has its interface (it carries your authentication, and is
            yours to close); by default one is made when the client is first used.
        headers: sent with every request, such as `Authorization`.
        timeout: seconds or timedelta for an answer that nobody waits for.
    """

    def __init__(
        self,
        base_url: str,
        *,
        instance: str = "continuum",
        http: HttpClient | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Duration = SLACK_SECONDS,
        connections: int = 100,
    ) -> None:
        self._sender = Sender(
            base_url,
            instance=instance,
            http=http,
            headers=headers,
            timeout_seconds=seconds(timeout, name="timeout"),
            connections=connections,
        )
        self._clock: Clock = SystemClock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, if they are our own."""
        await self._sender.close()

    # --- the verbs ----------------------------------------------------------------------------------------------------

    @overload
    async def start(
        self,
        flow: Flow[*Ts, R],
        /,
        *args: *Ts,
        instance: str | None = ...,
        run_id: str | UUID | None = ...,
        idempotency_key: str | None = ...,
        namespace: str = ...,
        attributes: Mapping[str, Any] | None = ...,
        start_at: datetime | None = ...,
        trace_context: TraceContext | None = ...,
    ) -> RunHandle[R]: ...
    @overload
    async def start(
        self,
        flow: Call[R],
        /,
        *,
        instance: str | None = ...,
        run_id: str | UUID | None = ...,
        idempotency_key: str | None = ...,
        namespace: str = ...,
        attributes: Mapping[str, Any] | None = ...,
        start_at: datetime | None = ...,
        trace_context: TraceContext | None = ...,
    ) -> RunHandle[R]: ...
    @overload
    async def start(
        self,
        flow: str,
        input: Mapping[str, Any] = ...,
        /,
        *,
        instance: str | None = ...,
        run_id: str | UUID | None = ...,
        idempotency_key: str | None = ...,
        namespace: str = ...,
        attributes: Mapping[str, Any] | None = ...,
        start_at: datetime | None = ...,
        trace_context: TraceContext | None = ...,
    ) -> RunHandle[object]: ...
    async def start(  # type: ignore[misc]  # mypy does not see that Any takes a TypeVarTuple's arguments
        self,
        flow: Any,
        /,
        *args: Any,  # typed by the overloads
        instance: str | None = None,
        run_id: str | UUID | None = None,
        idempotency_key: str | None = None,
        namespace: str = "default",
        attributes: Mapping[str, Any] | None = None,
        start_at: datetime | None = None,
        trace_context: TraceContext | None = None,
    ) -> RunHandle[Any]:
        """Start a run in the server's newest version of a workflow; see `continuum.start`.

        Args:
            flow: a workflow followed by its arguments, `flow.bound(...)`, or, where its code is not at hand, its name
                followed by its input by parameter name.

        Raises:
            As `continuum.start`; RequestFailed: the server cannot be reached, or is not Continuum.
        """
        workflow, name, arguments = named(flow, args)
        body: dict[str, Any] = {
            "workflow": name,
            "input": arguments,
            "run_id": None if run_id is None else run_id_of(run_id),
            **setting(namespace, attributes, start_at),
        }
        trace = None if trace_context is None else trace_context_of(trace_context)
        response = await self._sender.ask("POST", instance, "/runs", body=given(body), key=idempotency_key, trace=trace)
        existing = response.headers.get("Idempotency-Replayed") == "true"
        return self._handle(body_of(response)["run_id"], workflow, instance, existing=existing)

    @overload
    async def start_many(
        self,
        flow: Callable[[A], Coroutine[Any, Any, R]],
        inputs: Iterable[A],
        /,
        *,
        instance: str | None = ...,
        namespace: str = ...,
        attributes: Mapping[str, Any] | None = ...,
        start_at: datetime | None = ...,
        trace_context: TraceContext | None = ...,
    ) -> list[RunHandle[R]]: ...
    @overload
    async def start_many(
        self,
        calls: Iterable[Call[R]],
        /,
        *,
        instance: str | None = ...,
        namespace: str = ...,
        attributes: Mapping[str, Any] | None = ...,
        start_at: datetime | None = ...,
        trace_context: TraceContext | None = ...,
    ) -> list[RunHandle[R]]: ...
    @overload
    async def start_many(
        self,
        flow: str,
        inputs: Iterable[Mapping[str, Any]],
        /,
        *,
        instance: str | None = ...,
        namespace: str = ...,
        attributes: Mapping[str, Any] | None = ...,
        start_at: datetime | None = ...,
        trace_context: TraceContext | None = ...,
    ) -> list[RunHandle[object]]: ...
    async def start_many(
        self,
        flow: Any,
        inputs: Iterable[Any] | None = None,
        /,
        *,
        instance: str | None = None,
        namespace: str = "default",
        attributes: Mapping[str, Any] | None = None,
        start_at: datetime | None = None,
        trace_context: TraceContext | None = None,
    ) -> list[RunHandle[Any]]:
        """Start many runs in one commit, all or none; see `continuum.start_many`.

        Args:
            flow: a workflow, or its name, followed by an input for each run; or what `.bound()` made, for each run.
            inputs: by parameter name each, where the workflow is given by its name.

        Raises:
            As `continuum.start_many`; RequestFailed: there is no answer. All may have been started then, or none.
        """
        wanted = each_named(flow, inputs)
        body = {
            "runs": [{"workflow": name, "input": arguments} for _, name, arguments in wanted],
            **setting(namespace, attributes, start_at),
        }
        trace = None if trace_context is None else trace_context_of(trace_context)
        items = body_of(await self._sender.ask("POST", instance, "/batches", body=given(body), trace=trace))["items"]
        return [
            self._handle(item["run_id"], workflow, instance)
            for item, (workflow, _, _) in zip(items, wanted, strict=True)
        ]

    @overload
    def handle(self, run_id: str | UUID, /, *, instance: str | None = ...) -> RunHandle[object]: ...
    @overload
    def handle(
        self, run_id: str | UUID, workflow: Workflow[..., R], /, *, instance: str | None = ...
    ) -> RunHandle[R]: ...
    def handle(
        self, run_id: str | UUID, workflow: Workflow[..., Any] | None = None, /, *, instance: str | None = None
    ) -> RunHandle[Any]:
        """Return the handle of a run, as `workflow.handle(run_id)` does in process; nothing is asked."""
        return self._handle(run_id_of(run_id), workflow, instance)

    def _handle(
        self, run_id: str, workflow: Workflow[..., Any] | None, instance: str | None, *, existing: bool = False
    ) -> RunHandle[Any]:
        verbs = _At(self, instance)
        return RunHandle(run_id, workflow, lambda: verbs, existing=existing)

    async def signal(
        self,
        run_id: str | UUID,
        name: str,
        payload: object = None,
        /,
        *,
        instance: str | None = None,
        delivery_id: str | None = None,
    ) -> Literal["delivered", "duplicate"]:
        """Send a run a signal; see `continuum.signal`."""
        path = f"/runs/{run_id_of(run_id)}/signals/{_in_path(short_name(name, 'name'))}"
        sent = encoded(None, name, payload, run_id=run_id_of(run_id))
        answer = await self._sender.ask("POST", instance, path, content=sent, key=delivery_id)
        try:
            said = body_of(answer)
        except SignalInvalid:
            raise
        except InputInvalid as error:
            raise SignalInvalid(error.message, problems=error.problems, run_id=error.run_id) from error
        status: Literal["delivered", "duplicate"] = said["status"]
        return status

    async def cancel(
        self, run_id: str | UUID, /, *, compensate: bool = False, instance: str | None = None
    ) -> Literal["cancelled", "requested"]:
        """Cancel a run; see `continuum.cancel`."""
        path = f"/runs/{run_id_of(run_id)}/cancel"
        said = body_of(await self._sender.ask("POST", instance, path, body={"compensate": compensate}))
        status: Literal["cancelled", "requested"] = said["status"]
        return status

    @overload
    async def await_run(
        self,
        run_id: str | UUID,
        /,
        *,
        timeout: Duration | None = ...,
        wait_blocked: bool = ...,
        instance: str | None = ...,
    ) -> object: ...
    @overload
    async def await_run(
        self,
        run_id: str | UUID,
        workflow: Workflow[..., R],
        /,
        *,
        timeout: Duration | None = ...,
        wait_blocked: bool = ...,
        instance: str | None = ...,
    ) -> R: ...
    async def await_run(
        self,
        run_id: str | UUID,
        workflow: Workflow[..., Any] | None = None,
        /,
        *,
        timeout: Duration | None = None,
        wait_blocked: bool = False,
        instance: str | None = None,
    ) -> Any:
        """Wait for a run's end by long polls; see `continuum.await_run`."""
        limit = None if timeout is None else seconds(timeout, name="timeout")
        deadline = None if limit is None else self._clock.monotonic() + limit
        run_id = run_id_of(run_id)
        while True:
            began = self._clock.monotonic()
            wait = POLL_SECONDS if deadline is None else min(max(deadline - began, 0.0), POLL_SECONDS)
            response = await self._sender.ask(
                "GET", instance, f"/runs/{run_id}/await", params={"timeout": f"{wait:.3f}"}, wait=wait
            )
            body = body_of(response)
            if response.status_code == HTTPStatus.OK:  # a 202 may show a state that ends runs, never how it ended
                return result_of(body, (workflow.signature.result if workflow else shape_of(object)).decode)
            if body["state"] == RunState.BLOCKED and not wait_blocked:
                reason = body.get("blocked_reason") or "no reason was recorded"
                raise RunBlocked(
                    f"run {run_id} is blocked until its code is mended: {reason}", run_id=run_id, reason=reason
                )
            now = self._clock.monotonic()
            if deadline is not None and now >= deadline:
                raise ResultTimedOut(f"run {run_id} did not end within {limit:g} s; it goes on", run_id=run_id)
            if now - began < wait:
                rest = PAUSE_SECONDS if deadline is None else min(PAUSE_SECONDS, deadline - now)
                await self._clock.sleep(rest)

    async def get_run(self, run_id: str | UUID, /, *, instance: str | None = None) -> Run:
        """Read a run; see `continuum.get_run`."""
        return run_of(body_of(await self._sender.ask("GET", instance, f"/runs/{run_id_of(run_id)}")))

    async def list_runs(
        self,
        *,
        workflow: str | Workflow[..., Any] | None = None,
        state: RunState | str | None = None,
        namespace: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        limit: int = 100,
        cursor: str | None = None,
        instance: str | None = None,
    ) -> Page[Run]:
        """List runs, newest first; see `continuum.list_runs`."""
        params = {
            "workflow": workflow.name if isinstance(workflow, Workflow) else workflow,
            "state": None if state is None else str(state),
            "namespace": namespace,
            "limit": str(limit),
            "cursor": cursor,
            **{f"attr.{key}": json.dumps(value) for key, value in (wanted_of(attributes) or {}).items()},
        }
        page = body_of(await self._sender.ask("GET", instance, "/runs", params=given(params)))
        return Page(tuple(run_of(item) for item in page["items"]), page["next_cursor"])

    async def history(
        self, run_id: str | UUID, /, *, generation: int | None = None, instance: str | None = None
    ) -> list[HistoryEvent]:
        """Read a run's history, by default that of its present generation; see `continuum.history`."""
        path = f"/runs/{run_id_of(run_id)}"
        if generation is None:
            generation = run_of(body_of(await self._sender.ask("GET", instance, path))).generation
        events: list[Any] = []
        cursor: str | None = f"{generation}.0"
        while cursor is not None:
            params = {"limit": str(EVENTS_PAGE), "cursor": cursor}
            page = body_of(await self._sender.ask("GET", instance, f"{path}/events", params=params))
            own = [event for event in page["items"] if event["generation"] == generation]
            events += own
            cursor = page["next_cursor"] if len(own) == len(page["items"]) else None
        return [event_of(event) for event in events]


class _At:
    """The verbs that a handle needs, of the instance that its run is in (see `definitions.handles.Verbs`)."""

    def __init__(self, client: Client, instance: str | None) -> None:
        self._client = client
        self._instance = instance

    async def result_of(self, run_id: str, workflow: Any, *, timeout: Duration | None, wait_blocked: bool) -> Any:
        return await self._client.await_run(
            run_id, workflow, timeout=timeout, wait_blocked=wait_blocked, instance=self._instance
        )

    async def signal(
        self,
        run_id: str,
        name: str,
        payload: object = None,
        /,
        *,
        delivery_id: str | None = None,
        session: HostSession | None = None,
    ) -> Literal["delivered", "duplicate"]:
        _expect_no_session(session)
        return await self._client.signal(run_id, name, payload, delivery_id=delivery_id, instance=self._instance)

    async def cancel(
        self, run_id: str, /, *, compensate: bool = False, session: HostSession | None = None
    ) -> Literal["cancelled", "requested"]:
        _expect_no_session(session)
        return await self._client.cancel(run_id, compensate=compensate, instance=self._instance)

    async def set_attributes(self, run_id: str, attributes: Mapping[str, AttributeValue], /) -> None:  # noqa: ARG002
        raise NotAllowedHere(
            "there is no route by which attributes are set: do it in process, or in the workflow", run_id=run_id
        )

    async def get_run(self, run_id: str, /) -> Run:
        return await self._client.get_run(run_id, instance=self._instance)


def _in_path(name: str) -> str:
    """Write a name as a part of a path: one of dots alone, which is a direction there, with none of them."""
    quoted = quote(name, safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def _expect_no_session(session: HostSession | None) -> None:
    if session is not None:
        raise SessionInvalid(
            "session= has nothing to do with a request to a server: it works in the server's own process"
        )
