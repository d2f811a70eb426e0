"""Looks at the tables after every step that may change them, and says what must never be so.

It keeps a picture of what it saw last. Rows are frozen and replaced, so what has changed is found by identity. The rules
are the invariants of the protocol (I1 to I6) and what follows from them; they know nothing of how they are kept.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from continuum.journal.memory import MemoryStore
from continuum.journal.memory.store import StoredEvent, StoredTask
from continuum.journal.port import Swept
from continuum.model.events import ANSWERS_TO_COMMANDS, COMMANDS, ENDINGS, Event, EventType
from continuum.model.messages import MessageKind
from continuum.model.runs import RunRow
from continuum.model.states import RunState
from continuum.model.tasks import TaskKey
from continuum.model.writes import Commit, Finish, FreeTask, Landed, Posted, RetryTask
from tests.simulation.families import Families
from tests.simulation.payments import Booked

COMPLETIONS = ANSWERS_TO_COMMANDS
COMMANDED = COMMANDS
CANCELS = frozenset({MessageKind.CANCEL, MessageKind.COMPENSATE})


class Checker:
    """Watches one store; `violations` is what it found, `violated` is called with the first."""

    def __init__(self, store: MemoryStore, violated: Callable[[str], None]) -> None:
        self.violations: list[str] = []
        self._store = store
        self._violated = violated
        self._rows: dict[str, RunRow] = {}
        self._lengths: dict[tuple[str, int], int] = {}
        self._owners: dict[tuple[str, int], str] = {}  # (run, token) → who had it
        self._messages: dict[str, set[str]] = {}
        self._completed: dict[tuple[str, int], set[int]] = {}
        self._commanded: dict[tuple[str, int], set[int]] = {}
        self._told: list[tuple[str, str]] = []
        self._families = Families(store, self.expect, self.record)
        self._heard: dict[str, dict[str, int]] = {}  # run → payload of a signal → how often in its history
        self._tasks: dict[TaskKey, StoredTask] = {}
        self._promised: dict[str, list[str]] = {}  # run → payloads of signals that were answered `delivered`
        self._recorded: dict[
            str, None
        ] = {}  # runs whose cancel was answered `requested`, or that was passed on to them
        self.books: Counter[TaskKey] = Counter()  # lines that transactional activities have booked
        self._undoing: set[str] = set()  # runs that have read a cancel and compensate

    def violate(self, message: str) -> None:
        """Take note of what must not be."""
        self.violations.append(message)
        if len(self.violations) == 1:
            self._violated(message)

    def expect(self, claim: bool, message: str) -> None:
        """Take note if it is not so."""
        if not claim:
            self.violate(message)

    # --- what clients were told ---------------------------------------------------------------------------------------

    def promise(self, run_id: str, payload: str) -> None:
        """Hold the system to a signal that it called delivered."""
        self._promised.setdefault(run_id, []).append(payload)
        self._keep(run_id)

    def record(self, run_id: str) -> None:
        """Hold the system to a cancel that it called requested."""
        self._recorded[run_id] = None
        self._keep(run_id)

    def _keep(self, run_id: str) -> None:
        row = self._store.runs.get(run_id)
        if row is None:
            self.violate(f"run {run_id} was acknowledged and is gone")
            return
        if row.state.has_ended:
            return
        unread = self._store.unread(run_id)
        waiting = {str(json.loads(stored.message.payload or b"null")) for stored in unread}
        for payload in self._promised.get(run_id, ()):
            is_kept = payload in waiting or payload in self._heard.get(run_id, {})
            self.expect(is_kept, f"signal {payload} to {run_id} was delivered, and is neither read nor unread (I4)")
        if run_id in self._recorded:
            is_kept = run_id in self._undoing or any(stored.message.kind in CANCELS for stored in unread)
            self.expect(is_kept, f"the cancel of {run_id} was recorded, and is gone")

    # --- after every step ---------------------------------------------------------------------------------------------

    def look(self, step: str, arguments: tuple[Any, ...], answer: Any) -> None:
        """Compare the tables with what they were before a step."""
        if step == "write":
            self._look_at_writes(arguments[-1], answer)
        elif step == "sweep":
            self._look_at_sweep(answer)
        changed = []
        for run_id, row in self._store.runs.items():
            old = self._rows.get(run_id)
            if row is not old:
                self._look_at_row(row, old)
                if old is not None and row.generation != old.generation:
                    self._look_at_generations(row, old)
                self._look_at_events(row, old, row.generation)
                self._rows[run_id] = row
                self._keep_all(run_id)
                changed.append((row, old))
        for row, old in changed:
            self._families.look(row, old)
        for run_id, payload in self._told:  # what one run was told of another, whose row is known by now
            self.promise(run_id, payload)
        self._told.clear()
        for rows in self._store.tasks.values():
            for task in rows.values():
                self._look_at_task(task)

    def _look_at_generations(self, row: RunRow, old: RunRow) -> None:
        self.expect(
            row.generation == old.generation + 1, f"{row.run_id} went from {old.generation} to {row.generation}"
        )
        self._look_at_events(row, old, old.generation)
        last = self._store.events[row.run_id, old.generation][-1].event
        self.expect(last.type is EventType.CONTINUED, f"a generation of {row.run_id} ends by {last.type}")

    def _keep_all(self, run_id: str) -> None:
        if run_id in self._promised or run_id in self._recorded:
            self._keep(run_id)

    def _look_at_writes(self, batch: Any, verdicts: Any) -> None:
        for write, verdict in zip(batch, verdicts, strict=True):
            if isinstance(write, Commit) and isinstance(verdict, Landed):
                old = self._rows[write.run_id]
                fence = (old.lease_owner, old.lease_token, old.generation, old.last_seq)
                theirs = (write.owner, write.token, write.generation, write.base_seq)
                self.expect(fence == theirs, f"a commit of {theirs} to {write.run_id} landed, the lease was {fence}")

            if isinstance(write, Booked) and isinstance(verdict, Posted):
                self.books[write.attempt.key] += write.lines
            if isinstance(write, Finish | RetryTask | FreeTask) and isinstance(verdict, Landed | Posted):
                task = self._tasks[write.attempt.key]
                is_theirs = (task.owner, task.attempt) == (write.attempt.owner, write.attempt.attempt)
                self.expect(
                    is_theirs, f"{write.attempt} was ended, the task was {task.owner}'s, attempt {task.attempt}"
                )

    def _look_at_sweep(self, swept: Swept) -> None:
        for attempt in (*swept.tasks, *swept.exhausted):
            row = self._store.runs[attempt.key.run_id]
            self.expect(row.lease_owner != attempt.owner, f"the task of {attempt} was swept before its run")

    def _look_at_task(self, task: StoredTask) -> None:
        row = self._store.runs[task.key.run_id]
        self.expect(row.generation == task.key.generation, f"{task.key} is a task of another generation than {row}")
        old = self._tasks.get(task.key)
        if old is task:
            return
        limit = task.options.retry.max_attempts
        self.expect(task.attempt <= limit, f"attempt {task.attempt} of {task.key}, at most {limit} are allowed")
        if old is not None:
            self.expect(task.attempt >= old.attempt, f"the attempt of {task.key} went back from {old.attempt}")
            has_moved = old.owner is not None and task.owner is not None and task.owner != old.owner
            self.expect(not has_moved, f"{task.key} was taken from {old.owner} by {task.owner}")
        self._tasks[task.key] = task

    def _look_at_row(self, row: RunRow, old: RunRow | None) -> None:
        run_id = row.run_id
        if row.lease_owner is not None:
            owner = self._owners.setdefault((run_id, row.lease_token), row.lease_owner)
            self.expect(
                owner == row.lease_owner,
                f"token {row.lease_token} of {run_id} belongs to {owner} and {row.lease_owner} (I1)",
            )
            self.expect(not row.state.has_ended, f"{run_id} has ended and is leased")
        if old is None:
            return
        self.expect(row.lease_token >= old.lease_token, f"the token of {run_id} shrank (I1)")
        if row.lease_owner != old.lease_owner:
            self.expect(row.lease_token > old.lease_token, f"the lease of {run_id} moved under one token")
        self.expect(not old.state.has_ended, f"{run_id} was written after its end")
        self.expect(
            row.state is not RunState.PENDING or old.state is RunState.PENDING, f"{run_id} is pending once more"
        )

    def _look_at_events(self, row: RunRow, old: RunRow | None, generation: int) -> None:
        key = (row.run_id, generation)
        history = self._store.events.get(key, [])
        known = self._lengths.get(key, 0)
        if generation == row.generation:
            is_so = row.last_seq == len(history)
            self.expect(is_so, f"{row.run_id} has {len(history)} events, not {row.last_seq} (I2)")
        token = old.lease_token if old is not None else row.lease_token
        if known == 0 and generation > 1:
            carried = [stored.event.message_id for stored in history if stored.event.message_id is not None]
            self.expect(len(set(carried)) == len(carried), f"{row.run_id} carries a message over twice: {carried}")
        for position, stored in enumerate(history[known:], start=known):
            is_carried = known == 0 and generation > 1
            self._look_at_event(key, stored, position, history, is_carried=is_carried)
            self.expect(
                old is None or stored.token == token,
                f"event {stored.event.seq} of {row.run_id} has token {stored.token}, the lease had {token} (I1)",
            )
        self._lengths[key] = len(history)

    def _look_at_event(
        self, key: tuple[str, int], stored: StoredEvent, position: int, history: list[StoredEvent], *, is_carried: bool
    ) -> None:
        run_id, event = key[0], stored.event
        where = f"event {event.seq} ({event.type.value}) of {run_id}/{key[1]}"
        self.expect(event.seq == position + 1, f"{where} stands at {position + 1}")
        if position:
            last = history[position - 1]
            self.expect(last.token <= stored.token, f"{where}: its token shrank (I1)")
            self.expect(last.event.type not in ENDINGS, f"{where} follows the end")
        self._look_at_message(run_id, event, where, is_carried=is_carried)
        if event.type is EventType.CANCEL_REQUESTED:
            self._undoing.add(run_id)
        if event.type in COMMANDED and event.command_id is not None:
            commanded = self._commanded.setdefault(key, set())
            self.expect(event.command_id not in commanded, f"{where}: command {event.command_id} was asked for twice")
            commanded.add(event.command_id)
        if event.type in COMPLETIONS and event.command_id is not None:
            completed = self._completed.setdefault(key, set())
            self.expect(
                event.command_id not in completed, f"{where}: command {event.command_id} was answered twice (I3)"
            )
            self.expect(event.command_id in self._commanded.get(key, ()), f"{where} answers what nobody asked")
            completed.add(event.command_id)
        self._families.read(key, event)
        if event.type is EventType.MESSAGE_ANSWERED and event.payload == b'"delivered"':
            told = self._families.told(key, event)
            if told is not None:
                self._told.append(told)

    def _look_at_message(self, run_id: str, event: Event, where: str, *, is_carried: bool) -> None:
        """A message is read once in all generations; a new one begins with what older ones have read and not consumed."""
        known = self._messages.setdefault(run_id, set())
        if event.message_id is not None:
            if is_carried and event.message_id in known:
                return
            self.expect(event.message_id not in known, f"{where}: message {event.message_id} was read twice (I3)")
            known.add(event.message_id)
        if event.type is EventType.SIGNAL_RECEIVED:
            heard, payload = self._heard.setdefault(run_id, {}), str(json.loads(event.payload or b"null"))
            heard[payload] = heard.get(payload, 0) + 1
            self.expect(heard[payload] == 1, f"{where}: signal {payload} was consumed twice")

    # --- when all is quiet --------------------------------------------------------------------------------------------

    def look_at_the_end(self) -> None:
        """Check what holds once every run has ended."""
        store = self._store
        for row in store.runs.values():
            self.expect(row.state.has_ended, f"{row.run_id} has not ended: {row}")
            self.expect(row.lease_owner is None, f"{row.run_id} is leased to {row.lease_owner} at the end (I6)")
        self.expect(not store.tasks, f"tasks are left: {list(store.tasks.values())[:3]}")
        late = [
            stored for rows in store.inbox.values() for stored in rows.values() if stored.message.delivery_id is None
        ]
        self.expect(not late, f"messages are left: {late[:3]}")

    def heard(self, run_id: str) -> Mapping[str, int]:
        """Return the signals of a run's history."""
        return self._heard.get(run_id, {})
