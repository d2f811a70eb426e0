"""What log lines say of the run that they come from, and how they are written: for a host's `logging` configuration.

Continuum logs by the standard library under `continuum.*` and configures nothing. `ContextFilter` stands on a *handler*
(filters of loggers do not see what their children log) and tells every record which run it was logged in: the code of
an activity, in its task or thread, is known by a context variable; the code of a workflow by the loop that it runs on;
what the engine says about a run names it. Nothing of this costs anything where no line is logged.

In a workflow a line would be logged again by every replay: the filter drops what is logged while history is replayed,
and while a workflow is given up. It lets through what is logged in a live turn, at once: if that turn is never
committed (the process dies, the lease is lost) the line was written and will be written again. `continuum.log` waits for
the commit: its line is written once it is true, at most once.
"""

from __future__ import annotations

import json
import logging
import logging.config
from collections.abc import Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Literal

from continuum.replay.context import current_machine
from continuum.runtime.activity_context import current

CONTEXT = ("instance", "run_id", "workflow", "version", "activity", "attempt")


class ContextFilter(logging.Filter):
    """Gives records the attributes `instance`, `run_id`, `workflow`, `version`, `activity` and `attempt`.

    Args:
        default: what stands where there is none, so that a format such as `%(run_id)s` fits every record.
    """

    def __init__(self, default: object = "-") -> None:
        super().__init__()
        self._default = default

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell a record where it comes from; False for what a workflow logs on replay."""
        machine = current_machine()
        if machine is not None and machine.is_silent:
            return False
        context: dict[str, Any] = {}
        if machine is not None:
            info = machine.info
            context = {
                "instance": info.instance, "run_id": info.run_id, "workflow": info.workflow, "version": info.version,
            }  # fmt: skip
        elif (attempt := current.get(None)) is not None:
            told = attempt.context
            context = {
                "instance": told.instance, "run_id": told.run_id, "workflow": told.workflow,
                "activity": told.activity, "attempt": told.attempt,
            }  # fmt: skip
        for name in CONTEXT:
            if not hasattr(record, name):  # what the caller has said with `extra=` stands
                setattr(record, name, context.get(name, self._default))
        return True


class ConsoleFormatter(logging.Formatter):
    """One line for people: time, level, logger, what it says, and in brackets what it comes from."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """Return the line, without what stands below it."""
        facts = {**context_of(record), **fields_of(record)}
        line = super().formatMessage(record)
        return f"{line} [{' '.join(f'{key}={_text(value)}' for key, value in facts.items())}]" if facts else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `at` (UTC), `level`, `logger`, `message`, the context, the fields of `continuum.log`;
    `error` (a traceback) and `stack` where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the object as a line, whatever the fields are: what JSON cannot say is said by `str`."""
        said: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **context_of(record),
        }
        if fields := fields_of(record):
            said["fields"] = fields
        if record.exc_info:
            said["error"] = self.formatException(record.exc_info)
        elif record.exc_text:  # of a record that came through a queue
            said["error"] = record.exc_text
        if record.stack_info:
            said["stack"] = self.formatStack(record.stack_info)
        try:
            line = json.dumps(said, default=_text, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError):  # a key that is no text, a number that is none, a value that holds itself
            line = json.dumps(_plain(said), ensure_ascii=False)
        return line.encode(errors="backslashreplace").decode()  # half of a surrogate pair is an escape of JSON's, too


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001  # it is anybody's code: a line must not be lost for it
        return f"<{type(value).__name__}>"


def _plain(value: Any, above: tuple[int, ...] = ()) -> Any:
    """Return what JSON can say of a value; `above` are the ids of what it stands in."""
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and isfinite(value)):
        return value
    if isinstance(value, Mapping | list | tuple):
        if id(value) in above:
            return "{...}" if isinstance(value, Mapping) else "[...]"
        within = (*above, id(value))
        if isinstance(value, Mapping):
            return {_text(key): _plain(one, within) for key, one in value.items()}
        return [_plain(one, within) for one in value]
    return _text(value)


def context_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what is known of where a record comes from."""
    known = {name: getattr(record, name, None) for name in CONTEXT}
    return {name: value for name, value in known.items() if value not in (None, "-")}


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return the fields that `continuum.log` was given."""
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


def config(form: Literal["console", "json"] = "console", *, level: int | str = "INFO") -> dict[str, Any]:
    """Return a configuration for `logging.config.dictConfig`: everything on standard error, with its context.

    Servers that bring handlers of their own (uvicorn does) hand their lines on to it.
    """
    formatter = f"{__name__}.{'JsonFormatter' if form == 'json' else 'ConsoleFormatter'}"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"continuum": {"()": f"{__name__}.ContextFilter"}},
        "formatters": {"continuum": {"()": formatter}},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "filters": ["continuum"], "formatter": "continuum"}
        },
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {name: {"handlers": [], "propagate": True} for name in ("uvicorn", "uvicorn.error", "uvicorn.access")},
    }  # fmt: skip


def configure(form: Literal["console", "json"] = "console", *, level: int | str = "INFO") -> None:
    """Have `logging` do what `config` says: for a process of one's own."""
    logging.config.dictConfig(config(form, level=level))
