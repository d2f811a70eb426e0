"""Level-triggered repair, and what keeps the tables small.

Everything here passes over locked rows: the next pass finds them, and nobody is held up. (Nor can it deadlock, in
whatever order it comes upon them: who never waits is in no circle.)
"""

# ruff: noqa: S608  templates are put together from constants; every value is bound

from continuum.journal.sql.statements.book import Statement
from continuum.journal.sql.statements.runs import ACTIVE, ENDED, GOING

PAGE = 1_000  # rows that one statement of a sweep takes: enough to be set-based, few enough to hold locks briefly

# The owners are found by skipping from one to the next in the index, however many rows each holds.
HOLDERS = """
{alias}(owner) AS (
    SELECT min(lease_owner) FROM {table} WHERE lease_owner IS NOT NULL
    UNION ALL
    SELECT (SELECT min(lease_owner) FROM {table} WHERE lease_owner > h.owner)
    FROM {alias} AS h WHERE h.owner IS NOT NULL)"""

MISSING_OWNERS = Statement(
    "sweep.missing_owners",
    "Find who holds runs or tasks without having an owner row.",
    f"""
WITH RECURSIVE {HOLDERS.format(alias="of_runs", table="{runs}")},
{HOLDERS.format(alias="of_tasks", table="{tasks}")},
holders AS (SELECT owner FROM of_runs UNION SELECT owner FROM of_tasks)
SELECT h.owner FROM holders AS h
WHERE h.owner IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {{owners}} AS o WHERE o.owner = h.owner)
""",
)

RUNS = Statement(
    "sweep.runs",
    "Free runs of dead owners under a new token; one that was running for the last time it may is blocked.",
    f"""
WITH lost AS MATERIALIZED (
    SELECT r.id FROM {{runs}} AS r WHERE r.lease_owner {{among:dead text}} AND r.state IN {ACTIVE}
    LIMIT {PAGE} {{lock:r}})
UPDATE {{runs}} SET lease_owner = NULL, lease_token = lease_token + 1,
    crashes = crashes + CASE WHEN state IN {GOING} THEN 1 ELSE 0 END,
    state = CASE WHEN state IN {GOING} AND crashes + 1 >= :crashes_max THEN 'blocked' ELSE state END,
    wake_at = CASE WHEN state IN {GOING} AND crashes + 1 >= :crashes_max THEN {{later::backoff}} ELSE wake_at END,
    reason = CASE WHEN state IN {GOING} AND crashes + 1 >= :crashes_max
                  THEN 'its process died ' || CAST(crashes + 1 AS text) || ' times without a commit'
                  ELSE reason END
WHERE id {{within:SELECT l.id FROM lost AS l}}
RETURNING CAST(id AS text) AS run_id, state, crashes
""",
)

UNWANTED_TASKS = Statement(
    "sweep.unwanted_tasks",
    "Delete tasks of runs that are over, missing or in another generation.",
    f"""
WITH unwanted AS MATERIALIZED (
    SELECT t.run_id, t.generation, t.command_id FROM {{tasks}} AS t
    WHERE NOT EXISTS (
        SELECT 1 FROM {{runs}} AS r
        WHERE r.id = t.run_id AND r.generation = t.generation AND r.state IN {ACTIVE})
    LIMIT 10000 {{lock:t}})
DELETE FROM {{tasks}}
WHERE run_id {{within:SELECT u.run_id FROM unwanted AS u}}
  AND ((run_id, generation, command_id) IN (SELECT * FROM unwanted)) IS TRUE
""",
)

LOST_TASKS = Statement(
    "sweep.lost_tasks",
    "Lock tasks of dead owners.",
    f"""
SELECT CAST(t.run_id AS text) AS run_id, t.generation, t.command_id, t.lease_owner, t.attempt, t.max_attempts,
       t.activity
FROM {{tasks}} AS t WHERE t.lease_owner {{among:dead text}} LIMIT {PAGE} {{lock:t}}
""",
)

DELETE_TASKS = Statement(
    "sweep.delete_tasks",
    "Delete tasks that were locked before.",
    """
DELETE FROM {tasks} WHERE run_id {among:ids uuid} AND ((run_id, generation, command_id) IN (
    SELECT w.of_run, w.of_generation, w.of_command
    FROM {rows:w(of_run uuid, of_generation integer, of_command integer)})) IS TRUE
""",
)

# --- keeping ----------------------------------------------------------------------------------------------------------

SAVE_SNAPSHOT = Statement(
    "snapshots.save",
    "Store a compacted prefix of a history, unless a newer one is there.",
    """
INSERT INTO {snapshots} (run_id, generation, seq, format, blob)
SELECT r.id, :generation, :seq, :format, :blob FROM {runs} AS r WHERE r.id = :run_id
ON CONFLICT (run_id, generation) DO UPDATE
    SET seq = excluded.seq, format = excluded.format, blob = excluded.blob
    WHERE {snapshots}.seq <= excluded.seq
RETURNING seq
""",
)

OVER = Statement(
    "prune.over",
    "Lock ended runs whose retention has passed; a parent that goes on may still ask for its children.",
    f"""
SELECT CAST(r.id AS text) AS run_id FROM {{runs}} AS r
WHERE r.retention_until < (SELECT {{now}}) AND r.state IN {ENDED}
  AND NOT EXISTS (SELECT 1 FROM {{runs}} AS p WHERE p.id = r.parent_id AND p.state IN {ACTIVE})
ORDER BY r.retention_until LIMIT :limit {{lock:r}}
""",
)


OLD_GENERATIONS = Statement(
    "prune.old_generations",
    "Find generations that runs have left behind for longer than their retention.",
    """
SELECT CAST(e.run_id AS text) AS run_id, e.generation FROM {runs} AS r
JOIN {events} AS e ON e.run_id = r.id AND e.generation < r.generation AND e.type = 'continued'
WHERE r.generation > 1 AND e.at < (SELECT {later:-r.retention_seconds})
LIMIT :limit
""",
)


def _delete_generation(table: str) -> Statement:
    return Statement(
        f"prune.generations.{table}",
        f"Delete the rows of old generations in {table}.",
        f"DELETE FROM {{{table}}} WHERE run_id {{among:ids uuid}} AND ((run_id, generation) IN (\n"
        "    SELECT w.of_run, w.of_generation FROM {rows:w(of_run uuid, of_generation integer)})) IS TRUE",
    )


PRUNE_GENERATIONS = (_delete_generation("events"), _delete_generation("snapshots"))


def _delete(table: str, column: str, *, only: str | None = None) -> Statement:
    name, condition = ("prune." + table, "") if only is None else (f"prune.{table}.{only.split()[0]}", f" AND {only}")
    return Statement(
        name,
        f"Delete the rows of pruned runs in {table}.",
        f"DELETE FROM {{{table}}} WHERE {column} {{among:ids uuid}}{condition}",
    )


PRUNE = (
    _delete("events", "run_id"),
    _delete("inbox", "run_id", only="read_at IS NULL"),  # an index finds these,
    _delete("inbox", "run_id", only="delivery_id IS NOT NULL"),  # another one those
    _delete("tasks", "run_id"),
    _delete("snapshots", "run_id"),
    _delete("runs", "id"),
)
