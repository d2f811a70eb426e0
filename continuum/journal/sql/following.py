"""How a host's transaction ends, heard from SQLAlchemy's events on its connection.

Committed, rolled back, or taken back with a savepoint: whoever wrote in it is told once. The events of the connection
say so for a session as well as for a bare connection, and are right where a session's are not: a session that has
joined a transaction of its connection's "commits" long before anything is there.

`commit` is heard right before COMMIT is sent, and nothing is heard after it. So from then on the transaction is looked
at until it is over, which takes as long as the database does; who cannot wait for the next look has one made. No look
asks the database, and nobody depends on any: what was committed is found by polling anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from weakref import ref

from sqlalchemy import Connection, Transaction, event

Tell = Callable[[bool], None]  # whether what was written is there now

LOOK_SECONDS, LOOK_MAX_SECONDS = 0.0005, 0.02
EVENTS = (
    "savepoint",
    "release_savepoint",
    "rollback_savepoint",
    "rollback",
    "commit",
    "rollback_twophase",
    "commit_twophase",
)


class Following:
    """Who wrote in the present transaction of one connection, and wants to know what becomes of it.

    Savepoints end in the opposite order of their beginning, and one that is rolled back takes along what was written
    since. One whose beginning we have not heard began before we listened, and so before everything.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = ref(connection)
        self._waiting: list[Tell] = []
        self._savepoints: list[int] = []  # how many had written when each of those that are open began
        self._ending: tuple[Transaction, list[Tell]] | None = None  # COMMIT was sent
        for name in EVENTS:
            event.listen(connection, name, getattr(self, name))

    def tell(self, tell: Tell) -> None:
        """Tell this of the end of what has just been written."""
        self._waiting.append(tell)

    def savepoint(self, _connection: Connection, _name: str) -> None:
        """Hear that a savepoint is made."""
        self._savepoints.append(len(self._waiting))

    def release_savepoint(self, _connection: Connection, _name: str, _context: Any) -> None:
        """Hear that what was written since a savepoint counts as what was written before it."""
        if self._savepoints:
            self._savepoints.pop()

    def rollback_savepoint(self, _connection: Connection, _name: str, _context: Any) -> None:
        """Hear that what was written since a savepoint is taken back."""
        before = self._savepoints.pop() if self._savepoints else 0
        undone, self._waiting = self._waiting[before:], self._waiting[:before]
        _tell(undone, is_there=False)

    def rollback(self, _connection: Connection) -> None:
        """Hear that everything is taken back."""
        _tell(self._written(), is_there=False)

    def commit(self, connection: Connection) -> None:
        """Hear that COMMIT is about to be sent."""
        self.look()
        transaction, written = connection.get_transaction(), self._written()
        if transaction is not None and written:
            self._ending = transaction, written
            asyncio.get_running_loop().call_soon(self._watch, LOOK_SECONDS)

    def rollback_twophase(self, connection: Connection, _xid: Any, _is_prepared: bool) -> None:  # noqa: FBT001  as SQLAlchemy has it
        """Hear that everything is taken back, of a session that commits in two phases."""
        self.rollback(connection)

    def commit_twophase(self, connection: Connection, _xid: Any, _is_prepared: bool) -> None:  # noqa: FBT001  as above
        """Hear that COMMIT PREPARED is about to be sent."""
        self.commit(connection)

    def look(self) -> None:
        """See whether the transaction is over; a COMMIT that failed counts as one, perhaps only its answer was lost."""
        if self._ending is not None and not self._ending[0].is_active:
            (_, written), self._ending = self._ending, None
            _tell(written, is_there=True)
        if (
            self._connection() is None
        ):  # nobody has closed it, it was collected: its pool has seen to it that nothing stays
            _tell(self._written(), is_there=False)

    def _watch(self, pause_seconds: float) -> None:
        self.look()
        if self._ending is not None:
            longer = min(2 * pause_seconds, LOOK_MAX_SECONDS)
            asyncio.get_running_loop().call_later(pause_seconds, self._watch, longer)

    def _written(self) -> list[Tell]:
        written, self._waiting = self._waiting, []
        self._savepoints.clear()
        return written


def _tell(written: list[Tell], *, is_there: bool) -> None:
    for tell in written:
        tell(is_there)
