"""Listing runs, newest first: a page is read along an index, whatever else is asked for.

Which index is said by literal predicates, because a generic plan cannot tell from a parameter whether a partial index
will do: of all runs, of those that have not ended, of those that are in trouble or came to grief, of one namespace.
A workflow has no index of its own (it would cost every run two more entries): a rare one is looked for among all.

Attributes on PostgreSQL: what many runs have is soon met by walking along the index; what few have is found by GIN,
which knows no order and so has to fetch all of it. Nobody knows beforehand which it is. So a page is sought first among
the newest `:walk` rows; if they do not fill it, few runs have these attributes, and those are fetched and sorted. With
a million runs: 5 ms for what every second one has, 10 for what twenty have. The other way round it would be a second.

On SQLite containment is spelt out, type by type as PostgreSQL judges jsonb, and a page is walked for.
"""

# ruff: noqa: S608  templates are put together from constants; every value is bound

from continuum.journal.sql.statements.book import Statement
from continuum.journal.sql.statements.runs import COLUMNS

_NEWEST_FIRST = "ORDER BY r.created_at DESC, r.id DESC"
_OLDER = "(r.created_at, r.id) < (:before_at, :before_id)"
_FITS = """(CAST(:workflow AS text) IS NULL OR r.workflow = :workflow)
  AND (CAST(:state AS text) IS NULL OR r.state = :state)
  AND (CAST(:namespace AS text) IS NULL OR r.namespace = :namespace)"""
_CONTAINS = "r.attributes @> CAST(CAST(:attributes AS text) AS jsonb)"

SOURCES = {
    "all": "",
    "open": " AND r.ended_at IS NULL",
    "troubled": " AND r.state IN ('blocked', 'failed', 'cancelled') AND r.state = :state",
    "tenant": " AND r.namespace <> 'default' AND r.namespace = :namespace",
}


def _same(one: str, other: str) -> str:
    """Return SQL that compares two rows of json_each, which are no lists: 4 is 4.0, and neither "4" nor true."""
    return f"""CASE WHEN {one}.type IN ('integer', 'real') THEN {other}.type IN ('integer', 'real') AND {one}.atom = {other}.atom
             WHEN {one}.type = 'text' THEN {other}.type = 'text' AND {one}.atom = {other}.atom
             ELSE {one}.type = {other}.type END"""


_SQLITE_CONTAINS = f"""(:attributes IS NULL OR (r.attributes IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM json_each(:attributes) AS want LEFT JOIN json_each(r.attributes) AS have ON have.key = want.key
    WHERE have.key IS NULL OR NOT
        CASE WHEN want.type = 'array' AND have.type = 'array' THEN NOT EXISTS (
                 SELECT 1 FROM json_each(want.value) AS w WHERE NOT EXISTS (
                     SELECT 1 FROM json_each(have.value) AS h WHERE {_same("w", "h")}))
             WHEN want.type = 'array' THEN 0
             ELSE {_same("want", "have")} END)))"""

LISTS = tuple(
    Statement(
        f"runs.list.{name}",
        "Read a page of rows, newest first.",
        f"\nSELECT {COLUMNS} FROM {{runs}} AS r\nWHERE {_OLDER}{source}\n  AND {_FITS}\n{_NEWEST_FIRST} LIMIT :n\n",
        sqlite=f"\nSELECT {COLUMNS} FROM {{runs}} AS r\nWHERE {_OLDER}{source}\n  AND {_FITS}\n  AND {_SQLITE_CONTAINS}\n"
        f"{_NEWEST_FIRST} LIMIT :n\n",
    )
    for name, source in SOURCES.items()
)

WALKS = tuple(
    Statement(
        f"runs.walk.{name}",
        "Look for a page of runs with these attributes among the newest.",
        f"""
SELECT {COLUMNS} FROM (
    SELECT r.* FROM {{runs}} AS r WHERE {_OLDER}{source}
    {_NEWEST_FIRST} LIMIT :walk) AS r
WHERE {_CONTAINS}
  AND {_FITS}
{_NEWEST_FIRST} LIMIT :n
""",
        sqlite="",
    )
    for name, source in SOURCES.items()
)

# The time stands outside: nothing but the attributes shall be what an index could be used for. (Bitmap scans are
# switched off for our connections, which makes them dear but not impossible; a scan of the whole table is, too.)
FIND = Statement(
    "runs.find",
    "Fetch all runs with these attributes by GIN, and read a page of them.",
    f"""
WITH found AS MATERIALIZED (
    SELECT r.id, r.created_at FROM {{runs}} AS r
    WHERE r.attributes IS NOT NULL AND {_CONTAINS}
      AND {_FITS}),
page AS MATERIALIZED (SELECT r.id FROM found AS r WHERE {_OLDER} {_NEWEST_FIRST} LIMIT :n)
SELECT {COLUMNS} FROM {{runs}} AS r WHERE r.id {{within:SELECT p.id FROM page AS p}}
{_NEWEST_FIRST}
""",
    sqlite="",
)
