"""What activities have returned under idempotency keys."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from continuum.journal.sql.stamping import stamp

revision = "c0004"
down_revision = "c0003"
branch_labels = None
depends_on = None

RESULTS = "continuum_activity_results"


def upgrade() -> None:
    postgres = op.get_context().dialect.name == "postgresql"
    id_: Any = postgresql.UUID(as_uuid=False) if postgres else sa.Text()
    time: Any = postgresql.TIMESTAMP(timezone=True) if postgres else sa.Integer()
    op.create_table(
        RESULTS,
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("activity", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text, nullable=False),
        sa.Column("run_id", id_, nullable=False),
        sa.Column("arguments", sa.LargeBinary, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("at", time, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "activity", "idempotency_key"),
        sqlite_strict=True,
    )
    op.create_index(f"{RESULTS}_at", RESULTS, ["at"])
    stamp(revision)


def downgrade() -> None:
    op.drop_table(RESULTS)
    stamp(down_revision)
