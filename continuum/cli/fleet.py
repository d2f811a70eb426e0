"""`continuum migrate --all-tenants`: the same for every tenant that is configured, whatever becomes of the others.

First each is asked at which revision it is, a few at a time. Then those that are behind are upgraded, a few at a time,
each in a process of its own: Alembic keeps what it is doing in globals of its process. A tenant that cannot be reached
or upgraded is told of in the end, by the table and by the exit code; it keeps nobody else from being upgraded. Any
number of these commands may run at once: an advisory lock lets the second find that the first has done the work.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from continuum import tenants
from continuum.cli.migrating import missing_file, print_sql, url_of, where_of
from continuum.errors import ConfigurationError, ContinuumError
from continuum.journal.sql import brief_engine, head, migrate, revision_of
from continuum.tenants import Tenant

UNFOLDED = 240  # columns of a table that nobody watches
STYLES = {"failed": "red", "behind": "yellow", "upgraded": "green", "up to date": "default"}

State = Literal["up to date", "behind", "upgraded", "failed"]
Step = Callable[["Outcome"], Coroutine[Any, Any, "Outcome"]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a tenant: where it is, at which revision it was found and left."""

    tenant: str
    where: str
    before: str | None = None
    after: str | None = None
    state: State = "behind"
    error: str | None = None


def run(*, checks: bool, prints: bool, into: Path | None, as_json: bool, jobs: int) -> int:
    """Upgrade, check or print the SQL of all tenants; return the exit code: 1 if one is not as it should be.

    Raises:
        ConfigurationError: there are no tenants.
    """
    known = tenants.configured()
    if not known:
        raise ConfigurationError(f"there are no tenants: {tenants.HOW}")
    if prints:
        return _print_all(known.values(), into)
    outcomes = asyncio.run(_all(known, checks=checks, jobs=jobs))
    if as_json:
        print(json.dumps({"head": head(), "tenants": [asdict(outcome) for outcome in outcomes]}))
    else:
        _show(outcomes)
    return int(any(outcome.state in ("failed", "behind") for outcome in outcomes))


# --- asking and upgrading ---------------------------------------------------------------------------------------------


async def _all(known: Mapping[str, Tenant], *, checks: bool, jobs: int) -> list[Outcome]:
    named = [Outcome(one.name, _where(one)) for one in known.values()]
    with _bar("asking", len(named)) as tick:
        found = await _each(named, lambda outcome: _asked(known[outcome.tenant], outcome), jobs, tick)
    behind = [outcome for outcome in found if outcome.state == "behind"]
    if checks or not behind:
        return found
    workers = min(jobs, len(behind))
    with _bar("upgrading", len(behind)) as tick, _processes(workers) as pool:
        done = await _each(behind, lambda outcome: _upgraded(pool, known[outcome.tenant], outcome), workers, tick)
    by_name = {outcome.tenant: outcome for outcome in done}
    return [by_name.get(outcome.tenant, outcome) for outcome in found]


async def _each(outcomes: Sequence[Outcome], step: Step, at_once: int, tick: Callable[[], object]) -> list[Outcome]:
    """Take a step for every tenant, a few at a time; what goes wrong with one is its outcome."""
    places = asyncio.Semaphore(at_once)

    async def one(outcome: Outcome) -> Outcome:
        async with places:
            try:
                result = await step(outcome)
            except (ContinuumError, BrokenExecutor) as error:  # a worker process may be killed
                result = replace(outcome, state="failed", error=str(error) or type(error).__name__)
            tick()
            return result

    return list(await asyncio.gather(*(one(outcome) for outcome in outcomes)))


async def _asked(tenant: Tenant, outcome: Outcome) -> Outcome:
    url = url_of(tenant.url)
    found = None if missing_file(url) else await revision_of(brief_engine(url), schema=tenant.schema)
    is_there = found is not None and found >= head()
    return replace(outcome, before=found, after=found, state="up to date" if is_there else "behind")


async def _upgraded(pool: ProcessPoolExecutor | None, tenant: Tenant, outcome: Outcome) -> Outcome:
    if pool is None:
        after = await _upgrade(tenant)
    else:
        after = await asyncio.get_running_loop().run_in_executor(pool, upgrade, tenant)
    return replace(outcome, after=after, state="upgraded")


def upgrade(tenant: Tenant) -> str | None:
    """Upgrade a tenant, in a process of its own; return the revision that it is at."""
    return asyncio.run(_upgrade(tenant))


async def _upgrade(tenant: Tenant) -> str | None:
    engine = brief_engine(url_of(tenant.url))
    await migrate(engine, schema=tenant.schema)
    return await revision_of(engine, schema=tenant.schema)


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor | None]:
    """Give processes to upgrade in; None: one at a time, here."""
    if count < 2:  # noqa: PLR2004  # several
        yield None
        return
    # Spawned: this process has threads, and a fork would copy their locks.
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        yield pool


def _where(tenant: Tenant) -> str:
    try:
        return where_of(url_of(tenant.url), tenant.schema)
    except ConfigurationError:  # it is told with the outcome
        return "?"


# --- printing ---------------------------------------------------------------------------------------------------------


def _print_all(known: Iterable[Tenant], into: Path | None) -> int:
    """Print a script per tenant, or write each into a file of its own."""
    failed = False
    if into is not None:
        into.mkdir(parents=True, exist_ok=True)
    for tenant in known:
        try:
            url = url_of(tenant.url)
            if into is None:
                print(f"-- tenant {tenant.name}: {where_of(url, tenant.schema)}\n", flush=True)
                print_sql(url, tenant.schema)
                continue
            path = into / f"{tenant.name}.sql"
            with path.open("w", encoding="utf-8") as file, redirect_stdout(file):
                print_sql(url, tenant.schema)
            print(path)
        except ConfigurationError as error:
            failed = True
            print(f"continuum: tenant {tenant.name}: {error.message}", file=sys.stderr)
    return int(failed)


def _show(outcomes: Sequence[Outcome]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("tenant", "database", "was at", "is at", ""):
        table.add_column(title, no_wrap=True)
    for one in outcomes:
        style = STYLES[one.state]
        table.add_row(one.tenant, one.where, one.before or "-", one.after or "-", f"[{style}]{one.state}[/]")
    console = Console(width=None if sys.stdout.isatty() else UNFOLDED, highlight=False)
    console.print(table)
    for one in outcomes:
        if one.error is not None:
            console.print(f"{one.tenant}: {one.error}", markup=False, soft_wrap=True)
    counts = [(sum(one.state == state for one in outcomes), state) for state in STYLES]
    told = ", ".join(f"{count} {state}" for count, state in counts if count)
    print(f"{told}; the newest revision is {head()}.")
    if any(one.state == "behind" for one in outcomes):
        print("Run\n    continuum migrate --all-tenants")


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[], object]]:
    """Show how far it is, where somebody watches."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda: progress.advance(bar)
