"""Activity tasks: claiming, tending, retrying. Ending one posts a message and stands in `inbox`."""

# ruff: noqa: S608  templates are put together from constants; every value is bound

from continuum.journal.sql.statements.book import Statement
from continuum.journal.sql.statements.runs import ACTIVE

_KEY = "run_id, generation, command_id"
_RETURN_KEY = "CAST(run_id AS text) AS run_id, generation, command_id"
_ATTEMPTS = "{rows:w(of_run uuid, of_generation integer, of_command integer, owner text, of_attempt integer)}"
# The list of runs says nothing new. It keeps a plan that was made while the table was empty from going through all of it
# for each row of `w` once it is not.
_IS_THEIRS = """run_id {among:ids uuid}
  AND run_id = w.of_run AND generation = w.of_generation AND command_id = w.of_command
  AND COALESCE(lease_owner, '') = w.owner AND attempt = w.of_attempt"""

_LEASE = f"""UPDATE {{tasks}} SET lease_owner = :owner
    WHERE run_id {{within:SELECT c.run_id FROM chosen AS c}} AND (({_KEY}) IN (SELECT * FROM chosen)) IS TRUE
      AND COALESCE(lease_owner, '') = '' AND EXISTS (SELECT 1 FROM {{owners}} AS o WHERE o.owner = :owner)
      AND (EXISTS (SELECT 1 FROM {{runs}} AS r WHERE r.id = run_id AND r.state IN {ACTIVE})) IS TRUE
    RETURNING {_RETURN_KEY}, attempt"""

# The queues that have something free are found by skipping from one to the next in the index; each then gives its most
# urgent tasks in index order. What is locked beyond the unnamed queues' common share is let go at the end of the
# statement.
CLAIM = Statement(
    "tasks.claim",
    "Lease due tasks, the most urgent first: so many of each named queue, so many of all the others together.",
    f"""
WITH RECURSIVE named AS MATERIALIZED (SELECT * FROM {{rows:q(queue text, slots integer)}}),
waiting(queue) AS (
    (SELECT t.queue FROM {{tasks}} AS t WHERE t.lease_owner IS NULL ORDER BY t.queue LIMIT 1)
    UNION ALL
    SELECT (SELECT t.queue FROM {{tasks}} AS t WHERE t.lease_owner IS NULL AND t.queue > w.queue
            ORDER BY t.queue LIMIT 1)
    FROM waiting AS w WHERE w.queue IS NOT NULL),
urgent AS MATERIALIZED (
    SELECT p.*, q.queue IS NOT NULL AS is_named FROM waiting AS w LEFT JOIN named AS q ON q.queue = w.queue
    CROSS JOIN LATERAL (
        SELECT t.run_id, t.generation, t.command_id, t.priority, t.available_at FROM {{tasks}} AS t
        WHERE t.lease_owner IS NULL AND t.queue = w.queue AND t.available_at <= (SELECT {{now}})
          AND t.activity {{among:activities text}}
        ORDER BY t.priority DESC, t.available_at LIMIT COALESCE(q.slots, :default_slots) {{lock:t}}) AS p),
ranked AS MATERIALIZED (
    SELECT u.*, row_number() OVER (PARTITION BY u.is_named ORDER BY u.priority DESC, u.available_at) AS place
    FROM urgent AS u),
chosen AS MATERIALIZED (SELECT {_KEY} FROM ranked WHERE is_named OR place <= :default_slots)
{_LEASE}
""",
    sqlite=f"""
WITH named AS MATERIALIZED (SELECT * FROM {{rows:q(queue text, slots integer)}}),
ranked AS MATERIALIZED (
    SELECT t.run_id, t.generation, t.command_id, q.slots,
           row_number() OVER (PARTITION BY q.queue ORDER BY t.priority DESC, t.available_at) AS place
    FROM {{tasks}} AS t LEFT JOIN named AS q ON q.queue = t.queue
    WHERE t.lease_owner IS NULL AND t.available_at <= (SELECT {{now}}) AND t.activity {{among:activities text}}),
chosen AS MATERIALIZED (SELECT {_KEY} FROM ranked WHERE place <= COALESCE(slots, :default_slots))
{_LEASE}
""",
)

DETAILS = Statement(
    "tasks.details",
    "Read what attempts need, the most urgent first.",
    """
SELECT CAST(t.run_id AS text) AS run_id, t.generation, t.command_id, t.attempt, r.workflow, r.version, r.namespace,
       t.activity, e.payload, t.options, e.key, t.details, t.available_at, r.trace_context
FROM {rows:w(of_run uuid, of_generation integer, of_command integer)}
JOIN {tasks} AS t ON t.run_id = w.of_run AND t.generation = w.of_generation AND t.command_id = w.of_command
JOIN {runs} AS r ON r.id = t.run_id
LEFT JOIN {events} AS e ON e.run_id = t.run_id AND e.generation = t.generation AND e.seq = t.event_seq
WHERE COALESCE(t.lease_owner, '') = :owner AND t.run_id {among:ids uuid}
ORDER BY t.priority DESC, t.available_at
""",
)

HELD = Statement(
    "tasks.held",
    "List the tasks leased to an owner.",
    f"SELECT {_RETURN_KEY}, attempt FROM {{tasks}} WHERE lease_owner = :owner ORDER BY {_KEY}",
)

THEIRS = Statement(
    "tasks.theirs",
    "Tell which attempts may still write.",
    f"SELECT {_RETURN_KEY}, attempt, lease_owner FROM {_ATTEMPTS} JOIN {{tasks}} ON {_IS_THEIRS}",
)

HEARTBEAT = Statement(
    "tasks.heartbeat",
    "Store what running attempts want to remember; those that are not returned have lost their task.",
    f"""
UPDATE {{tasks}} SET details = COALESCE(w.details_now, details), heartbeat_at = {{now}}
FROM {{rows:w(of_run uuid, of_generation integer, of_command integer, owner text, of_attempt integer,
             details_now bytea)}}
WHERE {_IS_THEIRS}
RETURNING {_RETURN_KEY}, attempt, lease_owner
""",
    sqlite="""
UPDATE {tasks} SET details = COALESCE(:details, details), heartbeat_at = {now}
WHERE run_id = :run_id AND generation = :generation AND command_id = :command_id
  AND COALESCE(lease_owner, '') = :owner AND attempt = :attempt
""",
)

NEXT = Statement(
    "tasks.next",
    "Ask when the first free task of these activities becomes available.",
    f"""
SELECT t.available_at FROM {{tasks}} AS t
WHERE t.lease_owner IS NULL AND t.activity {{among:activities text}}
  AND EXISTS (SELECT 1 FROM {{runs}} AS r WHERE r.id = t.run_id AND r.state IN {ACTIVE})
ORDER BY t.available_at LIMIT 1
""",
)

RETRY = Statement(
    "tasks.retry",
    "Consume an attempt and free the task, due again later.",
    f"""
UPDATE {{tasks}} SET lease_owner = NULL, attempt = attempt + 1, available_at = {{later:w.delay}}
FROM {{rows:w(of_run uuid, of_generation integer, of_command integer, owner text, of_attempt integer,
             delay double precision)}}
WHERE {_IS_THEIRS}
RETURNING {_RETURN_KEY}
""",
)

FREE = Statement(
    "tasks.free",
    "Free tasks whose attempts never began; none is consumed.",
    f"UPDATE {{tasks}} SET lease_owner = NULL FROM {_ATTEMPTS} WHERE {_IS_THEIRS} RETURNING {_RETURN_KEY}",
)
