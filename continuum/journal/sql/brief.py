"""Engines of our own, for commands that look or migrate and go: they keep no connection, and leave nothing behind.

Whoever gives a URL and no engine cannot say that it leads through a pooler. So statements are not cached and their names
are never used again: in a session that PgBouncer hands from one client to the next, the usual ones are taken.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from continuum.ids import uuid7


def brief_engine(url: str | URL) -> AsyncEngine:
    """Return an engine for a URL."""
    made = make_url(url)
    arguments: dict[str, Any] = {}
    if made.drivername == "postgresql+psycopg":
        arguments = {"prepare_threshold": None}
    elif made.get_backend_name() == "postgresql":
        arguments = {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"__continuum_{uuid7()}__",
        }
    return create_async_engine(made, poolclass=NullPool, connect_args=arguments)
