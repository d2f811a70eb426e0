"""The HTTP client as Continuum sees it: a small part of httpx's interface, so that a host may pass anything that has it.

httpx is optional. It is imported at the top of `httpx_client` alone, which is loaded by name here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

from continuum.errors import ConfigurationError


class Response(Protocol):
    """What came back."""

    @property
    def status_code(self) -> int:
        """The status."""
        ...

    @property
    def content(self) -> bytes:
        """The body."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; names ignore case."""
        ...


class HttpClient(Protocol):
    """Something that sends requests, like `httpx.AsyncClient`."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        params: Any = None,  # whatever the client takes
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Response:
        """Send a request and read its answer."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


def new_client(*, connections: int, timeout: float, connect_timeout: float) -> HttpClient:
    """Return a client of our own.

    Raises:
        ConfigurationError: httpx is not installed.
    """
    try:
        module = importlib.import_module("continuum.runtime.httpx_client")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "this needs httpx: pip install 'continuum-durable[fastapi]' (or [rest]), or pass a client with its interface"
        ) from error
    client: HttpClient = module.new_client(connections=connections, timeout=timeout, connect_timeout=connect_timeout)
    return client
