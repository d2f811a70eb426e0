"""`…/events`: a run's history, in pages or as a stream of server-sent events that ends with the run.

A stream's `id` is an event's position, so that a browser's `EventSource` comes back with `Last-Event-ID` and misses
nothing. A drain ends it at once: `event: drain`, with a short `retry`, sends the browser to another node. At the run's
end comes `event: end`, upon which a client closes: a browser left alone would ask again. `event: unreadable` says that what
comes next cannot be opened here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Header, Query
from pydantic import Field
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from continuum.client.reading import PAGE_MAX
from continuum.client.wire import PlacedEvent, Position, Wire
from continuum.errors import DurableValueError
from continuum.http.desk import Desk
from continuum.http.headers import next_link, path_of, wants_stream
from continuum.http.parameters import ABSENT, InstanceName, RunId
from continuum.http.writing import answer, event, event_id, position

# A position as written; an empty one is none.
Place = Annotated[str, Field(pattern=r"^(([1-9][0-9]{0,8}\.)?[0-9]{1,9})?$")]
LOOKS_PER_PING = 15  # a comment about every 15 s keeps proxies from ending a stream in which nothing happens
BEGINNING = Position()

Accept = Annotated[str, Header(description="`text/event-stream` asks for a stream.", examples=["application/json"])]
LastEventId = Annotated[
    Place,
    Header(
        alias="Last-Event-ID",
        description="The `id` of the last event seen: a stream, or a page without a cursor, goes on from there.",
        examples=["17"],
    ),
]
EventCursor = Annotated[Place, Query(description="A `next_cursor`, or an event's `id`.", examples=["17"])]


class Following:
    """Reads and streams histories."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def list_events(
        self,
        request: Request,
        instance: InstanceName,
        run_id: RunId,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="How many of a page at most.")] = 100,
        cursor: EventCursor = ABSENT,
        last_event_id: LastEventId = ABSENT,
        accept: Accept = "application/json",
    ) -> Response:
        """Read a run's history, oldest first, or follow it.

        With `Accept: text/event-stream` the answer is a stream of server-sent events, one per event of the history, as
        they come; it ends with the run. `id` is an event's position: `Last-Event-ID` goes on after it.
        """
        wire = self._desk.wire(instance)
        came_to = cursor or last_event_id
        after = position(came_to) if came_to else BEGINNING
        async with self._desk.patience():
            if wants_stream(accept):
                await wire.row(run_id)
                return StreamingResponse(
                    _stream(wire, str(run_id), after),
                    media_type="text/event-stream",
                    headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
                )
            try:
                found = await wire.events(run_id, after=after, limit=limit + 1)
            except DurableValueError as error:  # what is stored cannot be opened here: nothing that a client sent
                raise RuntimeError(error.message) from error
        more = event_id(found[limit - 1].position) if len(found) > limit else None
        headers = {}
        if more is not None:
            headers["Link"] = next_link(path_of(request), dict(request.query_params), more)
        return answer({"items": [event(one) for one in found[:limit]], "next_cursor": more}, 200, headers)


async def _stream(wire: Wire, run_id: str, after: Position) -> AsyncIterator[bytes]:
    yield b": a run's history\n\n"
    quiet, has_ended = 0, False
    try:
        async for look in wire.follow(run_id, after=after):
            has_ended, quiet = look.has_ended, 0 if look.events else quiet + 1
            for one in look.events:
                yield _event(one)
            if quiet and quiet % LOOKS_PER_PING == 0:
                yield b": still here\n\n"
    except DurableValueError as error:  # as in a page: the server's log says why
        yield b"event: unreadable\ndata: {}\n\n"
        raise RuntimeError(error.message) from error
    yield b"event: end\ndata: {}\n\n" if has_ended else b"event: drain\nretry: 500\ndata: {}\n\n"


def _event(one: PlacedEvent) -> bytes:
    body = to_json(event(one), inf_nan_mode="null")
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event_id(one.position).encode(), one.event.type.encode(), body)
