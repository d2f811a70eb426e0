"""PostgreSQL through asyncpg.

Every connection of ours plans the same way whatever the tables look like at the moment. Statements that join a handful
of parameters to large tables are prepared while the tables are small, and a hash join over a sequential scan that was
right then stays in the cached plan: one lonely commit took 2.2 ms at 40,000 runs instead of 0.45. Every access in our
statements has its index, so scans, hash and merge joins are off, generic plans are forced (planning a batch of ten
data-modifying CTEs costs more than running it), and JIT, which would take the inflated costs for a reason to compile,
is off as well. What must not become a nested loop over a whole batch is written as a hashed subplan instead
(`(x IN (SELECT …)) IS TRUE`), which no setting turns off. EXPLAIN guards in the tests hold this.

Not to be used behind a pooler in transaction mode: these settings belong to the session. Give such a host's journal an
engine that connects directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from continuum.errors import ContinuumError, JournalUnavailable, SchemaNotReady
from continuum.journal.port import Ambiguous, BadData, Contended

_SETTINGS = {
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "default_transaction_isolation": "read committed",  # fences rely on the row being looked at again after a lock wait
}
_GREETING = text("SELECT set_config(name, value, false) FROM unnest(CAST(:names AS text[]), CAST(:values AS text[])) AS s(name, value)")

# Lock not available, deadlock, serialization failure, and a statement_timeout that somebody set: nothing happened.
_CONTENDED = frozenset({"55P03", "40P01", "40001", "57014"})
_SCHEMA = frozenset({"42P01", "42703", "3F000"})  # undefined table, column, schema
_DATA_CLASSES = frozenset({"22", "23", "54"})  # bad values, constraints, program limits (a key too long for its index)
_REFUSED_CLASSES = frozenset({"25", "53"})  # a server that takes no writes (a standby), or has no room: nothing happened


class Postgres:
    """The words of PostgreSQL."""

    name = "postgresql"
    now = "clock_timestamp()"  # not now(): a batch that waited for a lock must not stamp the time before it
    begin = "BEGIN"

    def later(self, seconds: str) -> str:
        return f"clock_timestamp() + make_interval(secs => {seconds})"

    def among(self, values: str) -> str:
        name, type_ = values.split()
        return f"= ANY(CAST(:{name} AS {type_}[]))"

    def rows(self, alias: str, columns: Sequence[tuple[str, str]]) -> str:
        arrays = ", ".join(f"CAST(:{alias}_{column} AS {type_}[])" for column, type_ in columns)
        return f"unnest({arrays}) AS {alias}({', '.join(column for column, _ in columns)})"

    def lock(self, alias: str) -> str:
        return f"FOR NO KEY UPDATE OF {alias} SKIP LOCKED"

    def table(self, name: str, schema: str | None) -> str:
        if schema is None:
            return name
        quoted = schema.replace('"', '""')
        return f'"{quoted}".{name}'

    def values(self, given: Mapping[str, object], rows: Mapping[str, Sequence[str]]) -> dict[str, object]:
        bound = dict(given)
        for name, columns in rows.items():
            table: Any = bound.pop(name)
            cells = zip(*table, strict=True) if table else ((),) * len(columns)
            bound.update(zip([f"{name}_{column}" for column in columns], cells, strict=True))
        return bound

    def moment(self, stored: Any) -> datetime:
        result: datetime = stored
        return result

    async def greet(self, connection: AsyncConnection, *, lock_timeout_seconds: float) -> None:
        settings = _SETTINGS | {"lock_timeout": f"{int(lock_timeout_seconds * 1000)}ms"}
        await connection.execute(_GREETING, {"names": list(settings), "values": list(settings.values())})

    def is_open(self, driver: Any) -> bool:
        return not driver.is_closed()

    def abort(self, driver: Any) -> None:
        driver.terminate()

    def fault(self, error: BaseException, *, pure: bool) -> ContinuumError | None:
        lost = JournalUnavailable if pure else Ambiguous
        if isinstance(error, TimeoutError):
            return lost("PostgreSQL did not answer in time")
        if isinstance(error, DBAPIError):
            error = error.driver_exception
        elif not isinstance(error, OSError):
            return None
        state = getattr(error, "sqlstate", None)
        if state in _CONTENDED:
            return Contended(f"PostgreSQL could not get a lock in time (SQLSTATE {state})")
        if state in _SCHEMA:
            return SchemaNotReady(f"a table or column is missing: {error}")
        if (state is not None and state[:2] in _DATA_CLASSES) or isinstance(error, ValueError):
            return BadData(f"PostgreSQL does not take a value: {error}")  # ValueError: asyncpg could not encode it
        if state is not None and state[:2] in _REFUSED_CLASSES:
            return JournalUnavailable(f"PostgreSQL takes no writes: {error}")
        return lost(f"the connection to PostgreSQL was lost (SQLSTATE {state}): {error}")


POSTGRES = Postgres()
