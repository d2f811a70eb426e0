"""What servers answer, as the values and errors of the verbs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from continuum.client.reading import HistoryEvent
from continuum.errors import (
    ContinuumError,
    IdempotencyConflict,
    InputInvalid,
    InstanceDraining,
    InstanceNotRegistered,
    InstanceNotStarted,
    JournalUnavailable,
    PayloadTooLarge,
    Problem,
    RequestFailed,
    RunCancelled,
    RunExists,
    RunFailed,
    RunNotActive,
    RunNotFound,
    SignalUnknown,
    WorkflowNotFound,
)
from continuum.model.failure import Failure
from continuum.model.runs import Run
from continuum.model.states import RunState
from continuum.runtime.transport import Response

URN = "urn:continuum:problem:"
OK_MAX = 299

PROBLEMS: Mapping[str, type[ContinuumError]] = {
    "instance-not-found": InstanceNotRegistered,
    "workflow-not-found": WorkflowNotFound,
    "run-not-found": RunNotFound,
    "run-not-active": RunNotActive,
    "run-exists": RunExists,
    "idempotency-conflict": IdempotencyConflict,
    "body-too-large": PayloadTooLarge,
    "draining": InstanceDraining,
    "instance-not-started": InstanceNotStarted,
    "database-unavailable": JournalUnavailable,
}
MISFITS = frozenset({"input-invalid", "body-unreadable", "not-json"})


def body_of(response: Response) -> Any:
    """Return what a successful answer says.

    Raises:
        ContinuumError: the server refuses, and with the same error as the verb would in process.
        RequestFailed: the answer is not Continuum's.
    """
    if response.status_code <= OK_MAX:
        try:
            return json.loads(response.content)
        except ValueError as error:
            raise RequestFailed("the answer is not JSON: is there a Continuum?", status=response.status_code) from error
    raise _error_of(response)


def _error_of(response: Response) -> ContinuumError:
    try:
        problem = json.loads(response.content)
        name = str(problem["type"]).removeprefix(URN)
        detail, run_id = str(problem["detail"]), problem.get("run_id")
        if name in MISFITS:
            return InputInvalid(detail, problems=_problems(problem), run_id=run_id)
        if name == "signal-unknown":
            return SignalUnknown(detail, problems=_problems(problem), run_id=run_id)
        return PROBLEMS[name](detail, run_id=run_id)
    except (ValueError, KeyError, TypeError, AttributeError):  # a proxy's answer, or one of the host's own
        text = response.content[:200].decode(errors="replace")
        return RequestFailed(f"the server answered {response.status_code}: {text}", status=response.status_code)


def _problems(problem: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong and where: a pointer into the body, or the parameter's name as one."""
    errors = problem.get("errors", ())
    return [Problem(one.get("pointer", f"/{one.get('parameter', '')}"), one["detail"]) for one in errors]


def result_of(body: Mapping[str, Any], decode: Callable[[bytes], Any]) -> Any:
    """Return the result of a run that has ended.

    Raises:
        RunFailed, RunCancelled: it ended otherwise.
    """
    run_id = body["run_id"]
    match RunState(body["state"]):
        case RunState.COMPLETED:
            return decode(json.dumps(body.get("result")).encode())
        case RunState.CANCELLED:
            raise RunCancelled(f"run {run_id} was cancelled", run_id=run_id)
        case _:
            error = body.get("error") or {}
            kind, message = error.get("type", ""), error.get("message", "")
            raise RunFailed(
                f"run {run_id} failed: {kind}: {message}",
                run_id=run_id,
                type=kind,
                details=error.get("details"),
                causes=(kind,),
            )


def run_of(body: Mapping[str, Any]) -> Run:
    """Return a run."""
    error = body["error"]
    return Run(
        run_id=body["run_id"],
        workflow=body["workflow"],
        version=body["version"],
        namespace=body["namespace"],
        state=RunState(body["state"]),
        generation=body["generation"],
        attributes=body["attributes"],
        started_at=datetime.fromisoformat(body["started_at"]),
        ended_at=None if body["ended_at"] is None else datetime.fromisoformat(body["ended_at"]),
        blocked_reason=body["blocked_reason"],
        error=None if error is None else Failure(error["type"], error["message"], details=error["details"]),
        parent=body["parent"],
    )


def event_of(body: Mapping[str, Any]) -> HistoryEvent:
    """Return an event of a history."""
    return HistoryEvent(
        body["seq"],
        body["type"],
        datetime.fromisoformat(body["at"]),
        body["command_id"],
        body["message_id"],
        body["name"],
        body["data"],
    )
