"""What a statement is, and how it becomes the SQL of one dialect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import TextClause, text

from continuum.journal.sql.dialects import Columns, Dialect

TABLES = (
    "runs",
    "events",
    "inbox",
    "tasks",
    "owners",
    "snapshots",
    "activity_results",
    "schedules",
    "workflow_versions",
    "instances",
    "alembic_version",
)
_ROWS = re.compile(r"(\w+)\((.*)\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Statement:
    """A named template; `sqlite` replaces `template` where SQLite needs SQL of its own."""

    name: str
    doc: str
    template: str
    sqlite: str | None = None

    def of(self, dialect: str) -> str | None:
        """Return the template for a dialect; an empty one means that the dialect does without this statement."""
        return self.sqlite if dialect == "sqlite" and self.sqlite is not None else self.template


@dataclass(frozen=True, slots=True)
class Rendered:
    """A statement in one dialect, ready to execute; `rows` names the parameters that hold rows, and their columns."""

    name: str
    clause: TextClause
    rows: Mapping[str, Columns]
    prepared: Any  # the clause as the dialect's `fetch` takes it


@dataclass(slots=True)
class _Word:
    """Something in a template that takes an argument after a colon."""

    speak: object

    def __format__(self, argument: str) -> str:
        return str(self.speak(argument))  # type: ignore[operator]


@dataclass(slots=True)
class Book:
    """All statements for one dialect and schema, each rendered when it is first needed."""

    dialect: Dialect
    schema: str | None = None
    _rendered: dict[str, Rendered] = field(default_factory=dict)

    def __getitem__(self, statement: Statement) -> Rendered:
        rendered = self._rendered.get(statement.name)
        if rendered is None:
            rendered = self._rendered[statement.name] = self._render(statement)
        return rendered

    def _render(self, statement: Statement) -> Rendered:
        rows: dict[str, Columns] = {}

        def table_of(argument: str) -> str:
            match = _ROWS.fullmatch(argument.strip())
            if match is None:
                raise ValueError(f"{statement.name}: {argument!r} is not alias(column type, …)")
            alias, inner = match.groups()
            columns = [(name, kind) for name, _, kind in (column.strip().partition(" ") for column in inner.split(","))]
            rows[alias] = columns
            return self.dialect.rows(alias, columns)

        words: dict[str, object] = {name: self.dialect.table(f"continuum_{name}", self.schema) for name in TABLES}
        words |= {
            "now": self.dialect.now,
            "later": _Word(self.dialect.later),
            "among": _Word(self.dialect.among),
            "within": _Word(self.dialect.within),
            "merged": _Word(lambda argument: self.dialect.merged(*argument.split(", "))),
            "lock": _Word(self.dialect.lock),
            "rows": _Word(table_of),
        }
        sql = (statement.of(self.dialect.name) or "").format_map(words)
        clause = text(sql)
        return Rendered(statement.name, clause, rows, self.dialect.prepared(clause))
