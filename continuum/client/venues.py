"""Where a verb writes: through the group committer, or in a transaction of the host's that ends when the host says so.

Through the committer a write is durable when it is answered, and whoever can act on it is told at once. In a host's
transaction nothing exists before the host commits, so telling waits for that. Nothing written there is ever leased or
handed over in memory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from continuum.definitions.handles import Fate
from continuum.errors import JournalUnavailable
from continuum.journal.port import BadData, Contended, Hosted, HostedJournal
from continuum.model.events import Event
from continuum.model.runs import RunRow
from continuum.model.writes import Unwritable, Verdict, Write

Nudge = Callable[[], object]


class Reads(Protocol):
    """What is read about runs, as it stands where the verb writes."""

    async def run(self, run_id: str) -> RunRow | None:
        """Return a run's row."""
        ...

    async def run_by_key(self, namespace: str, workflow: str, key: str) -> RunRow | None:
        """Return the run that this start key made."""
        ...

    async def history(self, run_id: str, *, generation: int | None = None) -> Sequence[Event]:
        """Return the events of a generation."""
        ...


class Venue(Protocol):
    """One of the two places."""

    @property
    def reads(self) -> Reads:
        """What is there."""
        ...

    async def put(self, write: Write) -> Verdict:
        """Write, and return the verdict."""
        ...

    def then(self, nudge: Nudge) -> Fate | None:
        """Nudge when what was written can be seen; return what will become of it, if that is open."""
        ...


class OwnTransactions:
    """The group committer."""

    def __init__(self, put: Callable[[Write], Awaitable[Verdict]], reads: Reads) -> None:
        self._put = put
        self.reads = reads

    async def put(self, write: Write) -> Verdict:
        """Commit."""
        return await self._put(write)

    def then(self, nudge: Nudge) -> None:
        """Nudge now."""
        nudge()


class HostTransaction:
    """The transaction that a host's session is in."""

    def __init__(self, hosted: Hosted) -> None:
        self.reads = hosted

    async def put(self, write: Write) -> Verdict:
        """Write in the host's transaction. What concerns the transaction itself is raised as the host's driver does."""
        try:
            return await self.reads.write(write)
        except BadData as error:
            return Unwritable(error)
        except Contended as error:
            raise JournalUnavailable(f"others are writing the same ({error}); try again") from error

    def then(self, nudge: Nudge) -> Fate:
        """Nudge after the host's commit, never after its rollback."""
        fate = Fate()

        def settle(is_there: bool) -> None:  # noqa: FBT001  a callback
            fate.settle(is_there=is_there)
            if is_there:
                nudge()

        fate.look = self.reads.when_over(settle)
        return fate


async def transaction_of(session: object, journal: HostedJournal) -> Venue:
    """Return where a verb with this `session=` writes.

    Raises:
        SessionInvalid: it cannot be used.
    """
    return HostTransaction(await journal.hosted(session))
