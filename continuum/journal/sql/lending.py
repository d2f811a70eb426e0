"""The session that a transactional activity is given: everything works but what would end its transaction.

The transaction is Continuum's to end: it commits with the task's end or not at all. So what would commit it, roll it back
or close it raises at the call, and spoils the attempt even if that error is swallowed: who believes to have committed
half of his work must not be told that all went well. It stands on three levels, because SQLAlchemy has three: the session
that the activity holds, the sync session below it (`run_sync`), and the connection below both.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NoReturn

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from continuum.errors import NotAllowedHere

# A statement that ends a transaction, or begins one; one that goes back to a savepoint does not.
_ENDS = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
    r"(commit|end|abort|begin|start\s+transaction|prepare\s+transaction|rollback(?!\s+((work|transaction)\s+)?to\b))\b",
    re.IGNORECASE | re.DOTALL,
).match
NESTED = "use session.begin_nested() for a part that may fail by itself, and raise to roll everything back"


class Loan:
    """What is known of one session that was lent."""

    def __init__(self, activity: str, connection: Connection) -> None:
        self._activity = activity
        self.spoiled: NotAllowedHere | None = None
        self.is_returned = False  # from then on the transaction may be ended: by us
        self.is_committing = False  # COMMIT is about to be sent, or has been
        event.listen(connection, "commit", self._commits)
        event.listen(connection, "before_cursor_execute", self._says)

    def refuse(self, what: str) -> NoReturn:
        """Refuse what the activity must leave to us, and remember that it tried."""
        self.spoiled = self.spoiled or NotAllowedHere(
            f"activity {self._activity} called {what}: its transaction is Continuum's, which commits it with the end of "
            f"the task; {NESTED}"
        )
        raise self.spoiled

    def _says(self, _connection: Connection, _cursor: Any, statement: str, *_more: Any) -> None:
        ends = None if self.is_returned else _ENDS(statement)
        if ends is not None:
            self.refuse(f"{ends[1].upper()} in plain SQL")

    def _commits(self, _connection: Connection) -> None:
        if not self.is_returned:
            self.refuse("commit() on its session's connection or transaction")
        self.is_committing = True


class _Lent:
    """Goes before a sync session's class."""

    loan: Loan

    def _refuse(self, what: str) -> None:
        if not self.loan.is_returned:
            self.loan.refuse(f"session.{what}()")

    def begin(self, nested: bool = False) -> SessionTransaction:  # noqa: FBT001, FBT002  as SQLAlchemy has it
        if not nested:
            self._refuse("begin")
        return super().begin(nested=nested)  # type: ignore[misc,no-any-return]

    def commit(self) -> None:
        self._refuse("commit")
        super().commit()  # type: ignore[misc]

    def rollback(self) -> None:
        self._refuse("rollback")
        super().rollback()  # type: ignore[misc]

    def close(self) -> None:
        self._refuse("close")
        super().close()  # type: ignore[misc]

    def reset(self) -> None:
        self._refuse("reset")
        super().reset()  # type: ignore[misc]

    def invalidate(self) -> None:
        self._refuse("invalidate")
        super().invalidate()  # type: ignore[misc]

    def prepare(self) -> None:
        self._refuse("prepare")
        super().prepare()  # type: ignore[misc]


@lru_cache(maxsize=100)  # an activity's annotation names one class, and is asked about at each attempt
def _lent(sync_class: Any) -> type[Session]:
    return type(f"Lent{sync_class.__name__}", (_Lent, sync_class), {"__module__": __name__})


def lend(session_class: type[AsyncSession], connection: AsyncConnection, activity: str) -> tuple[AsyncSession, Loan]:
    """Return a session in the connection's transaction, of which it is a part in every way, and what is known of it."""
    assert connection.sync_connection is not None
    loan = Loan(activity, connection.sync_connection)
    options: dict[str, Any] = {
        "expire_on_commit": False,
        "close_resets_only": False,  # once it is closed it can no more be used
        "join_transaction_mode": "control_fully",  # so that the host's session events see the commit
    }
    sync_class: Any = session_class.sync_session_class
    session = session_class(connection, sync_session_class=_lent(sync_class), **options)
    vars(session.sync_session)["loan"] = loan
    return session, loan
