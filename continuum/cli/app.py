"""The commands and their options; each hands over to the module that does the work."""

from __future__ import annotations

import importlib
import io
import math
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import continuum
from continuum import tenants
from continuum.cli import changes, fleet, migrating, runs, schedules
from continuum.cli.demo import command as demonstration
from continuum.errors import ConfigurationError, ContinuumError

LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")  # uvicorn's

app = typer.Typer(
    name="continuum",
    help="Durable execution for FastAPI and SQLAlchemy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(runs.app, name="runs")
app.add_typer(schedules.app, name="schedules")
app.command("versions")(changes.versions_command)
app.command("preflight")(changes.preflight_command)


def run() -> None:
    """Run the command that the arguments name, and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without arrows and lines must not end a demo
    try:
        app()
    except ContinuumError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"continuum: {error.message}", markup=False)
        sys.exit(1)


def _print_version(is_wanted: bool) -> None:  # noqa: FBT001  # typer's signature
    if is_wanted:
        print(f"continuum {continuum.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Durable execution for FastAPI and SQLAlchemy."""


@app.command()
def demo(
    *,
    postgres: Annotated[
        bool, typer.Option("--postgres", help="On a PostgreSQL server of its own instead of a SQLite file.")
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", help="End after the verification; else, on a terminal, one node stays up.")
    ] = False,
) -> None:
    """Run twenty orders on two nodes, kill one with SIGKILL, watch the other take over, verify every result."""
    sys.exit(demonstration.run(postgres=postgres, stays=not once and sys.stdin.isatty() and sys.stdout.isatty()))


@app.command()
def migrate(
    *,
    url: Annotated[
        str | None, typer.Option("--url", help="Which database; default: CONTINUUM_DATABASE_URL.", show_default=False)
    ] = None,
    schema: Annotated[
        str | None, typer.Option("--schema", help="PostgreSQL: the schema of the tables.", show_default=False)
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="A configured tenant, instead of a URL.", show_default=False)
    ] = None,
    all_tenants: Annotated[bool, typer.Option("--all-tenants", help="Every configured tenant.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if there is something to do.")] = False,
    sql: Annotated[
        bool, typer.Option("--sql", help="Change nothing; print the SQL that makes the tables from nothing.")
    ] = False,
    into: Annotated[
        Path | None,
        typer.Option("--into", help="--all-tenants --sql: a folder for a script per tenant.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="--all-tenants: print what became of each as JSON.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="--all-tenants: how many at once.")] = 4,
    rename: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--rename",
            metavar="OLD NEW",
            help="Give the tables of a stopped instance to a new name.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Create or upgrade Continuum's tables; safe from several processes at once."""
    if sum((check, sql, rename is not None)) > 1:
        raise ConfigurationError("--check, --sql and --rename exclude each other: choose one")
    if sum((all_tenants, tenant is not None, url is not None or schema is not None)) > 1:
        raise ConfigurationError("--all-tenants, --tenant and --url with --schema exclude each other: choose one")
    if all_tenants:
        if rename is not None or (into is not None and not sql) or (as_json and sql):
            raise ConfigurationError(
                "--all-tenants goes alone, with --check or with --sql; --into with --sql, --json without"
            )
        sys.exit(fleet.run(checks=check, prints=sql, into=into, as_json=as_json, jobs=jobs))
    if into is not None or as_json:
        raise ConfigurationError("--into and --json are for --all-tenants")
    if tenant is not None:
        chosen = tenants.tenant(tenant)
        url, schema = chosen.url, chosen.schema
    sys.exit(migrating.run(url=url, schema=schema, checks=check, prints=sql, renames=rename))


@app.command()
def serve(
    *,
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="Of an ASGI application.", show_default=False)],
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen.")] = 8000,
    patience: Annotated[
        float, typer.Option(help="Seconds that a drain may take; longer than the instances' drain_timeout.")
    ] = 30.0,
    log_level: Annotated[str, typer.Option(help="Of the server.")] = "info",
) -> None:
    """Serve a host of Continuum with uvicorn, until it is told to end and has handed its runs over."""
    if not re.fullmatch(r"[\w.]+:[\w.]+(\(\))?", target):
        raise ConfigurationError(f"serve takes MODULE:APP, such as service.app:app, not {target!r}")
    if not 0 <= patience < math.inf:
        raise ConfigurationError(f"--patience takes seconds, 0 or more, not {patience}")
    if log_level not in LOG_LEVELS:
        raise ConfigurationError(f"--log-level takes {', '.join(LOG_LEVELS)}, not {log_level!r}")
    server = importlib.import_module("continuum.cli.serving")  # uvicorn is in no other command's way
    server.run(target, host=host, port=port, patience=patience, log_level=log_level)
    sys.exit(0)
