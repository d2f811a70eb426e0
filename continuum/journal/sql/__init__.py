"""The journal on SQLite and PostgreSQL; see `continuum.journal.sql.journal`."""

from continuum.journal.sql.brief import brief_engine
from continuum.journal.sql.journal import SqlJournal
from continuum.journal.sql.migrating import head, instance_of, migrate, rename, revision_of
from continuum.journal.sql.transactions import HostTransaction, HostTransactions

__all__ = [
    "HostTransaction",
    "HostTransactions",
    "SqlJournal",
    "brief_engine",
    "head",
    "instance_of",
    "migrate",
    "rename",
    "revision_of",
]
