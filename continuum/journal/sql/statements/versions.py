"""Which code open runs need, and which nodes carry it: written when a node's code changes, read by people and by CI.

What is asked goes along partial indexes: open runs by `continuum_runs_open`, blocked ones by `continuum_runs_troubled`,
the patches of a run by `continuum_events_patched`, which holds the few events that are patches and no other.
"""

from continuum.journal.sql.statements.book import Statement

DROP = Statement(
    "versions.drop",
    "Forget what an owner carries.",
    "DELETE FROM {workflow_versions} WHERE owner = :owner",
)

CARRY = Statement(
    "versions.carry",
    "Record what an owner carries, while its row exists.",
    """
INSERT INTO {workflow_versions} (owner, workflow, version, since)
SELECT o.owner, w.of_workflow, w.of_version, {now}
FROM {rows:w(of_workflow text, of_version integer)} CROSS JOIN {owners} AS o
WHERE o.owner = :owner
ON CONFLICT DO NOTHING
""",
)

FORGET = Statement(
    "versions.forget",
    "Forget what owners without a row carried.",
    "DELETE FROM {workflow_versions} WHERE owner NOT IN (SELECT o.owner FROM {owners} AS o)",
)

# Written so that no index but that of troubled runs will do: along another one all parked runs would be walked through. A
# blocked run is never leased, so that need not be asked.
RETRY_BLOCKED = Statement(
    "versions.retry_blocked",
    "Let blocked runs be due now; those that took their process down again and again wait out their time.",
    """
WITH mine AS MATERIALIZED (SELECT m.workflow, m.version FROM {rows:m(workflow text, version integer)}),
waiting AS MATERIALIZED (
    SELECT r.id FROM {runs} AS r
    WHERE r.state = 'blocked' AND r.crashes < :crashes_max
      AND (r.wake_at > (SELECT {now})) IS TRUE
      AND ((r.workflow, r.version) IN (SELECT workflow, version FROM mine)) IS TRUE
    LIMIT :n {lock:r})
UPDATE {runs} SET wake_at = {now} WHERE id {within:SELECT w.id FROM waiting AS w}
RETURNING CAST(id AS text) AS run_id
""",
)

CARRIERS = Statement(
    "versions.carriers",
    "List who carries which version, of the owners that live.",
    """
SELECT v.workflow, v.version, o.node, o.owner FROM {workflow_versions} AS v
JOIN {owners} AS o ON o.owner = v.owner
WHERE o.expires_at >= (SELECT {now}) ORDER BY v.workflow, v.version, o.node, o.owner
""",
)

OPEN_COUNTS = Statement(
    "versions.open_counts",
    "Count the open runs of each version by state.",
    """
SELECT r.workflow, r.version, r.state, count(*) AS runs FROM {runs} AS r
WHERE r.ended_at IS NULL GROUP BY r.workflow, r.version, r.state ORDER BY r.workflow, r.version, r.state
""",
)

PATCH_MARKS = Statement(
    "versions.patch_marks",
    "Count the open runs of each version that have journaled that they take a patch.",
    """
SELECT r.workflow, r.version, e.name, count(*) AS runs FROM {events} AS e
JOIN {runs} AS r ON r.id = e.run_id AND r.generation = e.generation
WHERE e.type = 'patched' AND r.ended_at IS NULL
GROUP BY r.workflow, r.version, e.name ORDER BY r.workflow, r.version, e.name
""",
)

OPEN_RUNS = Statement(
    "versions.open_runs",
    "List open runs, newest first.",
    """
SELECT CAST(r.id AS text) AS run_id, r.workflow, r.version, r.created_at, r.last_seq FROM {runs} AS r
WHERE r.ended_at IS NULL AND (CAST(:workflow AS text) IS NULL OR r.workflow = :workflow)
  AND (r.created_at, r.id) < (:before_at, :before_id)
ORDER BY r.created_at DESC, r.id DESC LIMIT :n
""",
)
