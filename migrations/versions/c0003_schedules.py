"""Schedules.

Written by hand for both dialects, and not to be changed once released; `continuum.journal.sql.tables` says why the
tables are as they are. A test holds the two together.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from continuum.journal.sql.stamping import stamp

revision = "c0003"
down_revision = "c0002"
branch_labels = None
depends_on = None

STATES = "'active', 'paused', 'failed', 'ended'"
OVERLAPS = "'skip', 'buffer_one', 'allow', 'cancel_other'"


def upgrade() -> None:
    postgres = op.get_context().dialect.name == "postgresql"
    time: Any = postgresql.TIMESTAMP(timezone=True) if postgres else sa.Integer()
    big: Any = sa.BigInteger() if postgres else sa.Integer()
    op.create_table(
        "continuum_schedules",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("timing", sa.Text, nullable=False),
        sa.Column("input", sa.LargeBinary, nullable=False),
        sa.Column("overlap", sa.Text, nullable=False),
        sa.Column("catch_up_seconds", sa.Double() if postgres else sa.REAL(), nullable=False),
        sa.Column("attributes", postgresql.JSONB() if postgres else sa.Text()),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("next_at", time),
        sa.Column("wake_at", time),
        sa.Column("last_at", time),
        sa.Column("last_run_id", postgresql.UUID(as_uuid=False) if postgres else sa.Text()),
        sa.Column("buffered_at", time),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("fired", big, nullable=False),
        sa.Column("skipped", big, nullable=False),
        sa.Column("missed", big, nullable=False),
        sa.Column("revision", big, nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("changed_at", time, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint(f"state IN ({STATES})", name="continuum_schedules_state"),
        sa.CheckConstraint(f"overlap IN ({OVERLAPS})", name="continuum_schedules_overlap"),
        sqlite_strict=True,
    )
    index("continuum_schedules_due", ["wake_at"], where="state = 'active'")
    index("continuum_schedules_waiting", ["id"], where="state = 'active' AND buffered_at IS NOT NULL")
    stamp(revision)


def downgrade() -> None:
    op.drop_table("continuum_schedules")
    stamp(down_revision)


def index(name: str, columns: list[str], *, where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, "continuum_schedules", columns, postgresql_where=condition, sqlite_where=condition)
