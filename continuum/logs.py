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
        return f"{line} [{' '.join(f'{key}={value}' for key, value in facts.items())}]" if facts else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `at` (UTC), `level`, `logger`, `message`, the context, the fields of `continuum.log`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object as a line; what JSON cannot say is said by `str`."""
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
        return json.dumps(said, default=str, ensure_ascii=False)


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
