"""The one module that imports httpx; see `transport`."""

from __future__ import annotations

import httpx

KEEP_ALIVE_SECONDS = 4.0  # less than uvicorn's 5: a connection must not be closed under a request that just went out


def new_client(*, connections: int, timeout: float, connect_timeout: float) -> httpx.AsyncClient:
    """Return a client that obeys no environment: a proxy set for the host's own calls is not on the way to a peer."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(timeout, connect=connect_timeout),
        limits=httpx.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEP_ALIVE_SECONDS
        ),
        trust_env=False,
        follow_redirects=False,
    )
