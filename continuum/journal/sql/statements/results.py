"""What activities have returned under idempotency keys: written with the commit that takes it, read before an attempt."""

from continuum.journal.sql.statements.book import Statement

_COLUMNS = "namespace, activity, idempotency_key, run_id, arguments, payload, at"

REMEMBER = Statement(
    "results.remember",
    "Remember successes, in the transaction that journals them; the first one under a key stands.",
    f"""
INSERT INTO {{activity_results}} ({_COLUMNS})
SELECT w.namespace, w.activity, w.key, w.run_id, w.arguments, w.payload, {{now}}
FROM {{rows:w(namespace text, activity text, key text, run_id uuid, arguments bytea, payload bytea)}}
ON CONFLICT DO NOTHING
""",  # noqa: S608  a template
    sqlite=f"""
INSERT INTO {{activity_results}} ({_COLUMNS})
VALUES (:namespace, :activity, :key, :run_id, :arguments, :payload, {{now}})
ON CONFLICT DO NOTHING
""",  # noqa: S608  a template
)

REMEMBER_FIRST = Statement(
    "results.remember_first",
    "Remember a success if it is the first under its key, after whoever is about to be: in a host's transaction.",
    f"""
INSERT INTO {{activity_results}} ({_COLUMNS})
VALUES (:namespace, :activity, :key, :run_id, :arguments, :payload, {{now}})
ON CONFLICT DO NOTHING RETURNING idempotency_key
""",  # noqa: S608  a template
)

FIND = Statement(
    "results.find",
    "Read what is remembered under keys.",
    """
SELECT a.namespace, a.activity, a.idempotency_key, CAST(a.run_id AS text) AS run_id, a.arguments, a.payload
FROM {rows:w(namespace text, activity text, key text)}
JOIN {activity_results} AS a
  ON a.namespace = w.namespace AND a.activity = w.activity AND a.idempotency_key = w.key
""",
)

PRUNE = Statement(
    "results.prune",
    "Forget results that are older than an age, the oldest first.",
    """
WITH old AS MATERIALIZED (
    SELECT a.namespace, a.activity, a.idempotency_key FROM {activity_results} AS a
    WHERE a.at < (SELECT {later:-CAST(:age AS double precision)}) ORDER BY a.at LIMIT :n {lock:a})
DELETE FROM {activity_results} WHERE (namespace, activity, idempotency_key) IN (SELECT * FROM old)
RETURNING activity
""",
)
