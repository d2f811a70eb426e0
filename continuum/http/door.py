"""The class of our routes: reads bodies within bounds, answers refusals as problems, lets everything else pass.

What a host's `dependencies=` raise is the host's own and answered by the host.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, ClassVar

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response

from continuum.errors import ContinuumError
from continuum.http.problems import NOT_JSON, TOO_LARGE, UNREADABLE, Refusal, problem_of

BODY_MAX = 1 << 20  # bytes: the default of payload_max; bulk belongs elsewhere, with a reference to it in the input


class BoundedRequest(Request):
    """A request whose body has a limit and is read strictly: UTF-8, no NaN, bounded depth."""

    body_max: int = BODY_MAX

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the body's chunks; those of an announced length that is too large are not waited for."""
        announced = self.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self.body_max:
            raise self._too_large()
        size = 0
        async for chunk in super().stream():
            size += len(chunk)
            if size > self.body_max:
                raise self._too_large()
            yield chunk

    async def body(self) -> bytes:
        """Read the body; one that does not say that it is JSON is refused: a form in a foreign page could send it."""
        body = await super().body()
        if body and not is_json(self.headers.get("content-type", "")):
            raise Refusal(NOT_JSON, "send the header Content-Type: application/json")
        return body

    async def json(self) -> Any:
        """Read the body as JSON."""
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            errors = [{"detail": str(error), "pointer": ""}]
            raise Refusal(UNREADABLE, f"the body is not JSON: {error}", errors=errors) from error

    def _too_large(self) -> Refusal:
        return Refusal(TOO_LARGE, f"a body has at most {self.body_max} bytes")


def is_json(content_type: str) -> bool:
    """Tell whether a media type is JSON's or one that is built on it."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


class Door(APIRoute):
    """A route of ours."""

    body_max: ClassVar[int] = BODY_MAX

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, behind the bounds and with problems for refusals."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            bounded = BoundedRequest(request.scope, request.receive)
            bounded.body_max = self.body_max
            try:
                return await handle(bounded)
            except (Refusal, ContinuumError, RequestValidationError) as error:
                answer = problem_of(error)
                if answer is None:
                    raise
                if answer.status_code == TOO_LARGE.status and request.scope["http_version"].startswith("1"):
                    answer.headers["Connection"] = "close"  # or the rest of the body would go on coming
                return answer

        return handled


def door(body_max: int) -> type[Door]:
    """Return the class of routes whose bodies have at most this many bytes."""
    return type("Door", (Door,), {"body_max": body_max})
