"""What the handlers answer, as bytes: written once, not validated again by the framework."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json, to_json
from starlette.responses import Response

from continuum.client.wire import Begun, PlacedEvent, Position
from continuum.model.failure import Failure
from continuum.model.runs import Ending, Run, RunRow
from continuum.model.states import RunState


def answer(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response; a NaN, which JSON does not have, becomes null."""
    return Response(to_json(body, inf_nan_mode="null"), status, headers=headers, media_type="application/json")


def begun(run: Begun) -> dict[str, Any]:
    """Describe a run that was started."""
    return {
        "run_id": run.run_id,
        "workflow": run.workflow,
        "version": run.version,
        "namespace": run.namespace,
        "state": run.state,
        "blocked_reason": None,
    }


def standing(at: RunRow | Ending) -> dict[str, Any]:
    """Describe where a run stands."""
    reason = at.reason if at.state is RunState.BLOCKED else None
    return {"run_id": at.run_id, "state": at.state, "blocked_reason": reason}


def ending(end: Ending) -> dict[str, Any]:
    """Describe how a run ended."""
    body: dict[str, Any] = {"run_id": end.run_id, "state": end.state}
    if end.state is RunState.COMPLETED:
        body["result"] = from_json(end.payload or b"null")
    elif end.state is RunState.FAILED:
        body["error"] = failure(Failure.decode(end.payload) if end.payload is not None else None)
    return body


def failure(error: Failure | None) -> dict[str, Any] | None:
    """Describe why a run failed; its traceback is for operators, not for clients."""
    return None if error is None else {"type": error.type, "message": error.message, "details": error.details}


def detail(run: Run) -> dict[str, Any]:
    """Describe a run."""
    return {
        "run_id": run.run_id,
        "workflow": run.workflow,
        "version": run.version,
        "namespace": run.namespace,
        "state": run.state,
        "generation": run.generation,
        "attributes": run.attributes,
        "started_at": moment(run.started_at),
        "ended_at": run.ended_at and moment(run.ended_at),
        "blocked_reason": run.blocked_reason,
        "error": failure(run.error),
        "parent": run.parent,
    }


def event(placed: PlacedEvent) -> dict[str, Any]:
    """Describe an event."""
    at = placed.position
    return {
        "id": event_id(at),
        "generation": at.generation,
        "seq": at.seq,
        "type": placed.event.type,
        "at": moment(placed.event.at),
        "command_id": placed.event.command_id,
        "message_id": placed.event.message_id,
        "name": placed.event.name,
        "data": placed.event.data,
    }


def event_id(at: Position) -> str:
    """Write a position: `17` in the first generation, `2.17` in the second."""
    return str(at.seq) if at.generation == 1 else f"{at.generation}.{at.seq}"


def position(text: str) -> Position:
    """Read what `event_id` wrote."""
    generation, dot, seq = text.rpartition(".")
    return Position(int(generation) if dot else 1, int(seq))


def moment(at: datetime) -> str:
    """Write a time: RFC 3339 in UTC, with `Z`."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
