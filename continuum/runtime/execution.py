"""One run living in this process: its mailbox, its machine, its one commit in flight.

    starting ─landed─► resident ⇄ (turn → commit in flight → landed)          offer() is True
                          │ release or final commit submitted
                          ▼
                       leaving ─landed─► gone                                offer() is False from here on
      refused, unwritable, lost lease: discarded ─► gone

An execution has no task of its own: everything happens in callbacks of the host's loop, so a parked run costs memory
and nothing else. At most one commit is in flight; what arrives meanwhile waits in the mailbox for the next turn. What a
turn caused in the world happens only after its commit has landed. Whoever handed a letter in is answered by that commit,
and if the execution is discarded first, every accepted letter goes the durable way (`Home.send_on`): nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from continuum.model.events import EVENT_FORMAT, Answer, Event, EventType
from continuum.model.messages import Message, MessageKind
from continuum.model.runs import Ending, NewRun
from continuum.model.states import RunState
from continuum.model.tasks import Attempt, ClaimedTask, NewTask, TaskKey
from continuum.model.writes import Commit, Landed, ReadMessage, Start, Unwritable, Verdict, Write
from continuum.replay.machine import Machine
from continuum.replay.matching import Drift
from continuum.replay.turns import Completed, Failed, LogLine, ScheduledActivity, Stuck, Turn

Settled = Callable[[Verdict], object]

REASON_MAX = 16_384  # characters; a reason carries a traceback at most
BLOCKED_BACKOFF_SECONDS = 10.0  # until a blocked run is tried again; code that fits may have arrived by then


class Phase(Enum):
    """Where an execution stands."""

    STARTING = "starting"
    RESIDENT = "resident"
    LEAVING = "leaving"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Letter:
    """Something handed to an execution: a message, where it came from, and who waits for it to be journaled.

    `attempt` is set for results of activities performed here, which are not in the inbox; `is_stored` tells whether the
    message is an inbox row, to be deleted by the commit that reads it.
    """

    message: Message
    is_stored: bool
    attempt: Attempt | None = None
    settled: Settled | None = None


class Home(Protocol):
    """What an execution needs from the process that it lives in."""

    def submit(self, write: Write, settled: Settled) -> None:
        """Hand a write to the group committer."""
        ...

    def soon(self, callback: Callable[[], object]) -> None:
        """Call back in the next pass of the host's loop."""
        ...

    def database_now(self) -> datetime:
        """Return the database's time."""
        ...

    def reserve(self, activity: str, queue: str) -> bool:
        """Take a slot for an attempt here, if there is one and the activity is known."""
        ...

    def unreserve(self, queue: str) -> None:
        """Give a slot back that no attempt came to use."""
        ...

    def begin(self, tasks: Sequence[ClaimedTask]) -> None:
        """Begin attempts whose slots were reserved."""
        ...

    def withdraw(self, keys: Sequence[TaskKey]) -> None:
        """Cancel running attempts that nobody waits for any more."""
        ...

    def tasks_waiting(self) -> None:
        """Nudge whoever claims tasks: some were written that are free."""
        ...

    def wake_at(self, execution: Execution, deadline: datetime) -> None:
        """Call `execution.poke()` at that time."""
        ...

    def is_idle(self, execution: Execution) -> None:
        """Take note that nothing is going on in it: it may be evicted."""
        ...

    def is_busy(self, execution: Execution) -> None:
        """Take note that something is going on in it."""
        ...

    def left(self, execution: Execution, ending: Ending | None) -> None:
        """Forget it: it has ended (with how), was given up or evicted."""
        ...

    def doubt(self, execution: Execution) -> None:
        """Find out why its commit was refused, then call `discard`."""
        ...

    def send_on(self, letter: Letter) -> None:
        """Deliver a letter the durable way: this execution will not journal it."""
        ...

    def say(self, run_id: str, lines: Sequence[LogLine]) -> None:
        """Log what the workflow said."""
        ...

    def observe(self, name: str, execution: Execution, **metadata: object) -> None:
        """Emit telemetry about the run."""
        ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What an execution knows of its run from the start; `limits` of the instance included."""

    run_id: str
    workflow: str
    version: int
    namespace: str
    generation: int
    history_max: int


class _Flight:
    """The commit that is on its way, and what it decided."""

    __slots__ = ("leased", "letters", "turn", "write")

    def __init__(
        self, write: Commit | Start, turn: Turn | None, letters: Sequence[Letter], leased: Sequence[ClaimedTask]
    ) -> None:
        self.write = write
        self.turn = turn
        self.letters = letters
        self.leased = leased


class Execution:
    """One run's life in this process."""

    __slots__ = (
        "_disk_state",
        "_disk_wake_at",
        "_flight",
        "_home",
        "_is_planned",
        "_mailbox",
        "_snapshot_seq",
        "_taken",
        "_waiting",
        "facts",
        "machine",
        "owner",
        "phase",
        "token",
    )

    def __init__(self, facts: Facts, machine: Machine | None, home: Home, *, owner: str, token: int) -> None:
        self.facts = facts
        self.machine = machine
        self.owner = owner
        self.token = token
        self.phase = Phase.STARTING
        self._home = home
        self._mailbox: list[Letter] = []
        self._taken: set[str] | None = None  # ids of messages that were read from the inbox or stand in the history
        self._flight: _Flight | None = None
        self._is_planned = False
        self._disk_state = RunState.RUNNING
        self._disk_wake_at: datetime | None = None
        self._waiting: Settled | None = None
        self._snapshot_seq = 0

    # --- coming to life -----------------------------------------------------------------------------------------------

    def begin(self, run: NewRun, arguments: bytes, *, chosen: bool, settled: Settled) -> None:
        """Run the first turn and insert the run, leased, with all that the turn asked for.

        A first turn that cannot be written (a bug in the code) inserts the run unleased instead: whoever claims it
        will block it with the reason, as for any other turn.
        """
        assert self.machine is not None
        self._waiting = settled
        now = self._home.database_now()
        turn = self.machine.begin(arguments, now)
        if isinstance(turn.outcome, Stuck):
            self._start_elsewhere(run, arguments, now, chosen=chosen)
            return
        tasks, leased = self._tasks_of(turn)
        state = _end_state(turn) or RunState.SUSPENDED
        start = Start(
            run=run,
            state=state,
            owner=self.owner,
            events=turn.events,
            tasks=tasks,
            wake_at=turn.deadline,
            chosen=chosen,
        )
        self._disk_state, self._disk_wake_at = state, turn.deadline
        self._fly(_Flight(start, turn, (), leased))

    def resume(self, history: Sequence[Event], messages: Sequence[Message], *, snapshot_seq: int) -> None:
        """Bring a claimed run to where its history left it, and go on with what has come in since.

        A cancel is honoured before any code runs, and needs none.
        """
        self.phase = Phase.RESIDENT
        self._snapshot_seq = snapshot_seq
        self._taken = {event.message_id for event in history if event.message_id is not None}
        self._mailbox = [Letter(message, is_stored=True) for message in messages if self._takes(message)]
        last_seq = history[-1].seq if history else 0
        if any(letter.message.kind is MessageKind.CANCEL for letter in self._mailbox):
            self._cancel(self._take_mailbox(), base_seq=last_seq)
            return
        assert self.machine is not None, "only a run with a cancel is resumed without its code"
        if history and max(event.format for event in history) > EVENT_FORMAT:
            self._give_back("the history was written by a newer version of Continuum")
            return
        try:
            self.machine.replay(history)
        except Drift as drift:
            self._home.observe("run.drifted", self, seq=drift.seq, expected=drift.expected, found=drift.found)
            self._block(str(drift))
            return
        if last_seq > self.facts.history_max:
            self._block(
                f"the history has {last_seq} events, more than history_max={self.facts.history_max}; "
                "raise the option, and loop with fewer events per run"
            )
            return
        self._plan()

    # --- what others hand in ------------------------------------------------------------------------------------------

    def offer(self, letter: Letter) -> bool:
        """Take a letter into the next turn; False: it must go the durable way."""
        if self.phase not in (Phase.STARTING, Phase.RESIDENT):
            return False
        self._mailbox.append(letter)
        self._plan()
        return True

    def receive(self, message: Message) -> None:
        """Take a message that stands in the inbox, once, however often it is seen there."""
        if self.phase in (Phase.STARTING, Phase.RESIDENT) and self._takes(message):
            self._mailbox.append(Letter(message, is_stored=True))
            self._plan()

    def poke(self) -> None:
        """See whether a timer is due."""
        if self.phase is Phase.RESIDENT:
            self._plan()

    # --- going away ---------------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing is going on: it may be evicted."""
        return self.phase is Phase.RESIDENT and self._flight is None and not self._mailbox and not self._is_planned

    @property
    def grown(self) -> int:
        """How many events the history has beyond the last snapshot."""
        return self._base_seq - self._snapshot_seq

    def compacted(self, seq: int) -> None:
        """Take note of a snapshot."""
        self._snapshot_seq = seq

    def evict(self, *, then: Settled | None = None) -> bool:
        """Give the lease back and leave memory, if idle; `then` hears the verdict."""
        if not self.is_idle:
            return False
        assert self.machine is not None
        self.phase = Phase.LEAVING
        self._waiting = then
        deadline = self.machine.deadline
        self._fly(_Flight(self._commit(state=RunState.SUSPENDED, wake_at=deadline, releases=True), None, (), ()))
        return True

    def discard(self, ending: Ending | None = None) -> None:
        """Give it up in memory only: its lease is lost, or is released elsewhere.

        Letters that were accepted and not journaled go the durable way; their senders are answered by that.
        """
        if self.phase is Phase.GONE:
            return
        letters = self._take_mailbox()  # those of a commit on its way wait for its verdict
        self._leave(ending)
        for letter in letters:
            if not letter.is_stored:
                self._home.send_on(letter)

    # --- turns --------------------------------------------------------------------------------------------------------

    def _takes(self, message: Message) -> bool:
        if self._taken is None:
            self._taken = set()
        if message.message_id in self._taken:
            return False
        self._taken.add(message.message_id)
        return True

    def _concerns(self, message: Message) -> bool:
        """Tell whether a message is for this generation; a result for another one is deleted unread."""
        return message.generation is None or message.generation == self.facts.generation

    @property
    def _base_seq(self) -> int:
        """The position up to which the history stands in the journal."""
        return self.machine.last_seq - self.machine.unwritten if self.machine is not None else 0

    def _take_mailbox(self) -> list[Letter]:
        letters, self._mailbox = self._mailbox, []
        return letters

    def _plan(self) -> None:
        if not self._is_planned and self._flight is None:
            self._is_planned = True
            self._home.is_busy(self)
            self._home.soon(self._turn)

    def _turn(self) -> None:
        self._is_planned = False
        if self.phase is not Phase.RESIDENT or self._flight is not None:
            return
        letters = self._take_mailbox()
        if any(letter.message.kind is MessageKind.CANCEL for letter in letters):
            self._cancel(letters, base_seq=self._base_seq)
            return
        assert self.machine is not None
        base_seq = self._base_seq
        answers = [_answer(letter.message) for letter in letters if self._concerns(letter.message)]
        turn = self.machine.turn(answers, self._home.database_now())
        if isinstance(turn.outcome, Stuck):
            self._mailbox = letters
            self._block(turn.outcome.reason, base_seq=base_seq)
            return
        self._commit_turn(turn, letters, base_seq)

    def _commit_turn(self, turn: Turn, letters: Sequence[Letter], base_seq: int) -> None:
        state, wake_at = self._disk_change(turn)
        tasks, leased = self._tasks_of(turn)
        commit = Commit(
            run_id=self.facts.run_id,
            generation=self.facts.generation,
            owner=self.owner,
            token=self.token,
            base_seq=base_seq,
            events=turn.events,
            tasks=tasks,
            resolved=turn.resolved,
            read=_read(letters),
            state=state,
            wake_at=wake_at,
        )
        if not (commit.events or commit.tasks or commit.resolved or commit.read or commit.state):
            self._rest(turn)
            return
        if state is not None:
            self._disk_state, self._disk_wake_at = state, wake_at
        self._fly(_Flight(commit, turn, letters, leased))

    def _disk_change(self, turn: Turn) -> tuple[RunState | None, datetime | None]:
        """Return the state and wake_at to write, or (None, None) where the disk already says enough.

        After every commit the disk alone must suffice: each open wait has its evidence there (a timer: `wake_at` no
        later than the earliest deadline; an activity: its task; a signal: the inbox). State and wake_at stand in the
        predicates of indexes, so a busy run leaves them alone; waking once too early costs less than a HOT update.
        """
        ended = _end_state(turn)
        if ended is not None:
            return ended, None
        if self._disk_state is not RunState.SUSPENDED:
            return RunState.SUSPENDED, turn.deadline
        if turn.deadline is not None and (self._disk_wake_at is None or turn.deadline < self._disk_wake_at):
            return RunState.SUSPENDED, turn.deadline
        return None, None

    def _tasks_of(self, turn: Turn) -> tuple[tuple[NewTask, ...], list[ClaimedTask]]:
        if not turn.scheduled:
            return (), []
        tasks, leased = [], []
        for scheduled in turn.scheduled:
            is_leased = self._home.reserve(scheduled.activity, scheduled.options.queue)
            tasks.append(
                NewTask(scheduled.command_id, scheduled.seq, scheduled.activity, scheduled.options, leased=is_leased)
            )
            if is_leased:
                leased.append(self._claimed(scheduled))
        return tuple(tasks), leased

    def _claimed(self, scheduled: ScheduledActivity) -> ClaimedTask:
        facts = self.facts
        return ClaimedTask(
            attempt=Attempt(TaskKey(facts.run_id, facts.generation, scheduled.command_id), self.owner, 1),
            workflow=facts.workflow,
            namespace=facts.namespace,
            activity=scheduled.activity,
            arguments=scheduled.arguments,
            options=scheduled.options,
            idempotency_key=scheduled.key,
        )

    def _cancel(self, letters: Sequence[Letter], *, base_seq: int) -> None:
        """End the run by an ordinary fenced commit; no workflow code runs."""
        event = Event(base_seq + 1, EventType.CANCELLED, self._home.database_now())
        commit = self._commit(base_seq=base_seq, events=(event,), read=_read(letters), state=RunState.CANCELLED)
        turn = Turn((event,), (), (), None, None)
        self.phase = Phase.LEAVING
        self._fly(_Flight(commit, turn, letters, ()))

    def _block(self, reason: str, *, base_seq: int | None = None) -> None:
        """Give the run back as blocked: nothing of the turn is written, and better code may go on from here."""
        self.phase = Phase.LEAVING
        commit = self._commit(
            base_seq=base_seq,
            state=RunState.BLOCKED,
            reason=reason.replace("\x00", "�")[:REASON_MAX],
            backoff_seconds=BLOCKED_BACKOFF_SECONDS,
            releases=True,
        )
        self._fly(_Flight(commit, None, (), ()))

    def _give_back(self, reason: str) -> None:
        """Leave the run to nodes that can serve it, after a while."""
        self._home.observe("run.unservable", self, reason=reason)
        self._block(reason)

    def _commit(
        self,
        *,
        state: RunState,
        base_seq: int | None = None,
        events: tuple[Event, ...] = (),
        read: tuple[ReadMessage, ...] = (),
        wake_at: datetime | None = None,
        releases: bool = False,
        reason: str | None = None,
        backoff_seconds: float | None = None,
    ) -> Commit:
        return Commit(
            run_id=self.facts.run_id,
            generation=self.facts.generation,
            owner=self.owner,
            token=self.token,
            base_seq=self._base_seq if base_seq is None else base_seq,
            events=events,
            read=read,
            state=state,
            wake_at=wake_at,
            releases=releases,
            reason=reason,
            backoff_seconds=backoff_seconds,
        )

    # --- the commit comes back ----------------------------------------------------------------------------------------

    def _fly(self, flight: _Flight) -> None:
        self._flight = flight
        if flight.write.state is not None and flight.write.state.has_ended:
            self.phase = Phase.LEAVING
        self._home.submit(flight.write, self._settled)

    def _settled(self, verdict: Verdict) -> None:
        flight, self._flight = self._flight, None
        assert flight is not None, "a commit is settled once"
        if self.phase is Phase.GONE:
            self._settled_too_late(flight, verdict)
        elif isinstance(verdict, Landed):
            self._landed(flight)
        elif isinstance(flight.write, Start):
            self._unreserve(flight)
            self.discard()
            self._tell(verdict)
        else:
            self._unreserve(flight)
            self._mailbox = [*flight.letters, *self._mailbox]
            if isinstance(verdict, Unwritable) and flight.write.state is not RunState.BLOCKED:
                self._block(f"the database refuses what this turn wrote: {verdict.error}", base_seq=flight.write.base_seq)
            else:
                self.phase = Phase.LEAVING
                self._home.doubt(self)

    def _settled_too_late(self, flight: _Flight, verdict: Verdict) -> None:
        """The execution was discarded while this commit was on its way: what landed, landed; the rest goes on."""
        self._unreserve(flight)
        for letter in flight.letters:
            if isinstance(verdict, Landed):
                if letter.settled is not None:
                    letter.settled(verdict)
            elif not letter.is_stored:
                self._home.send_on(letter)
        self._tell(verdict)

    def _landed(self, flight: _Flight) -> None:
        write, turn = flight.write, flight.turn
        for letter in flight.letters:
            if letter.settled is not None:
                letter.settled(Landed())
        if isinstance(write, Start) and self.phase is Phase.STARTING:
            self.phase = Phase.RESIDENT
        if turn is not None and turn.logs:
            self._home.say(self.facts.run_id, turn.logs)
        ending = _ending(self.facts.run_id, write, turn)
        if ending is not None:
            self._unreserve(flight)
            self._over(write, ending)
            return
        if isinstance(write, Commit) and write.releases:
            self._leave(None)
            self._tell(Landed())
            return
        self._effects(flight)
        self._tell(Landed())
        if turn is not None:
            self._rest(turn)

    def _over(self, write: Commit | Start, ending: Ending) -> None:
        """The run has ended, or is blocked: what is left in the mailbox goes the durable way and is answered there."""
        if isinstance(write, Start):
            self._home.observe("run.started", self)
        self._home.observe(f"run.{ending.state.value}", self, reason=ending.reason)
        if self.machine is not None and self.machine.open_activities and ending.state.has_ended:
            facts, commands = self.facts, sorted(self.machine.open_activities)
            self._home.withdraw([TaskKey(facts.run_id, facts.generation, command) for command in commands])
        self.discard(ending)
        self._tell(Landed())

    def _effects(self, flight: _Flight) -> None:
        turn = flight.turn
        if isinstance(flight.write, Start):
            self._home.observe("run.started", self)
        if turn is None:
            return
        if turn.resolved:
            facts = self.facts
            self._home.withdraw([TaskKey(facts.run_id, facts.generation, command) for command in turn.resolved])
        if flight.leased:
            self._home.begin(flight.leased)
        if len(flight.leased) < len(flight.write.tasks):
            self._home.tasks_waiting()

    def _rest(self, turn: Turn) -> None:
        """Nothing is in flight: take the next letters, or wait for the next timer."""
        if self._mailbox:
            self._plan()
            return
        if turn.deadline is not None:
            self._home.wake_at(self, turn.deadline)
        self._home.is_idle(self)

    def _unreserve(self, flight: _Flight) -> None:
        for task in flight.leased:
            self._home.unreserve(task.options.queue)

    def _leave(self, ending: Ending | None) -> None:
        self.phase = Phase.GONE
        if self.machine is not None:
            self.machine.close()
        self._home.left(self, ending)

    def _tell(self, verdict: Verdict) -> None:
        settled, self._waiting = self._waiting, None
        if settled is not None:
            settled(verdict)

    def _start_elsewhere(self, run: NewRun, arguments: bytes, now: datetime, *, chosen: bool) -> None:
        settled, self._waiting = self._waiting, None
        self._leave(None)
        self._home.submit(pending_start(run, arguments, now, chosen=chosen), settled or (lambda _verdict: None))


def pending_start(
    run: NewRun, arguments: bytes, now: datetime, *, chosen: bool, start_at: datetime | None = None
) -> Start:
    """Return the write that inserts a run for whoever claims it, at once or at `start_at`."""
    event = Event(1, EventType.STARTED, now, name=run.workflow, payload=arguments)
    return Start(run=run, state=RunState.PENDING, owner=None, events=(event,), wake_at=start_at, chosen=chosen)


_ANSWERS = {
    MessageKind.SIGNAL: EventType.SIGNAL_RECEIVED,
    MessageKind.ACTIVITY_COMPLETED: EventType.ACTIVITY_COMPLETED,
    MessageKind.ACTIVITY_FAILED: EventType.ACTIVITY_FAILED,
}


def _answer(message: Message) -> Answer:
    return Answer(_ANSWERS[message.kind], message.command_id, message.message_id, message.name, message.payload)


def _read(letters: Sequence[Letter]) -> tuple[ReadMessage, ...]:
    return tuple(
        ReadMessage(letter.message.message_id, tombstone=letter.message.delivery_id is not None)
        for letter in letters
        if letter.is_stored
    )


def _end_state(turn: Turn) -> RunState | None:
    match turn.outcome:
        case Completed():
            return RunState.COMPLETED
        case Failed():
            return RunState.FAILED
        case _:
            return None


def _ending(run_id: str, write: Commit | Start, turn: Turn | None) -> Ending | None:
    state = write.state
    if state is None:
        return None
    if state is RunState.BLOCKED:
        return Ending(run_id, state, reason=write.reason if isinstance(write, Commit) else None)
    if not state.has_ended:
        return None
    match turn.outcome if turn is not None else None:
        case Completed(payload):
            return Ending(run_id, state, payload)
        case Failed(failure):
            return Ending(run_id, state, failure.encode())
        case _:
            return Ending(run_id, state)
