"""The inbox: posting to runs that somebody else holds, and reading what was posted."""

# ruff: noqa: S608  templates are put together from constants; every value is bound

from continuum.journal.sql.statements.book import Statement
from continuum.journal.sql.statements.runs import ACTIVE, MESSAGE

_COLUMNS = "id, run_id, kind, name, generation, command_id, delivery_id, payload, format, at"

UNREAD_OF_RUNS = Statement(
    "inbox.of_runs",
    "Read the unread messages of runs, in reading order.",
    f"SELECT {MESSAGE} FROM {{inbox}} AS m WHERE m.run_id {{among:ids uuid}} AND m.read_at IS NULL ORDER BY m.n",
)

# Unread messages are few, an owner's runs may be many: the scan starts from the messages.
UNREAD_OF_OWNER = Statement(
    "inbox.of_owner",
    "Read unread messages of an owner's runs, oldest first: no cursor, because commit order is not id order.",
    f"""
WITH unread AS MATERIALIZED (SELECT m.n, m.run_id FROM {{inbox}} AS m WHERE m.read_at IS NULL),
theirs AS MATERIALIZED (
    SELECT u.n, u.run_id FROM unread AS u JOIN {{runs}} AS r ON r.id = u.run_id
    WHERE COALESCE(r.lease_owner, '') = :owner AND r.state IN {ACTIVE} ORDER BY u.n LIMIT :limit)
SELECT {MESSAGE} FROM theirs AS t JOIN {{inbox}} AS m ON m.run_id = t.run_id AND m.n = t.n AND m.read_at IS NULL
ORDER BY m.n
""",
)

_WANTED = """{rows:w(place integer, id uuid, of_run uuid, kind text, name text, generation integer, command_id integer,
            delivery_id text, payload bytea, format smallint)}"""

# The end of the run is tested after the duplicate: a webhook that is retried after the end is still a duplicate. What
# conflicts with a row that this statement's snapshot does not show is `unseen`, and asked again in a new statement.
# (Not EXISTS: PostgreSQL would answer several of those by hashing the whole inbox.)
_VERDICT = f"""
    CASE WHEN (SELECT true FROM {{inbox}} AS m WHERE m.id = w.id LIMIT 1) THEN 'posted'
         WHEN (SELECT true FROM {{inbox}} AS m
               WHERE m.run_id = w.of_run AND m.name = w.name AND m.delivery_id = w.delivery_id LIMIT 1) THEN 'duplicate'
         WHEN r.id IS NULL THEN 'unknown'
         WHEN r.state NOT IN {ACTIVE} THEN 'over'
         WHEN w.kind = 'cancel' AND (
             SELECT true FROM {{inbox}} AS m
             WHERE m.run_id = w.of_run AND m.kind = 'cancel' AND m.read_at IS NULL LIMIT 1) THEN 'posted'
         ELSE 'unseen' END"""

POST = Statement(
    "inbox.post",
    "Insert messages into the inboxes of active runs; takes no lock on runs.",
    f"""
WITH wanted AS MATERIALIZED (SELECT * FROM {_WANTED}),
put AS (
    INSERT INTO {{inbox}} ({_COLUMNS})
    SELECT w.id, w.of_run, w.kind, w.name, w.generation, w.command_id, w.delivery_id, w.payload, w.format, {{now}}
    FROM wanted AS w JOIN {{runs}} AS r ON r.id = w.of_run AND r.state IN {ACTIVE}
    ORDER BY w.place
    ON CONFLICT DO NOTHING RETURNING id)
SELECT w.place, CASE WHEN (w.id IN (SELECT id FROM put)) IS TRUE THEN 'posted' ELSE {_VERDICT} END AS verdict,
       r.lease_owner, o.advertise_url
FROM wanted AS w LEFT JOIN {{runs}} AS r ON r.id = w.of_run LEFT JOIN {{owners}} AS o ON o.owner = r.lease_owner
""",
    sqlite="",
)

FORESEE = Statement(
    "inbox.foresee",
    "Say what would become of messages; within the transaction that inserts the `unseen` ones.",
    "",
    sqlite=f"""
SELECT w.place, {_VERDICT} AS verdict, r.lease_owner, o.advertise_url
FROM {{rows:w(place integer, id uuid, of_run uuid, kind text, name text, delivery_id text)}}
LEFT JOIN {{runs}} AS r ON r.id = w.of_run LEFT JOIN {{owners}} AS o ON o.owner = r.lease_owner
""",
)

# One statement, one snapshot: what a commit has read is an event from the moment on when it is no row any more.
ARRIVED = Statement(
    "inbox.arrived",
    "Find out whether a message was posted: it is in the inbox, or in the history of any generation.",
    """
SELECT r.lease_owner, o.advertise_url FROM {runs} AS r LEFT JOIN {owners} AS o ON o.owner = r.lease_owner
WHERE r.id = :run_id AND (
    EXISTS (SELECT 1 FROM {inbox} AS m WHERE m.id = :message_id)
    OR EXISTS (SELECT 1 FROM {events} AS e WHERE e.run_id = r.id AND e.message_id = :message_id))
""",
)

INSERT = Statement(
    "inbox.insert",
    "Insert a message.",
    f"""
INSERT INTO {{inbox}} ({_COLUMNS})
VALUES (:id, :run_id, :kind, :name, :generation, :command_id, :delivery_id, :payload, :format, {{now}})
""",
)

_ATTEMPTS = "of_run uuid, of_generation integer, of_command integer, owner text, of_attempt integer"

FINISH = Statement(
    "tasks.finish",
    "End tasks and post their results to their runs, fenced by task owner and attempt and an active run.",
    f"""
WITH wanted AS MATERIALIZED (
    SELECT * FROM {{rows:w({_ATTEMPTS}, id uuid, kind text, name text, generation integer, command_id integer,
                         delivery_id text, payload bytea, format smallint)}}),
ended AS (
    DELETE FROM {{tasks}}
    WHERE run_id = ANY(ARRAY(SELECT w.of_run FROM wanted AS w))
      AND ((run_id, generation, command_id, COALESCE(lease_owner, ''), attempt) IN (
          SELECT w.of_run, w.of_generation, w.of_command, w.owner, w.of_attempt FROM wanted AS w)) IS TRUE
      AND (EXISTS (SELECT 1 FROM {{runs}} AS r WHERE r.id = run_id AND r.generation = {{tasks}}.generation
                   AND r.state IN {ACTIVE})) IS TRUE
    RETURNING run_id, generation, command_id),
put AS (
    INSERT INTO {{inbox}} ({_COLUMNS})
    SELECT w.id, w.of_run, w.kind, w.name, w.generation, w.command_id, w.delivery_id, w.payload, w.format, {{now}}
    FROM wanted AS w
    WHERE ((w.of_run, w.of_generation, w.of_command) IN (SELECT * FROM ended)) IS TRUE)
SELECT CAST(e.run_id AS text) AS run_id, e.generation, e.command_id, r.lease_owner, o.advertise_url
FROM ended AS e JOIN {{runs}} AS r ON r.id = e.run_id LEFT JOIN {{owners}} AS o ON o.owner = r.lease_owner
""",
    sqlite="",
)

END_TASKS = Statement(
    "tasks.end",
    "End tasks, fenced by task owner and attempt and an active run; within the transaction that posts their results.",
    "",
    sqlite=f"""
DELETE FROM {{tasks}}
WHERE (run_id, generation, command_id, lease_owner, attempt) IN (
        SELECT w.of_run, w.of_generation, w.of_command, w.owner, w.of_attempt FROM {{rows:w({_ATTEMPTS})}})
  AND EXISTS (SELECT 1 FROM {{runs}} AS r WHERE r.id = run_id
              AND r.generation = {{tasks}}.generation AND r.state IN {ACTIVE})
RETURNING run_id, generation, command_id,
    (SELECT r.lease_owner FROM {{runs}} AS r WHERE r.id = {{tasks}}.run_id) AS lease_owner,
    (SELECT o.advertise_url FROM {{runs}} AS r JOIN {{owners}} AS o ON o.owner = r.lease_owner
     WHERE r.id = {{tasks}}.run_id) AS advertise_url
""",
)

FORGET_LATE = Statement(
    "inbox.forget_late",
    "Delete messages that came after the end of their run; with a delivery id they stay until it is pruned.",
    f"""
WITH late AS MATERIALIZED (
    SELECT m.id FROM {{inbox}} AS m
    WHERE m.read_at IS NULL AND m.delivery_id IS NULL
      AND NOT EXISTS (SELECT 1 FROM {{runs}} AS r WHERE r.id = m.run_id AND r.state IN {ACTIVE})
    LIMIT 10000 {{lock:m}})
DELETE FROM {{inbox}} WHERE id {{within:SELECT l.id FROM late AS l}}
""",
)
