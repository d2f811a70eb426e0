"""The two routes by which peers call: `POST {prefix}/{instance}/wake` and `…/peer`.

They are plain routes of Starlette, so no `dependencies=` of a router or an application stands before them (a peer has no
user's token), and no schema shows them: what guards them is the signature alone. Here is only HTTP; what a call means
is `continuum.runtime.peer_door`'s.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from http import HTTPStatus

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

import continuum
from continuum.composition.peering import lend
from continuum.errors import InstanceNotRegistered, InstanceNotStarted
from continuum.runtime.peer_door import BODY_MAX, Answer, Road

Secret = str | bytes | list[str] | list[bytes] | tuple[str, ...] | tuple[bytes, ...] | None


def peer_router(
    *,
    prefix: str = "",
    instances: Collection[str] | None = None,
    peer_secret: Secret = None,
    insecure_peers: bool = False,
) -> APIRouter:
    """Return the two peer routes alone, for an application that offers nothing else of Continuum.

    Args:
        prefix: what `advertise_url` ends with.
        instances: whose peers may call here; None: those of all that are registered, asked at each request.
        peer_secret: shared by all nodes; of several the first signs and each is accepted. Also used by the instances
            served here for their own calls. `children(peers={"secret": ...})` does the same for one instance.
        insecure_peers: believe unsigned calls where there is no secret, on a network that nobody else is in.
    """
    api = APIRouter(prefix=prefix)
    add_peer_routes(api, instances=instances, secret=peer_secret, insecure=insecure_peers)
    return api


def add_peer_routes(
    api: APIRouter, *, instances: Collection[str] | None, secret: Secret, insecure: bool = False
) -> None:
    """Add the peer routes to a router, below its prefix, and lend its secret to the instances that it serves.

    Raises:
        ConfigurationError: the secret is neither a text nor bytes nor several of these.
    """
    doors = Doors(instances)
    lend(doors, instances, secret, insecure=insecure)
    api.add_route(f"{api.prefix}/{{instance}}/wake", doors.wake, methods=["POST"], include_in_schema=False)
    api.add_route(f"{api.prefix}/{{instance}}/peer", doors.peer, methods=["POST"], include_in_schema=False)


class Doors:
    """Leads calls to the instance that they name."""

    def __init__(self, instances: Collection[str] | None) -> None:
        self._instances = instances

    async def wake(self, request: Request) -> Response:
        """Take a wake: 204."""
        return await self._receive(request, "wake")

    async def peer(self, request: Request) -> Response:
        """Take what else peers say: 200."""
        return await self._receive(request, "peer")

    async def _receive(self, request: Request, road: Road) -> Response:
        name = request.path_params["instance"]
        body = await _body(request)
        if body is None:
            return _response(Answer(413, f"a call of a peer has at most {BODY_MAX} bytes"))
        try:
            if self._instances is not None and name not in self._instances:
                raise InstanceNotRegistered(f"no instance named {name!r} is served here")
            return _response(continuum.instance(name).receive(road, request.headers, body))
        except InstanceNotRegistered as error:
            return _response(Answer(404, str(error)))
        except InstanceNotStarted as error:
            return _response(Answer(503, str(error)))


async def _body(request: Request) -> bytes | None:
    """Read a body of bounded size."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_MAX:
                return None
    except ClientDisconnect:  # nobody will hear the answer
        return b""
    return bytes(body)


def _response(answer: Answer) -> Response:
    if answer.status < HTTPStatus.BAD_REQUEST:
        return Response(answer.body, answer.status, media_type="application/json" if answer.body else None)
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(answer.status).phrase,
        "status": answer.status,
        "detail": answer.detail,
    }
    headers = {"Retry-After": "1"} if answer.status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return Response(json.dumps(problem), answer.status, headers=headers, media_type="application/problem+json")
