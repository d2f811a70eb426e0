"""Hosts whose transactions end late, or are rolled back: what `session=` wrote surfaces after rows that were made later.

A transaction lives in the process of the node whose verb it was given to, and dies with it. Verdicts are those of the
moment in which a verb wrote, whatever has become of the run by the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from continuum.journal.memory import MemoryJournal, MemoryStore, writes
from continuum.journal.memory.store import StoredMessage
from continuum.model.events import Event
from continuum.model.messages import MessageKind
from continuum.model.runs import RunRow
from continuum.model.writes import LANDED, Over, Post, Posted, Start, Unknown, Verdict, Write

Surfaced = Callable[[Write, Verdict], None]


class HostTransaction:
    """One transaction: the `session=` of a verb."""

    def __init__(self, store: MemoryStore, surfaced: Surfaced) -> None:
        self.store = store
        self.written: list[tuple[Write, Verdict, int]] = []
        self.tells: list[Callable[[bool], None]] = []
        self._surfaced = surfaced

    def commit(self) -> None:
        """Let everything be seen that was written."""
        for write, verdict, number in self.written:
            self._surface(write, number)
            self._surfaced(write, verdict)
        self._tell(is_there=True)

    def rollback(self) -> None:
        """Let nothing remain."""
        self._tell(is_there=False)

    def _surface(self, write: Write, number: int) -> None:
        store = self.store
        if not isinstance(write, Post):
            writes.apply(store, write)
            return
        message = write.message
        if message.kind is not MessageKind.CANCEL or not store.has_unread_cancel(message.run_id):
            row = StoredMessage(number, replace(message, at=store.now()))
            store.inbox.setdefault(message.run_id, {})[message.message_id] = row
            store.message_runs[message.message_id] = message.run_id

    def _tell(self, *, is_there: bool) -> None:
        for tell in self.tells:
            tell(is_there)


class Hosted:
    """A journal in such a transaction; keys, chosen ids and delivery ids would wait for others, so there are none."""

    def __init__(self, transaction: HostTransaction, journal: MemoryJournal) -> None:
        self._transaction = transaction
        self._journal = journal

    async def write(self, write: Write) -> Verdict:
        """Judge now, to be seen at the commit."""
        store = self._transaction.store
        verdict: Verdict = LANDED
        if isinstance(write, Post):
            row = store.runs.get(write.message.run_id)
            if row is None or row.state.has_ended:
                return Unknown() if row is None else Over()
            verdict = Posted(row.lease_owner)
            assert write.message.delivery_id is None
        else:
            assert isinstance(write, Start)
            assert not write.is_keyed
        store.message_count += 1  # as an identity column counts, committed or not
        self._transaction.written.append((write, verdict, store.message_count))
        return verdict

    def when_over(self, tell: Callable[[bool], None]) -> Callable[[], None]:
        """Tell at the end."""
        self._transaction.tells.append(tell)
        return lambda: None

    async def run(self, run_id: str) -> RunRow | None:
        """Return a run's row."""
        return await self._journal.run(run_id)

    async def run_by_key(self, namespace: str, workflow: str, key: str) -> RunRow | None:
        """Return the run that this start key made."""
        return await self._journal.run_by_key(namespace, workflow, key)

    async def history(self, run_id: str, *, generation: int | None = None) -> Sequence[Event]:
        """Return the events of a generation."""
        return await self._journal.history(run_id, generation=generation)
