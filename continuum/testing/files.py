"""Histories as files: JSON that a person reads and a diff shows, one event per line.

    {"format": 1,
     "run": {"run_id": …, "workflow": …, …},
     "events": [
      {"seq": 1, "type": "started", "at": …, "payload": {…}},
      …]}

A payload is shown as JSON if it can be written back byte for byte; else as text, else as base64. The number of the
format stands first, and another one is refused.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec.structs import fields, replace

from continuum.client.reading import History, HistoryEvent
from continuum.errors import ConfigurationError, ContinuumError
from continuum.model.events import EVENT_FORMAT, Event, EventType
from continuum.model.failure import Failure
from continuum.replay.machine import RAISED
from continuum.replay.turns import RunInfo

FILE_FORMAT = 1


class HistoryUnreadable(ContinuumError, ValueError):
    """A file is no history that this version of Continuum can read."""


def dump_history(
    history: Sequence[HistoryEvent], path: str | os.PathLike[str] | None = None, *, tracebacks: bool = False
) -> str:
    """Return a history as JSON text, and write it to `path` if one is given.

    Args:
        history: what `env.history()` or `continuum.history()` returned.
        path: the file to write; an older one is replaced.
        tracebacks: keep those of journaled failures. They name files and lines of the machine that ran it, no replay
            looks at them, and without them the file changes only when the workflow does something else.

    Raises:
        ConfigurationError: it is part of one, or a list made by hand.
    """
    if not isinstance(history, History):
        raise ConfigurationError(
            "dump_history() takes the whole history as `env.history()` or `continuum.history()` returned it; "
            "`history.upto(seq)` is its beginning"
        )
    records = history.records if tracebacks else tuple(_without_traceback(event) for event in history.records)
    events = ",\n  ".join(json.dumps(_line(event), ensure_ascii=False) for event in records)
    facts = {one.name: value for one in fields(RunInfo) if (value := getattr(history.run, one.name)) != one.default}
    run = json.dumps(facts, default=datetime.isoformat, ensure_ascii=False)
    text = f'{{"format": {FILE_FORMAT},\n "run": {run},\n "events": [\n  {events}]}}\n'
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def load_history(source: str | os.PathLike[str], /) -> History:
    """Read what `dump_history` wrote: a file's path, or the text itself (which begins with a brace).

    Raises:
        HistoryUnreadable: it is something else, or of another format.
    """
    is_text = isinstance(source, str) and source.lstrip().startswith("{")
    name = "the text" if is_text else os.fspath(source)
    text = str(source) if is_text else Path(source).read_text(encoding="utf-8")
    try:
        body = json.loads(text)
        number = body["format"]
    except (ValueError, LookupError, TypeError) as error:
        raise HistoryUnreadable(f"{name} is no history: dump_history() writes them") from error
    if number != FILE_FORMAT:
        raise HistoryUnreadable(
            f"{name} is a history of format {number!r}; this version of Continuum reads format {FILE_FORMAT}: "
            "read it with the version that wrote it or a newer one, or record it again"
        )
    try:
        facts = {**body["run"], "started_at": datetime.fromisoformat(body["run"]["started_at"])}
        run = RunInfo(**{name: value for name, value in facts.items() if name in RunInfo.__struct_fields__})
        return History(run, [_event(line) for line in body["events"]])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise HistoryUnreadable(f"{name} is a damaged history: {error!r}") from error


def holds_failure(event: Event) -> bool:
    """Tell whether an event's payload is a failure: failed, activity_failed and their like, and side effects that raised."""
    is_raised = event.type is EventType.SIDE_EFFECT_RECORDED and event.name == RAISED
    return is_raised or event.type.value.endswith("failed")


def _without_traceback(event: Event) -> Event:
    if event.payload is None or not holds_failure(event):
        return event
    return replace(event, payload=replace(Failure.decode(event.payload), traceback=None).encode())


def _line(event: Event) -> dict[str, Any]:
    line: dict[str, Any] = {"seq": event.seq, "type": event.type.value, "at": event.at.isoformat()}
    for name in ("command_id", "message_id", "name", "key"):
        if getattr(event, name) is not None:
            line[name] = getattr(event, name)
    if event.format != EVENT_FORMAT:
        line["format"] = event.format
    if event.payload is not None:
        line.update(_shown(event.payload))
    return line


def _shown(payload: bytes) -> dict[str, Any]:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(payload).decode()}
    try:
        value = json.loads(text)
        if json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False) == text:
            return {"payload": value}
    except (ValueError, RecursionError):
        pass
    return {"text": text}


def _event(line: Mapping[str, Any]) -> Event:
    return Event(
        seq=line["seq"],
        type=EventType(line["type"]),
        at=datetime.fromisoformat(line["at"]),
        command_id=line.get("command_id"),
        message_id=line.get("message_id"),
        name=line.get("name"),
        payload=_payload(line),
        key=line.get("key"),
        format=line.get("format", EVENT_FORMAT),
    )


def _payload(line: Mapping[str, Any]) -> bytes | None:
    if "payload" in line:
        return json.dumps(line["payload"], separators=(",", ":"), ensure_ascii=False).encode()
    if "text" in line:
        return str(line["text"]).encode()
    return base64.b64decode(line["base64"]) if "base64" in line else None
