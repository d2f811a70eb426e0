"""Owner rows: the heartbeat, and who is dead."""

from continuum.journal.sql.statements.book import Statement

REGISTER = Statement(
    "owners.register",
    "Insert an owner row, before any lease in its name.",
    """
INSERT INTO {owners} (owner, instance, node, advertise_url, booted_at, expires_at)
VALUES (:owner, :instance, :node, :advertise_url, {now}, {later::ttl})
RETURNING booted_at AS now
""",
)

RENEW = Statement(
    "owners.renew",
    "Extend an owner row; late is fine while it exists.",
    """
UPDATE {owners} SET expires_at = {later::ttl} WHERE owner = :owner
RETURNING {now} AS now
""",
)

RETIRE = Statement("owners.retire", "Give an owner row up.", "DELETE FROM {owners} WHERE owner = :owner")

DECLARE_DEAD = Statement(
    "owners.declare_dead",
    "Delete the owners who did not renew in time; their leases are left to the sweep.",
    "DELETE FROM {owners} WHERE expires_at < {now} RETURNING owner",
)

LIST = Statement(
    "owners.list",
    "List the owners that have a row.",
    "SELECT owner, instance, node, advertise_url FROM {owners} ORDER BY booted_at, owner",
)
