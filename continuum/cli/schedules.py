"""`continuum schedules`: what operators ask about schedules, and do with them.

Reading commands take `--json`: one object, or one per line. A trigger needs the workflow's code, which says what its newest
version is and whether the stored arguments still fit: `--import` names the module that has it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from continuum.cli.opening import opened
from continuum.composition.instance import Instance
from continuum.errors import ConfigurationError
from continuum.model.schedules import Schedule

UPCOMING = 5  # fire times that are shown
UNFOLDED = 500  # columns

app = typer.Typer(name="schedules", help="List schedules; pause, resume, trigger, delete them.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="Which schedule.", show_default=False)]
Url = Annotated[
    str | None, typer.Option("--url", help="Which database; default: CONTINUUM_DATABASE_URL.", show_default=False)
]
Schema = Annotated[
    str | None, typer.Option("--schema", help="PostgreSQL: the schema of the tables.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(
    *,
    state: Annotated[
        str | None, typer.Option("--state", help="Only these: active, paused, failed, ended.", show_default=False)
    ] = None,
    url: Url = None,
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """List schedules by id; with --json one object per line."""

    async def read(instance: Instance) -> list[Schedule]:
        return [schedule async for schedule in _all(instance, state)]

    schedules = _ask(url, schema, read)
    if as_json:
        for schedule in schedules:
            print(json.dumps(_plain(schedule)))
    elif schedules:
        width = None if sys.stdout.isatty() else UNFOLDED  # what reads a pipe reads lines
        Console(width=width, highlight=False).print(_table(schedules))
    else:
        print("No schedules.")


@app.command()
def show(schedule_id: Id, *, url: Url = None, schema: Schema = None, as_json: Json = False) -> None:
    """Show a schedule, and when it fires next."""
    schedule = _ask(url, schema, lambda instance: instance.get_schedule(schedule_id))
    plain = {**_plain(schedule), "upcoming": [_text(moment) for moment in schedule.upcoming(UPCOMING)]}
    if as_json:
        print(json.dumps(plain))
        return
    for name, value in plain.items():
        shown = ", ".join(value) if isinstance(value, list) else "" if value is None else value
        print(f"{name:12} {shown}".rstrip())


@app.command()
def pause(schedule_id: Id, *, url: Url = None, schema: Schema = None) -> None:
    """Let a schedule rest until it is resumed."""
    schedule = _ask(url, schema, lambda instance: instance.pause_schedule(schedule_id))
    print(f"{schedule_id} is {schedule.state.value}.")


@app.command()
def resume(schedule_id: Id, *, url: Url = None, schema: Schema = None) -> None:
    """Let a paused or failed schedule go on."""
    schedule = _ask(url, schema, lambda instance: instance.resume_schedule(schedule_id))
    print(f"{schedule_id} is {schedule.state.value}.")


@app.command()
def trigger(
    schedule_id: Id,
    *,
    modules: Annotated[
        list[str], typer.Option("--import", help="A module with the workflow's code.", show_default=False)
    ],
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Start a run of a schedule now; print its id."""
    _import(modules)
    print(_ask(url, schema, lambda instance: instance.trigger_schedule(schedule_id)).run_id)


@app.command()
def delete(schedule_id: Id, *, url: Url = None, schema: Schema = None) -> None:
    """Delete a schedule; its runs stay."""
    _ask(url, schema, lambda instance: instance.delete_schedule(schedule_id))
    print(f"{schedule_id} is deleted.")


def _ask(url: str | None, schema: str | None, what: Callable[[Instance], Coroutine[Any, Any, Any]]) -> Any:
    async def asked() -> Any:
        async with opened(url, schema) as instance:
            return await what(instance)

    return asyncio.run(asked())


async def _all(instance: Instance, state: str | None) -> AsyncIterator[Schedule]:
    cursor: str | None = None
    while True:
        page = await instance.list_schedules(state=state, limit=1_000, cursor=cursor)
        for schedule in page.items:
            yield schedule
        cursor = page.next_cursor
        if cursor is None:
            return


def _import(modules: Sequence[str]) -> None:
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` and servers do
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ConfigurationError(f"--import {module}: {error}") from error


# --- showing ----------------------------------------------------------------------------------------------------------


def _plain(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as JSON has it: times in RFC 3339, durations in seconds."""
    return {name: _json(getattr(schedule, name)) for name in schedule.__dataclass_fields__ if not name.startswith("_")}


def _json(value: Any) -> Any:
    match value:
        case datetime():
            return _text(value)
        case timedelta():
            return value.total_seconds()
        case _:
            return value


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _table(schedules: Sequence[Schedule]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("id", "fires", "state", "next", "last", "fired", "skipped", "missed"):
        table.add_column(column, overflow="fold")
    for schedule in schedules:
        table.add_row(
            schedule.schedule_id,
            _fires(schedule),
            schedule.state.value,
            *("" if moment is None else _text(moment) for moment in (schedule.next_at, schedule.last_at)),
            *(str(count) for count in (schedule.fired, schedule.skipped, schedule.missed)),
        )
    return table


def _fires(schedule: Schedule) -> str:
    if schedule.cron is not None:
        return f"{schedule.cron} ({schedule.timezone})"
    return f"every {schedule.every}" if schedule.every is not None else "once"
