"""A prefix of a history as one blob: JSON, compressed.

The same events come out, so whoever loads a run takes the same path with a snapshot as without. A payload is text when
it is UTF-8, which JSON always is; sealed or compressed ones are base64. Never a pickle: a blob outlives the code that
wrote it. The number of the format stands in the blob and beside it in the table, so that a node that meets another one
reads the events instead, which are all still there.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from continuum.model.events import Event, EventType

SNAPSHOT_FORMAT = 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LEVEL = 1  # histories repeat themselves: level 9 takes five times as long for a tenth less


def pack_history(events: Sequence[Event]) -> bytes:
    """Return the events as a blob."""
    body = {"format": SNAPSHOT_FORMAT, "events": [_cells(event) for event in events]}
    return zlib.compress(json.dumps(body, separators=(",", ":")).encode(), _LEVEL)


def unpack_history(blob: bytes) -> tuple[Event, ...]:
    """Return the events of a blob.

    Raises:
        ValueError: it is not one of ours, or of another format.
    """
    try:
        body = json.loads(zlib.decompress(blob))
    except zlib.error as error:
        raise ValueError(f"not a packed history: {error}") from error
    if not isinstance(body, dict) or body.get("format") != SNAPSHOT_FORMAT:
        raise ValueError(f"a packed history of format {SNAPSHOT_FORMAT} was expected")
    return tuple(_event(cells) for cells in body["events"])


def _cells(event: Event) -> list[Any]:
    return [
        event.seq,
        event.type.value,
        (event.at - _EPOCH) // _MICROSECOND,
        event.command_id,
        event.message_id,
        event.name,
        _packed(event.payload),
        event.key,
        event.format,
    ]


def _event(cells: list[Any]) -> Event:
    seq, kind, at, command_id, message_id, name, payload, key, number = cells
    return Event(
        seq=seq,
        type=EventType(kind),
        at=_EPOCH + at * _MICROSECOND,
        command_id=command_id,
        message_id=message_id,
        name=name,
        payload=_unpacked(payload),
        key=key,
        format=number,
    )


def _packed(payload: bytes | None) -> str | list[str] | None:
    """Return a payload as text, or in a list of its own as base64."""
    if payload is None:
        return None
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return [base64.b64encode(payload).decode()]


def _unpacked(packed: str | list[str] | None) -> bytes | None:
    match packed:
        case None:
            return None
        case str():
            return packed.encode()
        case [text]:
            return base64.b64decode(text)
        case _:
            raise ValueError("not a packed payload")
