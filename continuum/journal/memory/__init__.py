"""The journal without a database: the executable specification of `continuum.journal.port`.

Every rule of `docs/protocol.md` stands here once in plain Python, over tables that are dicts. What the SQL journals do
with locks and statements, this one has for free: a step runs between two awaits, so nothing else can happen meanwhile.
Nothing in here waits, reads the time of day or draws a number, so the same steps always give the same tables.

`store` holds the tables, `writes` what the group committer sends, `runs`, `tasks`, `recovery` and `reads` the rest of
the port, `journal` the asynchronous face. Several journals may share one store: several nodes on one database.
"""

from continuum.journal.memory.journal import Faults, MemoryJournal
from continuum.journal.memory.store import MemoryStore

__all__ = ["Faults", "MemoryJournal", "MemoryStore"]
