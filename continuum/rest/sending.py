"""One request to the server: where it goes, what it carries, what comes of one that is not answered."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from continuum.errors import InputInvalid, Problem, RequestFailed
from continuum.runtime.tracing import ambient_headers, headers_of
from continuum.runtime.transport import HttpClient, Response, new_client

KEY = re.compile(r"[!-~]([ -~]*[!-~])?")


class Sender:
    """Sends requests; the connections are opened with the first, unless a client was given."""

    def __init__(
        self,
        base_url: str,
        *,
        instance: str,
        http: HttpClient | None,
        headers: Mapping[str, str] | None,
        timeout_seconds: float,
        connections: int,
    ) -> None:
        self._base = base_url.rstrip("/")
        self._instance = instance
        self._headers = dict(headers or {})
        self._timeout = timeout_seconds
        self._connections = connections
        self._given = http
        self._http = http

    async def close(self) -> None:
        """Close the connections, if they are our own."""
        http, self._http = self._http, self._given
        if http is not None and http is not self._given:
            await http.aclose()

    async def ask(
        self,
        method: str,
        instance: str | None,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        params: Mapping[str, Any] | None = None,
        key: str | None = None,
        wait: float = 0.0,
        trace: str | None = None,
    ) -> Response:
        """Send a request, and return its answer, which comes within `wait` seconds and the time for an answer.

        Raises:
            RequestFailed: it does not.
            InputInvalid: the key cannot travel.
        """
        if self._http is None:
            self._http = new_client(connections=self._connections, timeout=self._timeout, connect_timeout=self._timeout)
        headers = {**self._headers, **(ambient_headers() if trace is None else headers_of(trace))}
        if body is not None:
            content = json.dumps(body).encode()
        if content is not None:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = _header(key)
        url = f"{self._base}/{quote(instance or self._instance, safe='')}{path}"
        try:
            async with asyncio.timeout(self._timeout + wait):
                return await self._http.request(
                    method, url, content=content, params=params, headers=headers, timeout=self._timeout + wait
                )
        except Exception as error:  # whatever client was given, and so whatever it raises
            raise RequestFailed(f"{method} {url} was not answered: {error!r}") from error


def _header(key: str) -> str:
    """Write an Idempotency-Key so that the server reads just this."""
    if KEY.fullmatch(key):
        return key if not key.startswith('"') else '"' + re.sub(r'(["\\])', r"\\\1", key) + '"'
    problem = Problem("/idempotency_key", "must be printable ASCII, with no space at its ends")
    raise InputInvalid(f"{key!r} cannot travel in a header: use printable ASCII", problems=[problem])
