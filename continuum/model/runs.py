"""One durable execution of a workflow, as the journal keeps it and as callers see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec import Struct

from continuum.model.failure import Failure
from continuum.model.states import RunState

Attributes = Mapping[str, Any]


class RunRow(Struct, frozen=True, gc=False):
    """A row of `continuum_runs`: narrow and hot, without payloads."""

    run_id: str
    workflow: str
    version: int
    namespace: str
    state: RunState
    generation: int
    last_seq: int
    lease_owner: str | None
    lease_token: int
    wake_at: datetime | None
    created_at: datetime
    ended_at: datetime | None = None
    attributes: Attributes | None = None
    idempotency_key: str | None = None
    fingerprint: bytes | None = None
    crashes: int = 0
    reason: str | None = None
    retention_seconds: float | None = None
    retention_until: datetime | None = None
    trace_context: str | None = None
    parent_id: str | None = None
    depth: int = 0


class NewRun(Struct, frozen=True, gc=False):
    """What a start decides about a run before it exists."""

    run_id: str
    workflow: str
    version: int
    namespace: str = "default"
    attributes: Attributes | None = None
    idempotency_key: str | None = None
    fingerprint: bytes | None = None
    retention_seconds: float | None = None
    trace_context: str | None = None


class NewChild(Struct, frozen=True, gc=False):
    """A run that its parent's commit inserts, pending, for whoever claims it.

    Namespace, attributes and trace are the parent's. `taken` is the encoded failure that the parent hears if somebody
    else's run has this id.
    """

    run_id: str
    command_id: int
    workflow: str
    version: int
    arguments: bytes
    namespace: str
    depth: int
    fingerprint: bytes
    at: datetime
    taken: bytes
    retention_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run as callers see it: `error` of failed runs, `blocked_reason` of blocked ones, `parent` of children."""

    run_id: str
    workflow: str
    version: int
    namespace: str
    state: RunState
    generation: int
    attributes: Attributes
    started_at: datetime
    ended_at: datetime | None = None
    blocked_reason: str | None = None
    error: Failure | None = None
    parent: str | None = None


class Ending(Struct, frozen=True, gc=False):
    """How a run ended, or that it is blocked: all that an awaiting caller needs."""

    run_id: str
    state: RunState
    payload: bytes | None = None  # the result of a completed run, the encoded Failure of a failed one
    reason: str | None = None


class Standing(Struct, frozen=True):
    """How a run stands for a caller who waits for it or follows it: how far it has come, its end, or who holds it."""

    run_id: str
    state: RunState
    generation: int
    last_seq: int
    lease_owner: str | None
    ending: Ending | None
