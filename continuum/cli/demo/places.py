"""Where the demo happens: a fresh directory, and in it a SQLite file, or beside it a PostgreSQL server of our own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import make_url

from continuum.embedded_postgres import Server

PREFIX = "continuum-demo-"


@dataclass(slots=True)
class Place:
    """A directory for the ledger and the nodes' logs, and the database's URL; `keeps`: the directory is to remain."""

    directory: Path
    url: str
    description: str
    keeps: bool = field(default=False)

    @property
    def ledger(self) -> Path:
        """The file into which the nodes write each attempt."""
        return self.directory / "ledger.jsonl"


@contextmanager
def a_place(*, postgres: bool) -> Iterator[Place]:
    """Make a place, and remove it afterwards unless it `keeps`; a PostgreSQL server ends either way.

    To be used in the main thread: on Linux a server ends with the thread that has started it.
    """
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    place: Place | None = None
    try:
        with ExitStack() as stack:
            place = _on_postgres(directory, stack) if postgres else _on_sqlite(directory)
            yield place
    finally:
        if place is None or not place.keeps:
            shutil.rmtree(directory, ignore_errors=True)


def _on_sqlite(directory: Path) -> Place:
    file = directory / "orders.db"
    return Place(directory, f"sqlite+aiosqlite:///{file}", f"SQLite, {file}")


def _on_postgres(directory: Path, stack: ExitStack) -> Place:
    server = stack.enter_context(Server(fsync=True))
    where = make_url(server.url).query.get("host", "")
    return Place(directory, server.url, f"PostgreSQL with fsync on, pid {server.pid}, in {where}")
