"""From rows to values, and back where a value becomes several columns."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from continuum.journal.port import BadData
from continuum.journal.sql.dialects import Dialect
from continuum.model.events import EVENT_FORMAT, Event, EventType
from continuum.model.messages import MESSAGE_FORMAT, Message, MessageKind
from continuum.model.runs import Attributes, RunRow
from continuum.model.states import RunState
from continuum.model.tasks import Attempt, TaskKey

# Three times quicker than calling the Enum; and a name that is not there is no error, see `event`.
_EVENT_TYPES = {kind.value: kind for kind in EventType}
_MESSAGE_KINDS = {kind.value: kind for kind in MessageKind}


class Reader:
    """Makes values of the rows of a dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._moment = dialect.moment

    def moment(self, stored: Any) -> datetime:
        """Return a stored time."""
        return self._moment(stored)

    def maybe(self, stored: Any) -> datetime | None:
        """Return a stored time, if there is one."""
        return None if stored is None else self._moment(stored)

    def run(self, row: Row[Any]) -> RunRow:
        """Return a run's row."""
        return RunRow(
            run_id=row.run_id,
            workflow=row.workflow,
            version=row.version,
            namespace=row.namespace,
            state=RunState(row.state),
            generation=row.generation,
            last_seq=row.last_seq,
            lease_owner=row.lease_owner,
            lease_token=row.lease_token,
            wake_at=self.maybe(row.wake_at),
            created_at=self._moment(row.created_at),
            ended_at=self.maybe(row.ended_at),
            attributes=_attributes(row.attributes),
            idempotency_key=row.idempotency_key,
            fingerprint=row.fingerprint,
            crashes=row.crashes,
            reason=row.reason,
            retention_seconds=row.retention_seconds,
            retention_until=self.maybe(row.retention_until),
            trace_context=row.trace_context,
            parent_id=row.parent_id,
            depth=row.depth,
        )

    def event(self, row: Row[Any]) -> Event:
        """Return an event. One of a newer format keeps its number, by which the caller leaves the run to others.

        A type that this version does not know can only come from a newer one: whatever type it gets here, its format
        says that nobody may act on it.
        """
        kind = _EVENT_TYPES.get(row.type)
        return Event(
            seq=row.seq,
            type=kind or EventType.STARTED,
            at=self._moment(row.at),
            command_id=row.command_id,
            message_id=row.message_id,
            name=row.name,
            payload=row.payload,
            key=row.key,
            format=row.format if kind else max(row.format, EVENT_FORMAT + 1),
        )

    def message(self, row: Row[Any]) -> Message:
        """Return a message; of an unknown format as for events."""
        kind = _MESSAGE_KINDS.get(row.kind)
        return Message(
            message_id=row.message_id,
            run_id=row.run_id,
            kind=kind or MessageKind.SIGNAL,
            name=row.name,
            payload=row.payload,
            generation=row.generation,
            command_id=row.command_id,
            delivery_id=row.delivery_id,
            at=self._moment(row.at),
            format=row.format if kind else max(row.format, MESSAGE_FORMAT + 1),
        )


def _attributes(stored: Any) -> Attributes | None:
    """Return stored attributes; on a host's connection its driver may have read the JSON already."""
    attributes: Attributes | None = json.loads(stored) if isinstance(stored, str) else stored
    return attributes


def task_key(row: Row[Any]) -> TaskKey:
    """Return a task's key."""
    return TaskKey(row.run_id, row.generation, row.command_id)


def attempt_columns(attempt: Attempt) -> tuple[str, int, int, str, int]:
    """Return what fences an attempt: run, generation, command, owner, attempt."""
    key = attempt.key
    return key.run_id, key.generation, key.command_id, attempt.owner, attempt.attempt


def runs_of(cells: Iterable[tuple[object, ...]]) -> list[object]:
    """Return the runs that rows concern, each once; they stand first in each row."""
    return list(dict.fromkeys(row[0] for row in cells))


def message_columns(message: Message) -> dict[str, object]:
    """Return a message as the columns of `inbox`, without its time."""
    return {
        "id": message.message_id,
        "run_id": message.run_id,
        "kind": message.kind,
        "name": message.name,
        "generation": message.generation,
        "command_id": message.command_id,
        "delivery_id": message.delivery_id,
        "payload": message.payload,
        "format": message.format,
    }


def encoded_attributes(attributes: Attributes | None, *, run_id: str | None = None) -> str | None:
    """Return attributes as JSON text.

    Raises:
        BadData: they are not JSON.
    """
    if attributes is None:
        return None
    try:
        return json.dumps(dict(attributes), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadData(f"the attributes are not JSON: {error}", run_id=run_id) from error
