"""`continuum serve MODULE:APP`: uvicorn, with room for a drain.

A node that is told to end hands its runs over before it goes; a server that is less patient than that would cut it off.
"""

from __future__ import annotations

import uvicorn


def run(target: str, *, host: str, port: int, patience: float, log_level: str) -> None:
    """Serve an ASGI application, found from the current directory, until SIGTERM or SIGINT and its drain."""
    uvicorn.run(
        target,
        host=host,
        port=port,
        log_level=log_level,
        timeout_graceful_shutdown=round(patience),
        app_dir=".",
    )
