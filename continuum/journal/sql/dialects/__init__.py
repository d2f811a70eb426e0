"""The words in which the two dialects differ, and nothing else of them.

Statements are written once, as templates. What cannot be said alike stands in braces: table names, the database's
time, tables made of parameters, row locks. A dialect also turns values into what its driver takes, and what the driver
raises into the port's errors.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Row, TextClause
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from continuum.errors import ContinuumError

Columns = Sequence[tuple[str, str]]  # name, type
Rows = Sequence[Row[Any]]  # or of what has its columns as attributes, too


def folded(sql: str) -> str:
    """Return a long piece of SQL in lines that fit a page."""
    return textwrap.fill(sql, 108, subsequent_indent=" " * 12, break_long_words=False, break_on_hyphens=False)


class Manner(Protocol):
    """How one speaks on a connection."""

    @property
    def prelude(self) -> str | None:
        """What has to begin every transaction, also that of a lone statement; None: a statement stands by itself."""
        ...

    async def fetch(
        self, connection: AsyncConnection, driver: Any, prepared: Any, values: Mapping[str, object]
    ) -> Rows:
        """Execute a statement; return its rows, if it has any. `driver` is the driver's own connection."""
        ...

    async def many(
        self, connection: AsyncConnection, driver: Any, prepared: Any, rows: Sequence[Mapping[str, object]]
    ) -> None:
        """Execute a statement once per row of parameters."""
        ...

    async def say(self, connection: AsyncConnection, driver: Any, command: str) -> None:
        """Execute a bare command: nothing is bound, nothing comes back."""
        ...


class Dialect(Manner, Protocol):
    """What a statement, a line and a row need to know about the database they talk to.

    It is itself the manner of speaking on a connection that is ours alone.
    """

    @property
    def name(self) -> str:
        """SQLAlchemy's name of the dialect."""
        ...

    @property
    def now(self) -> str:
        """The database's time, in SQL."""
        ...

    @property
    def begin(self) -> str:
        """How a transaction begins that is going to write."""
        ...

    @property
    def forget_plans(self) -> str | None:
        """The command that has cached plans made anew, where there are such plans."""
        ...

    def later(self, seconds: str) -> str:
        """Return SQL for the time so many seconds (an expression) from now."""
        ...

    def among(self, values: str) -> str:
        """Return SQL for "is one of the values of a list parameter", written `name type`."""
        ...

    def within(self, query: str) -> str:
        """Return SQL for "is one of what a query gives", asked once."""
        ...

    def rows(self, alias: str, columns: Columns) -> str:
        """Return SQL for a table made of a parameter that holds rows; `columns` are (name, type)."""
        ...

    def merged(self, attributes: str, changes: str) -> str:
        """Return SQL for flat attributes after changes, which are JSON text: null removes a name; of none left, NULL."""
        ...

    def lock(self, alias: str) -> str:
        """Return the clause that locks rows to be updated, passing over those that somebody else has locked."""
        ...

    def table(self, name: str, schema: str | None) -> str:
        """Return a table's name as SQL writes it."""
        ...

    def values(self, given: Mapping[str, object], rows: Mapping[str, Columns]) -> dict[str, object]:
        """Turn parameters into what the driver takes; `rows` names those that hold rows, and their columns."""
        ...

    def moment(self, stored: Any) -> datetime:
        """Turn a stored time into an aware datetime."""
        ...

    def prepared(self, clause: TextClause) -> Any:
        """Return a statement as a `Manner` takes it."""
        ...

    async def greet(
        self, connection: AsyncConnection, driver: Any, *, label: str, lock_timeout_seconds: float
    ) -> Manner:
        """Make a new connection ours, with settings that hold as long as it lives; return how to speak on it.

        `label` is its name where connections are listed, unless the host has given it one.
        """
        ...

    def is_open(self, driver: Any) -> bool:
        """Whether the driver still believes in its connection."""
        ...

    def abort(self, driver: Any) -> None:
        """Let go of a connection at once, without a word to the server that may no longer be there."""
        ...

    def process(self, driver: Any) -> int:
        """Return which of the server's processes is at the other end; 0 where there are none."""
        ...

    def listening(
        self, driver: Any, channel: str, hear: Callable[[int, str], None], deafen: Callable[[], None]
    ) -> AbstractAsyncContextManager[None]:
        """Listen within the context: `hear` is called with who said what, `deafen` if the connection ends."""
        ...

    async def probe(self, driver: Any, seconds: float) -> None:
        """Raise if a connection that listens has died without a word."""
        ...

    def collides(self, error: DBAPIError) -> bool:
        """Tell whether a host's transaction failed because of another one alone: a new one may well succeed."""
        ...

    def fault(self, error: BaseException, *, pure: bool) -> ContinuumError | None:
        """Translate what the driver raised; `pure` says that nothing could have changed. None: not its business."""
        ...
