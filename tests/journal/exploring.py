"""A model of two nodes that do everything the port allows, in any order, and sometimes what it must refuse.

A node keeps executions (leases with a base_seq) and attempts. It never learns that it was declared dead: its executions
go on as zombies under the old owner id while it claims anew under the next one, so stale writes come by themselves. A
write is now and then sent twice, as after a lost answer.

The model follows the protocol where the protocol asks the actor for something (a reader drops messages that its history
holds, a turn takes every message that it reads) and leaves everything else to the journal. After each step `check` reads
the raw rows and holds the invariants of the protocol against them.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace

from continuum.journal.port import Journal
from continuum.model.events import Event, EventType
from continuum.model.messages import Message, MessageKind
from continuum.model.states import ACTIVE, RunState
from continuum.model.tasks import Attempt, NewTask
from continuum.model.writes import LANDED, REFUSED, Commit, Finish, FreeTask, Landed, Post, Posted, RetryTask, Verdict
from tests.journal.backends import Harness, InboxRow
from tests.journal.builders import (
    ACTIVITY,
    ENDINGS,
    MINE,
    TTL,
    Lease,
    a_cancel,
    a_commit,
    a_result,
    a_run,
    a_signal,
    a_start,
    a_task,
    an_attempt,
    an_owner,
    an_unleased_start,
    answered,
    scheduled,
    signal_received,
    started,
)
from tests.journal.steps import later, write

CRASHES_MAX = 3
ANSWERS = {
    MessageKind.ACTIVITY_COMPLETED: EventType.ACTIVITY_COMPLETED,
    MessageKind.ACTIVITY_FAILED: EventType.ACTIVITY_FAILED,
}


@dataclass(slots=True)
class Node:
    """A process: its present owner id, and what it believes to hold under this id and older ones."""

    name: str
    boots: int = 1
    executions: list[Lease] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def owner(self) -> str:
        return f"{self.name}/continuum/boot/{self.boots}"


@dataclass(slots=True)
class Explorer:
    """The steps and the invariants; choices come from outside as numbers, so that they can be shrunk."""

    harness: Harness
    nodes: list[Node] = field(default_factory=lambda: [Node("node-1"), Node("node-2")])
    run_ids: list[str] = field(default_factory=list)
    delivered: list[Message] = field(default_factory=list)  # signals that were answered `Posted`
    finished: list[Attempt] = field(default_factory=list)  # attempts whose result was accepted
    keys: dict[str, str] = field(default_factory=dict)  # start key → the run that it made
    tokens: dict[str, int] = field(default_factory=dict)  # the highest token ever seen of each run
    writers: dict[tuple[str, int], str] = field(default_factory=dict)  # (run, token) → who held it
    pruned: set[str] = field(default_factory=set)

    @property
    def journal(self) -> Journal:
        return self.harness.journal

    async def open(self) -> None:
        for node in self.nodes:
            await self.journal.register(an_owner(node.owner), ttl_seconds=TTL)

    # --- runs come and go ---------------------------------------------------------------------------------------------

    async def start(self, node: Node, *, with_task: bool, leased_task: bool, max_attempts: int, ends: bool) -> None:
        events: tuple[Event, ...] = ()
        tasks: tuple[NewTask, ...] = ()
        if with_task:
            events, tasks = (scheduled(2),), (a_task(2, seq=2, leased=leased_task, max_attempts=max_attempts),)
        if ends:
            events, tasks = (ENDINGS[RunState.COMPLETED](),), ()
        state = RunState.COMPLETED if ends else RunState.RUNNING
        start = a_start(a_run(), *events, owner=node.owner, tasks=tasks, state=state)
        assert await write(self.journal, start) == LANDED
        assert await write(self.journal, start) == REFUSED  # its answer was lost and it is sent again
        assert await self.journal.judge(start) == LANDED
        self.run_ids.append(start.run_id)
        if not ends:
            self.hold(node, Lease(start.run_id, owner=node.owner, token=1, base_seq=len(start.events)))
            if with_task and leased_task:
                node.attempts.append(an_attempt(start.run_id, 2, owner=node.owner))

    async def start_unleased(self, *, in_seconds: float) -> None:
        start = an_unleased_start(wake_at=await later(self.journal, in_seconds) if in_seconds else None)
        assert await write(self.journal, start) == LANDED
        self.run_ids.append(start.run_id)

    async def start_keyed(self, node: Node, key: str) -> None:
        start = a_start(a_run(key=key), owner=node.owner)
        verdict = await write(self.journal, start)
        assert verdict == (REFUSED if key in self.keys else LANDED)
        if verdict == LANDED:
            self.keys[key] = start.run_id
            self.run_ids.append(start.run_id)
            self.hold(node, Lease(start.run_id, owner=node.owner))
        winner = await self.journal.run_by_key("default", start.run.workflow, key)
        assert winner is not None
        assert winner.run_id == self.keys[key]

    def hold(self, node: Node, lease: Lease) -> None:
        assert self.writers.setdefault((lease.run_id, lease.token), lease.owner) == lease.owner
        node.executions.append(lease)

    async def claim(self, node: Node, *, limit: int) -> None:
        expected = await self.evident()
        claimed = (await self.journal.claim_runs(node.owner, workflows=MINE, limit=limit)).runs
        assert {claim.run_id for claim in claimed} <= expected
        assert len(claimed) == min(limit, len(expected))  # I7: whatever has evidence is seen by the next pass
        for claim in claimed:
            self.hold(node, Lease(claim.run_id, node.owner, claim.token, claim.last_seq, claim.generation))

    async def evident(self) -> set[str]:
        """Say from raw rows what a claim must see."""
        now, found = await self.journal.now(), set()
        for run_id in self.known():
            row, unread = await self.harness.run_row(run_id), await self.unread(run_id)
            if row.state not in ACTIVE or row.lease_owner is not None:
                continue
            is_due = row.wake_at is not None and row.wake_at <= now and row.state is not RunState.RUNNING
            has_cancel = any(message.kind is MessageKind.CANCEL for message in unread)
            if row.state is RunState.RUNNING or is_due or has_cancel or (row.state is RunState.SUSPENDED and unread):
                found.add(run_id)
        return found

    # --- turns --------------------------------------------------------------------------------------------------------

    async def turn(
        self,
        node: Node,
        which: int,
        *,
        schedules: int,
        leased: bool,
        then: RunState | None,
        releases: bool,
        twice: bool,
    ) -> None:
        """Let an execution read what there is, journal it, ask for more; it may have lost its lease long ago."""
        if not node.executions:
            return
        lease = node.executions[which % len(node.executions)]
        commit, born = await self.next_commit(lease, schedules, leased=leased, then=then, releases=releases)
        verdict = await write(self.journal, commit)
        if twice:
            verdict = await self.send_again(commit, verdict)
        if not isinstance(verdict, Landed):
            node.executions.remove(lease)
            return
        node.executions.remove(lease)
        if not commit.gives_up_lease:
            node.executions.append(lease.after(len(commit.events)))
            node.attempts += [an_attempt(lease.run_id, number, owner=lease.owner) for number in born if leased]

    async def next_commit(
        self, lease: Lease, schedules: int, *, leased: bool, then: RunState | None, releases: bool
    ) -> tuple[Commit, list[int]]:
        events, read, resolved = await self.reading(lease)
        if any(message.kind is MessageKind.CANCEL for message in read):
            then = RunState.CANCELLED
        first = 10 * (lease.base_seq + len(events)) + 10  # a command id that no other turn takes
        born = [] if then in ENDINGS else [first + number for number in range(schedules)]
        position = lease.base_seq + len(events)
        tasks = tuple(
            a_task(command_id, seq=position + place, leased=leased, max_attempts=2)
            for place, command_id in enumerate(born, start=1)
        )
        events += [scheduled(command_id) for command_id in born]
        if then in ENDINGS:
            events.append(ENDINGS[then]())
        state = then or (RunState.SUSPENDED if releases else None)
        commit = a_commit(
            lease, *events, tasks=tasks, resolved=tuple(resolved), read=tuple(read), state=state, releases=releases
        )
        return commit, born

    async def reading(self, lease: Lease) -> tuple[list[Event], list[Message], list[int]]:
        """Take every unread message: journaled, or dropped when the history holds it or its command is answered."""
        rows = await self.harness.events(lease.run_id)
        known = {row.event.message_id for row in rows}
        open_commands = {row.event.command_id for row in rows if row.event.type is EventType.ACTIVITY_SCHEDULED}
        open_commands -= {row.event.command_id for row in rows if row.event.type in ANSWERS.values()}
        events: list[Event] = []
        read: list[Message] = []
        resolved: list[int] = []
        for message in await self.unread(lease.run_id):
            read.append(message)
            if message.message_id in known:
                continue
            if message.kind is MessageKind.SIGNAL:
                events.append(signal_received(message))
            elif message.command_id in open_commands and message.command_id is not None:
                open_commands.discard(message.command_id)
                resolved.append(message.command_id)
                events.append(replace(answered(message.command_id), type=ANSWERS[message.kind]))
        return events, read, resolved

    async def send_again(self, commit: Commit, first: Verdict) -> Verdict:
        """Treat the answer as lost: judge, and if need be send the identical value again."""
        judged = await self.journal.judge(commit)
        if judged is None:
            again = await write(self.journal, commit)
            assert again == first or (first == LANDED and not commit.events)
            return again
        if commit.events:
            assert judged == first
        return judged

    # --- messages and tasks -------------------------------------------------------------------------------------------

    async def signal(self, which: int, *, delivery_id: str | None, twice: bool) -> None:
        if not self.run_ids:
            return
        message = a_signal(self.run_ids[which % len(self.run_ids)], delivery_id=delivery_id)
        verdict = await write(self.journal, Post(message))
        if isinstance(verdict, Posted):
            self.delivered.append(message)
            if twice:
                assert isinstance(await write(self.journal, Post(message)), Posted)

    async def cancel(self, which: int) -> None:
        if self.run_ids:
            await write(self.journal, Post(a_cancel(self.run_ids[which % len(self.run_ids)])))

    async def claim_tasks(self, node: Node, *, slots: int) -> None:
        claimed = await self.journal.claim_tasks(node.owner, activities=[ACTIVITY], slots={}, default_slots=slots)
        assert len(claimed) <= slots
        node.attempts += [task.attempt for task in claimed]

    async def end_attempt(self, node: Node, which: int, how: str) -> None:
        """Let an attempt finish, be retried or freed; it may have lost its task long ago."""
        if not node.attempts:
            return
        attempt = node.attempts.pop(which % len(node.attempts))
        match how:
            case "finish":
                verdict = await write(self.journal, Finish(attempt, a_result(attempt)))
                if isinstance(verdict, Posted):
                    self.finished.append(attempt)
                    assert await write(self.journal, Finish(attempt, a_result(attempt))) == REFUSED
            case "retry":
                await write(self.journal, RetryTask(attempt, 1.0))
            case _:
                await write(self.journal, FreeTask(attempt))

    # --- time and death -----------------------------------------------------------------------------------------------

    async def age(self, seconds: float) -> None:
        await self.harness.age(seconds)

    async def beat(self, node: Node) -> None:
        if await self.journal.renew(node.owner, ttl_seconds=TTL) is None:
            node.boots += 1  # what it held goes on as zombies
            await self.journal.register(an_owner(node.owner), ttl_seconds=TTL)

    async def bury(self) -> None:
        await self.journal.declare_dead()

    async def sweep(self) -> None:
        await self.journal.sweep(crashes_max=CRASHES_MAX, backoff_seconds=5.0, task_backoff_seconds=1.0)
        alive = await self.harness.owners()
        for run_id in self.known():  # I6: a lease without an owner row does not survive a pass
            owner = (await self.harness.run_row(run_id)).lease_owner
            assert owner is None or owner in alive
        for task in await self.harness.tasks():
            assert task.lease_owner is None or task.lease_owner in alive

    async def audit(self, node: Node) -> None:
        """Release what is leased to a node that does not know of it."""
        held = await self.journal.held(node.owner)
        known = {(lease.run_id, lease.token) for lease in node.executions}
        for run_id, token in held.runs.items():
            if (run_id, token) not in known:
                assert await self.journal.release_run(run_id, owner=node.owner, token=token, state=RunState.RUNNING)

    async def prune(self) -> None:
        gone = set(await self.journal.prune(limit=10))
        self.pruned |= gone
        self.keys = {key: run_id for key, run_id in self.keys.items() if run_id not in gone}

    # --- what must always be so ---------------------------------------------------------------------------------------

    def known(self) -> list[str]:
        return [run_id for run_id in self.run_ids if run_id not in self.pruned]

    async def unread(self, run_id: str) -> list[Message]:
        return [_message(row) for row in await self.harness.inbox(run_id) if not row.is_read]

    async def check(self) -> None:
        for run_id in self.known():
            await self.check_run(run_id)
        for run_id in self.pruned:
            assert await self.harness.events(run_id) == []
            assert await self.harness.tasks(run_id) == []

    async def check_run(self, run_id: str) -> None:
        row, events = await self.harness.run_row(run_id), await self.harness.events(run_id)
        history = [stored.event for stored in events]
        # I1: tokens only grow, along time and along a history, and each has one writer.
        assert row.lease_token >= self.tokens.get(run_id, 0)
        self.tokens[run_id] = row.lease_token
        written = [stored.token for stored in events]
        assert written == sorted(written)
        assert all(token <= row.lease_token for token in written)
        if row.lease_owner is not None:
            assert self.writers.setdefault((run_id, row.lease_token), row.lease_owner) == row.lease_owner
        # I2: last_seq counts the events, which stand without gaps.
        assert [event.seq for event in history] == list(range(1, row.last_seq + 1))
        assert history[0] == replace(started(), seq=1)
        # I3: nothing is answered or received twice.
        assert _repeated(event.message_id for event in history) == []
        assert _repeated(event.command_id for event in history if event.type in ANSWERS.values()) == []
        # Nothing comes after the end, and the end leaves nothing to do.
        ends = [event.seq for event in history if event.type.value in {state.value for state in ENDINGS}]
        assert ends == ([row.last_seq] if row.state.has_ended else [])
        unread, tasks = await self.unread(run_id), await self.harness.tasks(run_id)
        if row.state.has_ended:
            assert (row.lease_owner, row.wake_at, unread, tasks) == (None, None, [], [])
            return
        # I4: a signal that was accepted is in the history or waits.
        there = {event.message_id for event in history} | {message.message_id for message in unread}
        assert all(message.message_id in there for message in self.delivered if message.run_id == run_id)
        # I5: a result that was accepted is in the history or waits; a command that waits for one has a task.
        resolved = {event.command_id for event in history if event.type in ANSWERS.values()}
        waiting = {message.command_id for message in unread if message.kind in ANSWERS}
        finished = {attempt.key.command_id for attempt in self.finished if attempt.key.run_id == run_id}
        assert finished <= resolved | waiting
        asked = {event.command_id for event in history if event.type is EventType.ACTIVITY_SCHEDULED}
        assert asked - resolved - waiting == {task.key.command_id for task in tasks} - resolved - waiting
        assert len([message for message in unread if message.kind is MessageKind.CANCEL]) <= 1


def _message(row: InboxRow) -> Message:
    return Message(
        message_id=row.message_id,
        run_id=row.run_id,
        kind=row.kind,
        name=row.name,
        payload=row.payload,
        generation=row.generation,
        command_id=row.command_id,
        delivery_id=row.delivery_id,
    )


def _repeated(values: Iterable[object]) -> list[object]:
    return [value for value, count in Counter(values).items() if count > 1 and value is not None]
