"""How one speaks to PostgreSQL through a pooler in transaction mode (PgBouncer and its kin).

A session belongs to us for one transaction, to anybody else before and after it. So neither settings nor prepared
statements may stay in it: every transaction begins with the settings, SET LOCAL, in the same round trip as its BEGIN; a
statement is prepared without a name, which the next one replaces; and a lone statement is a transaction as well, or its
settings would not hold. That makes four round trips of one: begin, prepare, execute, commit. A pooler in session mode is
spoken to alike: it cannot be told from the other kind.

Between preparing and executing without a transaction (the greeting does so) the session stays ours as well: asyncpg asks
for a flush there, not for a sync, and only after the answer to a sync a pooler may give a session away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from continuum.journal.sql.dialects import Rows

Prepared = tuple[str, tuple[str, ...]]  # a statement with numbered parameters, and their names

ISOLATION = "read committed"  # fences rely on the row being looked at again after a lock wait


def local_settings(settings: Mapping[str, str]) -> str:
    """Return what begins a transaction with settings of its own."""
    local = [f"SET LOCAL {name} = '{value}'" for name, value in settings.items()]
    return "; ".join([f"BEGIN ISOLATION LEVEL {ISOLATION.upper()}", *local])


def lasting_settings(settings: Mapping[str, str], label: str) -> dict[str, str]:
    """Return what a connection of ours is set to for as long as it lives."""
    return {**settings, "default_transaction_isolation": ISOLATION, "application_name": label}


class Pooled:
    """Leaves nothing in a session."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.prelude = local_settings(settings)

    async def fetch(
        self,
        connection: AsyncConnection,  # noqa: ARG002  it would prepare under a name
        driver: Any,
        prepared: Prepared,
        values: Mapping[str, object],
    ) -> Rows:
        """Execute a statement; return its rows."""
        sql, names = prepared
        statement = await driver.prepare(sql, name="", record_class=row_class())
        rows: Rows = await statement.fetch(*map(values.__getitem__, names))
        return rows

    async def many(
        self,
        connection: AsyncConnection,  # noqa: ARG002  as in `fetch`
        driver: Any,
        prepared: Prepared,
        rows: Sequence[Mapping[str, object]],
    ) -> None:
        """Execute a statement once per row of parameters."""
        sql, names = prepared
        statement = await driver.prepare(sql, name="")
        await statement.executemany([[*map(row.__getitem__, names)] for row in rows])

    async def say(self, connection: AsyncConnection, driver: Any, command: str) -> None:  # noqa: ARG002  as in `fetch`
        """Execute a bare command."""
        await driver.execute(command)


@cache
def row_class() -> type:
    """Return a class of records that have their columns as attributes."""
    record: Any = import_module("asyncpg").Record  # by name: a host on SQLite need not have it
    return type("Row", (record,), {"__getattr__": record.__getitem__})
