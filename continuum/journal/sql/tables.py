"""The tables, as SQLAlchemy metadata of either dialect.

Statements are written as text and do not use it. It is what `migrations/` must arrive at: a test compares the two, and
another one a fresh database with a migrated one.

* `runs` is hot and narrow: no payloads, and no index on what changes while an execution is busy. `state`, `wake_at` and
  the lease stand in partial indexes, so a commit that leaves them as they are is a HOT update, if there is room for it
  on the page. Fill factor 50, measured with 500 runs of ten commits each at once: 100 % HOT; with 60: 95 %, with 70:
  86 %, with 100: 12 %, half the speed and four times the heap. For runs of two commits it makes no difference in size.
* The claim's three arms have an index each: interrupted runs, due ones, and unread messages.
* Lists have indexes that cost a run little (see `statements.listing`): `open` one entry, `troubled`, `tenant` and
  `attributes` none unless it is blocked or fails, has a namespace or attributes. Every search reads all of a GIN index's
  pending list, so that is kept short: 256 KiB.
* No foreign keys between runs, events, inbox and tasks: a key's row lock inside a host's transaction would hold up
  claims of that run for as long as the transaction is open.
* `inbox` keeps read messages that had a delivery id, as tombstones, until the run is pruned.
* SQLite: tables are STRICT; histories and tasks are stored in their primary key (WITHOUT ROWID).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP, UUID
from sqlalchemy.types import Boolean, TypeEngine

from continuum.model.events import EFFECTS
from continuum.model.schedules import Overlap, ScheduleState
from continuum.model.states import RunState

REVISION = "c0005"  # of the newest migration; a test compares it with `migrations/versions`
VERSION_TABLE = "continuum_alembic_version"


class Types:
    """The column types of a dialect."""

    def __init__(self, dialect: str) -> None:
        postgres = dialect == "postgresql"
        self.is_postgres = postgres
        self.id: TypeEngine[Any] = UUID(as_uuid=False) if postgres else Text()
        self.time: TypeEngine[Any] = TIMESTAMP(timezone=True) if postgres else Integer()
        self.big: TypeEngine[Any] = BigInteger() if postgres else Integer()
        self.small: TypeEngine[Any] = SmallInteger() if postgres else Integer()
        self.double: TypeEngine[Any] = Double() if postgres else REAL()
        self.json: TypeEngine[Any] = JSONB() if postgres else Text()
        self.boolean: TypeEngine[Any] = Boolean() if postgres else Integer()


def metadata(dialect: str, schema: str | None = None) -> MetaData:
    """Return the tables as they are to be on `postgresql` or `sqlite`."""
    tables, types = MetaData(schema=schema), Types(dialect)
    _runs(tables, types)
    _events(tables, types)
    _inbox(tables, types)
    _tasks(tables, types)
    _owners(tables, types)
    _snapshots(tables, types)
    _activity_results(tables, types)
    _instances(tables, types)
    _schedules(tables, types)
    _workflow_versions(tables, types)
    return tables


def _quoted(values: list[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


def _runs(tables: MetaData, types: Types) -> None:
    states = _quoted([state.value for state in RunState])
    runs = Table(
        "continuum_runs",
        tables,
        Column("id", types.id, primary_key=True, nullable=False),
        Column("workflow", Text, nullable=False),
        Column("version", Integer, nullable=False),
        Column("namespace", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("generation", Integer, nullable=False),
        Column("last_seq", types.big, nullable=False),
        Column("lease_owner", Text),
        Column("lease_token", types.big, nullable=False),
        Column("wake_at", types.time),
        Column("crashes", types.small, nullable=False, server_default=text("0")),
        Column("reason", Text),
        Column("attributes", types.json),
        Column("idempotency_key", Text),
        Column("fingerprint", LargeBinary),
        Column("retention_seconds", types.double),
        Column("retention_until", types.time),
        Column("trace_context", Text),
        Column("parent_id", types.id),
        Column("depth", types.small, nullable=False, server_default=text("0")),
        Column("created_at", types.time, nullable=False),
        Column("ended_at", types.time),
        CheckConstraint(f"state IN ({states})", name="continuum_runs_state"),
        sqlite_strict=True,
        postgresql_with={"fillfactor": 50},
    )
    free = "lease_owner IS NULL AND state"
    columns = runs.c
    Index(
        "continuum_runs_key",
        columns.namespace,
        columns.workflow,
        columns.idempotency_key,
        unique=True,
        **_where("idempotency_key IS NOT NULL"),
    )
    Index("continuum_runs_interrupted", columns.id, **_where(f"{free} IN ('running', 'cancelling')"))
    Index("continuum_runs_due", columns.wake_at, **_where(f"{free} IN ('pending', 'suspended', 'blocked')"))
    Index("continuum_runs_leased", columns.lease_owner, **_where("lease_owner IS NOT NULL"))
    Index("continuum_runs_newest", columns.created_at, columns.id)
    Index("continuum_runs_children", columns.parent_id, **_where("parent_id IS NOT NULL"))
    Index("continuum_runs_continued", columns.id, **_where("generation > 1"))
    Index("continuum_runs_over", columns.retention_until, **_where("retention_until IS NOT NULL"))
    _listing(runs, types)


def _listing(runs: Table, types: Types) -> None:
    columns = runs.c
    age = (columns.created_at, columns.id)
    Index("continuum_runs_open", *age, **_where("ended_at IS NULL"))
    Index("continuum_runs_troubled", columns.state, *age, **_where("state IN ('blocked', 'failed', 'cancelled')"))
    Index("continuum_runs_tenant", columns.namespace, *age, **_where("namespace <> 'default'"))
    if types.is_postgres:
        Index(
            "continuum_runs_attributes",
            columns.attributes,
            postgresql_using="gin",
            postgresql_ops={"attributes": "jsonb_path_ops"},
            postgresql_with={"gin_pending_list_limit": 256},
            **_where("attributes IS NOT NULL"),
        )


def _events(tables: MetaData, types: Types) -> None:
    events = Table(
        "continuum_events",
        tables,
        Column("run_id", types.id, primary_key=True, nullable=False),
        Column("generation", Integer, primary_key=True, nullable=False, autoincrement=False),
        Column("seq", types.big, primary_key=True, nullable=False, autoincrement=False),
        Column("token", types.big, nullable=False),
        Column("type", Text, nullable=False),
        Column("format", types.small, nullable=False),
        Column("command_id", Integer),
        Column("message_id", types.id),
        Column("name", Text),
        Column("key", Text),
        Column("payload", LargeBinary),
        Column("at", types.time, nullable=False),
        # Without its command's id an effect would answer any command on replay.
        CheckConstraint(
            f"command_id IS NOT NULL OR type NOT IN ({_quoted(sorted(effect.value for effect in EFFECTS))})",
            name="continuum_events_command",
        ),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    Index("continuum_events_patched", events.c.run_id, events.c.generation, **_where("type = 'patched'"))


def _inbox(tables: MetaData, types: Types) -> None:
    # The order of reading: an identity, which on SQLite has to be the primary key to count by itself.
    number = (
        Column("n", BigInteger, Identity(always=True), nullable=False)
        if types.is_postgres
        else Column("n", Integer, primary_key=True, nullable=False)
    )
    inbox = Table(
        "continuum_inbox",
        tables,
        Column("id", types.id, primary_key=types.is_postgres, unique=not types.is_postgres or None, nullable=False),
        number,
        Column("run_id", types.id, nullable=False),
        Column("kind", Text, nullable=False),
        Column("name", Text),
        Column("generation", Integer),
        Column("command_id", Integer),
        Column("delivery_id", Text),
        Column("payload", LargeBinary),
        Column("format", types.small, nullable=False),
        Column("at", types.time, nullable=False),
        Column("read_at", types.time),
        sqlite_strict=True,
    )
    columns = inbox.c
    Index(
        "continuum_inbox_delivery",
        columns.run_id,
        columns.name,
        columns.delivery_id,
        unique=True,
        **_where("delivery_id IS NOT NULL"),
    )
    Index("continuum_inbox_cancel", columns.run_id, unique=True, **_where("kind = 'cancel' AND read_at IS NULL"))
    Index("continuum_inbox_unread", columns.run_id, **_where("read_at IS NULL"))


def _tasks(tables: MetaData, types: Types) -> None:
    tasks = Table(
        "continuum_tasks",
        tables,
        Column("run_id", types.id, primary_key=True, nullable=False),
        Column("generation", Integer, primary_key=True, nullable=False, autoincrement=False),
        Column("command_id", Integer, primary_key=True, nullable=False, autoincrement=False),
        Column("event_seq", types.big, nullable=False),
        Column("activity", Text, nullable=False),
        Column("queue", Text, nullable=False),
        Column("priority", Integer, nullable=False),
        Column("options", LargeBinary, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("max_attempts", Integer, nullable=False),
        Column("available_at", types.time, nullable=False),
        Column("lease_owner", Text),
        Column("details", LargeBinary),
        Column("heartbeat_at", types.time),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    columns, free = tasks.c, _where("lease_owner IS NULL")
    Index("continuum_tasks_free", columns.queue, columns.priority.desc(), columns.available_at, **free)
    Index("continuum_tasks_due", columns.available_at, **free)
    Index("continuum_tasks_leased", columns.lease_owner, **_where("lease_owner IS NOT NULL"))


def _owners(tables: MetaData, types: Types) -> None:
    Table(
        "continuum_owners",
        tables,
        Column("owner", Text, primary_key=True, nullable=False),
        Column("instance", Text, nullable=False),
        Column("node", Text, nullable=False),
        Column("advertise_url", Text),
        Column("booted_at", types.time, nullable=False),
        Column("expires_at", types.time, nullable=False),
        Column("draining", types.boolean, nullable=False, server_default=false() if types.is_postgres else text("0")),
        sqlite_strict=True,
    )


def _snapshots(tables: MetaData, types: Types) -> None:
    Table(
        "continuum_snapshots",
        tables,
        Column("run_id", types.id, primary_key=True, nullable=False),
        Column("generation", Integer, primary_key=True, nullable=False, autoincrement=False),
        Column("seq", types.big, nullable=False),
        Column("format", types.small, nullable=False),
        Column("blob", LargeBinary, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _activity_results(tables: MetaData, types: Types) -> None:
    results = Table(
        "continuum_activity_results",
        tables,
        Column("namespace", Text, primary_key=True, nullable=False),
        Column("activity", Text, primary_key=True, nullable=False),
        Column("idempotency_key", Text, primary_key=True, nullable=False),
        Column("run_id", types.id, nullable=False),  # who it was performed for; it may be pruned by now
        Column("arguments", LargeBinary, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("at", types.time, nullable=False),
        sqlite_strict=True,
    )
    Index("continuum_activity_results_at", results.c.at)


def _instances(tables: MetaData, types: Types) -> None:
    Table(
        "continuum_instances",
        tables,
        Column("name", Text, primary_key=True, nullable=False),
        # One row at most: two processes that open new tables under two names at once cannot both succeed.
        Column("one", types.small, nullable=False, unique=True, server_default=text("1")),
        Column("created_at", types.time, nullable=False),
        CheckConstraint("one = 1", name="continuum_instances_one"),
        sqlite_strict=True,
    )


def _schedules(tables: MetaData, types: Types) -> None:
    states, overlaps = _quoted([state.value for state in ScheduleState]), _quoted([one.value for one in Overlap])
    schedules = Table(
        "continuum_schedules",
        tables,
        Column("id", Text, primary_key=True, nullable=False),
        Column("workflow", Text, nullable=False),
        Column("namespace", Text, nullable=False),
        Column("timing", Text, nullable=False),
        Column("input", LargeBinary, nullable=False),
        Column("overlap", Text, nullable=False),
        Column("catch_up_seconds", types.double, nullable=False),
        Column("attributes", types.json),
        Column("state", Text, nullable=False),
        Column("next_at", types.time),
        Column("wake_at", types.time),
        Column("last_at", types.time),
        Column("last_run_id", types.id),
        Column("buffered_at", types.time),
        Column("attempts", Integer, nullable=False),
        Column("reason", Text),
        Column("fired", types.big, nullable=False),
        Column("skipped", types.big, nullable=False),
        Column("missed", types.big, nullable=False),
        Column("revision", types.big, nullable=False),
        Column("created_at", types.time, nullable=False),
        Column("changed_at", types.time, nullable=False),
        CheckConstraint(f"state IN ({states})", name="continuum_schedules_state"),
        CheckConstraint(f"overlap IN ({overlaps})", name="continuum_schedules_overlap"),
        sqlite_strict=True,
    )
    columns = schedules.c
    Index("continuum_schedules_due", columns.wake_at, **_where("state = 'active'"))
    Index("continuum_schedules_waiting", columns.id, **_where("state = 'active' AND buffered_at IS NOT NULL"))


def _workflow_versions(tables: MetaData, types: Types) -> None:
    Table(
        "continuum_workflow_versions",
        tables,
        Column("owner", Text, primary_key=True, nullable=False),
        Column("workflow", Text, primary_key=True, nullable=False),
        Column("version", Integer, primary_key=True, nullable=False, autoincrement=False),
        Column("since", types.time, nullable=False),
        sqlite_strict=True,
    )
