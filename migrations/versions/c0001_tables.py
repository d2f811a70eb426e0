"""The tables of the durable core.

Written by hand for both dialects, and not to be changed once released; `continuum.journal.sql.tables` says why the
tables are as they are. A test holds the two together.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from continuum.journal.sql.stamping import stamp

revision = "c0001"
down_revision = None
branch_labels = ("continuum",)  # in a host's own history: `alembic upgrade continuum@head`
depends_on = None

STATES = "'pending', 'running', 'suspended', 'cancelling', 'blocked', 'completed', 'failed', 'cancelled'"
EFFECTS = (
    "'activity_completed', 'activity_failed', 'activity_scheduled', 'child_cancelled', 'child_completed', "
    "'child_failed', 'child_started', 'message_answered', 'message_sent', 'side_effect_recorded', 'timer_fired', "
    "'timer_started'"
)


def upgrade() -> None:
    postgres = op.get_context().dialect.name == "postgresql"
    id_: Any = postgresql.UUID(as_uuid=False) if postgres else sa.Text()
    time: Any = postgresql.TIMESTAMP(timezone=True) if postgres else sa.Integer()
    big: Any = sa.BigInteger() if postgres else sa.Integer()
    small: Any = sa.SmallInteger() if postgres else sa.Integer()
    runs(id_, time, big, small, postgres=postgres)
    events(id_, time, big, small)
    inbox(id_, time, small, postgres=postgres)
    tasks(id_, time, big)
    others(id_, time, big, small, postgres=postgres)
    stamp(revision)


def downgrade() -> None:
    for table in ("instances", "snapshots", "owners", "tasks", "inbox", "events", "runs"):
        op.drop_table(f"continuum_{table}")
    stamp(down_revision)


def index(name: str, table: str, columns: list[Any], *, where: str | None = None, unique: bool = False) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(name, table, columns, unique=unique, postgresql_where=condition, sqlite_where=condition)


def runs(id_: Any, time: Any, big: Any, small: Any, *, postgres: bool) -> None:
    op.create_table(
        "continuum_runs",
        sa.Column("id", id_, nullable=False),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("last_seq", big, nullable=False),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_token", big, nullable=False),
        sa.Column("wake_at", time),
        sa.Column("crashes", small, nullable=False, server_default=sa.text("0")),
        sa.Column("reason", sa.Text),
        sa.Column("attributes", postgresql.JSONB() if postgres else sa.Text()),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("fingerprint", sa.LargeBinary),
        sa.Column("retention_seconds", sa.Double() if postgres else sa.REAL()),
        sa.Column("retention_until", time),
        sa.Column("trace_context", sa.Text),
        sa.Column("parent_id", id_),
        sa.Column("depth", small, nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", time, nullable=False),
        sa.Column("ended_at", time),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint(f"state IN ({STATES})", name="continuum_runs_state"),
        sqlite_strict=True,
        postgresql_with={"fillfactor": 50},
    )
    free = "lease_owner IS NULL AND state"
    key = ["namespace", "workflow", "idempotency_key"]
    index("continuum_runs_key", "continuum_runs", key, where="idempotency_key IS NOT NULL", unique=True)
    index("continuum_runs_interrupted", "continuum_runs", ["id"], where=f"{free} IN ('running', 'cancelling')")
    index("continuum_runs_due", "continuum_runs", ["wake_at"], where=f"{free} IN ('pending', 'suspended', 'blocked')")
    index("continuum_runs_leased", "continuum_runs", ["lease_owner"], where="lease_owner IS NOT NULL")
    index("continuum_runs_newest", "continuum_runs", ["created_at", "id"])
    index("continuum_runs_children", "continuum_runs", ["parent_id"], where="parent_id IS NOT NULL")
    index("continuum_runs_continued", "continuum_runs", ["id"], where="generation > 1")
    index("continuum_runs_over", "continuum_runs", ["retention_until"], where="retention_until IS NOT NULL")


def events(id_: Any, time: Any, big: Any, small: Any) -> None:
    op.create_table(
        "continuum_events",
        sa.Column("run_id", id_, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("seq", big, nullable=False),
        sa.Column("token", big, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("format", small, nullable=False),
        sa.Column("command_id", sa.Integer),
        sa.Column("message_id", id_),
        sa.Column("name", sa.Text),
        sa.Column("key", sa.Text),
        sa.Column("payload", sa.LargeBinary),
        sa.Column("at", time, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "generation", "seq"),
        sa.CheckConstraint(f"command_id IS NOT NULL OR type NOT IN ({EFFECTS})", name="continuum_events_command"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def inbox(id_: Any, time: Any, small: Any, *, postgres: bool) -> None:
    # The order of reading: an identity, which on SQLite has to be the primary key to count by itself.
    number = (
        [sa.Column("n", sa.BigInteger, sa.Identity(always=True), nullable=False), sa.PrimaryKeyConstraint("id")]
        if postgres
        else [sa.Column("n", sa.Integer, nullable=False), sa.PrimaryKeyConstraint("n"), sa.UniqueConstraint("id")]
    )
    op.create_table(
        "continuum_inbox",
        sa.Column("id", id_, nullable=False),
        number[0],
        sa.Column("run_id", id_, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("generation", sa.Integer),
        sa.Column("command_id", sa.Integer),
        sa.Column("delivery_id", sa.Text),
        sa.Column("payload", sa.LargeBinary),
        sa.Column("format", small, nullable=False),
        sa.Column("at", time, nullable=False),
        sa.Column("read_at", time),
        *number[1:],
        sqlite_strict=True,
    )
    delivery = ["run_id", "name", "delivery_id"]
    index("continuum_inbox_delivery", "continuum_inbox", delivery, where="delivery_id IS NOT NULL", unique=True)
    unread_cancel = "kind = 'cancel' AND read_at IS NULL"
    index("continuum_inbox_cancel", "continuum_inbox", ["run_id"], where=unread_cancel, unique=True)
    index("continuum_inbox_unread", "continuum_inbox", ["run_id"], where="read_at IS NULL")


def tasks(id_: Any, time: Any, big: Any) -> None:
    op.create_table(
        "continuum_tasks",
        sa.Column("run_id", id_, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("command_id", sa.Integer, nullable=False),
        sa.Column("event_seq", big, nullable=False),
        sa.Column("activity", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("options", sa.LargeBinary, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("available_at", time, nullable=False),
        sa.Column("lease_owner", sa.Text),
        sa.Column("details", sa.LargeBinary),
        sa.Column("heartbeat_at", time),
        sa.PrimaryKeyConstraint("run_id", "generation", "command_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    urgency = ["queue", sa.text("priority DESC"), "available_at"]
    index("continuum_tasks_free", "continuum_tasks", urgency, where="lease_owner IS NULL")
    index("continuum_tasks_due", "continuum_tasks", ["available_at"], where="lease_owner IS NULL")
    index("continuum_tasks_leased", "continuum_tasks", ["lease_owner"], where="lease_owner IS NOT NULL")


def others(id_: Any, time: Any, big: Any, small: Any, *, postgres: bool) -> None:
    op.create_table(
        "continuum_owners",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("advertise_url", sa.Text),
        sa.Column("booted_at", time, nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.Column(
            "draining",
            sa.Boolean() if postgres else sa.Integer(),
            nullable=False,
            server_default=sa.false() if postgres else sa.text("0"),
        ),
        sa.PrimaryKeyConstraint("owner"),
        sqlite_strict=True,
    )
    op.create_table(
        "continuum_snapshots",
        sa.Column("run_id", id_, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("seq", big, nullable=False),
        sa.Column("format", small, nullable=False),
        sa.Column("blob", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "generation"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "continuum_instances",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("one", small, nullable=False, server_default=sa.text("1")),
        sa.Column("created_at", time, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sa.CheckConstraint("one = 1", name="continuum_instances_one"),
        sa.UniqueConstraint("one"),
        sqlite_strict=True,
    )
