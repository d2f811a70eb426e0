"""What a search looks at among a million runs on PostgreSQL: an index, and pages in proportion to what it returns.

Plans are made as the journal makes them: generic, with its settings, on a line of its own. Counted are the pages that a
statement touches, which a busy machine does not change. CONTINUUM_TEST_RUNS makes it another number of runs.
"""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from continuum.journal.port import Journal, RunFilter
from continuum.journal.sql import SqlJournal
from continuum.journal.sql.dialects.postgres import POSTGRES
from continuum.journal.sql.lines import Line
from continuum.journal.sql.reading import END_OF_TIME, LISTS, WALK, WALKS
from continuum.journal.sql.statements import listing
from continuum.journal.sql.statements.book import Book, Statement
from continuum.model.states import RunState
from tests.journal.backends import INSTANCE
from tests.journal.sql import migrate_url
from tests.journal.test_postgres_plans import arguments_of, nodes, rolled_back, sql_of
from tests.support.postgres import connect, fresh_database

RUNS = int(os.environ.get("CONTINUUM_TEST_RUNS", "1000000"))
PAGE = 50

# Every tenth run has no attributes, half of the others are gold, twenty share a customer; the tags of a thousand are in
# the oldest of all. In trouble, open or of a tenant are a few.
SEED = f"""
INSERT INTO continuum_runs (id, workflow, version, namespace, state, generation, last_seq, lease_token, attributes,
                            created_at, ended_at)
SELECT ('00000000-0000-7000-9000-' || lpad(to_hex({RUNS} - g), 12, '0'))::uuid, 'orders.fulfil', 1,
       CASE WHEN g % 10000 = 3 THEN 'tenant' ELSE 'default' END,
       CASE WHEN g % 50000 = 5 THEN 'blocked' WHEN g % 20000 = 1 THEN 'failed' WHEN g % 30000 = 9 THEN 'suspended'
            ELSE 'completed' END, 1, 1, 1,
       CASE WHEN g % 10 > 0 THEN jsonb_build_object(
           'customer', 'c' || g % ({RUNS} / 20), 'tier', CASE WHEN g % 2 = 0 THEN 'gold' ELSE 'tin' END,
           'number', CASE WHEN g % 1000 = 7 THEN '4'::jsonb WHEN g % 1000 = 8 THEN '"4"' ELSE '0' END,
           'tags', CASE WHEN g > {RUNS} - 1000 THEN '["old", "grey"]'::jsonb ELSE '[]' END) END,
       timestamptz '2026-01-01' - (g / 3) * interval '1 second',
       CASE WHEN g % 50000 <> 5 AND g % 30000 <> 9 THEN timestamptz '2026-01-01' END
FROM generate_series(CAST($1 AS integer), CAST($2 AS integer)) AS g
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A statement, its filters, the index that leads it, and how many pages it may touch."""

    statement: Statement
    filters: dict[str, str]
    index: str
    pages_max: int


NEWEST, GIN = "continuum_runs_newest", "continuum_runs_attributes"
CASES = {
    "the newest": Case(LISTS["all"], {}, NEWEST, 40),
    "in trouble": Case(LISTS["troubled"], {"state": "failed"}, "continuum_runs_troubled", 150),
    "open": Case(LISTS["open"], {"state": "suspended"}, "continuum_runs_open", 150),
    "of a tenant": Case(LISTS["tenant"], {"namespace": "tenant"}, "continuum_runs_tenant", 150),
    "of a tenant in trouble": Case(
        LISTS["troubled"], {"state": "failed", "namespace": "tenant"}, "continuum_runs_troubled", 150
    ),
    "what many have": Case(WALKS["all"], {"attributes": '{"tier": "gold"}'}, NEWEST, 60),
    "what few have, walked for": Case(WALKS["all"], {"attributes": '{"customer": "c77"}'}, NEWEST, WALK // 4),
    "what few have": Case(listing.FIND, {"attributes": '{"customer": "c77"}'}, GIN, 200),
    "what few have of what many have": Case(
        listing.FIND, {"attributes": '{"customer": "c77", "tier": "tin"}'}, GIN, 400
    ),
    "what nobody has": Case(listing.FIND, {"attributes": '{"customer": "nobody"}'}, GIN, 20),
    "a number": Case(listing.FIND, {"attributes": '{"number": 4}'}, GIN, 3 * RUNS // 1000),
    "what only the oldest have": Case(listing.FIND, {"attributes": '{"tags": ["old"]}'}, GIN, 700),
}


@pytest.fixture(scope="module")
def many(postgres_url: str) -> Iterator[tuple[asyncio.Runner, str]]:
    """A database with so many runs."""
    with asyncio.Runner() as runner:
        database = fresh_database(postgres_url)
        url = runner.run(database.__aenter__())
        runner.run(seed(url))
        yield runner, url
        runner.run(database.__aexit__(None, None, None))


async def seed(url: str) -> None:
    """Fill the table, then build its indexes as they are: quicker than row by row."""
    await migrate_url(url)
    raw = await connect(url)
    await raw.execute("ALTER TABLE continuum_runs SET (autovacuum_enabled = off), SET UNLOGGED")
    found = await raw.fetch("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'continuum_runs'")
    indexes = {row["indexname"]: row["indexdef"] for row in found if row["indexname"] != "continuum_runs_pkey"}
    for index in indexes:
        await raw.execute(f"DROP INDEX {index}")
    await asyncio.gather(*[fill(url, half * RUNS // 2 + 1, (half + 1) * RUNS // 2) for half in range(2)])
    await raw.execute("SET maintenance_work_mem = '256MB'")
    for definition in indexes.values():
        await raw.execute(definition)
    await raw.execute("ANALYZE continuum_runs")
    await raw.close()


async def fill(url: str, first: int, last: int) -> None:
    raw = await connect(url)
    await raw.execute(SEED, first, last)
    await raw.close()


def values_of(case: Case) -> dict[str, object]:
    before_at, before_id = END_OF_TIME
    anything = dict.fromkeys(("workflow", "state", "namespace", "attributes"))
    return {**anything, **case.filters, "before_at": before_at, "before_id": before_id, "n": PAGE, "walk": WALK}


@pytest.mark.parametrize("name", CASES)
def test_a_search_reads_an_index_and_few_pages(many: tuple[asyncio.Runner, str], name: str) -> None:
    runner, url = many
    case = CASES[name]

    async def explained() -> Any:
        engine = create_async_engine(url)
        line = Line(engine, Book(POSTGRES), lock_timeout_seconds=1.0, answer_timeout_seconds=60.0)
        driver = await line.driver()
        await driver.execute(f"PREPARE search AS {sql_of(case.statement)}")
        async with rolled_back(driver):
            explain = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON)"
            (plan,) = await driver.fetchval(f"{explain} EXECUTE search{arguments_of(case.statement, values_of(case))}")
        await line.close()
        await engine.dispose()
        return plan["Plan"]

    plan = runner.run(explained())
    pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    ways = {(node["Node Type"], node.get("Index Name")) for node in nodes(plan)}
    print(f"{name}: {pages} pages")
    assert pages <= case.pages_max
    assert case.index in {index for _, index in ways}
    assert not {way for way, _ in ways} & {"Seq Scan", "Hash Join", "Merge Join"}


async def pages(journal: Journal, where: RunFilter, *, limit: int, pages_max: int = 40) -> list[str]:
    """Read page after page; return the run ids."""
    found: list[str] = []
    before = None
    for _ in range(pages_max):
        rows = await journal.list_runs(where, limit=limit, before=before)
        found += [row.run_id for row in rows]
        if len(rows) < limit:
            return found
        before = rows[-1].created_at, rows[-1].run_id
    return found


def test_pages_of_a_search_give_each_run_once_in_order(many: tuple[asyncio.Runner, str]) -> None:
    """Some pages are found by walking and some by GIN; the seams must not show."""
    runner, url = many

    async def read() -> dict[str, list[str]]:
        engine = create_async_engine(url)
        journal = SqlJournal(engine)
        await journal.open(INSTANCE)
        found = {
            "customer": await pages(journal, RunFilter(attributes={"customer": "c77"}), limit=7),
            "old": await pages(journal, RunFilter(attributes={"tags": ["grey"]}), limit=100),
            "number": await pages(journal, RunFilter(attributes={"number": 4}), limit=1_000),
            "text": await pages(journal, RunFilter(attributes={"number": "4"}), limit=1_000),
            "both": await pages(
                journal,
                RunFilter(state=RunState.FAILED, attributes={"tier": "tin"}, workflow="orders.fulfil"),
                limit=20,
            ),
        }
        await journal.close()
        await engine.dispose()
        return found

    found = runner.run(read())
    assert all(ids == sorted(set(ids), reverse=True) for ids in found.values())  # ids were given in order of age
    assert {name: len(ids) for name, ids in found.items()} == {
        "customer": 20,
        "old": 900,
        "number": RUNS // 1000,
        "text": RUNS // 1000,
        "both": RUNS // 20000,
    }
    assert not set(found["number"]) & set(found["text"])
