"""${message}

Expand first, contract a release later: the version before this one goes on running on the same database.
"""

from alembic import op
import sqlalchemy as sa

from continuum.journal.sql.stamping import stamp

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
    stamp(revision)


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
    stamp(down_revision)
