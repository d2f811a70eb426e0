"""How much there is, for dashboards: one statement that looks at a bounded number of rows."""

from continuum.journal.sql.statements.book import Statement

# Ordered as the partial indexes of open and of troubled runs are, so that they are what is walked along: millions of runs
# that are over must not be passed by on the way. Blocked runs have a count of their own, or they would be lost where more
# open runs are than are looked at. Of tasks the oldest are looked at, so that the age of a queue is right however many.
CENSUS = Statement(
    "census",
    "Count open runs by state and free tasks by queue, up to a limit each.",
    """
WITH working AS MATERIALIZED (
    SELECT r.state, CASE WHEN r.state <> 'suspended' THEN '' WHEN r.wake_at IS NULL THEN 'message' ELSE 'timer' END
        AS waits_for
    FROM {runs} AS r WHERE r.ended_at IS NULL AND r.state <> 'blocked' ORDER BY r.created_at, r.id LIMIT :most),
blocked AS MATERIALIZED (
    SELECT r.state FROM {runs} AS r WHERE r.state = 'blocked' ORDER BY r.created_at, r.id LIMIT :most),
free AS MATERIALIZED (
    SELECT t.queue, t.available_at, t.available_at <= (SELECT {now}) AS is_due FROM {tasks} AS t
    WHERE t.lease_owner IS NULL ORDER BY t.available_at LIMIT :most)
SELECT 'due' AS what, f.queue AS name, '' AS detail, count(*) AS n, min(f.available_at) AS since
    FROM free AS f WHERE f.is_due GROUP BY f.queue
UNION ALL SELECT 'delayed', f.queue, '', count(*), NULL FROM free AS f WHERE NOT f.is_due GROUP BY f.queue
UNION ALL SELECT 'runs', w.state, w.waits_for, count(*), NULL FROM working AS w GROUP BY w.state, w.waits_for
UNION ALL SELECT 'runs', b.state, '', count(*), NULL FROM blocked AS b GROUP BY b.state
UNION ALL SELECT 'now', '', '', 0, {now}
""",
)
