"""What the hot statements look at on a database with 200,000 parked runs: a few pages, whatever the statistics say.

Plans are made as the journal makes them (generic, with its settings) in the three conditions that have gone wrong
somewhere: tables that nobody has analyzed, tables analyzed while nothing was leased, and a plan made while the tables
were empty. Counted are the pages that a statement touches, which a busy machine does not change.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg
import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import create_async_engine

from continuum.ids import uuid7
from continuum.journal.sql import SqlJournal
from continuum.journal.sql.dialects.postgres import POSTGRES
from continuum.journal.sql.lines import Line
from continuum.journal.sql.rows import message_columns
from continuum.journal.sql.sheets import commit_cells, event_cells
from continuum.journal.sql.statements import batches, inbox, listing, pulse, runs, schedules, sweeps, tasks, versions
from continuum.journal.sql.statements.book import Book, Statement
from continuum.journal.sql.statements.census import CENSUS
from tests.journal.backends import INSTANCE
from tests.journal.builders import MINE, OTHER, OWNER, TTL, Lease, a_commit, a_signal, an_owner, answered
from tests.journal.sql import migrate_url
from tests.support.postgres import connect, fresh_database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

PARKED = 200_000
LEASED = 2_000
CLAIMABLE = 26
LEASES = [Lease(f"00000000-0000-7000-8000-{number:012x}") for number in range(1, LEASED + 1)]

SEED = f"""
INSERT INTO continuum_runs (id, workflow, version, namespace, state, generation, last_seq, lease_token, wake_at, created_at)
SELECT ('00000000-0000-7000-9000-' || lpad(to_hex(g), 12, '0'))::uuid, '{MINE[0][0]}', 1, 'default', 'suspended', 1, 1,
       1, now() + interval '1 day', now() - g * interval '1 second'
FROM generate_series(1, {PARKED}) AS g;
INSERT INTO continuum_inbox (id, run_id, kind, name, format, at)
SELECT gen_random_uuid(), ('00000000-0000-7000-9000-' || lpad(to_hex(g), 12, '0'))::uuid, 'signal', 's', 1, now()
FROM generate_series(1, 20) AS g;
UPDATE continuum_runs SET wake_at = now() - interval '1 s' WHERE id IN (
    SELECT ('00000000-0000-7000-9000-' || lpad(to_hex(g), 12, '0'))::uuid FROM generate_series(101, 106) AS g);
"""
SCHEDULES = """
INSERT INTO continuum_schedules (id, workflow, namespace, timing, input, overlap, catch_up_seconds, state, next_at, wake_at,
       last_run_id, buffered_at, attempts, fired, skipped, missed, revision, created_at, changed_at)
SELECT 's' || g, 'w' || (g % 10), 'default', '{}', '', 'skip', 0, 'active',
       now() + g * interval '1 minute' - interval '20 minutes', now() + g * interval '1 minute' - interval '20 minutes',
       ('00000000-0000-7000-9000-' || lpad(to_hex(g), 12, '0'))::uuid,
       CASE WHEN g % 1000 = 0 THEN now() END, 0, 0, 0, 0, 1, now(), now()
FROM generate_series(1, 20000) AS g;
"""
LEASE = f"""
INSERT INTO continuum_runs (id, workflow, version, namespace, state, generation, last_seq, lease_owner, lease_token, created_at)
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(g), 12, '0'))::uuid, '{MINE[0][0]}', 1, 'default', 'running', 1, 1,
       '{OWNER}', 1, now()
FROM generate_series(1, {LEASED}) AS g;
INSERT INTO continuum_tasks (run_id, generation, command_id, event_seq, activity, queue, priority, options, attempt,
                             max_attempts, available_at, lease_owner)
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(g), 12, '0'))::uuid, 1, 1, 2, 'a', 'default', 0, '', 1, 3, now(),
       CASE WHEN g % 2 = 0 THEN '{OWNER}' END
FROM generate_series(1, {LEASED}) AS g;
"""


NOTHING_DUE = """
UPDATE continuum_runs SET wake_at = now() + interval '1 day' WHERE lease_owner IS NULL AND wake_at < now();
DELETE FROM continuum_inbox;
UPDATE continuum_schedules SET wake_at = now() + interval '1 day' WHERE wake_at < now();
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A statement, its parameters, and how many pages of shared buffers it may touch."""

    statement: Statement
    pages_max: int
    values: dict[str, object]
    after: str = "SELECT 1"  # runs before it, in its transaction


def cases() -> list[Case]:
    """Return the hot statements. A lookup by key touches about 4 pages, a changed row about 15 with its indexes."""
    commits = [a_commit(lease, answered()) for lease in LEASES[:100]]
    nothing: dict[str, object] = {name: [] for name in "secdtg"}
    fences = [(lease.run_id, 1, 1, OWNER, 1) for lease in LEASES[1:100:2]]
    keys = [fence[:3] for fence in fences]
    ids = [fence[0] for fence in fences]
    signals = [(place, *message_columns(a_signal(lease.run_id)).values()) for place, lease in enumerate(LEASES[:50])]
    finished = []
    for run_id, *attempt in fences:
        columns = message_columns(a_signal(run_id))
        del columns["run_id"]
        finished.append((run_id, *attempt, *columns.values()))
    claim: dict[str, object] = {"owner": OTHER, "m": list(MINE), "n": 100}
    return [
        Case(batches.COMMIT, 60, nothing | {"c": [commit_cells(commits[0])], "e": event_cells(commits[:1])}),
        Case(
            batches.COMMIT, 2_500, nothing | {"c": [*map(commit_cells, commits)], "e": event_cells(commits), "d": keys}
        ),
        Case(runs.CLAIM, 1_500, claim),
        Case(pulse.EVIDENCE, 300, {}, after=NOTHING_DUE),
        Case(runs.CLAIM_CHOSEN, 300, claim | {"ids": [f"00000000-0000-7000-9000-{n:012x}" for n in range(1, 5)]}),
        Case(
            runs.RELEASE,
            60,
            {"run_id": ids[0], "owner": OWNER, "token": 1, "state": None, "backoff": None, "reason": None},
        ),
        Case(runs.UPCOMING, 60, {"horizon": 5.0, "n": 100}),
        *(Case(listed, 300, _page(limit=50)) for listed in listing.LISTS),
        Case(runs.SET_ATTRIBUTES, 400, {"w": [(run_id, '{"a": 1}') for run_id in ids[:10]], "size_max": 1_000}),
        Case(runs.ENDINGS, 400, {"ids": ids}),
        Case(inbox.UNREAD_OF_OWNER, 200, {"owner": OWNER, "limit": 100}),
        Case(inbox.POST, 1_500, {"w": signals}),
        Case(inbox.FINISH, 2_000, {"w": finished}),
        Case(tasks.CLAIM, 1_500, {"owner": OTHER, "activities": ["a"], "q": [], "default_slots": 50}),
        Case(tasks.RETRY, 2_000, {"w": [(*fence, 1.0) for fence in fences], "ids": ids}),
        Case(tasks.NEXT, 60, {"activities": ["a"]}),
        Case(sweeps.MISSING_OWNERS, 60, {}),
        Case(sweeps.RUNS, 60, {"dead": ["node-8/continuum/boot-8/1"], "crashes_max": 5, "backoff": 1.0}),
        Case(sweeps.LOST_TASKS, 60, {"dead": ["node-8/continuum/boot-8/1"]}),
        Case(sweeps.OVER, 60, {"limit": 100}),
        Case(schedules.DUE, 400, {"workflows": [f"w{n}" for n in range(5)], "grace": 5.0, "n": 100}),
        Case(versions.RETRY_BLOCKED, 60, {"m": list(MINE), "crashes_max": 5, "n": 1_000}),
        Case(versions.OPEN_RUNS, 300, {name: value for name, value in _page(limit=50).items() if name in _OPEN_RUNS}),
        Case(versions.PATCH_MARKS, 60, {}),
        Case(CENSUS, 300, {"most": 100}),  # as much as it is told to look at, of whatever there is
        Case(schedules.MOVE, 400, {"m": [_moved(f"s{n}") for n in range(1, 20)]}),
    ]


_OPEN_RUNS = {"workflow", "before_at", "before_id", "n"}


def _moved(schedule_id: str) -> tuple[object, ...]:
    return (schedule_id, 1, "active", *[datetime(2100, 1, 1, tzinfo=UTC)] * 3, uuid7(), None, 0, None, 1, 0, 0)


def _page(*, limit: int) -> dict[str, object]:
    anything = dict.fromkeys(("workflow", "state", "namespace", "attributes"))
    return {**anything, "before_at": "9999-01-01", "before_id": uuid7(), "n": limit}


def name_of(case: Case) -> str:
    return f"{case.statement.name}-{case.pages_max}"


# --- three databases --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["never analyzed", "analyzed before anything was leased", "planned when empty"])
def seeded(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[tuple[asyncio.Runner, Line]]:
    """A line of the journal's to a seeded database."""
    with asyncio.Runner() as runner:
        database = fresh_database(postgres_url)
        url = runner.run(database.__aenter__())
        line = runner.run(seed(url, request.param))
        yield runner, line
        runner.run(line.close())
        runner.run(database.__aexit__(None, None, None))


async def seed(url: str, condition: str) -> Line:
    await migrate_url(url)
    engine = create_async_engine(url)
    journal = SqlJournal(engine)
    await journal.open(INSTANCE)
    for owner in (OWNER, OTHER):
        await journal.register(an_owner(owner), ttl_seconds=TTL)
    await journal.close()
    raw = await connect(url)
    for table in ("runs", "events", "inbox", "tasks", "schedules"):
        await raw.execute(f"ALTER TABLE continuum_{table} SET (autovacuum_enabled = off)")
    line = Line(engine, Book(POSTGRES), lock_timeout_seconds=1.0, answer_timeout_seconds=60.0)
    driver = await line.driver()
    if condition == "planned when empty":
        await raw.execute(
            "ANALYZE continuum_runs, continuum_inbox, continuum_tasks, continuum_events, continuum_schedules"
        )
        await prepare(driver)
        await executed(driver)
    else:
        await prepare(driver)
    await raw.execute(SEED)
    await raw.execute(SCHEDULES)
    if condition.startswith("analyzed"):
        await raw.execute(
            "ANALYZE continuum_runs, continuum_inbox, continuum_tasks, continuum_events, continuum_schedules"
        )
    await raw.execute(LEASE)
    await raw.close()
    if condition == "planned when empty":
        await driver.execute("DISCARD PLANS")  # what a line does by itself every so often
    return line


async def prepare(driver: Connection) -> None:
    for number, case in enumerate(cases()):
        await driver.execute(f"PREPARE case_{number} AS {sql_of(case.statement)}")


async def executed(driver: Connection) -> None:
    for number, case in enumerate(cases()):
        async with rolled_back(driver):
            await driver.execute(f"EXECUTE case_{number}{arguments(case)}")


class rolled_back:  # noqa: N801  reads as a verb
    def __init__(self, driver: Connection) -> None:
        self._driver = driver

    async def __aenter__(self) -> None:
        await self._driver.execute("BEGIN")

    async def __aexit__(self, *_: object) -> None:
        await self._driver.execute("ROLLBACK")


BOOK = Book(POSTGRES)
DIALECT = postgresql.asyncpg.dialect()  # type: ignore[no-untyped-call]


def sql_of(statement: Statement) -> str:
    return str(BOOK[statement].clause.compile(dialect=DIALECT))


def arguments(case: Case) -> str:
    """Return the parameters of EXECUTE, in the order in which the driver would send them."""
    return arguments_of(case.statement, case.values)


def arguments_of(statement: Statement, given: dict[str, object]) -> str:
    """Return the parameters of EXECUTE for a statement."""
    rendered = BOOK[statement]
    compiled = rendered.clause.compile(dialect=DIALECT)
    values = POSTGRES.values(given, rendered.rows)
    literals = [literal(values[name]) for name in compiled.positiontup or ()]
    return f"({', '.join(literals)})" if literals else ""


def literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list | tuple):
        return quoted("{" + ",".join("NULL" if cell is None else element(cell) for cell in value) + "}")
    return quoted(scalar(value))


def scalar(value: Any) -> str:
    return "\\x" + value.hex() if isinstance(value, bytes) else str(value)


def element(value: Any) -> str:
    return '"' + scalar(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


# --- the guards -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(cases())), ids=[name_of(case) for case in cases()])
def test_a_hot_statement_touches_few_pages(seeded: tuple[asyncio.Runner, Line], number: int) -> None:
    runner, line = seeded
    plan = runner.run(explained(line, number))["Plan"]
    case, pages = cases()[number], plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    print(f"{case.statement.name}: {pages} pages")
    assert pages <= case.pages_max
    ways = {(node["Node Type"], node.get("Relation Name")) for node in nodes(plan)}
    walks = {(way, table) for way, table in ways if way in {"Seq Scan", "Hash Join", "Merge Join"}}
    assert walks <= {("Seq Scan", "continuum_owners")}  # a row per process


def nodes(plan: Any) -> Iterator[Any]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


async def explained(line: Line, number: int) -> Any:
    driver = await line.driver()
    case = cases()[number]
    async with rolled_back(driver):
        await driver.execute(case.after)
        explain = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON)"
        (plan,) = await driver.fetchval(
            f"{explain} EXECUTE case_{number}{arguments(case)}"
        )  # SQLAlchemy's codec: a list
        return plan


def test_a_claim_finds_what_there_is(seeded: tuple[asyncio.Runner, Line]) -> None:
    runner, line = seeded

    async def claim() -> list[Any]:
        driver = await line.driver()
        async with rolled_back(driver):
            number = next(place for place, case in enumerate(cases()) if case.statement is runs.CLAIM)
            found: list[Any] = await driver.fetch(f"EXECUTE case_{number}{arguments(cases()[number])}")
            return found

    assert len(runner.run(claim())) == CLAIMABLE
