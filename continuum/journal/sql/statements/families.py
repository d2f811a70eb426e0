"""What a commit does to other runs, and to its own next generation: children, their endings, cancels, continuations.

These are rare beside turns, so they are statements of their own in the transaction of the batch, after the one that
holds the fence: what is said of a run here is said only if its commit took effect, while its row is still locked.
"""

# ruff: noqa: S608  templates are put together from constants; every value is bound

from continuum.journal.sql.statements.book import Statement
from continuum.journal.sql.statements.runs import ACTIVE

_COLUMNS = """id, workflow, version, namespace, state, generation, last_seq, lease_token, wake_at, attributes, fingerprint,
        retention_seconds, trace_context, parent_id, depth, created_at"""

SPAWN = Statement(
    "children.spawn",
    "Insert children, pending and unleased, with their parent's attributes and trace; return those that are new.",
    f"""
INSERT INTO {{runs}} ({_COLUMNS})
SELECT n.id, n.workflow, n.version, n.namespace, 'pending', 1, 1, 0, {{now}}, p.attributes, n.fingerprint, n.retention,
    p.trace_context, n.parent, n.depth, {{now}}
FROM {{rows:n(id uuid, parent uuid, workflow text, version integer, namespace text, fingerprint bytea,
             retention double precision, depth integer)}}
JOIN {{runs}} AS p ON p.id = n.parent
ORDER BY n.id
ON CONFLICT DO NOTHING RETURNING CAST(id AS text) AS run_id
""",
    sqlite=f"""
INSERT INTO {{runs}} ({_COLUMNS})
SELECT :id, :workflow, :version, :namespace, 'pending', 1, 1, 0, {{now}}, p.attributes, :fingerprint, :retention,
    p.trace_context, :parent, :depth, {{now}}
FROM {{runs}} AS p WHERE p.id = :parent
""",
)

NAMESAKES = Statement(
    "children.namesakes",
    "Read the runs that have children's ids already, with how they ended.",
    f"""
SELECT CAST(r.id AS text) AS run_id, CAST(r.parent_id AS text) AS parent_id, r.workflow, r.fingerprint, r.state,
       e.payload
FROM {{runs}} AS r
LEFT JOIN {{events}} AS e ON e.run_id = r.id AND e.generation = r.generation AND e.seq = r.last_seq
    AND r.state NOT IN {ACTIVE}
WHERE r.id {{among:ids uuid}}
""",
)

ACTIVE_CHILDREN = Statement(
    "children.active",
    "List the active children of runs, and where they live.",
    f"""
SELECT CAST(r.id AS text) AS run_id, CAST(r.parent_id AS text) AS parent_id, r.lease_owner, o.advertise_url
FROM {{runs}} AS r LEFT JOIN {{owners}} AS o ON o.owner = r.lease_owner
WHERE r.parent_id {{among:ids uuid}} AND r.state IN {ACTIVE}
ORDER BY r.id
""",
)

CONTINUE = Statement(
    "commit.continue",
    "Open the next generation of a run whose commit took effect.",
    """
UPDATE {runs} SET generation = generation + 1, version = :version, last_seq = :last_seq, state = 'running',
    wake_at = NULL, crashes = 0
WHERE id = :run_id
""",
)

DROP_OLD_TASKS = Statement(
    "commit.drop_old_tasks",
    "Delete all tasks of continued runs.",
    "DELETE FROM {tasks} WHERE run_id {among:ids uuid}",
)
