"""The commit: what a batch of turns changes, fenced run by run.

On PostgreSQL all of it is ONE statement. `held` moves the runs whose fence holds, and says which; `started` inserts
those that do not exist; everything else is inserted or deleted only for runs that are `ok`. Who is not returned was
refused, alone: its neighbours do not notice. Rows are in run-id order, the order in which rows are locked.

`ok` is asked by hashed subplan, never by join, and rows of tasks and inbox are found by their key as one of an array,
never by a join with it (see `dialects.postgres`). A run stands at most once in a batch: twice, it would be moved once
and get the events of both.

A commit without a state leaves state, wake_at and lease as they are, to the value: then no indexed column changes, and
the update stays HOT.

On SQLite the same happens in one transaction; the fence is the same text.

Wherever a row is found by its key, the owner in the fence is compared as COALESCE(lease_owner, ''), which no index
answers: statistics taken while nothing was leased promise that the index on lease_owner finds nothing, and a batch of
500 would look through the 500 runs of its owner for each of its 500 commits (5,500 commits/s instead of 44,000).
"""

# ruff: noqa: S608  templates are put together from constants; every value is bound

from continuum.journal.sql.statements.book import Statement
from continuum.journal.sql.statements.runs import ENDED

_COMMITS = """{rows:c(of_run uuid, owner text, token bigint, of_generation integer, base_seq bigint, new_seq bigint,
                 new_state text, new_wake_at timestamptz, backoff double precision, new_reason text,
                 gives_up boolean, ends boolean)}"""

_HELD = f"""UPDATE {{runs}} SET
        last_seq = c.new_seq,
        crashes = CASE WHEN c.new_seq > c.base_seq THEN 0 ELSE crashes END,
        state = COALESCE(c.new_state, state),
        wake_at = CASE WHEN c.new_state IS NULL THEN wake_at
                       WHEN c.backoff IS NOT NULL THEN {{later:c.backoff}}
                       ELSE c.new_wake_at END,
        reason = CASE WHEN c.new_state IS NULL THEN reason ELSE c.new_reason END,
        lease_owner = CASE WHEN c.gives_up THEN NULL ELSE lease_owner END,
        lease_token = CASE WHEN c.gives_up THEN lease_token + 1 ELSE lease_token END,
        retention_until = CASE WHEN c.ends THEN {{later:retention_seconds}} ELSE retention_until END,
        ended_at = CASE WHEN c.ends THEN {{now}} ELSE ended_at END
    FROM {_COMMITS}
    WHERE id = c.of_run AND COALESCE(lease_owner, '') = c.owner AND lease_token = c.token AND generation = c.of_generation
      AND last_seq = c.base_seq AND state IN ('running', 'suspended', 'cancelling')
    RETURNING"""

_RUN_COLUMNS = """id, workflow, version, namespace, state, generation, last_seq, lease_owner, lease_token, wake_at,
        attributes, idempotency_key, fingerprint, retention_seconds, trace_context, created_at, ended_at,
        retention_until"""
_EVENT_COLUMNS = "run_id, generation, seq, token, type, format, command_id, message_id, name, key, payload, at"
_TASK_COLUMNS = """run_id, generation, command_id, event_seq, activity, queue, priority, options, attempt, max_attempts,
        available_at, lease_owner"""

_STARTED = f"""INSERT INTO {{runs}} ({_RUN_COLUMNS})
    SELECT s.id, s.workflow, s.version, s.namespace, s.state, 1, s.last_seq, s.owner, s.token,
        CASE WHEN s.token = 0 THEN COALESCE(s.wake_at, {{now}}) ELSE s.wake_at END,
        CAST(s.attributes AS jsonb), s.key, s.fingerprint, s.retention, s.trace, s.created_at,
        CASE WHEN s.state IN {ENDED} THEN {{now}} END,
        CASE WHEN s.state IN {ENDED} THEN {{later:s.retention}} END
    FROM {{rows:s(id uuid, workflow text, version integer, namespace text, state text, last_seq bigint, owner text,
                 token bigint, wake_at timestamptz, attributes text, key text, fingerprint bytea,
                 retention double precision, trace text, created_at timestamptz)}}
    ON CONFLICT DO NOTHING RETURNING id"""
_WRITTEN = f"""INSERT INTO {{events}} ({_EVENT_COLUMNS})
    SELECT * FROM {{rows:e(run_id uuid, generation integer, seq bigint, token bigint, type text, format smallint,
                 command_id integer, message_id uuid, name text, key text, payload bytea, at timestamptz)}}"""

COMMIT = Statement(
    "commit",
    "Write a batch of starts and commits; return the runs that took effect, as one text: a row for each takes longer.",
    f"""
WITH started AS (
    {_STARTED}),
held AS (
    {_HELD} id, c.ends),
ok AS (SELECT id FROM started UNION ALL SELECT id FROM held),
ended AS (SELECT id FROM held WHERE ends),
written AS (
    {_WRITTEN}
    WHERE (e.run_id IN (SELECT id FROM ok)) IS TRUE),
scheduled AS (
    INSERT INTO {{tasks}} ({_TASK_COLUMNS})
    SELECT t.run_id, t.generation, t.command_id, t.event_seq, t.activity, t.queue, t.priority, t.options, 1,
        t.max_attempts, {{now}}, t.owner
    FROM {{rows:t(run_id uuid, generation integer, command_id integer, event_seq bigint, activity text, queue text,
                 priority integer, options bytea, max_attempts integer, owner text)}}
    WHERE (t.run_id IN (SELECT id FROM ok)) IS TRUE),
done AS MATERIALIZED (
    SELECT * FROM {{rows:d(run_id uuid, generation integer, command_id integer)}}
    WHERE (d.run_id IN (SELECT id FROM ok)) IS TRUE),
resolved AS (
    DELETE FROM {{tasks}} AS k
    WHERE k.run_id = ANY(ARRAY(SELECT done.run_id FROM done))
      AND ((k.run_id, k.generation, k.command_id) IN (SELECT * FROM done)) IS TRUE),
consumed AS MATERIALIZED (
    SELECT * FROM {{rows:g(run_id uuid, id uuid, tombstone boolean)}}
    WHERE (g.run_id IN (SELECT id FROM ok)) IS TRUE),
taken AS (
    DELETE FROM {{inbox}} AS m
    WHERE m.id = ANY(ARRAY(SELECT g.id FROM consumed AS g WHERE NOT g.tombstone))
      AND ((m.run_id, m.id) IN (SELECT g.run_id, g.id FROM consumed AS g)) IS TRUE),
entombed AS (
    UPDATE {{inbox}} AS m SET read_at = {{now}}, payload = NULL
    WHERE m.id = ANY(ARRAY(SELECT g.id FROM consumed AS g WHERE g.tombstone)) AND m.read_at IS NULL
      AND ((m.run_id, m.id) IN (SELECT g.run_id, g.id FROM consumed AS g)) IS TRUE),
dropped AS (
    DELETE FROM {{tasks}} AS k WHERE k.run_id = ANY(ARRAY(SELECT id FROM ended))),
cleared AS (
    DELETE FROM {{inbox}} AS m
    WHERE m.run_id = ANY(ARRAY(SELECT id FROM ended)) AND m.read_at IS NULL AND m.delivery_id IS NULL),
kept AS (
    UPDATE {{inbox}} AS m SET read_at = {{now}}, payload = NULL
    WHERE m.run_id = ANY(ARRAY(SELECT id FROM ended)) AND m.read_at IS NULL AND m.delivery_id IS NOT NULL)
SELECT string_agg(CAST(id AS text), ',') AS run_ids FROM ok
""",
    sqlite="",
)


BEGIN = Statement(
    "commit.begin",
    "Insert unleased runs with their first events, in a transaction that is somebody's; return those that took effect.",
    f"""
WITH started AS (
    {_STARTED}),
written AS (
    {_WRITTEN}
    WHERE (e.run_id IN (SELECT id FROM started)) IS TRUE)
SELECT CAST(id AS text) AS run_id FROM started
""",
    sqlite="",
)


def _only_sqlite(name: str, doc: str, template: str) -> Statement:
    return Statement(name, doc, "", sqlite=template)


HOLD = _only_sqlite("commit.hold", "Move the runs whose fence holds.", f"{_HELD} id AS run_id")

TAKEN = _only_sqlite(
    "commit.taken",
    "Tell which new runs cannot be inserted: their id or their key exists.",
    """
SELECT s.place FROM {rows:s(place integer, id uuid, namespace text, workflow text, key text)}
WHERE EXISTS (SELECT 1 FROM {runs} AS r WHERE r.id = s.id)
   OR EXISTS (SELECT 1 FROM {runs} AS r WHERE r.idempotency_key IS NOT NULL
              AND r.namespace = s.namespace AND r.workflow = s.workflow AND r.idempotency_key = s.key)
""",
)

START = _only_sqlite(
    "commit.start",
    "Insert a run.",
    f"""
INSERT INTO {{runs}} ({_RUN_COLUMNS})
VALUES (:id, :workflow, :version, :namespace, :state, 1, :last_seq, :owner, :token,
        CASE WHEN :token = 0 THEN COALESCE(:wake_at, {{now}}) ELSE :wake_at END,
        :attributes, :key, :fingerprint, :retention, :trace, :created_at,
        CASE WHEN :state IN {ENDED} THEN {{now}} END,
        CASE WHEN :state IN {ENDED} THEN {{later::retention}} END)
""",
)

APPEND = Statement(
    "commit.append",
    "Append an event.",
    f"""
INSERT INTO {{events}} ({_EVENT_COLUMNS})
VALUES (:run_id, :generation, :seq, :token, :type, :format, :command_id, :message_id, :name, :key, :payload, :at)
""",
)

SCHEDULE = _only_sqlite(
    "commit.schedule",
    "Insert a task.",
    f"""
INSERT INTO {{tasks}} ({_TASK_COLUMNS})
VALUES (:run_id, :generation, :command_id, :event_seq, :activity, :queue, :priority, :options, 1, :max_attempts,
        {{now}}, :owner)
""",
)

RESOLVE = _only_sqlite(
    "commit.resolve",
    "Delete a task by key, whoever holds it.",
    "DELETE FROM {tasks} WHERE run_id = :run_id AND generation = :generation AND command_id = :command_id",
)

TAKE = _only_sqlite(
    "commit.take", "Delete a message that was read.", "DELETE FROM {inbox} WHERE id = :id AND run_id = :run_id"
)

ENTOMB = _only_sqlite(
    "commit.entomb",
    "Keep a message that was read as a tombstone of its delivery id.",
    "UPDATE {inbox} SET read_at = {now}, payload = NULL WHERE id = :id AND run_id = :run_id AND read_at IS NULL",
)

DROP_TASKS = _only_sqlite(
    "commit.drop_tasks", "Delete all tasks of ended runs.", "DELETE FROM {tasks} WHERE run_id {among:ids uuid}"
)

CLEAR_INBOX = _only_sqlite(
    "commit.clear_inbox",
    "Delete what ended runs never read.",
    "DELETE FROM {inbox} WHERE run_id {among:ids uuid} AND read_at IS NULL AND delivery_id IS NULL",
)

KEEP_DELIVERIES = _only_sqlite(
    "commit.keep_deliveries",
    "Keep the delivery ids of what ended runs never read.",
    "UPDATE {inbox} SET read_at = {now}, payload = NULL "
    "WHERE run_id {among:ids uuid} AND read_at IS NULL AND delivery_id IS NOT NULL",
)
