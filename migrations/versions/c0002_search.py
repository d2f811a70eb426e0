"""Indexes by which runs are listed and found."""

import sqlalchemy as sa
from alembic import op

from continuum.journal.sql.stamping import stamp

revision = "c0002"
down_revision = "c0001"
branch_labels = None
depends_on = None

RUNS = "continuum_runs"
AGE = ["created_at", "id"]


def upgrade() -> None:
    index("open", AGE, where="ended_at IS NULL")
    index("troubled", ["state", *AGE], where="state IN ('blocked', 'failed', 'cancelled')")
    index("tenant", ["namespace", *AGE], where="namespace <> 'default'")
    if is_postgres():
        op.create_index(
            f"{RUNS}_attributes",
            RUNS,
            ["attributes"],
            postgresql_using="gin",
            postgresql_ops={"attributes": "jsonb_path_ops"},
            postgresql_with={"gin_pending_list_limit": 256},
            postgresql_where=sa.text("attributes IS NOT NULL"),
        )
    stamp(revision)


def downgrade() -> None:
    for name in ("open", "troubled", "tenant", *(["attributes"] if is_postgres() else [])):
        op.drop_index(f"{RUNS}_{name}", RUNS)
    stamp(down_revision)


def is_postgres() -> bool:
    return op.get_context().dialect.name == "postgresql"


def index(name: str, columns: list[str], *, where: str) -> None:
    condition = sa.text(where)
    op.create_index(f"{RUNS}_{name}", RUNS, columns, postgresql_where=condition, sqlite_where=condition)
