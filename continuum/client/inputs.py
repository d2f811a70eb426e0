"""Checks what callers hand in, before anything is written; every refusal says what would be accepted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from continuum.definitions.calls import Call
from continuum.definitions.catalog import Catalog
from continuum.definitions.workflow import Workflow
from continuum.errors import DurableValueError, InputInvalid, NotAllowedHere, Problem
from continuum.ids import canonical
from continuum.model import attributes
from continuum.model.names import NAME_MAX, is_short_name
from continuum.model.writes import Verdict


class Json(Struct, frozen=True, gc=False):
    """A value as it came over a wire: JSON, to be read as what the code declares; `at` points to it in what was sent."""

    body: bytes
    at: str = ""


class Named(Struct, frozen=True, gc=False):
    """A call that came over a wire: a workflow's name, its version (None: the newest), its arguments as JSON."""

    name: str
    version: int | None
    input: Json


def run_id_of(value: str | UUID) -> str:
    """Return a run id as text.

    Raises:
        InputInvalid: it is not a UUID.
    """
    try:
        return canonical(value)
    except (ValueError, AttributeError, TypeError) as error:
        problem = Problem("/run_id", "must be a UUID")
        raise InputInvalid(f"{value!r} is not a run id: run ids are UUIDs", problems=[problem]) from error


def short_name(value: Any, what: str) -> str:
    """Return a name.

    Raises:
        InputInvalid: it is not a string of 1 to 200 characters, none of them a control character.
    """
    if is_short_name(value):
        return value
    message = f"{what} must be a string of 1 to {NAME_MAX} characters without control characters, not {value!r}"
    raise InputInvalid(message[:500], problems=[Problem(f"/{what}", "must be a short string of one line")])


def attributes_of(value: Any) -> dict[str, Any] | None:
    """Return a new run's search attributes; what is None is not set.

    Raises:
        DurableValueError: a value cannot be one; the path points at it.
    """
    return None if value is None else attributes.merged(None, attributes.checked(value))


def wanted_of(value: Any) -> dict[str, Any] | None:
    """Return the attributes that are searched for.

    Raises:
        DurableValueError: a value cannot be one.
        InputInvalid: one is None, which no run has.
    """
    if value is None:
        return None
    wanted = attributes.checked(value)
    for name, one in wanted.items():
        if one is None:
            problem = Problem(f"/attributes/{name}", "must be a value")
            raise InputInvalid(f"no run has {name!r} as None: a filter finds what is set", problems=[problem])
    return wanted or None


def attribute_of_text(text: str) -> Any:
    """Read an attribute's value as it stands in a URL or a command: JSON if it can be one, else the text as it is."""
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text
    return text if value is None or isinstance(value, dict) else value


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def moment_of(value: Any, what: str) -> datetime | None:
    """Return a point in time, in UTC.

    Raises:
        InputInvalid: it is not a datetime, or a naive one.
    """
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        problem = Problem(f"/{what}", "must be an aware datetime")
        raise InputInvalid(f"{what} must be a datetime with a time zone, not {value!r}", problems=[problem])
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        problem = Problem(f"/{what}", "must be between the years 1 and 9999, in UTC too")
        raise InputInvalid(f"{what} has no place in UTC's calendar: {value!r}", problems=[problem]) from error


def call_of(flow: Any, args: tuple[Any, ...], catalog: Catalog) -> tuple[Workflow[..., Any], bytes]:
    """Return the workflow that a verb was given, and its encoded arguments.

    A workflow given by its definition starts in its newest registered version.

    Raises:
        NotAllowedHere: it is no workflow.
        WorkflowNotFound: it was given by a name that nothing here has.
        InputInvalid, DurableValueError: the arguments do not fit.
    """
    if isinstance(flow, Named):
        named: Workflow[..., Any] = catalog.workflow(flow.name, flow.version)
        return named, _placed(named.signature.parameters.encode_json, flow.input)
    kwargs: Mapping[str, Any] = {}
    if isinstance(flow, Call):
        if args:
            raise InputInvalid("start(flow.bound(...)) takes its arguments in bound()")
        flow, args, kwargs = flow.definition, flow.args, flow.kwargs
    if not isinstance(flow, Workflow):
        raise NotAllowedHere(f"{flow!r} is no workflow: decorate an `async def` with @workflow and start that")
    newest: Workflow[..., Any] = catalog.workflow(flow.name)
    return newest, newest.signature.parameters.encode(args, kwargs)


def _placed(encode: Callable[[bytes], bytes], json: Json) -> bytes:
    try:
        return encode(json.body)
    except InputInvalid as error:
        problems = [Problem(json.at + problem.pointer, problem.message) for problem in error.problems]
        raise InputInvalid(error.message, problems=problems) from error
    except DurableValueError as error:
        raise DurableValueError(error.message, path=json.at + error.path) from error


def answer(future: asyncio.Future[Verdict], verdict: Verdict) -> None:
    """Hand a verdict to a caller who may have stopped waiting."""
    if not future.done():
        future.set_result(verdict)
