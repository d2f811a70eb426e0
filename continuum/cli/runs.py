"""`continuum runs`: a look at the runs of one database, and a word to one of them, without the code that runs them.

So a signal is not checked against a contract here (the run's wait does that), and a host's payload codec is not known:
what was sealed stays sealed. `list` and `show` print tables, or JSON with `--json`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from continuum.cli.opening import opened
from continuum.client.inputs import Json, attribute_of_text
from continuum.client.reading import HistoryEvent, Page
from continuum.composition.instance import Instance
from continuum.errors import InputInvalid
from continuum.model.runs import Run

DATA_MAX = 200  # characters of an event's data in a table; --json has all of it
EVENTS_MAX = 100  # of the newest events in a table
UNFOLDED = 500  # columns, for what reads a pipe: it reads lines
COLORS = {"completed": "green", "failed": "red", "blocked": "red", "cancelled": "yellow", "cancelling": "yellow"}

app = typer.Typer(name="runs", help="Look at runs; signal and cancel them.", no_args_is_help=True)

Url = Annotated[
    str | None, typer.Option("--url", help="Which database; default: CONTINUUM_DATABASE_URL.", show_default=False)
]
Schema = Annotated[str | None, typer.Option("--schema", help="PostgreSQL: of the tables.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunId = Annotated[str, typer.Argument(help="The run's id.", show_default=False)]


@app.command("list")
def list_runs(
    *,
    state: Annotated[str | None, typer.Option(help="Only those in this state.", show_default=False)] = None,
    workflow: Annotated[str | None, typer.Option(help="Only those of this workflow.", show_default=False)] = None,
    namespace: Annotated[str | None, typer.Option(help="Only those of this namespace.", show_default=False)] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, any number of them; a value is JSON if it can be.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(help="How many at most, up to 1000.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="The page after that one.", show_default=False)] = None,
    as_json: AsJson = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """List runs, newest first."""
    filters: Any = {"state": state, "workflow": workflow, "namespace": namespace, "limit": limit, "cursor": cursor}
    wanted = dict(_attribute(one) for one in attribute or ()) or None
    page: Page[Run] = _ask(url, schema, lambda instance: instance.list_runs(attributes=wanted, **filters))
    if as_json:
        print(_json({"items": [_facts(run) for run in page.items], "next_cursor": page.next_cursor}))
        return
    console = _console()
    console.print(_table_of(page.items) if page.items else "No runs.")
    if page.next_cursor is not None:
        console.print(f"more: --cursor {page.next_cursor}", soft_wrap=True)


@app.command("show")
def show_run(*, run_id: RunId, as_json: AsJson = False, url: Url = None, schema: Schema = None) -> None:
    """Show a run and its history."""

    async def read(instance: Instance) -> tuple[Run, list[HistoryEvent]]:
        return await instance.get_run(run_id), await instance.history(run_id)

    run, events = _ask(url, schema, read)
    if as_json:
        print(_json({**_facts(run), "events": [dataclasses.asdict(event) for event in events]}))
        return
    console = _console()
    for name, value in _facts(run).items():
        if value not in (None, {}):
            console.print(Text.assemble((f"{name:>15}  ", "dim"), _cell(value)), soft_wrap=True)
    console.print(_history_of(events))


@app.command("signal")
def signal_run(
    *,
    run_id: RunId,
    name: Annotated[str, typer.Argument(help="The signal's name.", show_default=False)],
    payload: Annotated[str, typer.Argument(help="JSON.")] = "null",
    delivery_id: Annotated[
        str | None, typer.Option(help="A second delivery with this id is a duplicate.", show_default=False)
    ] = None,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Send a run a signal; prints `delivered` or `duplicate`."""
    try:
        json.loads(payload, parse_constant=_no_constant)
    except ValueError as error:
        raise InputInvalid(f"the payload is JSON, and {payload!r} is none: write a text as '\"text\"'") from error
    sent = Json(payload.encode())
    print(_ask(url, schema, lambda instance: instance.signal(run_id, name, sent, delivery_id=delivery_id)))


@app.command("cancel")
def cancel_run(
    *,
    run_id: RunId,
    compensate: Annotated[bool, typer.Option("--compensate", help="Undo first what is owed.")] = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Cancel a run; prints `cancelled`, or `requested` if the node that holds it has not honoured it yet."""
    print(_ask(url, schema, lambda instance: instance.cancel(run_id, compensate=compensate)))


def _ask(url: str | None, schema: str | None, what: Callable[[Instance], Coroutine[Any, Any, Any]]) -> Any:
    async def asked() -> Any:
        async with opened(url, schema) as instance:
            return await what(instance)

    with Console(stderr=True).status("asking the database"):
        return asyncio.run(asked())


def _no_constant(name: str) -> None:
    """Refuse what Python reads beyond JSON."""
    raise ValueError(f"{name} is not JSON")


def _attribute(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputInvalid(f"--attribute takes NAME=VALUE, not {text!r}")
    return name, attribute_of_text(value)


# --- what is printed --------------------------------------------------------------------------------------------------


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else UNFOLDED, highlight=False)


def _table_of(runs: Sequence[Run]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    has_namespaces = any(run.namespace != "default" for run in runs)
    table.add_column("run", no_wrap=True)
    for title in ("workflow", "state", *(["namespace"] if has_namespaces else []), "started", "attributes"):
        table.add_column(title, overflow="fold")
    for run in runs:
        state = Text(run.state.value, style=COLORS.get(run.state.value, ""))
        namespace = [Text(run.namespace)] if has_namespaces else []
        attributes = Text(" ".join(f"{name}={_cell(value)}" for name, value in run.attributes.items()))
        table.add_row(
            run.run_id, Text(f"{run.workflow} v{run.version}"), state, *namespace, _time(run.started_at), attributes
        )
    return table


def _history_of(events: Sequence[HistoryEvent]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("", "at", "event", "name", "data"):
        table.add_column(title, overflow="fold")
    if len(events) > EVENTS_MAX:
        table.add_row("", "", f"… {len(events) - EVENTS_MAX} older events: --json has them", "", "")
    for event in events[-EVENTS_MAX:]:
        data = "" if event.data is None else json.dumps(event.data, ensure_ascii=False)
        shown = data if len(data) <= DATA_MAX else f"{data[:DATA_MAX]}… ({len(data)} characters)"
        table.add_row(str(event.seq), _time(event.at), event.type, Text(event.name or ""), Text(shown))
    return table


def _facts(run: Run) -> Mapping[str, Any]:
    facts = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
    error = run.error
    if error is not None:
        facts["error"] = {"type": error.type, "message": error.message, "details": error.details}
    return facts


def _cell(value: Any) -> str:
    match value:
        case datetime():
            return _time(value)
        case str():
            return value
        case _:
            return json.dumps(value, ensure_ascii=False, default=str)


def _time(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")


def _json(value: Any) -> str:
    return json.dumps(
        value, ensure_ascii=False, default=lambda one: one.isoformat() if isinstance(one, datetime) else str(one)
    )
