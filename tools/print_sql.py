"""Prints every statement of the SQL journals, in both dialects: `python -m tools.print_sql docs/sql`.

For who wants to know what Continuum does to a database before letting it in; a test holds the printed files to the code.
"""

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from continuum.journal.sql import statements
from continuum.journal.sql.dialects import Dialect
from continuum.journal.sql.dialects.postgres import POSTGRES
from continuum.journal.sql.dialects.sqlite import SQLITE
from continuum.journal.sql.statements.book import Book, Statement

DIALECTS: tuple[Dialect, ...] = (POSTGRES, SQLITE)


def modules() -> Iterator[ModuleType]:
    """Yield the modules of statements, by name."""
    for module in pkgutil.iter_modules(statements.__path__):
        yield importlib.import_module(f"{statements.__name__}.{module.name}")


def statements_of(module: ModuleType) -> Iterator[Statement]:
    """Yield a module's statements in the order in which they are written."""
    for name, value in vars(module).items():
        if name.isupper():
            yield from (one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, Statement))


def printed(dialect: Dialect) -> str:
    """Return all statements of a dialect, with their names and what they are for."""
    book = Book(dialect)
    parts = [f"-- Every statement of the journal on {dialect.name}. Made by `make sql`; parameters are written :name."]
    for module in modules():
        chosen = [statement for statement in statements_of(module) if statement.of(dialect.name)]
        if chosen:
            title = module.__name__.rpartition(".")[2]
            parts.append(f"-- {title} {'-' * (116 - len(title))}")
        for statement in chosen:
            sql = str(book[statement].clause).strip()
            parts.append(f"-- {statement.name}: {statement.doc}\n{sql};")
    return "\n\n".join(parts) + "\n"


def main(directory: Path) -> None:
    """Write a file per dialect."""
    directory.mkdir(parents=True, exist_ok=True)
    for dialect in DIALECTS:
        (directory / f"{dialect.name}.sql").write_text(printed(dialect))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
