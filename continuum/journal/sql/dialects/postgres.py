"""PostgreSQL through asyncpg.

Every connection of ours plans the same way whatever the tables look like at the moment. Statements that join a handful
of parameters to large tables are prepared while the tables are small, and a hash join over a sequential scan that was
right then stays in the cached plan: one lonely commit took 2.2 ms at 40,000 runs instead of 0.45. Every access in our
statements has its index, so scans, hash and merge joins are off, generic plans are forced (planning a batch of ten
data-modifying CTEs costs more than running it), and JIT and parallel workers, for which the costs would be a reason,
are off as well. Three ways of writing make sure of the rest:

* `key = ANY(ARRAY(SELECT …))` (`within`) finds rows by their key and cannot be turned round into a walk through the
  table;
* `(x IN (SELECT …)) IS TRUE` is a hashed subplan, never a nested loop over the batch;
* `(SELECT clock_timestamp())` is asked once and may be compared by an index; the bare volatile call may not.

EXPLAIN guards in the tests hold this.

One trap is left: a plan made while a table holds a handful of rows may walk through that table and look each row up in
the parameters, and is kept while the table grows. So plans are forgotten every hundred uses of a line, which costs a
half millisecond each time.

Behind a pooler a session is somebody else's after each transaction (`pooled`). A pooler gives itself away when a
connection is greeted: the process id that a server tells its clients is a part of the key to cancel with, which a pooler
has to make up, so another process answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from msgspec.json import Encoder
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from continuum.errors import ContinuumError, JournalUnavailable, SchemaNotReady
from continuum.journal.port import Ambiguous, BadData, Contended
from continuum.journal.sql.dialects import Columns, Manner, Rows, folded
from continuum.journal.sql.dialects.pooled import Pooled, Prepared, lasting_settings, row_class

SETTINGS = {
    "jit_above_cost": "-1",  # not `jit`: asyncpg sets that for a moment, and would make the local "off" everybody's
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "max_parallel_workers_per_gather": "0",
    "array_nulls": "on",  # arrays travel as text, see below
}
GREETING = """
SELECT set_config(s.name, s.value, g.is_pooled), g.is_pooled
FROM unnest($2::text[], $3::text[]) AS s(name, value), (SELECT pg_backend_pid() <> $1::integer AS is_pooled) AS g
WHERE s.name <> 'application_name' OR current_setting('application_name') = ''
"""  # local settings end with this statement

# Lock not available, deadlock, serialization failure, and a statement_timeout that somebody set: nothing happened.
_CONTENDED = frozenset({"55P03", "40P01", "40001", "57014"})
_COLLISIONS = frozenset({"40001", "40P01"})
_SCHEMA = frozenset({"42P01", "42703", "3F000"})  # undefined table, column, schema
_DATA_CLASSES = frozenset({"22", "23", "54"})  # bad values, constraints, program limits (a key too long for its index)
_REFUSED_CLASSES = frozenset({"25", "53"})  # a standby, or no room left: nothing happened

DRIVERS = ("asyncpg.", "psycopg")  # modules whose errors are about a connection


class Postgres:
    """The words of PostgreSQL, as asyncpg takes them."""

    name = "postgresql"
    now = "clock_timestamp()"  # not now(): a batch that waited for a lock must not stamp the time before it
    prelude = None
    begin = "BEGIN"
    forget_plans = "DISCARD PLANS"

    def later(self, seconds: str) -> str:
        """Return SQL for a time so many seconds from now."""
        return f"clock_timestamp() + make_interval(secs => {seconds})"

    def among(self, values: str) -> str:
        """Return SQL for "is one of the values of a list"."""
        name, type_ = values.split()
        return f"= ANY(CAST(:{name} AS {type_}[]))"

    def within(self, query: str) -> str:
        """Return SQL for "is one of what a query gives"."""
        return f"= ANY(ARRAY({query}))"

    def rows(self, alias: str, columns: Columns) -> str:
        """Return SQL for a table made of rows."""
        arrays = ", ".join(_array(f":{alias}_{column}", type_) for column, type_ in columns)
        return folded(f"unnest({arrays}) AS {alias}({', '.join(column for column, _ in columns)})")

    def merged(self, attributes: str, changes: str) -> str:
        """Return SQL for attributes after changes."""
        both = f"COALESCE({attributes}, '{{}}') || CAST({changes} AS jsonb)"
        return f"NULLIF(jsonb_strip_nulls({both}), '{{}}')"

    def lock(self, alias: str) -> str:
        """Return the clause that locks rows and passes over locked ones."""
        return f"FOR NO KEY UPDATE OF {alias} SKIP LOCKED"

    def table(self, name: str, schema: str | None) -> str:
        """Return a table's name."""
        if schema is None:
            return name
        quoted = schema.replace('"', '""')
        return f'"{quoted}".{name}'

    def values(self, given: Mapping[str, object], rows: Mapping[str, Columns]) -> dict[str, object]:
        """Turn parameters into what the driver takes."""
        bound = dict(given)
        for name, columns in rows.items():
            table: Any = bound.pop(name)
            cells = zip(*table, strict=True) if table else ((),) * len(columns)
            for (column, type_), values in zip(columns, cells, strict=True):
                bound[f"{name}_{column}"] = _WRITERS[type_](values) if type_ in _WRITERS else values
        return bound

    def moment(self, stored: Any) -> datetime:
        """Turn a stored time into a datetime."""
        result: datetime = stored
        return result

    def prepared(self, clause: TextClause) -> Prepared:
        """Return a statement with numbered parameters, as asyncpg takes it, and the names of those."""
        compiled: Any = clause.compile(dialect=asyncpg.dialect())  # type: ignore[no-untyped-call]
        return str(compiled), tuple(compiled.positiontup)

    async def fetch(
        self,
        connection: AsyncConnection,  # noqa: ARG002  which would do it too, and take as long again
        driver: Any,
        prepared: Prepared,
        values: Mapping[str, object],
    ) -> Rows:
        """Execute a statement; return its rows."""
        sql, names = prepared
        rows: Rows = await driver.fetch(sql, *map(values.__getitem__, names), record_class=row_class())
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
        await driver.executemany(sql, [[*map(row.__getitem__, names)] for row in rows])

    async def say(self, connection: AsyncConnection, driver: Any, command: str) -> None:  # noqa: ARG002  as in `fetch`
        """Execute a bare command."""
        await driver.execute(command)

    async def greet(
        self,
        connection: AsyncConnection,  # noqa: ARG002  it would leave a prepared statement behind
        driver: Any,
        *,
        label: str,
        lock_timeout_seconds: float,
    ) -> Manner:
        """Make a new connection ours; return how to speak on it."""
        settings = SETTINGS | {"lock_timeout": f"{int(lock_timeout_seconds * 1000)}ms"}
        lasting = lasting_settings(settings, label)
        greeting = await driver.prepare(GREETING, name="")
        rows = await greeting.fetch(self.process(driver), list(lasting), list(lasting.values()))
        return Pooled(settings) if rows[0]["is_pooled"] else self

    def is_open(self, driver: Any) -> bool:
        """Whether the driver believes in its connection."""
        return not driver.is_closed()

    def abort(self, driver: Any) -> None:
        """Let go of a connection at once."""
        driver.terminate()

    def process(self, driver: Any) -> int:
        """Return the server's process."""
        pid: int = driver.get_server_pid()
        return pid

    @asynccontextmanager
    async def listening(
        self, driver: Any, channel: str, hear: Callable[[int, str], None], deafen: Callable[[], None]
    ) -> AsyncIterator[None]:
        """Listen: asyncpg calls back."""

        def heard(_connection: object, pid: int, _channel: str, payload: str) -> None:
            hear(pid, payload)

        def ended(_connection: object) -> None:
            deafen()

        driver.add_termination_listener(ended)
        try:
            await driver.add_listener(channel, heard)
            yield
        finally:
            driver.remove_termination_listener(ended)
            driver.terminate()  # not UNLISTEN, to which a server that has fallen silent would not answer

    async def probe(self, driver: Any, seconds: float) -> None:
        """Ask the server whether it is still there."""
        await driver.execute("SELECT 1", timeout=seconds)

    def is_bad(self, error: BaseException) -> bool:
        """Whether the driver could not write a value."""
        return isinstance(error, ValueError)

    def collides(self, error: DBAPIError) -> bool:
        """Tell whether a host's transaction failed because of another one alone."""
        return getattr(error.driver_exception, "sqlstate", None) in _COLLISIONS

    def fault(self, error: BaseException, *, pure: bool) -> ContinuumError | None:
        """Translate what the driver raised."""
        lost = JournalUnavailable if pure else Ambiguous
        if isinstance(error, TimeoutError):
            return lost("PostgreSQL did not answer in time")
        if isinstance(error, DBAPIError):
            error = error.driver_exception
        elif not isinstance(error, OSError | UnicodeError) and not type(error).__module__.startswith(DRIVERS):
            return None
        state = getattr(error, "sqlstate", None)
        if state in _CONTENDED:
            return Contended(f"PostgreSQL could not get a lock in time (SQLSTATE {state})")
        if state in _SCHEMA:
            return SchemaNotReady(f"a table or column is missing ({error}): run `continuum migrate`")
        if state[:2] in _DATA_CLASSES if state is not None else self.is_bad(error):
            return BadData(f"PostgreSQL does not take a value: {error}")
        if state is not None and state[:2] in _REFUSED_CLASSES:
            return JournalUnavailable(f"PostgreSQL takes no writes: {error}")
        return lost(f"the connection to PostgreSQL was lost (SQLSTATE {state}): {error}")


def _array(bind: str, type_: str) -> str:
    return f"CAST(CAST({bind} AS text) AS {type_}[])" if type_ in _WRITERS else f"CAST({bind} AS {type_}[])"


_json = Encoder().encode


def _written(values: Sequence[object]) -> str:
    """Return an array as PostgreSQL reads it. A list in JSON is one in other brackets, if nothing in it is escaped."""
    try:
        written = _json(values)
    except (TypeError, ValueError, OverflowError):  # a subclass of str, a lone surrogate, a number of more than 64 bits
        return _written_one_by_one(values)
    return _written_one_by_one(values) if b"\\" in written else f"{{{written[1:-1].decode()}}}"


def _written_one_by_one(values: Sequence[object]) -> str:
    return f"{{{','.join(map(_cell, values))}}}"


def _cell(value: object) -> str:
    match value:
        case None:
            return "NULL"
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}"'
        case datetime():
            return value.isoformat()
        case _:
            return repr(value)


# Arrays of the types in `_WRITERS` travel as text, which PostgreSQL reads faster than asyncpg can look at each element
# of a list: it asks two abstract base classes whether an element is a list in its turn (a third of all the time that a
# batch took). JSON has no NaN, so floats are written in Python.
_WRITERS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(("smallint", "integer", "bigint", "boolean", "uuid", "text", "timestamptz"), _written),
    "double precision": _written_one_by_one,
}


POSTGRES = Postgres()
