"""`continuum versions` and `continuum preflight`: which code open runs need, and whether the code at hand would do.

Both only look. Exit codes of `preflight`, for CI: 0 every run would go on, 1 some would not, 2 it could not look.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from continuum.cli.looking import imported, looking
from continuum.client.preflight import PatchUse, Preflight, Trouble, Watch, preflight
from continuum.client.versions import WorkflowVersion, versions, with_patches
from continuum.composition.instance import Instance
from continuum.definitions.catalog import catalog
from continuum.errors import ContinuumError

CLEAN, TROUBLE, BLIND = 0, 1, 2
UNFOLDED = 500  # columns

Url = Annotated[
    str | None, typer.Option("--url", help="Which database; default: CONTINUUM_DATABASE_URL.", show_default=False)
]
Schema = Annotated[
    str | None, typer.Option("--schema", help="PostgreSQL: the schema of the tables.", show_default=False)
]
Codec = Annotated[
    str | None, typer.Option("--codec", help="MODULE:NAME of the payload codec, with --url.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MODULES = "Modules that define workflows; MODULE:CHILDREN also names what children() returned, and so the database."


def versions_command(
    modules: Annotated[list[str] | None, typer.Argument(metavar="[MODULE[:CHILDREN]]...", help=MODULES)] = None,
    *,
    url: Url = None,
    schema: Schema = None,
    codec: Codec = None,
    as_json: Json = False,
) -> None:
    """Show which versions open runs need, who carries them, and which patches are no longer needed.

    With modules, every open run is replayed against them, so that what is said of patches is exact.
    """
    known = asyncio.run(_versions(modules or [], url, schema, codec))
    if as_json:
        print(json.dumps([_plain_version(one) for one in known]))
        return
    if not known:
        print("No open runs, and no living nodes.")
        return
    Console(width=None if sys.stdout.isatty() else UNFOLDED, highlight=False).print(_table(known))
    for remark in _remarks(known):
        print(remark)


def preflight_command(
    modules: Annotated[list[str], typer.Argument(metavar="MODULE[:CHILDREN]...", help=MODULES, show_default=False)],
    *,
    workflow: Annotated[
        str | None, typer.Option("--workflow", help="Only runs of this workflow.", show_default=False)
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option("--sample", min=1, help="At most so many runs of each workflow and version.", show_default=False),
    ] = None,
    url: Url = None,
    schema: Schema = None,
    codec: Codec = None,
    as_json: Json = False,
) -> None:
    """Replay open runs read-only against the code at hand; exit 0 clean, 1 trouble, 2 could not look."""
    try:
        instance = imported(modules)
        found = asyncio.run(_preflight(instance, url, schema, codec, workflow=workflow, sample=sample))
    except ContinuumError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"continuum: {error.message}", markup=False)
        sys.exit(BLIND)
    if as_json:
        print(json.dumps({"is_clean": found.is_clean, **asdict(found)}))
    else:
        _tell(found)
    sys.exit(CLEAN if found.is_clean else TROUBLE)


async def _versions(
    modules: Sequence[str], url: str | None, schema: str | None, codec: str | None
) -> tuple[WorkflowVersion, ...]:
    async with looking(imported(modules), url=url, schema=schema, codec=codec) as (journal, name):
        known = await versions(journal)
        if not modules:
            return known
        with _bar() as watch:
            found = await preflight(journal, catalog().find, name, watch=watch)
        return with_patches(known, found.patches)


async def _preflight(
    instance: Instance | None,
    url: str | None,
    schema: str | None,
    codec: str | None,
    *,
    workflow: str | None,
    sample: int | None,
) -> Preflight:
    async with looking(instance, url=url, schema=schema, codec=codec) as (journal, name):
        with _bar() as watch:
            return await preflight(journal, catalog().find, name, workflow=workflow, sample=sample, watch=watch)


@contextmanager
def _bar() -> Iterator[Watch]:
    """Show how far it is, where somebody watches."""
    console = Console(stderr=True)
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("replaying", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


# --- showing ----------------------------------------------------------------------------------------------------------


def _tell(found: Preflight) -> None:
    whole = "" if found.runs >= found.open_runs else f" of {found.open_runs:,}"
    trouble = sum(one.runs for one in found.troubles)
    print(f"{found.runs:,}{whole} open runs, {found.events:,} events: {found.clean:,} clean, {trouble:,} in trouble.")
    if found.mended:
        print(f"{found.mended:,} of the clean ones are blocked now, and would go on with this code.")
    for one in found.troubles:
        print(f"\n{_headline(one)}")
        for line in _explained(one):
            print(f"    {line}")
    if found.troubles:
        print("\nDeploy code that fits, or register the change as a new version; the guide on versions has both.")


def _headline(one: Trouble) -> str:
    where = "" if one.site is None else f"  {_shortened(one.site)}"
    return f"{one.kind}  {one.workflow} v{one.version}  {one.runs:,} {'run' if one.runs == 1 else 'runs'}{where}"


def _explained(one: Trouble) -> Iterator[str]:
    if one.expected is None:
        yield from one.found.splitlines()
    else:
        yield f"event {one.seq}: expected {one.expected}"
        yield f"{'':{len(str(one.seq)) + 7}} found    {one.found}"
    more = "" if one.runs <= len(one.examples) else " …"
    yield f"runs {', '.join(one.examples)}{more}"


def _shortened(site: str) -> str:
    """Name files below the working directory as one types them."""
    return site.removeprefix(f"{Path.cwd()}{os.sep}")


def _table(known: Sequence[WorkflowVersion]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in ("workflow", "version", "open runs", "nodes", "patches"):
        table.add_column(title, overflow="fold")
    for one in known:
        states = ", ".join(f"{runs:,} {state.value}" for state, runs in sorted(one.open_runs.items()))
        patches = "\n".join(f"{use.patch}: {_patch(use)}" for use in one.patches)
        table.add_row(one.workflow, str(one.version), states or "none", _nodes(one.nodes) or "none", patches)
    return table


def _nodes(nodes: Sequence[str]) -> str:
    counts = {node: nodes.count(node) for node in nodes}
    return ", ".join(node if count == 1 else f"{node} × {count}" for node, count in counts.items())


def _patch(use: PatchUse) -> str:
    taken = f"{use.taken:,} take it"
    match use.is_needed:
        case True:
            return f"{taken}, {use.without:,} need the old way"
        case False:
            return f"{taken}, none needs the old way"
        case _:
            return f"{taken}, up to {use.undecided:,} may need the old way"


def _remarks(known: Sequence[WorkflowVersion]) -> Iterator[str]:
    for one in known:
        if one.is_stranded:
            yield (
                f"\n{one.workflow} v{one.version}: no living node carries it, and {one.runs:,} open "
                f"{'run waits' if one.runs == 1 else 'runs wait'} for one that does. Start a node with that code."
            )
    carried = {one.workflow for one in known if one.nodes}
    for name in sorted(carried):
        newest = max(one.version for one in known if one.workflow == name and one.nodes)
        old = [one.version for one in known if one.workflow == name and one.version < newest and one.is_removable]
        for version in old:
            yield f"\n{name} v{version}: no open run needs it; its code may go, once no node starts runs of it."


def _plain_version(one: WorkflowVersion) -> dict[str, Any]:
    return {
        "workflow": one.workflow,
        "version": one.version,
        "open_runs": {state.value: runs for state, runs in one.open_runs.items()},
        "nodes": list(one.nodes),
        "is_stranded": one.is_stranded,
        "is_removable": one.is_removable,
        "patches": [
            {
                "patch": use.patch,
                "taken": use.taken,
                "without": use.without,
                "undecided": use.undecided,
                "is_needed": use.is_needed,
            }
            for use in one.patches
        ],
    }
