"""The door to a terminal: `continuum demo`, `migrate`, `runs`, `schedules`, `serve`.

The command line needs typer and rich, which the library does without: the commands are loaded by name here, once, and
whatever optional package turns out to be missing (these two, or a database's driver) becomes the command that installs
it. Exit codes: 0 done, 1 not done (the message says why, and what to do), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import importlib
import sys

EXTRAS = {
    "typer": "cli",
    "rich": "cli",
    "aiosqlite": "sqlite",
    "asyncpg": "postgres",
    "psycopg": "psycopg",
    "uvicorn": "service",
}  # package → extra that brings it


def main() -> None:
    """Run the command line; never returns, as is usual for entry points."""
    try:
        importlib.import_module("continuum.cli.app").run()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        sys.exit(
            f"This needs {package}, which is not installed. Run\n    pip install 'continuum-durable[{EXTRAS[package]}]'"
        )
