"""Schedules: defining, finding what is due, moving on. Every change is fenced by the revision it was decided on."""

# ruff: noqa: S608  templates are put together from constants; every value is bound

from continuum.journal.sql.statements.book import Statement
from continuum.journal.sql.statements.runs import ACTIVE

_COLUMNS = """s.id, s.workflow, s.namespace, s.timing, s.input, s.overlap, s.catch_up_seconds,
       CAST(s.attributes AS text) AS attributes, s.state, s.next_at, s.wake_at, s.last_at,
       CAST(s.last_run_id AS text) AS last_run_id, s.buffered_at, s.attempts, s.reason, s.fired, s.skipped, s.missed,
       s.revision, s.created_at, r.state AS last_state"""
_FROM = "{schedules} AS s LEFT JOIN {runs} AS r ON r.id = s.last_run_id"

BY_ID = Statement("schedules.by_id", "Read a schedule.", f"SELECT {_COLUMNS} FROM {_FROM} WHERE s.id = :id")

LIST = Statement(
    "schedules.list",
    "List schedules by id, after one.",
    f"""
SELECT {_COLUMNS} FROM {_FROM}
WHERE s.id > :after AND (CAST(:state AS text) IS NULL OR s.state = :state) ORDER BY s.id LIMIT :n
""",
)

DEFINE = Statement(
    "schedules.define",
    "Insert a schedule.",
    """
INSERT INTO {schedules} (id, workflow, namespace, timing, input, overlap, catch_up_seconds, attributes, state, next_at,
        wake_at, attempts, fired, skipped, missed, revision, created_at, changed_at)
VALUES (:id, :workflow, :namespace, :timing, :input, :overlap, :catch_up, CAST(:attributes AS jsonb), :state, :next_at,
        :wake_at, 0, 0, 0, 0, 1, {now}, {now})
ON CONFLICT DO NOTHING RETURNING id
""",
    sqlite="""
INSERT INTO {schedules} (id, workflow, namespace, timing, input, overlap, catch_up_seconds, attributes, state, next_at,
        wake_at, attempts, fired, skipped, missed, revision, created_at, changed_at)
VALUES (:id, :workflow, :namespace, :timing, :input, :overlap, :catch_up, :attributes, :state, :next_at,
        :wake_at, 0, 0, 0, 0, 1, {now}, {now})
ON CONFLICT DO NOTHING RETURNING id
""",
)

_REDEFINE = """
UPDATE {schedules} SET workflow = :workflow, namespace = :namespace, timing = :timing, input = :input,
    overlap = :overlap, catch_up_seconds = :catch_up, attributes = %s
WHERE id = :id AND revision = :revision RETURNING id
"""
REDEFINE = Statement(
    "schedules.redefine",
    "Change what a schedule starts and when, before it is moved on in the same transaction.",
    _REDEFINE % "CAST(:attributes AS jsonb)",
    sqlite=_REDEFINE % ":attributes",
)

MOVE = Statement(
    "schedules.move",
    "Move schedules on that are as they were seen; return their ids.",
    """
UPDATE {schedules} SET state = m.new_state, next_at = m.new_next, wake_at = m.new_wake, last_at = m.new_last,
    last_run_id = m.new_run, buffered_at = m.new_buffered, attempts = m.new_attempts, reason = m.new_reason,
    fired = m.new_fired, skipped = m.new_skipped, missed = m.new_missed, revision = revision + 1, changed_at = {now}
FROM {rows:m(of_schedule text, seen bigint, new_state text, new_next timestamptz, new_wake timestamptz,
            new_last timestamptz, new_run uuid, new_buffered timestamptz, new_attempts integer, new_reason text,
            new_fired bigint, new_skipped bigint, new_missed bigint)}
WHERE id = m.of_schedule AND revision = m.seen RETURNING id
""",
)

DELETE = Statement("schedules.delete", "Delete a schedule.", "DELETE FROM {schedules} WHERE id = :id RETURNING id")

# What has come is found by `wake_at`, what waits for the end of a run by there being something put off: both few.
_COME = "s.state = 'active' AND s.wake_at <= (SELECT {now})"
_FREE = f"""s.state = 'active' AND s.buffered_at IS NOT NULL AND s.attempts = 0
    AND NOT EXISTS (SELECT 1 FROM {{runs}} AS r WHERE r.id = s.last_run_id AND r.state IN {ACTIVE})"""
IS_DUE = f"""EXISTS (SELECT 1 FROM {{schedules}} AS s WHERE {_COME})
    OR EXISTS (SELECT 1 FROM {{schedules}} AS s WHERE {_FREE})"""

# What another node is moving on at this moment is passed over: its next time is that node's to keep.
_KNOWN = "(s.workflow {among:workflows text})"

DUE = Statement(
    "schedules.due",
    "Read the schedules that somebody is to look at, the longest due first, what became of their last runs, and when "
    "the next ones come due.",
    f"""
WITH moment AS MATERIALIZED (SELECT {{now}} AS now, {{later:-CAST(:grace AS double precision)}} AS before),
due AS MATERIALIZED (
    SELECT id FROM (
        SELECT s.id FROM {{schedules}} AS s
        WHERE s.state = 'active' AND s.wake_at <= (SELECT now FROM moment)
          AND ({_KNOWN} OR s.wake_at <= (SELECT before FROM moment))
        ORDER BY s.wake_at LIMIT :n {{lock:s}}) AS come
    UNION
    SELECT id FROM (SELECT s.id FROM {{schedules}} AS s WHERE {_FREE} AND {_KNOWN} LIMIT :n {{lock:s}}) AS free),
later AS MATERIALIZED (
    SELECT (SELECT s.wake_at FROM {{schedules}} AS s
            WHERE s.state = 'active' AND s.wake_at > (SELECT now FROM moment) AND {_KNOWN}
            ORDER BY s.wake_at LIMIT 1) AS mine,
           (SELECT s.wake_at FROM {{schedules}} AS s
            WHERE s.state = 'active' AND s.wake_at > (SELECT before FROM moment) AND NOT {_KNOWN}
            ORDER BY s.wake_at LIMIT 1) AS others)
SELECT moment.now, later.mine, later.others, found.*
FROM moment CROSS JOIN later LEFT JOIN (
    SELECT {_COLUMNS} FROM {_FROM} WHERE s.id {{within:SELECT d.id FROM due AS d}}) AS found ON true
ORDER BY COALESCE(found.wake_at, found.created_at), found.id LIMIT :n
""",
)
