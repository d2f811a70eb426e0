"""Headers with a grammar: Idempotency-Key, Prefer, Location, Link; and which media type a client wants."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated
from urllib.parse import quote, urlencode

from pydantic import Field
from starlette.requests import Request

from continuum.runtime.tracing import TRACEPARENT, TRACESTATE, ambient, joined

# Visible ASCII, spaces inside: what survives every proxy. At most 200 characters, as everywhere.
Key = Annotated[str, Field(pattern=r"^[!-~]([ -~]{0,198}[!-~])?$")]

_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])+)"').fullmatch
_WAIT = re.compile(r'\s*wait\s*=\s*"?(\d{1,9})"?\s*', re.IGNORECASE).fullmatch


def idempotency_key(header: str) -> str:
    """Read an Idempotency-Key: a structured field's string (`"k"`), or the bare text that most clients send."""
    quoted = _QUOTED(header)
    return header if quoted is None else re.sub(r"\\(.)", r"\1", quoted[1])


def preferred_wait(headers: Iterable[str], most: float) -> float | None:
    """Read `Prefer: wait=N` (RFC 7240), at most `most` seconds; None: no such preference. Others are ignored."""
    for header in headers:
        for preference in header.split(","):
            wait = _WAIT(preference.partition(";")[0])
            if wait is not None:
                return min(float(wait[1]), most)
    return None


def path_of(request: Request) -> str:
    """Return a request's path as a URL has it; `request.url` would first parse the host, and build all of the URL."""
    return _quoted(request.scope["path"])


_quoted = lru_cache(maxsize=1_024)(quote)  # clients that start runs use few paths


def values_of(request: Request, name: str) -> list[str]:
    """Return a header's values, as they were sent; `request.headers` lowers and decodes every name for each question."""
    wanted = name.encode()
    return [value.decode("latin-1") for key, value in request.scope["headers"] if key == wanted]


def trace_of(request: Request) -> str | None:
    """Return the trace that a request belongs to: the server's own span of it, else what its headers say."""
    here = ambient()
    if here is not None:
        return here
    parents = values_of(request, TRACEPARENT)
    return joined(parents[0], *values_of(request, TRACESTATE)[:1]) if parents else None


def next_link(path: str, parameters: Mapping[str, str], cursor: str) -> str:
    """Return a Link to the next page (RFC 8288)."""
    return f'<{path}?{urlencode({**parameters, "cursor": cursor})}>; rel="next"'


def wants_stream(accept: str) -> bool:
    """Tell whether a client asks for server-sent events."""
    kinds = [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]
    return "text/event-stream" in kinds
