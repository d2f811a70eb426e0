"""The one question that the pollers of an idle instance share."""

# ruff: noqa: S608  templates are put together from constants; every value is bound

from continuum.journal.sql.statements.book import Statement
from continuum.journal.sql.statements.runs import ACTIVE, GOING, WAITING
from continuum.journal.sql.statements.schedules import IS_DUE
from continuum.journal.sql.statements.sweeps import HOLDERS

EVIDENCE = Statement(
    "pulse.evidence",
    "Say whether there are runs to claim, tasks to claim, leases to sweep, or schedules to fire, for anybody.",
    f"""
WITH RECURSIVE {HOLDERS.format(alias="of_runs", table="{runs}")},
{HOLDERS.format(alias="of_tasks", table="{tasks}")},
holders AS (SELECT owner FROM of_runs UNION SELECT owner FROM of_tasks)
SELECT
    EXISTS (SELECT 1 FROM {{runs}} AS r WHERE r.lease_owner IS NULL AND r.state IN {GOING})
    OR EXISTS (SELECT 1 FROM {{runs}} AS r
               WHERE r.lease_owner IS NULL AND r.state IN {WAITING} AND r.wake_at <= (SELECT {{now}}))
    OR EXISTS (SELECT 1 FROM {{inbox}} AS m JOIN {{runs}} AS r ON r.id = m.run_id
               WHERE m.read_at IS NULL AND r.lease_owner IS NULL
                 AND (r.state = 'suspended' OR (r.state = 'pending' AND m.kind = 'compensate')
                      OR (r.state IN {ACTIVE} AND m.kind = 'cancel'))) AS runs,
    EXISTS (SELECT 1 FROM {{tasks}} AS t WHERE t.lease_owner IS NULL AND t.available_at <= (SELECT {{now}})) AS tasks,
    EXISTS (SELECT 1 FROM {{owners}} AS o WHERE o.expires_at < (SELECT {{now}}))
    OR EXISTS (SELECT 1 FROM holders AS h WHERE h.owner IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM {{owners}} AS o WHERE o.owner = h.owner)) AS orphans,
    {IS_DUE} AS schedules
""",
)
