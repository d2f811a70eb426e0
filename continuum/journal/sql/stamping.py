"""Our revision in our own version table, also where our migrations are part of a host's own history.

In our own environment Alembic keeps `continuum_alembic_version`. In a host's (our versions among its
`version_locations`) it keeps the host's `alembic_version` instead, and of ours only what nothing depends on yet: what
an instance needs to know cannot be read there. So each of our migrations ends by stamping our version table itself when
it finds that Alembic does not. A column of that table says so, by which `continuum migrate` knows that these tables are
not its own to migrate: done by both, each would find half of its work done.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from continuum.journal.sql.tables import VERSION_TABLE

HOSTED = "in_history_of"  # the column; it names the version table of the history that the migrations are part of

_VERSION = sa.table(VERSION_TABLE, sa.column("version_num", sa.String), sa.column(HOSTED, sa.String))


def stamp(revision: str | None) -> None:
    """Say that the tables are at `revision`, or that there are none any more; the last act of each migration."""
    kept_in = op.get_context().version_table
    if kept_in == VERSION_TABLE:
        return
    if revision is None:
        op.drop_table(VERSION_TABLE)
        return
    if revision.endswith("0001"):
        op.create_table(
            VERSION_TABLE,
            sa.Column("version_num", sa.String(32), nullable=False),
            sa.Column(HOSTED, sa.String(255), nullable=False),
            sa.PrimaryKeyConstraint("version_num"),
            if_not_exists=True,  # going down to here it is there already
        )
    op.execute(_VERSION.delete())
    op.execute(_VERSION.insert().values({"version_num": revision, HOSTED: kept_in}))
