-- Every statement of the journal on sqlite. Made by `make sql`; parameters are written :name.

-- batches -------------------------------------------------------------------------------------------------------------

-- commit.hold: Move the runs whose fence holds.
UPDATE continuum_runs SET
        last_seq = c.new_seq,
        crashes = CASE WHEN c.new_seq > c.base_seq THEN 0 ELSE crashes END,
        state = COALESCE(c.new_state, state),
        wake_at = CASE WHEN c.new_state IS NULL THEN wake_at
                       WHEN c.backoff IS NOT NULL THEN :now + CAST(ROUND((c.backoff) * 1000000) AS INTEGER)
                       ELSE c.new_wake_at END,
        reason = CASE WHEN c.new_state IS NULL THEN reason ELSE c.new_reason END,
        lease_owner = CASE WHEN c.gives_up THEN NULL ELSE lease_owner END,
        lease_token = CASE WHEN c.gives_up THEN lease_token + 1 ELSE lease_token END,
        retention_until = CASE WHEN c.ends THEN :now + CAST(ROUND((retention_seconds) * 1000000) AS INTEGER) ELSE retention_until END,
        ended_at = CASE WHEN c.ends THEN :now ELSE ended_at END
    FROM (SELECT json_extract(value, '$[0]') AS of_run, json_extract(value, '$[1]') AS owner, json_extract(value,
            '$[2]') AS token, json_extract(value, '$[3]') AS of_generation, json_extract(value, '$[4]') AS
            base_seq, json_extract(value, '$[5]') AS new_seq, json_extract(value, '$[6]') AS new_state,
            json_extract(value, '$[7]') AS new_wake_at, json_extract(value, '$[8]') AS backoff,
            json_extract(value, '$[9]') AS new_reason, json_extract(value, '$[10]') AS gives_up,
            json_extract(value, '$[11]') AS ends FROM json_each(:c)) AS c
    WHERE id = c.of_run AND COALESCE(lease_owner, '') = c.owner AND lease_token = c.token AND generation = c.of_generation
      AND last_seq = c.base_seq AND state IN ('running', 'suspended', 'cancelling')
    RETURNING id AS run_id;

-- commit.taken: Tell which new runs cannot be inserted: their id or their key exists.
SELECT s.place FROM (SELECT json_extract(value, '$[0]') AS place, json_extract(value, '$[1]') AS id, json_extract(value, '$[2]')
            AS namespace, json_extract(value, '$[3]') AS workflow, json_extract(value, '$[4]') AS key FROM
            json_each(:s)) AS s
WHERE EXISTS (SELECT 1 FROM continuum_runs AS r WHERE r.id = s.id)
   OR EXISTS (SELECT 1 FROM continuum_runs AS r WHERE r.idempotency_key IS NOT NULL
              AND r.namespace = s.namespace AND r.workflow = s.workflow AND r.idempotency_key = s.key);

-- commit.start: Insert a run.
INSERT INTO continuum_runs (id, workflow, version, namespace, state, generation, last_seq, lease_owner, lease_token, wake_at,
        attributes, idempotency_key, fingerprint, retention_seconds, trace_context, created_at, ended_at,
        retention_until)
VALUES (:id, :workflow, :version, :namespace, :state, 1, :last_seq, :owner, :token,
        CASE WHEN :token = 0 THEN COALESCE(:wake_at, :now) ELSE :wake_at END,
        :attributes, :key, :fingerprint, :retention, :trace, :created_at,
        CASE WHEN :state IN ('completed', 'failed', 'cancelled') THEN :now END,
        CASE WHEN :state IN ('completed', 'failed', 'cancelled') THEN :now + CAST(ROUND((:retention) * 1000000) AS INTEGER) END);

-- commit.append: Append an event.
INSERT INTO continuum_events (run_id, generation, seq, token, type, format, command_id, message_id, name, key, payload, at)
VALUES (:run_id, :generation, :seq, :token, :type, :format, :command_id, :message_id, :name, :key, :payload, :at);

-- commit.schedule: Insert a task.
INSERT INTO continuum_tasks (run_id, generation, command_id, event_seq, activity, queue, priority, options, attempt, max_attempts,
        available_at, lease_owner)
VALUES (:run_id, :generation, :command_id, :event_seq, :activity, :queue, :priority, :options, 1, :max_attempts,
        :now, :owner);

-- commit.resolve: Delete a task by key, whoever holds it.
DELETE FROM continuum_tasks WHERE run_id = :run_id AND generation = :generation AND command_id = :command_id;

-- commit.take: Delete a message that was read.
DELETE FROM continuum_inbox WHERE id = :id AND run_id = :run_id;

-- commit.entomb: Keep a message that was read as a tombstone of its delivery id.
UPDATE continuum_inbox SET read_at = :now, payload = NULL WHERE id = :id AND run_id = :run_id AND read_at IS NULL;

-- commit.drop_tasks: Delete all tasks of ended runs.
DELETE FROM continuum_tasks WHERE run_id IN (SELECT value FROM json_each(:ids));

-- commit.clear_inbox: Delete what ended runs never read.
DELETE FROM continuum_inbox WHERE run_id IN (SELECT value FROM json_each(:ids)) AND read_at IS NULL AND delivery_id IS NULL;

-- commit.keep_deliveries: Keep the delivery ids of what ended runs never read.
UPDATE continuum_inbox SET read_at = :now, payload = NULL WHERE run_id IN (SELECT value FROM json_each(:ids)) AND read_at IS NULL AND delivery_id IS NOT NULL;

-- census --------------------------------------------------------------------------------------------------------------

-- census: Count open runs by state and free tasks by queue, up to a limit each.
WITH working AS MATERIALIZED (
    SELECT r.state, CASE WHEN r.state <> 'suspended' THEN '' WHEN r.wake_at IS NULL THEN 'message' ELSE 'timer' END
        AS waits_for
    FROM continuum_runs AS r WHERE r.ended_at IS NULL AND r.state <> 'blocked' ORDER BY r.created_at, r.id LIMIT :most),
blocked AS MATERIALIZED (
    SELECT r.state FROM continuum_runs AS r WHERE r.state = 'blocked' ORDER BY r.created_at, r.id LIMIT :most),
free AS MATERIALIZED (
    SELECT t.queue, t.available_at, t.available_at <= (SELECT :now) AS is_due FROM continuum_tasks AS t
    WHERE t.lease_owner IS NULL ORDER BY t.available_at LIMIT :most)
SELECT 'due' AS what, f.queue AS name, '' AS detail, count(*) AS n, min(f.available_at) AS since
    FROM free AS f WHERE f.is_due GROUP BY f.queue
UNION ALL SELECT 'delayed', f.queue, '', count(*), NULL FROM free AS f WHERE NOT f.is_due GROUP BY f.queue
UNION ALL SELECT 'runs', w.state, w.waits_for, count(*), NULL FROM working AS w GROUP BY w.state, w.waits_for
UNION ALL SELECT 'runs', b.state, '', count(*), NULL FROM blocked AS b GROUP BY b.state
UNION ALL SELECT 'now', '', '', 0, :now;

-- families ------------------------------------------------------------------------------------------------------------

-- children.spawn: Insert children, pending and unleased, with their parent's attributes and trace; return those that are new.
INSERT INTO continuum_runs (id, workflow, version, namespace, state, generation, last_seq, lease_token, wake_at, attributes, fingerprint,
        retention_seconds, trace_context, parent_id, depth, created_at)
SELECT :id, :workflow, :version, :namespace, 'pending', 1, 1, 0, :now, p.attributes, :fingerprint, :retention,
    p.trace_context, :parent, :depth, :now
FROM continuum_runs AS p WHERE p.id = :parent;

-- children.namesakes: Read the runs that have children's ids already, with how they ended.
SELECT CAST(r.id AS text) AS run_id, CAST(r.parent_id AS text) AS parent_id, r.workflow, r.fingerprint, r.state,
       e.payload
FROM continuum_runs AS r
LEFT JOIN continuum_events AS e ON e.run_id = r.id AND e.generation = r.generation AND e.seq = r.last_seq
    AND r.state NOT IN ('pending', 'running', 'suspended', 'cancelling', 'blocked')
WHERE r.id IN (SELECT value FROM json_each(:ids));

-- children.active: List the active children of runs, and where they live.
SELECT CAST(r.id AS text) AS run_id, CAST(r.parent_id AS text) AS parent_id, r.lease_owner, o.advertise_url
FROM continuum_runs AS r LEFT JOIN continuum_owners AS o ON o.owner = r.lease_owner
WHERE r.parent_id IN (SELECT value FROM json_each(:ids)) AND r.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked')
ORDER BY r.id;

-- commit.continue: Open the next generation of a run whose commit took effect.
UPDATE continuum_runs SET generation = generation + 1, version = :version, last_seq = :last_seq, state = 'running',
    wake_at = NULL, crashes = 0
WHERE id = :run_id;

-- commit.drop_old_tasks: Delete all tasks of continued runs.
DELETE FROM continuum_tasks WHERE run_id IN (SELECT value FROM json_each(:ids));

-- inbox ---------------------------------------------------------------------------------------------------------------

-- inbox.of_runs: Read the unread messages of runs, in reading order.
SELECT CAST(m.id AS text) AS message_id, CAST(m.run_id AS text) AS run_id, m.kind, m.name, m.payload, m.generation,
       m.command_id, m.delivery_id, m.at, m.format FROM continuum_inbox AS m WHERE m.run_id IN (SELECT value FROM json_each(:ids)) AND m.read_at IS NULL ORDER BY m.n;

-- inbox.of_owner: Read unread messages of an owner's runs, oldest first: no cursor, because commit order is not id order.
WITH unread AS MATERIALIZED (SELECT m.n, m.run_id FROM continuum_inbox AS m WHERE m.read_at IS NULL),
theirs AS MATERIALIZED (
    SELECT u.n, u.run_id FROM unread AS u JOIN continuum_runs AS r ON r.id = u.run_id
    WHERE COALESCE(r.lease_owner, '') = :owner AND r.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked') ORDER BY u.n LIMIT :limit)
SELECT CAST(m.id AS text) AS message_id, CAST(m.run_id AS text) AS run_id, m.kind, m.name, m.payload, m.generation,
       m.command_id, m.delivery_id, m.at, m.format FROM theirs AS t JOIN continuum_inbox AS m ON m.run_id = t.run_id AND m.n = t.n AND m.read_at IS NULL
ORDER BY m.n;

-- inbox.foresee: Say what would become of messages; within the transaction that inserts the `unseen` ones.
SELECT w.place, 
    CASE WHEN (SELECT true FROM continuum_inbox AS m WHERE m.id = w.id LIMIT 1) THEN 'posted'
         WHEN (SELECT true FROM continuum_inbox AS m
               WHERE m.run_id = w.of_run AND m.name = w.name AND m.delivery_id = w.delivery_id LIMIT 1) THEN 'duplicate'
         WHEN r.id IS NULL THEN 'unknown'
         WHEN r.state NOT IN ('pending', 'running', 'suspended', 'cancelling', 'blocked') THEN 'over'
         WHEN w.kind = 'cancel' AND (
             SELECT true FROM continuum_inbox AS m
             WHERE m.run_id = w.of_run AND m.kind = 'cancel' AND m.read_at IS NULL LIMIT 1) THEN 'posted'
         ELSE 'unseen' END AS verdict, r.lease_owner, o.advertise_url
FROM (SELECT json_extract(value, '$[0]') AS place, json_extract(value, '$[1]') AS id, json_extract(value, '$[2]')
            AS of_run, json_extract(value, '$[3]') AS kind, json_extract(value, '$[4]') AS name,
            json_extract(value, '$[5]') AS delivery_id FROM json_each(:w)) AS w
LEFT JOIN continuum_runs AS r ON r.id = w.of_run LEFT JOIN continuum_owners AS o ON o.owner = r.lease_owner;

-- inbox.arrived: Find out whether a message was posted: it is in the inbox, or in the history of any generation.
SELECT r.lease_owner, o.advertise_url FROM continuum_runs AS r LEFT JOIN continuum_owners AS o ON o.owner = r.lease_owner
WHERE r.id = :run_id AND (
    EXISTS (SELECT 1 FROM continuum_inbox AS m WHERE m.id = :message_id)
    OR EXISTS (SELECT 1 FROM continuum_events AS e WHERE e.run_id = r.id AND e.message_id = :message_id));

-- inbox.insert: Insert a message.
INSERT INTO continuum_inbox (id, run_id, kind, name, generation, command_id, delivery_id, payload, format, at)
VALUES (:id, :run_id, :kind, :name, :generation, :command_id, :delivery_id, :payload, :format, :now);

-- tasks.end: End tasks, fenced by task owner and attempt and an active run; within the transaction that posts their results.
DELETE FROM continuum_tasks
WHERE (run_id, generation, command_id, lease_owner, attempt) IN (
        SELECT w.of_run, w.of_generation, w.of_command, w.owner, w.of_attempt FROM (SELECT json_extract(value, '$[0]') AS of_run, json_extract(value, '$[1]') AS of_generation,
            json_extract(value, '$[2]') AS of_command, json_extract(value, '$[3]') AS owner,
            json_extract(value, '$[4]') AS of_attempt FROM json_each(:w)) AS w)
  AND EXISTS (SELECT 1 FROM continuum_runs AS r WHERE r.id = run_id
              AND r.generation = continuum_tasks.generation AND r.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked'))
RETURNING run_id, generation, command_id,
    (SELECT r.lease_owner FROM continuum_runs AS r WHERE r.id = continuum_tasks.run_id) AS lease_owner,
    (SELECT o.advertise_url FROM continuum_runs AS r JOIN continuum_owners AS o ON o.owner = r.lease_owner
     WHERE r.id = continuum_tasks.run_id) AS advertise_url;

-- inbox.forget_late: Delete messages that came after the end of their run; with a delivery id they stay until it is pruned.
WITH late AS MATERIALIZED (
    SELECT m.id FROM continuum_inbox AS m
    WHERE m.read_at IS NULL AND m.delivery_id IS NULL
      AND NOT EXISTS (SELECT 1 FROM continuum_runs AS r WHERE r.id = m.run_id AND r.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked'))
    LIMIT 10000 )
DELETE FROM continuum_inbox WHERE id IN (SELECT l.id FROM late AS l);

-- listing -------------------------------------------------------------------------------------------------------------

-- runs.list.all: Read a page of rows, newest first.
SELECT CAST(r.id AS text) AS run_id, r.workflow, r.version, r.namespace, r.state, r.generation, r.last_seq,
       r.lease_owner, r.lease_token, r.wake_at, r.created_at, r.ended_at, CAST(r.attributes AS text) AS attributes,
       r.idempotency_key, r.fingerprint, r.crashes, r.reason, r.retention_seconds, r.retention_until, r.trace_context,
       CAST(r.parent_id AS text) AS parent_id, r.depth FROM continuum_runs AS r
WHERE (r.created_at, r.id) < (:before_at, :before_id)
  AND (CAST(:workflow AS text) IS NULL OR r.workflow = :workflow)
  AND (CAST(:state AS text) IS NULL OR r.state = :state)
  AND (CAST(:namespace AS text) IS NULL OR r.namespace = :namespace)
  AND (:attributes IS NULL OR (r.attributes IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM json_each(:attributes) AS want LEFT JOIN json_each(r.attributes) AS have ON have.key = want.key
    WHERE have.key IS NULL OR NOT
        CASE WHEN want.type = 'array' AND have.type = 'array' THEN NOT EXISTS (
                 SELECT 1 FROM json_each(want.value) AS w WHERE NOT EXISTS (
                     SELECT 1 FROM json_each(have.value) AS h WHERE CASE WHEN w.type IN ('integer', 'real') THEN h.type IN ('integer', 'real') AND w.atom = h.atom
             WHEN w.type = 'text' THEN h.type = 'text' AND w.atom = h.atom
             ELSE w.type = h.type END))
             WHEN want.type = 'array' THEN 0
             ELSE CASE WHEN want.type IN ('integer', 'real') THEN have.type IN ('integer', 'real') AND want.atom = have.atom
             WHEN want.type = 'text' THEN have.type = 'text' AND want.atom = have.atom
             ELSE want.type = have.type END END)))
ORDER BY r.created_at DESC, r.id DESC LIMIT :n;

-- runs.list.open: Read a page of rows, newest first.
SELECT CAST(r.id AS text) AS run_id, r.workflow, r.version, r.namespace, r.state, r.generation, r.last_seq,
       r.lease_owner, r.lease_token, r.wake_at, r.created_at, r.ended_at, CAST(r.attributes AS text) AS attributes,
       r.idempotency_key, r.fingerprint, r.crashes, r.reason, r.retention_seconds, r.retention_until, r.trace_context,
       CAST(r.parent_id AS text) AS parent_id, r.depth FROM continuum_runs AS r
WHERE (r.created_at, r.id) < (:before_at, :before_id) AND r.ended_at IS NULL
  AND (CAST(:workflow AS text) IS NULL OR r.workflow = :workflow)
  AND (CAST(:state AS text) IS NULL OR r.state = :state)
  AND (CAST(:namespace AS text) IS NULL OR r.namespace = :namespace)
  AND (:attributes IS NULL OR (r.attributes IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM json_each(:attributes) AS want LEFT JOIN json_each(r.attributes) AS have ON have.key = want.key
    WHERE have.key IS NULL OR NOT
        CASE WHEN want.type = 'array' AND have.type = 'array' THEN NOT EXISTS (
                 SELECT 1 FROM json_each(want.value) AS w WHERE NOT EXISTS (
                     SELECT 1 FROM json_each(have.value) AS h WHERE CASE WHEN w.type IN ('integer', 'real') THEN h.type IN ('integer', 'real') AND w.atom = h.atom
             WHEN w.type = 'text' THEN h.type = 'text' AND w.atom = h.atom
             ELSE w.type = h.type END))
             WHEN want.type = 'array' THEN 0
             ELSE CASE WHEN want.type IN ('integer', 'real') THEN have.type IN ('integer', 'real') AND want.atom = have.atom
             WHEN want.type = 'text' THEN have.type = 'text' AND want.atom = have.atom
             ELSE want.type = have.type END END)))
ORDER BY r.created_at DESC, r.id DESC LIMIT :n;

-- runs.list.troubled: Read a page of rows, newest first.
SELECT CAST(r.id AS text) AS run_id, r.workflow, r.version, r.namespace, r.state, r.generation, r.last_seq,
       r.lease_owner, r.lease_token, r.wake_at, r.created_at, r.ended_at, CAST(r.attributes AS text) AS attributes,
       r.idempotency_key, r.fingerprint, r.crashes, r.reason, r.retention_seconds, r.retention_until, r.trace_context,
       CAST(r.parent_id AS text) AS parent_id, r.depth FROM continuum_runs AS r
WHERE (r.created_at, r.id) < (:before_at, :before_id) AND r.state IN ('blocked', 'failed', 'cancelled') AND r.state = :state
  AND (CAST(:workflow AS text) IS NULL OR r.workflow = :workflow)
  AND (CAST(:state AS text) IS NULL OR r.state = :state)
  AND (CAST(:namespace AS text) IS NULL OR r.namespace = :namespace)
  AND (:attributes IS NULL OR (r.attributes IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM json_each(:attributes) AS want LEFT JOIN json_each(r.attributes) AS have ON have.key = want.key
    WHERE have.key IS NULL OR NOT
        CASE WHEN want.type = 'array' AND have.type = 'array' THEN NOT EXISTS (
                 SELECT 1 FROM json_each(want.value) AS w WHERE NOT EXISTS (
                     SELECT 1 FROM json_each(have.value) AS h WHERE CASE WHEN w.type IN ('integer', 'real') THEN h.type IN ('integer', 'real') AND w.atom = h.atom
             WHEN w.type = 'text' THEN h.type = 'text' AND w.atom = h.atom
             ELSE w.type = h.type END))
             WHEN want.type = 'array' THEN 0
             ELSE CASE WHEN want.type IN ('integer', 'real') THEN have.type IN ('integer', 'real') AND want.atom = have.atom
             WHEN want.type = 'text' THEN have.type = 'text' AND want.atom = have.atom
             ELSE want.type = have.type END END)))
ORDER BY r.created_at DESC, r.id DESC LIMIT :n;

-- runs.list.tenant: Read a page of rows, newest first.
SELECT CAST(r.id AS text) AS run_id, r.workflow, r.version, r.namespace, r.state, r.generation, r.last_seq,
       r.lease_owner, r.lease_token, r.wake_at, r.created_at, r.ended_at, CAST(r.attributes AS text) AS attributes,
       r.idempotency_key, r.fingerprint, r.crashes, r.reason, r.retention_seconds, r.retention_until, r.trace_context,
       CAST(r.parent_id AS text) AS parent_id, r.depth FROM continuum_runs AS r
WHERE (r.created_at, r.id) < (:before_at, :before_id) AND r.namespace <> 'default' AND r.namespace = :namespace
  AND (CAST(:workflow AS text) IS NULL OR r.workflow = :workflow)
  AND (CAST(:state AS text) IS NULL OR r.state = :state)
  AND (CAST(:namespace AS text) IS NULL OR r.namespace = :namespace)
  AND (:attributes IS NULL OR (r.attributes IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM json_each(:attributes) AS want LEFT JOIN json_each(r.attributes) AS have ON have.key = want.key
    WHERE have.key IS NULL OR NOT
        CASE WHEN want.type = 'array' AND have.type = 'array' THEN NOT EXISTS (
                 SELECT 1 FROM json_each(want.value) AS w WHERE NOT EXISTS (
                     SELECT 1 FROM json_each(have.value) AS h WHERE CASE WHEN w.type IN ('integer', 'real') THEN h.type IN ('integer', 'real') AND w.atom = h.atom
             WHEN w.type = 'text' THEN h.type = 'text' AND w.atom = h.atom
             ELSE w.type = h.type END))
             WHEN want.type = 'array' THEN 0
             ELSE CASE WHEN want.type IN ('integer', 'real') THEN have.type IN ('integer', 'real') AND want.atom = have.atom
             WHEN want.type = 'text' THEN have.type = 'text' AND want.atom = have.atom
             ELSE want.type = have.type END END)))
ORDER BY r.created_at DESC, r.id DESC LIMIT :n;

-- opening -------------------------------------------------------------------------------------------------------------

-- now: Ask for the database's time.
SELECT :now AS now;

-- opening.has_tables: Ask whether the tables were ever created.
SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name) AS ready;

-- opening.revision: Ask for the schema's revision.
SELECT version_num FROM continuum_alembic_version;

-- opening.claim_tables: Let the tables belong to an instance, if they belong to nobody.
INSERT INTO continuum_instances (name, created_at) VALUES (:name, :now) ON CONFLICT DO NOTHING;

-- opening.instance: Ask which instance the tables belong to.
SELECT name FROM continuum_instances;

-- opening.rename: Let the tables belong to another instance name, while no process of the old one lives.
UPDATE continuum_instances SET name = :new
WHERE name = :old AND NOT EXISTS (SELECT 1 FROM continuum_owners WHERE expires_at > :now)
RETURNING name;

-- opening.living: Ask which nodes live.
SELECT node FROM continuum_owners WHERE expires_at > :now;

-- owners --------------------------------------------------------------------------------------------------------------

-- owners.register: Insert an owner row, before any lease in its name.
INSERT INTO continuum_owners (owner, instance, node, advertise_url, booted_at, expires_at)
VALUES (:owner, :instance, :node, :advertise_url, :now, :now + CAST(ROUND((:ttl) * 1000000) AS INTEGER))
RETURNING booted_at AS now;

-- owners.renew: Extend an owner row; late is fine while it exists.
UPDATE continuum_owners SET expires_at = :now + CAST(ROUND((:ttl) * 1000000) AS INTEGER) WHERE owner = :owner
RETURNING :now AS now;

-- owners.retire: Give an owner row up.
DELETE FROM continuum_owners WHERE owner = :owner;

-- owners.declare_dead: Delete the owners who did not renew in time; their leases are left to the sweep.
DELETE FROM continuum_owners WHERE expires_at < :now RETURNING owner;

-- owners.list: List the owners that have a row.
SELECT owner, instance, node, advertise_url FROM continuum_owners ORDER BY booted_at, owner;

-- pulse ---------------------------------------------------------------------------------------------------------------

-- pulse.evidence: Say whether there are runs to claim, tasks to claim, leases to sweep, or schedules to fire, for anybody.
WITH RECURSIVE 
of_runs(owner) AS (
    SELECT min(lease_owner) FROM continuum_runs WHERE lease_owner IS NOT NULL
    UNION ALL
    SELECT (SELECT min(lease_owner) FROM continuum_runs WHERE lease_owner > h.owner)
    FROM of_runs AS h WHERE h.owner IS NOT NULL),

of_tasks(owner) AS (
    SELECT min(lease_owner) FROM continuum_tasks WHERE lease_owner IS NOT NULL
    UNION ALL
    SELECT (SELECT min(lease_owner) FROM continuum_tasks WHERE lease_owner > h.owner)
    FROM of_tasks AS h WHERE h.owner IS NOT NULL),
holders AS (SELECT owner FROM of_runs UNION SELECT owner FROM of_tasks)
SELECT
    EXISTS (SELECT 1 FROM continuum_runs AS r WHERE r.lease_owner IS NULL AND r.state IN ('running', 'cancelling'))
    OR EXISTS (SELECT 1 FROM continuum_runs AS r
               WHERE r.lease_owner IS NULL AND r.state IN ('pending', 'suspended', 'blocked') AND r.wake_at <= (SELECT :now))
    OR EXISTS (SELECT 1 FROM continuum_inbox AS m JOIN continuum_runs AS r ON r.id = m.run_id
               WHERE m.read_at IS NULL AND r.lease_owner IS NULL
                 AND (r.state = 'suspended' OR (r.state = 'pending' AND m.kind = 'compensate')
                      OR (r.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked') AND m.kind = 'cancel'))) AS runs,
    EXISTS (SELECT 1 FROM continuum_tasks AS t WHERE t.lease_owner IS NULL AND t.available_at <= (SELECT :now)) AS tasks,
    EXISTS (SELECT 1 FROM continuum_owners AS o WHERE o.expires_at < (SELECT :now))
    OR EXISTS (SELECT 1 FROM holders AS h WHERE h.owner IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM continuum_owners AS o WHERE o.owner = h.owner)) AS orphans,
    EXISTS (SELECT 1 FROM continuum_schedules AS s WHERE s.state = 'active' AND s.wake_at <= (SELECT :now))
    OR EXISTS (SELECT 1 FROM continuum_schedules AS s WHERE s.state = 'active' AND s.buffered_at IS NOT NULL AND s.attempts = 0
    AND NOT EXISTS (SELECT 1 FROM continuum_runs AS r WHERE r.id = s.last_run_id AND r.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked'))) AS schedules;

-- results -------------------------------------------------------------------------------------------------------------

-- results.remember: Remember successes, in the transaction that journals them; the first one under a key stands.
INSERT INTO continuum_activity_results (namespace, activity, idempotency_key, run_id, arguments, payload, at)
VALUES (:namespace, :activity, :key, :run_id, :arguments, :payload, :now)
ON CONFLICT DO NOTHING;

-- results.remember_first: Remember a success if it is the first under its key, after whoever is about to be: in a host's transaction.
INSERT INTO continuum_activity_results (namespace, activity, idempotency_key, run_id, arguments, payload, at)
VALUES (:namespace, :activity, :key, :run_id, :arguments, :payload, :now)
ON CONFLICT DO NOTHING RETURNING idempotency_key;

-- results.find: Read what is remembered under keys.
SELECT a.namespace, a.activity, a.idempotency_key, CAST(a.run_id AS text) AS run_id, a.arguments, a.payload
FROM (SELECT json_extract(value, '$[0]') AS namespace, json_extract(value, '$[1]') AS activity,
            json_extract(value, '$[2]') AS key FROM json_each(:w)) AS w
JOIN continuum_activity_results AS a
  ON a.namespace = w.namespace AND a.activity = w.activity AND a.idempotency_key = w.key;

-- results.prune: Forget results that are older than an age, the oldest first.
WITH old AS MATERIALIZED (
    SELECT a.namespace, a.activity, a.idempotency_key FROM continuum_activity_results AS a
    WHERE a.at < (SELECT :now + CAST(ROUND((-CAST(:age AS double precision)) * 1000000) AS INTEGER)) ORDER BY a.at LIMIT :n )
DELETE FROM continuum_activity_results WHERE (namespace, activity, idempotency_key) IN (SELECT * FROM old)
RETURNING activity;

-- runs ----------------------------------------------------------------------------------------------------------------

-- runs.claim: Lease unleased runs that have evidence, to an owner whose row exists.
WITH mine AS MATERIALIZED (SELECT m.workflow, m.version FROM (SELECT json_extract(value, '$[0]') AS workflow, json_extract(value, '$[1]') AS version FROM json_each(:m))
            AS m),
moment AS MATERIALIZED (SELECT :now AS now),
candidates AS MATERIALIZED (
    SELECT id FROM (
        SELECT r.id FROM continuum_runs AS r
        WHERE r.lease_owner IS NULL AND r.state IN ('running', 'cancelling') AND ((r.workflow, r.version) IN (SELECT workflow, version FROM mine)) IS TRUE
        LIMIT :n) AS interrupted
    UNION
    SELECT id FROM (
        SELECT r.id FROM continuum_runs AS r
        WHERE r.lease_owner IS NULL AND r.state IN ('pending', 'suspended', 'blocked') AND r.wake_at <= (SELECT now FROM moment) AND ((r.workflow, r.version) IN (SELECT workflow, version FROM mine)) IS TRUE
        ORDER BY r.wake_at LIMIT :n) AS due
    UNION
    SELECT id FROM (
        SELECT DISTINCT m.run_id AS id FROM continuum_inbox AS m JOIN continuum_runs AS r ON r.id = m.run_id
        WHERE m.read_at IS NULL AND r.lease_owner IS NULL
          AND ((r.state = 'suspended' AND ((r.workflow, r.version) IN (SELECT workflow, version FROM mine)) IS TRUE) OR (r.state = 'pending' AND m.kind = 'compensate' AND ((r.workflow, r.version) IN (SELECT workflow, version FROM mine)) IS TRUE)
            OR (r.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked') AND m.kind = 'cancel'))
        LIMIT :n) AS written),
chosen AS MATERIALIZED (
    SELECT r.id FROM continuum_runs AS r
    WHERE r.id IN (SELECT c.id FROM candidates AS c) AND r.lease_owner IS NULL AND r.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked')
    ORDER BY r.id LIMIT :n )
UPDATE continuum_runs SET lease_owner = :owner, lease_token = lease_token + 1, reason = NULL,
        state = CASE WHEN state = 'cancelling' THEN state ELSE 'running' END
    WHERE id IN (SELECT c.id FROM chosen AS c) AND EXISTS (SELECT 1 FROM continuum_owners AS o WHERE o.owner = :owner)
    RETURNING CAST(id AS text) AS run_id, lease_token, generation, last_seq, :now AS now;

-- runs.claim_chosen: Lease those of the given runs that have evidence.
WITH mine AS MATERIALIZED (SELECT m.workflow, m.version FROM (SELECT json_extract(value, '$[0]') AS workflow, json_extract(value, '$[1]') AS version FROM json_each(:m))
            AS m),
moment AS MATERIALIZED (SELECT :now AS now),
candidates AS MATERIALIZED (
    SELECT r.id FROM continuum_runs AS r
    WHERE r.id IN (SELECT value FROM json_each(:ids)) AND r.lease_owner IS NULL AND (
        (r.state IN ('running', 'cancelling') AND ((r.workflow, r.version) IN (SELECT workflow, version FROM mine)) IS TRUE)
        OR (r.state IN ('pending', 'suspended', 'blocked') AND r.wake_at <= (SELECT now FROM moment) AND ((r.workflow, r.version) IN (SELECT workflow, version FROM mine)) IS TRUE)
        OR EXISTS (
            SELECT 1 FROM continuum_inbox AS m WHERE m.run_id = r.id AND m.read_at IS NULL
            AND ((r.state = 'suspended' AND ((r.workflow, r.version) IN (SELECT workflow, version FROM mine)) IS TRUE) OR (r.state = 'pending' AND m.kind = 'compensate' AND ((r.workflow, r.version) IN (SELECT workflow, version FROM mine)) IS TRUE)
            OR (r.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked') AND m.kind = 'cancel'))))),
chosen AS MATERIALIZED (
    SELECT r.id FROM continuum_runs AS r
    WHERE r.id IN (SELECT c.id FROM candidates AS c) AND r.lease_owner IS NULL AND r.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked')
    ORDER BY r.id LIMIT :n )
UPDATE continuum_runs SET lease_owner = :owner, lease_token = lease_token + 1, reason = NULL,
        state = CASE WHEN state = 'cancelling' THEN state ELSE 'running' END
    WHERE id IN (SELECT c.id FROM chosen AS c) AND EXISTS (SELECT 1 FROM continuum_owners AS o WHERE o.owner = :owner)
    RETURNING CAST(id AS text) AS run_id, lease_token, generation, last_seq, :now AS now;

-- runs.release: Give a lease back if it is still this one; with a state, set that too.
UPDATE continuum_runs SET lease_owner = NULL, lease_token = lease_token + 1,
    state = COALESCE(CAST(:state AS text), state),
    wake_at = CASE WHEN CAST(:state AS text) IS NULL THEN wake_at
                   WHEN CAST(:backoff AS double precision) IS NULL THEN NULL
                   ELSE :now + CAST(ROUND((CAST(:backoff AS double precision)) * 1000000) AS INTEGER) END,
    reason = CASE WHEN CAST(:state AS text) IS NULL THEN reason ELSE :reason END
WHERE id = :run_id AND COALESCE(lease_owner, '') = :owner AND lease_token = :token AND state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked')
RETURNING CAST(id AS text) AS run_id;

-- runs.held: List the active runs leased to an owner.
SELECT CAST(r.id AS text) AS run_id, r.lease_token FROM continuum_runs AS r WHERE r.lease_owner = :owner AND r.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked');

-- runs.upcoming: List unleased runs that become due within the horizon, soonest first.
SELECT CAST(r.id AS text) AS run_id, r.wake_at FROM continuum_runs AS r
WHERE r.lease_owner IS NULL AND r.state IN ('pending', 'suspended', 'blocked') AND r.wake_at <= (SELECT :now + CAST(ROUND((:horizon) * 1000000) AS INTEGER))
ORDER BY r.wake_at, r.id LIMIT :n;

-- runs.set_attributes: Merge attributes into those of runs, whoever holds them; null removes a name.
UPDATE continuum_runs SET attributes = NULLIF(json_patch(COALESCE(attributes, '{}'), w.changes), '{}')
FROM (SELECT json_extract(value, '$[0]') AS of_run, json_extract(value, '$[1]') AS changes FROM json_each(:w)) AS
            w
WHERE id = w.of_run AND length(CAST(COALESCE(NULLIF(json_patch(COALESCE(attributes, '{}'), w.changes), '{}'), '') AS blob)) <= :size_max
RETURNING CAST(id AS text) AS run_id;

-- runs.by_id: Read rows by id.
SELECT CAST(r.id AS text) AS run_id, r.workflow, r.version, r.namespace, r.state, r.generation, r.last_seq,
       r.lease_owner, r.lease_token, r.wake_at, r.created_at, r.ended_at, CAST(r.attributes AS text) AS attributes,
       r.idempotency_key, r.fingerprint, r.crashes, r.reason, r.retention_seconds, r.retention_until, r.trace_context,
       CAST(r.parent_id AS text) AS parent_id, r.depth FROM continuum_runs AS r WHERE r.id IN (SELECT value FROM json_each(:ids));

-- runs.by_key: Read the row that a start key made.
SELECT CAST(r.id AS text) AS run_id, r.workflow, r.version, r.namespace, r.state, r.generation, r.last_seq,
       r.lease_owner, r.lease_token, r.wake_at, r.created_at, r.ended_at, CAST(r.attributes AS text) AS attributes,
       r.idempotency_key, r.fingerprint, r.crashes, r.reason, r.retention_seconds, r.retention_until, r.trace_context,
       CAST(r.parent_id AS text) AS parent_id, r.depth FROM continuum_runs AS r WHERE r.namespace = :namespace AND r.workflow = :workflow AND r.idempotency_key = :key;

-- runs.endings: Read how those of the runs that have ended, or are blocked, stand.
SELECT CAST(r.id AS text) AS run_id, r.state, e.payload, r.reason FROM continuum_runs AS r
LEFT JOIN continuum_events AS e ON e.run_id = r.id AND e.generation = r.generation AND e.seq = r.last_seq
    AND e.type IN ('completed', 'failed')
WHERE r.id IN (SELECT value FROM json_each(:ids)) AND (r.state = 'blocked' OR r.state IN ('completed', 'failed', 'cancelled'));

-- runs.standings: Read how runs stand for callers who begin to wait for their end, or follow them.
SELECT CAST(r.id AS text) AS run_id, r.state, r.generation, r.last_seq, e.payload, r.reason, r.lease_owner
FROM continuum_runs AS r
LEFT JOIN continuum_events AS e ON e.run_id = r.id AND e.generation = r.generation AND e.seq = r.last_seq
    AND e.type IN ('completed', 'failed') AND r.state IN ('completed', 'failed', 'cancelled')
WHERE r.id IN (SELECT value FROM json_each(:ids));

-- events.history: Read a generation's events, by default the present one's.
SELECT e.seq, e.type, e.at, e.command_id, CAST(e.message_id AS text) AS message_id, e.name, e.payload, e.key,
       e.format FROM continuum_runs AS r
JOIN continuum_events AS e ON e.run_id = r.id AND e.generation = COALESCE(CAST(:generation AS integer), r.generation)
WHERE r.id = :run_id ORDER BY e.seq;

-- events.after: Read what stands behind a place in a history, through its generations.
SELECT e.generation, e.seq, e.type, e.at, e.command_id, CAST(e.message_id AS text) AS message_id, e.name, e.payload, e.key,
       e.format FROM continuum_events AS e
WHERE e.run_id = :run_id AND (e.generation, e.seq) > (:generation, :seq)
ORDER BY e.generation, e.seq LIMIT :limit;

-- events.of_runs: Read pieces of several histories.
SELECT CAST(e.run_id AS text) AS run_id, e.seq, e.type, e.at, e.command_id, CAST(e.message_id AS text) AS message_id, e.name, e.payload, e.key,
       e.format
FROM (SELECT json_extract(value, '$[0]') AS of_run, json_extract(value, '$[1]') AS of_generation,
            json_extract(value, '$[2]') AS after_seq, json_extract(value, '$[3]') AS upto_seq FROM
            json_each(:w)) AS w
JOIN continuum_events AS e ON e.run_id = w.of_run AND e.generation = w.of_generation
    AND e.seq > w.after_seq AND e.seq <= w.upto_seq
ORDER BY e.run_id, e.seq;

-- events.at: Read one event with the token of its writer.
SELECT e.token, e.seq, e.type, e.at, e.command_id, CAST(e.message_id AS text) AS message_id, e.name, e.payload, e.key,
       e.format FROM continuum_events AS e
WHERE e.run_id = :run_id AND e.generation = :generation AND e.seq = :seq;

-- snapshots.of_runs: Read the snapshots of the present generations of runs.
SELECT CAST(s.run_id AS text) AS run_id, s.seq, s.format, s.blob FROM continuum_runs AS r
JOIN continuum_snapshots AS s ON s.run_id = r.id AND s.generation = r.generation
WHERE r.id IN (SELECT value FROM json_each(:ids));

-- schedules -----------------------------------------------------------------------------------------------------------

-- schedules.by_id: Read a schedule.
SELECT s.id, s.workflow, s.namespace, s.timing, s.input, s.overlap, s.catch_up_seconds,
       CAST(s.attributes AS text) AS attributes, s.state, s.next_at, s.wake_at, s.last_at,
       CAST(s.last_run_id AS text) AS last_run_id, s.buffered_at, s.attempts, s.reason, s.fired, s.skipped, s.missed,
       s.revision, s.created_at, r.state AS last_state FROM continuum_schedules AS s LEFT JOIN continuum_runs AS r ON r.id = s.last_run_id WHERE s.id = :id;

-- schedules.list: List schedules by id, after one.
SELECT s.id, s.workflow, s.namespace, s.timing, s.input, s.overlap, s.catch_up_seconds,
       CAST(s.attributes AS text) AS attributes, s.state, s.next_at, s.wake_at, s.last_at,
       CAST(s.last_run_id AS text) AS last_run_id, s.buffered_at, s.attempts, s.reason, s.fired, s.skipped, s.missed,
       s.revision, s.created_at, r.state AS last_state FROM continuum_schedules AS s LEFT JOIN continuum_runs AS r ON r.id = s.last_run_id
WHERE s.id > :after AND (CAST(:state AS text) IS NULL OR s.state = :state) ORDER BY s.id LIMIT :n;

-- schedules.define: Insert a schedule.
INSERT INTO continuum_schedules (id, workflow, namespace, timing, input, overlap, catch_up_seconds, attributes, state, next_at,
        wake_at, attempts, fired, skipped, missed, revision, created_at, changed_at)
VALUES (:id, :workflow, :namespace, :timing, :input, :overlap, :catch_up, :attributes, :state, :next_at,
        :wake_at, 0, 0, 0, 0, 1, :now, :now)
ON CONFLICT DO NOTHING RETURNING id;

-- schedules.redefine: Change what a schedule starts and when, before it is moved on in the same transaction.
UPDATE continuum_schedules SET workflow = :workflow, namespace = :namespace, timing = :timing, input = :input,
    overlap = :overlap, catch_up_seconds = :catch_up, attributes = :attributes
WHERE id = :id AND revision = :revision RETURNING id;

-- schedules.move: Move schedules on that are as they were seen; return their ids.
UPDATE continuum_schedules SET state = m.new_state, next_at = m.new_next, wake_at = m.new_wake, last_at = m.new_last,
    last_run_id = m.new_run, buffered_at = m.new_buffered, attempts = m.new_attempts, reason = m.new_reason,
    fired = m.new_fired, skipped = m.new_skipped, missed = m.new_missed, revision = revision + 1, changed_at = :now
FROM (SELECT json_extract(value, '$[0]') AS of_schedule, json_extract(value, '$[1]') AS seen, json_extract(value,
            '$[2]') AS new_state, json_extract(value, '$[3]') AS new_next, json_extract(value, '$[4]') AS
            new_wake, json_extract(value, '$[5]') AS new_last, json_extract(value, '$[6]') AS new_run,
            json_extract(value, '$[7]') AS new_buffered, json_extract(value, '$[8]') AS new_attempts,
            json_extract(value, '$[9]') AS new_reason, json_extract(value, '$[10]') AS new_fired,
            json_extract(value, '$[11]') AS new_skipped, json_extract(value, '$[12]') AS new_missed FROM
            json_each(:m)) AS m
WHERE id = m.of_schedule AND revision = m.seen RETURNING id;

-- schedules.delete: Delete a schedule.
DELETE FROM continuum_schedules WHERE id = :id RETURNING id;

-- schedules.due: Read the schedules that somebody is to look at, the longest due first, what became of their last runs, and when the next ones come due.
WITH moment AS MATERIALIZED (SELECT :now AS now, :now + CAST(ROUND((-CAST(:grace AS double precision)) * 1000000) AS INTEGER) AS before),
due AS MATERIALIZED (
    SELECT id FROM (
        SELECT s.id FROM continuum_schedules AS s
        WHERE s.state = 'active' AND s.wake_at <= (SELECT now FROM moment)
          AND ((s.workflow IN (SELECT value FROM json_each(:workflows))) OR s.wake_at <= (SELECT before FROM moment))
        ORDER BY s.wake_at LIMIT :n ) AS come
    UNION
    SELECT id FROM (SELECT s.id FROM continuum_schedules AS s WHERE s.state = 'active' AND s.buffered_at IS NOT NULL AND s.attempts = 0
    AND NOT EXISTS (SELECT 1 FROM continuum_runs AS r WHERE r.id = s.last_run_id AND r.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked')) AND (s.workflow IN (SELECT value FROM json_each(:workflows))) LIMIT :n ) AS free),
later AS MATERIALIZED (
    SELECT (SELECT s.wake_at FROM continuum_schedules AS s
            WHERE s.state = 'active' AND s.wake_at > (SELECT now FROM moment) AND (s.workflow IN (SELECT value FROM json_each(:workflows)))
            ORDER BY s.wake_at LIMIT 1) AS mine,
           (SELECT s.wake_at FROM continuum_schedules AS s
            WHERE s.state = 'active' AND s.wake_at > (SELECT before FROM moment) AND NOT (s.workflow IN (SELECT value FROM json_each(:workflows)))
            ORDER BY s.wake_at LIMIT 1) AS others)
SELECT moment.now, later.mine, later.others, found.*
FROM moment CROSS JOIN later LEFT JOIN (
    SELECT s.id, s.workflow, s.namespace, s.timing, s.input, s.overlap, s.catch_up_seconds,
       CAST(s.attributes AS text) AS attributes, s.state, s.next_at, s.wake_at, s.last_at,
       CAST(s.last_run_id AS text) AS last_run_id, s.buffered_at, s.attempts, s.reason, s.fired, s.skipped, s.missed,
       s.revision, s.created_at, r.state AS last_state FROM continuum_schedules AS s LEFT JOIN continuum_runs AS r ON r.id = s.last_run_id WHERE s.id IN (SELECT d.id FROM due AS d)) AS found ON true
ORDER BY COALESCE(found.wake_at, found.created_at), found.id LIMIT :n;

-- sweeps --------------------------------------------------------------------------------------------------------------

-- sweep.missing_owners: Find who holds runs or tasks without having an owner row.
WITH RECURSIVE 
of_runs(owner) AS (
    SELECT min(lease_owner) FROM continuum_runs WHERE lease_owner IS NOT NULL
    UNION ALL
    SELECT (SELECT min(lease_owner) FROM continuum_runs WHERE lease_owner > h.owner)
    FROM of_runs AS h WHERE h.owner IS NOT NULL),

of_tasks(owner) AS (
    SELECT min(lease_owner) FROM continuum_tasks WHERE lease_owner IS NOT NULL
    UNION ALL
    SELECT (SELECT min(lease_owner) FROM continuum_tasks WHERE lease_owner > h.owner)
    FROM of_tasks AS h WHERE h.owner IS NOT NULL),
holders AS (SELECT owner FROM of_runs UNION SELECT owner FROM of_tasks)
SELECT h.owner FROM holders AS h
WHERE h.owner IS NOT NULL AND NOT EXISTS (SELECT 1 FROM continuum_owners AS o WHERE o.owner = h.owner);

-- sweep.runs: Free runs of dead owners under a new token; one that was running for the last time it may is blocked.
WITH lost AS MATERIALIZED (
    SELECT r.id FROM continuum_runs AS r WHERE r.lease_owner IN (SELECT value FROM json_each(:dead)) AND r.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked')
    LIMIT 1000 )
UPDATE continuum_runs SET lease_owner = NULL, lease_token = lease_token + 1,
    crashes = crashes + CASE WHEN state IN ('running', 'cancelling') THEN 1 ELSE 0 END,
    state = CASE WHEN state IN ('running', 'cancelling') AND crashes + 1 >= :crashes_max THEN 'blocked' ELSE state END,
    wake_at = CASE WHEN state IN ('running', 'cancelling') AND crashes + 1 >= :crashes_max THEN :now + CAST(ROUND((:backoff) * 1000000) AS INTEGER) ELSE wake_at END,
    reason = CASE WHEN state IN ('running', 'cancelling') AND crashes + 1 >= :crashes_max
                  THEN 'its process died ' || CAST(crashes + 1 AS text) || ' times without a commit'
                  ELSE reason END
WHERE id IN (SELECT l.id FROM lost AS l)
RETURNING CAST(id AS text) AS run_id, state, crashes;

-- sweep.unwanted_tasks: Delete tasks of runs that are over, missing or in another generation.
WITH unwanted AS MATERIALIZED (
    SELECT t.run_id, t.generation, t.command_id FROM continuum_tasks AS t
    WHERE NOT EXISTS (
        SELECT 1 FROM continuum_runs AS r
        WHERE r.id = t.run_id AND r.generation = t.generation AND r.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked'))
    LIMIT 10000 )
DELETE FROM continuum_tasks
WHERE run_id IN (SELECT u.run_id FROM unwanted AS u)
  AND ((run_id, generation, command_id) IN (SELECT * FROM unwanted)) IS TRUE;

-- sweep.lost_tasks: Lock tasks of dead owners.
SELECT CAST(t.run_id AS text) AS run_id, t.generation, t.command_id, t.lease_owner, t.attempt, t.max_attempts,
       t.activity
FROM continuum_tasks AS t WHERE t.lease_owner IN (SELECT value FROM json_each(:dead)) LIMIT 1000;

-- sweep.delete_tasks: Delete tasks that were locked before.
DELETE FROM continuum_tasks WHERE run_id IN (SELECT value FROM json_each(:ids)) AND ((run_id, generation, command_id) IN (
    SELECT w.of_run, w.of_generation, w.of_command
    FROM (SELECT json_extract(value, '$[0]') AS of_run, json_extract(value, '$[1]') AS of_generation,
            json_extract(value, '$[2]') AS of_command FROM json_each(:w)) AS w)) IS TRUE;

-- snapshots.save: Store a compacted prefix of a history, unless a newer one is there.
INSERT INTO continuum_snapshots (run_id, generation, seq, format, blob)
SELECT r.id, :generation, :seq, :format, :blob FROM continuum_runs AS r WHERE r.id = :run_id
ON CONFLICT (run_id, generation) DO UPDATE
    SET seq = excluded.seq, format = excluded.format, blob = excluded.blob
    WHERE continuum_snapshots.seq <= excluded.seq
RETURNING seq;

-- prune.over: Lock ended runs whose retention has passed; a parent that goes on may still ask for its children.
SELECT CAST(r.id AS text) AS run_id FROM continuum_runs AS r
WHERE r.retention_until < (SELECT :now) AND r.state IN ('completed', 'failed', 'cancelled')
  AND NOT EXISTS (SELECT 1 FROM continuum_runs AS p WHERE p.id = r.parent_id AND p.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked'))
ORDER BY r.retention_until LIMIT :limit;

-- prune.old_generations: Find generations that runs have left behind for longer than their retention.
SELECT CAST(e.run_id AS text) AS run_id, e.generation FROM continuum_runs AS r
JOIN continuum_events AS e ON e.run_id = r.id AND e.generation < r.generation AND e.type = 'continued'
WHERE r.generation > 1 AND e.at < (SELECT :now + CAST(ROUND((-r.retention_seconds) * 1000000) AS INTEGER))
LIMIT :limit;

-- prune.generations.events: Delete the rows of old generations in events.
DELETE FROM continuum_events WHERE run_id IN (SELECT value FROM json_each(:ids)) AND ((run_id, generation) IN (
    SELECT w.of_run, w.of_generation FROM (SELECT json_extract(value, '$[0]') AS of_run, json_extract(value, '$[1]') AS of_generation FROM
            json_each(:w)) AS w)) IS TRUE;

-- prune.generations.snapshots: Delete the rows of old generations in snapshots.
DELETE FROM continuum_snapshots WHERE run_id IN (SELECT value FROM json_each(:ids)) AND ((run_id, generation) IN (
    SELECT w.of_run, w.of_generation FROM (SELECT json_extract(value, '$[0]') AS of_run, json_extract(value, '$[1]') AS of_generation FROM
            json_each(:w)) AS w)) IS TRUE;

-- prune.events: Delete the rows of pruned runs in events.
DELETE FROM continuum_events WHERE run_id IN (SELECT value FROM json_each(:ids));

-- prune.inbox.read_at: Delete the rows of pruned runs in inbox.
DELETE FROM continuum_inbox WHERE run_id IN (SELECT value FROM json_each(:ids)) AND read_at IS NULL;

-- prune.inbox.delivery_id: Delete the rows of pruned runs in inbox.
DELETE FROM continuum_inbox WHERE run_id IN (SELECT value FROM json_each(:ids)) AND delivery_id IS NOT NULL;

-- prune.tasks: Delete the rows of pruned runs in tasks.
DELETE FROM continuum_tasks WHERE run_id IN (SELECT value FROM json_each(:ids));

-- prune.snapshots: Delete the rows of pruned runs in snapshots.
DELETE FROM continuum_snapshots WHERE run_id IN (SELECT value FROM json_each(:ids));

-- prune.runs: Delete the rows of pruned runs in runs.
DELETE FROM continuum_runs WHERE id IN (SELECT value FROM json_each(:ids));

-- tasks ---------------------------------------------------------------------------------------------------------------

-- tasks.claim: Lease due tasks, the most urgent first: so many of each named queue, so many of all the others together.
WITH named AS MATERIALIZED (SELECT * FROM (SELECT json_extract(value, '$[0]') AS queue, json_extract(value, '$[1]') AS slots FROM json_each(:q)) AS q),
ranked AS MATERIALIZED (
    SELECT t.run_id, t.generation, t.command_id, q.slots,
           row_number() OVER (PARTITION BY q.queue ORDER BY t.priority DESC, t.available_at) AS place
    FROM continuum_tasks AS t LEFT JOIN named AS q ON q.queue = t.queue
    WHERE t.lease_owner IS NULL AND t.available_at <= (SELECT :now) AND t.activity IN (SELECT value FROM json_each(:activities))),
chosen AS MATERIALIZED (SELECT run_id, generation, command_id FROM ranked WHERE place <= COALESCE(slots, :default_slots))
UPDATE continuum_tasks SET lease_owner = :owner
    WHERE run_id IN (SELECT c.run_id FROM chosen AS c) AND ((run_id, generation, command_id) IN (SELECT * FROM chosen)) IS TRUE
      AND COALESCE(lease_owner, '') = '' AND EXISTS (SELECT 1 FROM continuum_owners AS o WHERE o.owner = :owner)
      AND (EXISTS (SELECT 1 FROM continuum_runs AS r WHERE r.id = run_id AND r.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked'))) IS TRUE
    RETURNING CAST(run_id AS text) AS run_id, generation, command_id, attempt;

-- tasks.details: Read what attempts need, the most urgent first.
SELECT CAST(t.run_id AS text) AS run_id, t.generation, t.command_id, t.attempt, r.workflow, r.version, r.namespace,
       t.activity, e.payload, t.options, e.key, t.details, t.available_at, r.trace_context
FROM (SELECT json_extract(value, '$[0]') AS of_run, json_extract(value, '$[1]') AS of_generation,
            json_extract(value, '$[2]') AS of_command FROM json_each(:w)) AS w
JOIN continuum_tasks AS t ON t.run_id = w.of_run AND t.generation = w.of_generation AND t.command_id = w.of_command
JOIN continuum_runs AS r ON r.id = t.run_id
LEFT JOIN continuum_events AS e ON e.run_id = t.run_id AND e.generation = t.generation AND e.seq = t.event_seq
WHERE COALESCE(t.lease_owner, '') = :owner AND t.run_id IN (SELECT value FROM json_each(:ids))
ORDER BY t.priority DESC, t.available_at;

-- tasks.held: List the tasks leased to an owner.
SELECT CAST(run_id AS text) AS run_id, generation, command_id, attempt FROM continuum_tasks WHERE lease_owner = :owner ORDER BY run_id, generation, command_id;

-- tasks.theirs: Tell which attempts may still write.
SELECT CAST(run_id AS text) AS run_id, generation, command_id, attempt, lease_owner FROM (SELECT json_extract(value, '$[0]') AS of_run, json_extract(value, '$[1]') AS of_generation,
            json_extract(value, '$[2]') AS of_command, json_extract(value, '$[3]') AS owner,
            json_extract(value, '$[4]') AS of_attempt FROM json_each(:w)) AS w JOIN continuum_tasks ON run_id IN (SELECT value FROM json_each(:ids))
  AND run_id = w.of_run AND generation = w.of_generation AND command_id = w.of_command
  AND COALESCE(lease_owner, '') = w.owner AND attempt = w.of_attempt;

-- tasks.heartbeat: Store what running attempts want to remember; those that are not returned have lost their task.
UPDATE continuum_tasks SET details = COALESCE(:details, details), heartbeat_at = :now
WHERE run_id = :run_id AND generation = :generation AND command_id = :command_id
  AND COALESCE(lease_owner, '') = :owner AND attempt = :attempt;

-- tasks.next: Ask when the first free task of these activities becomes available.
SELECT t.available_at FROM continuum_tasks AS t
WHERE t.lease_owner IS NULL AND t.activity IN (SELECT value FROM json_each(:activities))
  AND EXISTS (SELECT 1 FROM continuum_runs AS r WHERE r.id = t.run_id AND r.state IN ('pending', 'running', 'suspended', 'cancelling', 'blocked'))
ORDER BY t.available_at LIMIT 1;

-- tasks.retry: Consume an attempt and free the task, due again later.
UPDATE continuum_tasks SET lease_owner = NULL, attempt = attempt + 1, available_at = :now + CAST(ROUND((w.delay) * 1000000) AS INTEGER)
FROM (SELECT json_extract(value, '$[0]') AS of_run, json_extract(value, '$[1]') AS of_generation,
            json_extract(value, '$[2]') AS of_command, json_extract(value, '$[3]') AS owner,
            json_extract(value, '$[4]') AS of_attempt, json_extract(value, '$[5]') AS delay FROM
            json_each(:w)) AS w
WHERE run_id IN (SELECT value FROM json_each(:ids))
  AND run_id = w.of_run AND generation = w.of_generation AND command_id = w.of_command
  AND COALESCE(lease_owner, '') = w.owner AND attempt = w.of_attempt
RETURNING CAST(run_id AS text) AS run_id, generation, command_id;

-- tasks.free: Free tasks whose attempts never began; none is consumed.
UPDATE continuum_tasks SET lease_owner = NULL FROM (SELECT json_extract(value, '$[0]') AS of_run, json_extract(value, '$[1]') AS of_generation,
            json_extract(value, '$[2]') AS of_command, json_extract(value, '$[3]') AS owner,
            json_extract(value, '$[4]') AS of_attempt FROM json_each(:w)) AS w WHERE run_id IN (SELECT value FROM json_each(:ids))
  AND run_id = w.of_run AND generation = w.of_generation AND command_id = w.of_command
  AND COALESCE(lease_owner, '') = w.owner AND attempt = w.of_attempt RETURNING CAST(run_id AS text) AS run_id, generation, command_id;

-- versions ------------------------------------------------------------------------------------------------------------

-- versions.drop: Forget what an owner carries.
DELETE FROM continuum_workflow_versions WHERE owner = :owner;

-- versions.carry: Record what an owner carries, while its row exists.
INSERT INTO continuum_workflow_versions (owner, workflow, version, since)
SELECT o.owner, w.of_workflow, w.of_version, :now
FROM (SELECT json_extract(value, '$[0]') AS of_workflow, json_extract(value, '$[1]') AS of_version FROM
            json_each(:w)) AS w CROSS JOIN continuum_owners AS o
WHERE o.owner = :owner
ON CONFLICT DO NOTHING;

-- versions.forget: Forget what owners without a row carried.
DELETE FROM continuum_workflow_versions WHERE owner NOT IN (SELECT o.owner FROM continuum_owners AS o);

-- versions.retry_blocked: Let blocked runs be due now; those that took their process down again and again wait out their time.
WITH mine AS MATERIALIZED (SELECT m.workflow, m.version FROM (SELECT json_extract(value, '$[0]') AS workflow, json_extract(value, '$[1]') AS version FROM json_each(:m))
            AS m),
waiting AS MATERIALIZED (
    SELECT r.id FROM continuum_runs AS r
    WHERE r.state = 'blocked' AND r.crashes < :crashes_max
      AND (r.wake_at > (SELECT :now)) IS TRUE
      AND ((r.workflow, r.version) IN (SELECT workflow, version FROM mine)) IS TRUE
    LIMIT :n )
UPDATE continuum_runs SET wake_at = :now WHERE id IN (SELECT w.id FROM waiting AS w)
RETURNING CAST(id AS text) AS run_id;

-- versions.carriers: List who carries which version, of the owners that live.
SELECT v.workflow, v.version, o.node, o.owner FROM continuum_workflow_versions AS v
JOIN continuum_owners AS o ON o.owner = v.owner
WHERE o.expires_at >= (SELECT :now) ORDER BY v.workflow, v.version, o.node, o.owner;

-- versions.open_counts: Count the open runs of each version by state.
SELECT r.workflow, r.version, r.state, count(*) AS runs FROM continuum_runs AS r
WHERE r.ended_at IS NULL GROUP BY r.workflow, r.version, r.state ORDER BY r.workflow, r.version, r.state;

-- versions.patch_marks: Count the open runs of each version that have journaled that they take a patch.
SELECT r.workflow, r.version, e.name, count(*) AS runs FROM continuum_events AS e
JOIN continuum_runs AS r ON r.id = e.run_id AND r.generation = e.generation
WHERE e.type = 'patched' AND r.ended_at IS NULL
GROUP BY r.workflow, r.version, e.name ORDER BY r.workflow, r.version, e.name;

-- versions.open_runs: List open runs, newest first.
SELECT CAST(r.id AS text) AS run_id, r.workflow, r.version, r.created_at, r.last_seq FROM continuum_runs AS r
WHERE r.ended_at IS NULL AND (CAST(:workflow AS text) IS NULL OR r.workflow = :workflow)
  AND (r.created_at, r.id) < (:before_at, :before_id)
ORDER BY r.created_at DESC, r.id DESC LIMIT :n;
