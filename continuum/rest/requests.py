"""What a start says in a request: which workflow, its input by parameter name, what several runs have in common."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from continuum.client.inputs import attributes_of, call_of, moment_of, short_name
from continuum.codec import shape_of
from continuum.definitions.catalog import catalog
from continuum.definitions.workflow import Workflow
from continuum.errors import InputInvalid


def named(flow: Any, args: tuple[Any, ...]) -> tuple[Workflow[..., Any] | None, str, Any]:
    """Return the workflow that is meant, if its code is here, its name, and the input by parameter name."""
    if isinstance(flow, str):
        arguments = args[0] if args else {}
        if len(args) > 1 or not isinstance(arguments, Mapping):
            raise InputInvalid("start(name, input) takes the input as a mapping, by parameter name")
        return None, short_name(flow, "workflow"), json.loads(shape_of(dict[str, Any]).encode(dict(arguments)))
    workflow, encoded = call_of(flow, args, catalog())
    return workflow, workflow.name, json.loads(encoded)


def each_named(flow: Any, inputs: Iterable[Any] | None) -> list[tuple[Workflow[..., Any] | None, str, Any]]:
    """Return the same for each run of a batch."""
    if inputs is not None:
        return [named(flow, (one,)) for one in inputs]
    if isinstance(flow, str) or not isinstance(flow, Iterable):
        raise InputInvalid("start_many(flow, inputs) takes one input per run, start_many(calls) what .bound() made")
    return [named(call, ()) for call in flow]


def setting(namespace: str, attributes: Mapping[str, Any] | None, start_at: datetime | None) -> dict[str, Any]:
    """Return what several runs may have in common, as it travels."""
    moment = moment_of(start_at, "start_at")
    return {
        "namespace": namespace,
        "attributes": attributes_of(attributes),
        "start_at": None if moment is None else moment.isoformat(),
    }


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is not None."""
    return {name: value for name, value in values.items() if value is not None}
