"""Which code each node carries, and an index by which patches are found."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from continuum.journal.sql.stamping import stamp

revision = "c0005"
down_revision = "c0004"
branch_labels = None
depends_on = None

VERSIONS, EVENTS = "continuum_workflow_versions", "continuum_events"


def upgrade() -> None:
    postgres = op.get_context().dialect.name == "postgresql"
    time: Any = postgresql.TIMESTAMP(timezone=True) if postgres else sa.Integer()
    op.create_table(
        VERSIONS,
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("since", time, nullable=False),
        sa.PrimaryKeyConstraint("owner", "workflow", "version"),
        sqlite_strict=True,
    )
    condition = sa.text("type = 'patched'")
    op.create_index(
        f"{EVENTS}_patched", EVENTS, ["run_id", "generation"], postgresql_where=condition, sqlite_where=condition
    )
    stamp(revision)


def downgrade() -> None:
    op.drop_index(f"{EVENTS}_patched", EVENTS)
    op.drop_table(VERSIONS)
    stamp(down_revision)
