"""Claiming and loading runs; `listing` finds them."""

# ruff: noqa: S608  templates are put together from constants; every value is bound

from continuum.journal.sql.statements.book import Statement

ACTIVE = "('pending', 'running', 'suspended', 'cancelling', 'blocked')"
GOING = "('running', 'cancelling')"
WAITING = "('pending', 'suspended', 'blocked')"
ENDED = "('completed', 'failed', 'cancelled')"

COLUMNS = """CAST(r.id AS text) AS run_id, r.workflow, r.version, r.namespace, r.state, r.generation, r.last_seq,
       r.lease_owner, r.lease_token, r.wake_at, r.created_at, r.ended_at, CAST(r.attributes AS text) AS attributes,
       r.idempotency_key, r.fingerprint, r.crashes, r.reason, r.retention_seconds, r.retention_until, r.trace_context,
       CAST(r.parent_id AS text) AS parent_id, r.depth"""
EVENT = """e.seq, e.type, e.at, e.command_id, CAST(e.message_id AS text) AS message_id, e.name, e.payload, e.key,
       e.format"""
MESSAGE = """CAST(m.id AS text) AS message_id, CAST(m.run_id AS text) AS run_id, m.kind, m.name, m.payload, m.generation,
       m.command_id, m.delivery_id, m.at, m.format"""

# --- claims -----------------------------------------------------------------------------------------------------------

_MINE = "((r.workflow, r.version) IN (SELECT workflow, version FROM mine)) IS TRUE"

# A cancel is honoured in whatever state and needs no code. One that compensates needs the code, and finds nothing to
# undo in a run that never began.
_READABLE = f"""(r.state = 'suspended' AND {_MINE}) OR (r.state = 'pending' AND m.kind = 'compensate' AND {_MINE})
            OR (r.state IN {ACTIVE} AND m.kind = 'cancel')"""

# Three arms instead of one OR, because each has its partial index: with 200,000 parked runs and 26 claimable ones
# 1 ms against 40. The limit stands in a materialized query, which no join can run twice.
_CANDIDATES = f"""
WITH mine AS MATERIALIZED (SELECT m.workflow, m.version FROM {{rows:m(workflow text, version integer)}}),
moment AS MATERIALIZED (SELECT {{now}} AS now),
candidates AS MATERIALIZED (
    SELECT id FROM (
        SELECT r.id FROM {{runs}} AS r
        WHERE r.lease_owner IS NULL AND r.state IN {GOING} AND {_MINE}
        LIMIT :n) AS interrupted
    UNION
    SELECT id FROM (
        SELECT r.id FROM {{runs}} AS r
        WHERE r.lease_owner IS NULL AND r.state IN {WAITING} AND r.wake_at <= (SELECT now FROM moment) AND {_MINE}
        ORDER BY r.wake_at LIMIT :n) AS due
    UNION
    SELECT id FROM (
        SELECT DISTINCT m.run_id AS id FROM {{inbox}} AS m JOIN {{runs}} AS r ON r.id = m.run_id
        WHERE m.read_at IS NULL AND r.lease_owner IS NULL
          AND ({_READABLE})
        LIMIT :n) AS written),
"""
_CHOSEN = f"""
WITH mine AS MATERIALIZED (SELECT m.workflow, m.version FROM {{rows:m(workflow text, version integer)}}),
moment AS MATERIALIZED (SELECT {{now}} AS now),
candidates AS MATERIALIZED (
    SELECT r.id FROM {{runs}} AS r
    WHERE r.id {{among:ids uuid}} AND r.lease_owner IS NULL AND (
        (r.state IN {GOING} AND {_MINE})
        OR (r.state IN {WAITING} AND r.wake_at <= (SELECT now FROM moment) AND {_MINE})
        OR EXISTS (
            SELECT 1 FROM {{inbox}} AS m WHERE m.run_id = r.id AND m.read_at IS NULL
            AND ({_READABLE})))),
"""
# What the arms saw is looked at again on the locked row: a run that was leased meanwhile is no longer ours to take.
_LOCKED = f"""chosen AS MATERIALIZED (
    SELECT r.id FROM {{runs}} AS r
    WHERE r.id {{within:SELECT c.id FROM candidates AS c}} AND r.lease_owner IS NULL AND r.state IN {ACTIVE}
    ORDER BY r.id LIMIT :n {{lock:r}})"""
_LEASE = """UPDATE {runs} SET lease_owner = :owner, lease_token = lease_token + 1, reason = NULL,
        state = CASE WHEN state = 'cancelling' THEN state ELSE 'running' END
    WHERE id {within:SELECT c.id FROM chosen AS c} AND EXISTS (SELECT 1 FROM {owners} AS o WHERE o.owner = :owner)
    RETURNING CAST(id AS text) AS run_id, lease_token, generation, last_seq"""


def _claim(name: str, doc: str, candidates: str) -> Statement:
    return Statement(
        name,
        doc,
        f"{candidates}{_LOCKED},\nclaimed AS (\n    {_LEASE})\n"
        "SELECT moment.now, claimed.* FROM moment LEFT JOIN claimed ON true ORDER BY claimed.run_id\n",
        sqlite=f"{candidates}{_LOCKED}\n{_LEASE}, :now AS now\n",
    )


CLAIM = _claim("runs.claim", "Lease unleased runs that have evidence, to an owner whose row exists.", _CANDIDATES)
CLAIM_CHOSEN = _claim("runs.claim_chosen", "Lease those of the given runs that have evidence.", _CHOSEN)

RELEASE = Statement(
    "runs.release",
    "Give a lease back if it is still this one; with a state, set that too.",
    f"""
UPDATE {{runs}} SET lease_owner = NULL, lease_token = lease_token + 1,
    state = COALESCE(CAST(:state AS text), state),
    wake_at = CASE WHEN CAST(:state AS text) IS NULL THEN wake_at
                   WHEN CAST(:backoff AS double precision) IS NULL THEN NULL
                   ELSE {{later:CAST(:backoff AS double precision)}} END,
    reason = CASE WHEN CAST(:state AS text) IS NULL THEN reason ELSE :reason END
WHERE id = :run_id AND COALESCE(lease_owner, '') = :owner AND lease_token = :token AND state IN {ACTIVE}
RETURNING CAST(id AS text) AS run_id
""",
)

HELD = Statement(
    "runs.held",
    "List the active runs leased to an owner.",
    f"SELECT CAST(r.id AS text) AS run_id, r.lease_token FROM {{runs}} AS r "
    f"WHERE r.lease_owner = :owner AND r.state IN {ACTIVE}",
)

UPCOMING = Statement(
    "runs.upcoming",
    "List unleased runs that become due within the horizon, soonest first.",
    f"""
SELECT CAST(r.id AS text) AS run_id, r.wake_at FROM {{runs}} AS r
WHERE r.lease_owner IS NULL AND r.state IN {WAITING} AND r.wake_at <= (SELECT {{later::horizon}})
ORDER BY r.wake_at, r.id LIMIT :n
""",
)

# --- attributes -------------------------------------------------------------------------------------------------------

_SET_ATTRIBUTES = """
UPDATE {{runs}} SET attributes = {{merged:attributes, w.changes}}
FROM {{rows:w(of_run uuid, changes text)}}
WHERE id = w.of_run AND {size} <= :size_max
RETURNING CAST(id AS text) AS run_id
"""

SET_ATTRIBUTES = Statement(
    "runs.set_attributes",
    "Merge attributes into those of runs, whoever holds them; null removes a name.",
    _SET_ATTRIBUTES.format(size="octet_length(COALESCE(CAST({merged:attributes, w.changes} AS text), ''))"),
    sqlite=_SET_ATTRIBUTES.format(size="length(CAST(COALESCE({merged:attributes, w.changes}, '') AS blob))"),
)

# --- reading ----------------------------------------------------------------------------------------------------------

BY_ID = Statement(
    "runs.by_id", "Read rows by id.", f"SELECT {COLUMNS} FROM {{runs}} AS r WHERE r.id {{among:ids uuid}}"
)

BY_KEY = Statement(
    "runs.by_key",
    "Read the row that a start key made.",
    f"SELECT {COLUMNS} FROM {{runs}} AS r "
    "WHERE r.namespace = :namespace AND r.workflow = :workflow AND r.idempotency_key = :key",
)

ENDINGS = Statement(
    "runs.endings",
    "Read how those of the runs that have ended, or are blocked, stand.",
    f"""
SELECT CAST(r.id AS text) AS run_id, r.state, e.payload, r.reason FROM {{runs}} AS r
LEFT JOIN {{events}} AS e ON e.run_id = r.id AND e.generation = r.generation AND e.seq = r.last_seq
    AND e.type IN ('completed', 'failed')
WHERE r.id {{among:ids uuid}} AND (r.state = 'blocked' OR r.state IN {ENDED})
""",
)

STANDINGS = Statement(
    "runs.standings",
    "Read how runs stand for callers who begin to wait for their end, or follow them.",
    f"""
SELECT CAST(r.id AS text) AS run_id, r.state, r.generation, r.last_seq, e.payload, r.reason, r.lease_owner
FROM {{runs}} AS r
LEFT JOIN {{events}} AS e ON e.run_id = r.id AND e.generation = r.generation AND e.seq = r.last_seq
    AND e.type IN ('completed', 'failed') AND r.state IN {ENDED}
WHERE r.id {{among:ids uuid}}
""",
)

HISTORY = Statement(
    "events.history",
    "Read a generation's events, by default the present one's.",
    f"""
SELECT {EVENT} FROM {{runs}} AS r
JOIN {{events}} AS e ON e.run_id = r.id AND e.generation = COALESCE(CAST(:generation AS integer), r.generation)
WHERE r.id = :run_id ORDER BY e.seq
""",
)

EVENTS_AFTER = Statement(
    "events.after",
    "Read what stands behind a place in a history, through its generations.",
    f"""
SELECT e.generation, {EVENT} FROM {{events}} AS e
WHERE e.run_id = :run_id AND (e.generation, e.seq) > (:generation, :seq)
ORDER BY e.generation, e.seq LIMIT :limit
""",
)

EVENTS = Statement(
    "events.of_runs",
    "Read pieces of several histories.",
    f"""
SELECT CAST(e.run_id AS text) AS run_id, {EVENT}
FROM {{rows:w(of_run uuid, of_generation integer, after_seq bigint, upto_seq bigint)}}
JOIN {{events}} AS e ON e.run_id = w.of_run AND e.generation = w.of_generation
    AND e.seq > w.after_seq AND e.seq <= w.upto_seq
ORDER BY e.run_id, e.seq
""",
)

EVENT_AT = Statement(
    "events.at",
    "Read one event with the token of its writer.",
    f"""
SELECT e.token, {EVENT} FROM {{events}} AS e
WHERE e.run_id = :run_id AND e.generation = :generation AND e.seq = :seq
""",
)

SNAPSHOTS = Statement(
    "snapshots.of_runs",
    "Read the snapshots of the present generations of runs.",
    """
SELECT CAST(s.run_id AS text) AS run_id, s.seq, s.format, s.blob FROM {runs} AS r
JOIN {snapshots} AS s ON s.run_id = r.id AND s.generation = r.generation
WHERE r.id {among:ids uuid}
""",
)
