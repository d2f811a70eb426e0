"""`typed=True`: a path per registered workflow, and per signal that one declares, with their pydantic models.

Clients generated from the schema are typed then. The models are for the schema and for early refusals alone: what is
stored is what the workflow's own parameters make of the same JSON, as on the path that takes the workflow's name.

(No `from __future__ import annotations` here: the annotations of the handlers are models made a line above them.)
"""

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NotRequired

from fastapi import Body
from pydantic import ConfigDict, Field, create_model
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from continuum.client.inputs import Json, Named
from continuum.definitions.catalog import catalog
from continuum.definitions.workflow import Workflow
from continuum.http.describing import SIGNALLED, STARTED, WRITES, Adding
from continuum.http.headers import path_of
from continuum.http.parameters import ABSENT, InstanceName, RunId
from continuum.http.shapes import RunEnding, RunStartOptions
from continuum.http.starting import Prefer, Starting, StartKey
from continuum.http.talking import DeliveryKey, Talking

_PLAIN = re.compile(r"[A-Za-z0-9._~-]+").fullmatch  # what stands in a path as it is


def workflows() -> Iterator[Workflow[..., Any]]:
    """Yield the newest version of every workflow that is registered now and whose name can stand in a path."""
    for name in sorted({name for name, _ in catalog().workflows}):
        workflow: Workflow[..., Any] = catalog().workflow(name)
        if workflow.name == name and _PLAIN(name):
            yield workflow


def add_typed_routes(add: Adding, starting: Starting, talking: Talking) -> None:
    """Add a route per workflow and per declared signal."""
    for workflow in workflows():
        path, words = f"/workflows/{workflow.name}/runs", re.split(r"\W+", workflow.name)
        slug, title = "_".join(words), "".join(word[:1].upper() + word[1:] for word in words)
        result = workflow.signature.result.annotation
        ending = create_model(f"{title}RunEnding", __base__=RunEnding, result=(result | None, None))
        answers = STARTED | {200: STARTED[200] | {"model": ending}}
        add("POST", path, _starts(workflow, starting, path, title), answers, WRITES, name=f"start_{slug}")
        for signal, shape in (workflow.signals or {}).items():
            if _PLAIN(signal):
                handle = _signals(signal, shape.annotation, talking)
                there, words = f"{path}/{{run_id}}/signals/{signal}", re.split(r"\W+", signal)
                add("POST", there, handle, SIGNALLED, WRITES, name="_".join(["signal", slug, *words]))


def _starts(workflow: Workflow[..., Any], starting: Starting, path: str, title: str) -> Callable[..., Any]:
    fields = workflow.signature.fields
    make: Any = TypedDict  # for type checkers it is no function
    named = {name: NotRequired[kind] if has_default else kind for name, (kind, has_default) in fields.items()}
    arguments = make(f"{title}RunInput", named)
    arguments.__pydantic_config__ = ConfigDict(extra="forbid")
    is_optional = all(has_default for _, has_default in fields.values())
    default = Field(default_factory=dict) if is_optional else Field()
    model: Any = create_model(f"{title}RunStart", __base__=RunStartOptions, input=(arguments, default))

    async def start(
        request: Request,
        instance: InstanceName,
        start: model,
        key: StartKey = ABSENT,
        prefer: Prefer = ABSENT,  # noqa: ARG001  # as in Starting.start_run
    ) -> Response:
        sent = await request.json()
        called = Named(workflow.name, None, Json(to_json(sent.get("input", {})), at="/input"))
        runs = path_of(request).removesuffix(path) + "/runs"
        return await starting.begin(request, instance, called, start, key, location=runs)

    start.__doc__ = workflow.__doc__ or f"Start a run of {workflow.name}."
    return start


def _signals(signal: str, kind: Any, talking: Talking) -> Callable[..., Any]:
    async def send(
        request: Request,
        instance: InstanceName,
        run_id: RunId,
        payload: Annotated[kind, Body()],  # noqa: ARG001  # a model that was made of it; what is sent is what came
        key: DeliveryKey = ABSENT,
    ) -> Response:
        return await talking.send(instance, run_id, signal, await request.json(), key)

    send.__doc__ = f"Send a run the signal {signal}."
    return send
