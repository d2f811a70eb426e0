"""What goes over the wire: the bodies of requests and answers, as pydantic models and so as OpenAPI.

All are named `Run…` or `Instance…`: two models of one name in an application would rename the host's in its schema. Those
of requests refuse fields that they do not know. Those of answers describe what the handlers write as bytes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from continuum.model.names import NAME_MAX
from continuum.model.states import RunState

RUN_ID = "0198f3c2-7d3e-7c62-a7a4-0d5f0f8b7a11"
STARTED_AT = "2026-03-01T09:30:00.125000Z"

Ended = Literal["completed", "failed", "cancelled"]
# As `client.inputs.short_name` has it: no control characters.
ShortName = Annotated[str, Field(min_length=1, max_length=NAME_MAX, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]


def _written(value: Any) -> Any:
    if value is not None and not (isinstance(value, str) and "T" in value.upper()):
        raise ValueError("a time is written as RFC 3339 has it: 2026-03-02T08:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_written)]  # pydantic takes numbers as well, which the schema denies


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [fields]})


class RunSetting(BaseModel):
    """What several runs may have in common."""

    model_config = ConfigDict(extra="forbid")

    namespace: ShortName = Field("default", description="Groups runs.")
    attributes: dict[str, Any] | None = Field(None, description="A small JSON object to find the run by.")
    start_at: Moment | None = Field(None, description="A time before which the run does not begin.")


class RunStartOptions(RunSetting):
    """What a caller may decide about a start."""

    run_id: UUID | None = Field(None, description="A UUID of your own; by default a new UUIDv7.")


class RunCall(BaseModel):
    """Which workflow to run, and with what."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"workflow": "orders.remind", "input": {"order_id": "o-17"}}]},
    )

    workflow: ShortName = Field(description="The name of a registered workflow.")
    version: int | None = Field(
        None, ge=1, strict=True, description="One of its versions; the newest registered by default."
    )
    input: dict[str, Any] = Field(default_factory=dict, description="The workflow's arguments by parameter name.")


class RunStart(RunCall, RunStartOptions):
    """Which workflow to start, and with what."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "workflow": "orders.fulfil",
                    "input": {"order": {"id": "o-17", "cents": 4200}},
                    "attributes": {"customer": "c-3"},
                }
            ]
        },
    )


class RunBatch(RunSetting):
    """Runs that are started together, all or none."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "runs": [
                        {"workflow": "orders.remind", "input": {"order_id": "o-17"}},
                        {"workflow": "orders.remind", "input": {"order_id": "o-18"}},
                    ],
                    "attributes": {"campaign": "spring"},
                }
            ]
        },
    )

    runs: list[RunCall] = Field(description="As many as the body may hold.")


class RunCancel(BaseModel):
    """How to cancel."""

    model_config = ConfigDict(extra="forbid")

    compensate: bool = Field(False, description="Whether what the run owes is undone first, newest first.")


class RunStarted(BaseModel):
    """A run that is under way. `blocked_reason` says why it cannot go on, if it cannot."""

    model_config = _example(
        run_id=RUN_ID, workflow="orders.fulfil", version=1, namespace="default", state="running", blocked_reason=None
    )

    run_id: str
    workflow: str
    version: int
    namespace: str
    state: RunState
    blocked_reason: str | None = None


class RunBatchStarted(BaseModel):
    """The runs of a batch, in the order of the request."""

    model_config = _example(
        items=[
            {
                "run_id": RUN_ID,
                "workflow": "orders.remind",
                "version": 1,
                "namespace": "default",
                "state": "pending",
                "blocked_reason": None,
            }
        ]
    )

    items: list[RunStarted]


class RunFailure(BaseModel):
    """Why a run failed: the class of its exception, its message, and the details of an `ActivityError`."""

    type: str
    message: str
    details: Any = None


class RunEnding(BaseModel):
    """How a run ended: with a result if completed, with an error if failed. A failed run is a successful answer."""

    model_config = _example(run_id=RUN_ID, state="completed", result={"label": "L-17"})

    run_id: str
    state: Ended
    result: Any = None
    error: RunFailure | None = None


class RunWaiting(BaseModel):
    """A run that has not ended yet. `blocked_reason` says why it cannot go on, if it cannot."""

    model_config = _example(run_id=RUN_ID, state="suspended", blocked_reason=None)

    run_id: str
    state: RunState
    blocked_reason: str | None = None


class RunDetail(BaseModel):
    """A run: `error` if it failed, `blocked_reason` if its code must be mended, `parent` if it is a child."""

    model_config = _example(
        run_id=RUN_ID,
        workflow="orders.fulfil",
        version=1,
        namespace="default",
        state="suspended",
        generation=1,
        attributes={"customer": "c-3"},
        started_at=STARTED_AT,
        ended_at=None,
        blocked_reason=None,
        error=None,
    )

    run_id: str
    workflow: str
    version: int
    namespace: str
    state: RunState
    generation: int
    attributes: dict[str, Any]
    started_at: datetime
    ended_at: datetime | None
    blocked_reason: str | None
    error: RunFailure | None
    parent: str | None = None


class RunPage(BaseModel):
    """Some runs, newest first; `next_cursor` asks for more, null: that was all."""

    items: list[RunDetail]
    next_cursor: str | None


class RunEvent(BaseModel):
    """One record of a run's history. `id` is its position: a cursor, and what `Last-Event-ID` takes."""

    model_config = _example(
        id="2",
        generation=1,
        seq=2,
        type="activity_scheduled",
        at=STARTED_AT,
        command_id=1,
        message_id=None,
        name="payments.charge",
        data={"order_id": "o-17", "cents": 4200},
    )

    id: str
    generation: int
    seq: int
    type: str
    at: datetime
    command_id: int | None
    message_id: str | None
    name: str | None
    data: Any


class RunEventPage(BaseModel):
    """Some of a history, oldest first; `next_cursor` asks for more, null: that was all for now."""

    items: list[RunEvent]
    next_cursor: str | None


class RunSignalled(BaseModel):
    """Whether a signal was delivered now, or had been before under the same key."""

    model_config = _example(status="delivered")

    status: Literal["delivered", "duplicate"]


class RunCancelled(BaseModel):
    """Whether a run is cancelled, or will be by the node that holds it."""

    model_config = _example(status="cancelled")

    status: Literal["cancelled", "requested"]


class InstanceLive(BaseModel):
    """The process answers."""

    model_config = _example(status="live", instance="orders")

    status: Literal["live"]
    instance: str


class InstanceReady(BaseModel):
    """Whether the instance takes work; `details` says what keeps it from it."""

    model_config = _example(state="ready", instance="orders", details=[])

    state: Literal["ready", "draining", "drained", "degraded", "not_started"]
    instance: str
    details: list[str]
