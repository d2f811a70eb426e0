# long: the life of one run in this process, whose states only make sense side by side
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

from collections.abc import Sequence
from datetime import datetime
from time import perf_counter

from msgspec.structs import replace

from continuum.journal.port import LoadedRun
from continuum.model.events import EVENT_FORMAT
from continuum.model.messages import Message, MessageKind
from continuum.model.runs import Ending, NewRun
from continuum.model.states import RunState
from continuum.model.tasks import ClaimedTask, NewTask
from continuum.model.writes import LANDED, Commit, Landed, NextGeneration, Start, Unwritable, Verdict
from continuum.replay.endings import report
from continuum.replay.machine import Machine
from continuum.replay.matching import Drift
from continuum.replay.turns import Continued, Errand, RunInfo, Turn
from continuum.runtime.decisions import answers_to, ending_of, pending_start, too_long, why_stuck
from continuum.runtime.flight import Flight, Phase
from continuum.runtime.home import Home, Letter, Settled
from continuum.runtime.ledger import Ledger
from continuum.telemetry import heard

STARTING, RESIDENT, LEAVING, GONE = Phase  # asked for in every turn, and slow to look up on an Enum


class Execution:
    """One run's life in this process."""

    __slots__ = (
        "_errands",
        "_flight",
        "_home",
        "_is_planned",
        "_ledger",
        "_mailbox",
        "_repeated",
        "_resumed",
        "_snapshot_seq",
        "_taken",
        "_waiting",
        "_written",
        "facts",
        "machine",
        "phase",
    )

    def __init__(
        self, facts: RunInfo, machine: Machine | None, home: Home[Execution], *, owner: str, token: int
    ) -> None:
        self.facts = facts
        self.machine = machine
        self._ledger = Ledger(facts, owner=owner, token=token)
        self.phase = STARTING
        self._home = home
        self._mailbox: list[Letter] | None = None  # made when it is needed: most runs wait
        self._taken: set[str] | None = None  # ids of messages that were read from the inbox or stand in the history
        self._repeated: dict[str, Message] | None = None  # read before, and in the inbox again: to be deleted
        self._errands = 0  # messages of its own to other runs that are on their way
        self._flight: Flight | None = None
        self._is_planned = False
        self._waiting: Settled | None = None
        self._snapshot_seq = 0
        self._resumed: tuple[int, datetime] | None = None  # where its history ended when it came here, and since when
        self._written = 0  # the position up to which the history stands in the journal

    @property
    def owner(self) -> str:
        """The owner under which it was leased."""
        return self._ledger.owner

    @property
    def token(self) -> int:
        """The lease's token."""
        return self._ledger.token

    # --- coming to life -----------------------------------------------------------------------------------------------

    def begin(self, run: NewRun, arguments: bytes, *, chosen: bool, settled: Settled) -> None:
        """Run the first turn and insert the run, leased, with all that the turn asked for.

        A first turn that cannot be written (a bug in the code) inserts the run unleased instead: whoever claims it
        will block it with the reason, as for any other turn. So does one that continues as new: its generation must
        be there before the next one is.
        """
        assert self.machine is not None
        self._waiting = settled
        now = self.machine.info.started_at
        if self.phase is GONE:  # the owner row was lost between the call and now
            self._start_elsewhere(run, arguments, now, chosen=chosen)
            return
        turn = self.machine.begin(arguments, now)
        if why_stuck(turn, self._written, self._home.history_max) is not None or isinstance(turn.outcome, Continued):
            self._start_elsewhere(run, arguments, now, chosen=chosen)
            return
        tasks, leased = self._tasks_of(turn)
        start = self._ledger.start(run, turn, tasks, chosen=chosen)
        self._fly(Flight(start, turn, (), leased))

    def resume(self, loaded: LoadedRun) -> None:
        """Bring a claimed run to where its history left it, and go on with what has come in since.

        A cancel is honoured before any code runs, and needs none.
        """
        if self.phase is GONE:  # its lease was lost between the claim and now
            return
        history = loaded.history
        self.phase = RESIDENT
        self._snapshot_seq = loaded.snapshot_seq
        self._taken = {event.message_id for event in history if event.message_id is not None}
        early = self._take_mailbox()  # handed in since the claim
        self._repeated = {
            message.message_id: message for message in loaded.messages if message.message_id in self._taken
        }
        letters = [Letter(message, is_stored=True) for message in loaded.messages if self._takes(message)]
        letters += [letter for letter in early if not letter.is_stored or self._takes(letter.message)]
        self._written = history[-1].seq if history else 0
        self._resumed = (self._written, history[-1].at) if history else None
        if any(letter.message.kind is MessageKind.CANCEL for letter in letters):
            self._cancel(letters)
            return
        self._mailbox = letters
        if loaded.unreadable is not None:
            self._block(loaded.unreadable)
            return
        assert self.machine is not None, "only a run with a cancel is resumed without its code"
        if history and max(event.format for event in history) > EVENT_FORMAT:
            self._give_back("the history was written by a newer version of Continuum")
            return
        try:
            began = perf_counter()
            self.machine.replay(history)
        except Drift as drift:
            self._home.tell("run.drifted", self, seq=drift.seq, expected=drift.expected, found=drift.found)
            self._block(str(drift))
            return
        except Exception as error:  # noqa: BLE001  # whatever it is, the lease must not stay with a run that cannot move
            self._block(f"its history cannot be replayed here: {report(error)}")
            return
        if "run.replayed" in heard:
            took = {"events": len(history), "duration_seconds": perf_counter() - began}
            self._home.tell("run.replayed", self, took)
        if self._written > self._home.history_max:
            self._block(too_long(self._home.history_max))
            return
        self._run_errands(self.machine.open_errands)
        self._plan()

    # --- what others hand in ------------------------------------------------------------------------------------------

    def offer(self, letter: Letter) -> bool:
        """Take a letter into the next turn; False: it must go the durable way."""
        if self.phase not in (STARTING, RESIDENT):
            return False
        self._put(letter)
        self._plan()
        return True

    def receive(self, message: Message) -> None:
        """Take a message that stands in the inbox, once, however often it is seen there."""
        if self.phase not in (STARTING, RESIDENT):
            return
        if self._takes(message):
            self._put(Letter(message, is_stored=True))
            self._plan()
        elif not self._is_underway(message):
            self._repeat(message)

    def _is_underway(self, message: Message) -> bool:
        letters = (*(self._mailbox or ()), *(self._flight.letters if self._flight is not None else ()))
        return any(letter.message.message_id == message.message_id for letter in letters)

    def _repeat(self, message: Message) -> None:
        """Delete what was posted again by a sender who had lost the answer, or a later generation would read it anew.

        One sight may be a scan's that began before the deleting commit: that waits for the next commit. Two are sure.
        """
        self._repeated = self._repeated or {}
        is_sure = message.message_id in self._repeated
        self._repeated[message.message_id] = message
        if is_sure:
            self._plan()

    def _take_repeated(self) -> list[Letter]:
        repeated, self._repeated = self._repeated or {}, None
        return [Letter(message, is_stored=True) for message in repeated.values()]

    def poke(self) -> None:
        """See whether a timer is due."""
        if self.phase is RESIDENT:
            self._plan()

    # --- going away ---------------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing is going on: it may be evicted."""
        is_still = self._flight is None and not self._mailbox and not self._is_planned and not self._errands
        return self.phase is RESIDENT and is_still

    @property
    def grown(self) -> int:
        """How many events the history has beyond the last snapshot."""
        return self._written - self._snapshot_seq

    def compacted(self, seq: int | None) -> None:
        """Take note of a snapshot; None: that none can be made up to here."""
        self._snapshot_seq = self._written if seq is None else seq

    def evict(self, *, then: Settled | None = None) -> bool:
        """Give the lease back and leave memory, if idle; `then` hears the verdict."""
        if not self.is_idle:
            return False
        assert self.machine is not None
        self.phase = LEAVING
        self._waiting = then
        commit = self._ledger.release(self.machine, base_seq=self._written)
        self._fly(Flight(commit, None, (), ()))
        return True

    def discard(self, ending: Ending | None = None) -> None:
        """Give it up in memory only: its lease is lost, or is released elsewhere.

        Letters that were accepted and not journaled go the durable way; their senders are answered by that.
        """
        if self.phase is GONE:
            return
        letters = self._take_mailbox()  # those of a commit on its way wait for its verdict
        self._leave(ending)
        for letter in letters:
            if not letter.is_stored:
                self._home.send_on(letter)

    # --- turns --------------------------------------------------------------------------------------------------------

    def _takes(self, message: Message) -> bool:
        self._taken = self._taken or set()
        if message.message_id in self._taken:
            return False
        self._taken.add(message.message_id)
        return True

    def _take_mailbox(self) -> list[Letter]:
        letters, self._mailbox = self._mailbox, None
        return letters or []

    def _put(self, letter: Letter) -> None:
        if self._mailbox is None:
            self._mailbox = [letter]
        else:
            self._mailbox.append(letter)

    def _plan(self) -> None:
        if not self._is_planned and self._flight is None:
            self._is_planned = True
            self._home.is_busy(self)
            self._home.soon(self._turn)

    def _turn(self) -> None:
        self._is_planned = False
        if self.phase is not RESIDENT or self._flight is not None:
            return
        letters = self._take_mailbox()
        if any(letter.message.kind is MessageKind.CANCEL for letter in letters):
            self._cancel(letters)
            return
        assert self.machine is not None
        answers = answers_to(letters, self.facts.generation)
        try:
            turn = self.machine.turn(answers, self._home.database_now())
        except Exception as error:  # noqa: BLE001  # as for a replay
            self._mailbox = letters
            self._block(f"what came in cannot be read here: {report(error)}")
            return
        stuck = why_stuck(turn, self._written, self._home.history_max)
        if stuck is not None:
            self._mailbox = letters
            self._block(stuck)
            return
        self._commit_turn(turn, letters)

    def _commit_turn(self, turn: Turn, letters: Sequence[Letter]) -> None:
        if self._repeated:
            letters = [*letters, *self._take_repeated()]
        if isinstance(turn.outcome, Continued):
            # A cancel goes first in a turn; it is late if replay had found the code continuing before there was a turn.
            late = [letter for letter in letters if letter.message.kind is MessageKind.COMPENSATE]
            letters = [letter for letter in letters if letter not in late]
            self._mailbox = [*late, *(self._mailbox or ())]
            ends = self._ledger.continuation(turn, turn.outcome, letters, base_seq=self._written)
            self._fly(Flight(ends, turn, letters, ()))
            return
        tasks, leased = self._tasks_of(turn)
        commit = self._ledger.of_turn(turn, tasks, letters, base_seq=self._written)
        if commit is None:
            _answer(letters)  # all of it was for commands that are over: there is nothing to write
            self._rest(turn)
        else:
            self._fly(Flight(commit, turn, letters, leased))

    def _tasks_of(self, turn: Turn) -> tuple[tuple[NewTask, ...], list[ClaimedTask]]:
        """Return the tasks of a turn, and those of them that will be begun here: their slots are taken now."""
        if not turn.scheduled:
            return (), []
        tasks: list[NewTask] = []
        leased: list[ClaimedTask] = []
        for wanted in turn.scheduled:
            is_leased = self._home.reserve(wanted.activity, wanted.options.queue)
            tasks.append(NewTask(wanted.command_id, wanted.seq, wanted.activity, wanted.options, leased=is_leased))
            if is_leased:
                leased.append(self._ledger.claimed(wanted, turn.events[-1].at if heard else None))
        return tuple(tasks), leased

    def _cancel(self, letters: Sequence[Letter]) -> None:
        """End the run by an ordinary fenced commit; no workflow code runs."""
        commit = self._ledger.cancellation(self._home.database_now(), letters, base_seq=self._written)
        turn = Turn(commit.events, (), (), None, None)
        self.phase = LEAVING
        self._fly(Flight(commit, turn, letters, ()))

    def _block(self, reason: str) -> None:
        """Give the run back as blocked: nothing of the turn is written, and better code may go on from here."""
        self.phase = LEAVING
        commit = self._ledger.block(reason, base_seq=self._written, stood_seconds=self._stood_seconds)
        self._fly(Flight(commit, None, (), ()))

    @property
    def _stood_seconds(self) -> float:
        """How long the run has stood still, if it has not moved here."""
        if self._resumed is None or self._written > self._resumed[0]:
            return 0.0
        return (self._home.database_now() - self._resumed[1]).total_seconds()

    def _give_back(self, reason: str) -> None:
        """Leave the run to nodes that can serve it, after a while."""
        self._home.tell("run.unservable", self, reason=reason)
        self._block(reason)

    # --- the commit comes back ----------------------------------------------------------------------------------------

    def _fly(self, flight: Flight) -> None:
        self._flight = flight
        if flight.write.state is not None and flight.write.state.has_ended:
            self.phase = LEAVING
        self._home.submit(flight.write, self._settled)

    def _settled(self, verdict: Verdict) -> None:
        flight, self._flight = self._flight, None
        assert flight is not None, "a commit is settled once"
        if self.phase is GONE:
            self._settled_too_late(flight, verdict)
        elif isinstance(verdict, Landed):
            self._landed(flight)
        elif isinstance(flight.write, Start):
            self._unreserve(flight)
            self.discard()
            self._tell(verdict)
        else:
            self._unreserve(flight)
            self._mailbox = [*flight.letters, *(self._mailbox or ())]
            if isinstance(verdict, Unwritable) and flight.write.state is not RunState.BLOCKED:
                self._block(f"the database refuses what this turn wrote: {verdict.error}")
            else:
                self.phase = LEAVING
                self._home.doubt(self)

    def _settled_too_late(self, flight: Flight, verdict: Verdict) -> None:
        """Answer a commit that was on its way when the execution was discarded: what landed, landed; the rest goes on."""
        self._unreserve(flight)
        if isinstance(verdict, Landed):
            if heard:
                self._home.landed(self, flight.write, flight.turn, flight.letters)
            if flight.turn is not None and flight.turn.logs:
                self._home.say(self.facts, flight.turn.logs)
        for letter in flight.letters:
            if isinstance(verdict, Landed):
                if letter.settled is not None:
                    letter.settled(verdict)
            elif not letter.is_stored:
                self._home.send_on(letter)
        self._tell(verdict)

    def _landed(self, flight: Flight) -> None:
        write, turn = flight.write, flight.turn
        self._written += len(write.events)
        if heard:
            self._home.landed(self, write, turn, flight.letters)
        _answer(flight.letters)
        if isinstance(write, Start) and self.phase is STARTING:
            self.phase = RESIDENT
        if turn is not None and turn.logs:
            self._home.say(self.facts, turn.logs)
        ending = ending_of(self.facts.run_id, write, turn)
        if ending is not None:
            self._unreserve(flight)
            self._over(write, turn, ending)
            return
        if isinstance(write, Commit) and write.releases:
            self._leave(None)
            self._tell(LANDED)
            return
        if isinstance(write, Commit) and write.continues is not None:
            if write.children:
                self._home.runs_waiting()
            self._go_on_as(write.continues)
            return
        self._effects(flight)
        self._tell(LANDED)
        if turn is not None:
            self._rest(turn)

    def _over(self, write: Commit | Start, turn: Turn | None, ending: Ending) -> None:
        """Leave an ended or blocked run: what is left in the mailbox goes the durable way and is answered there."""
        if self.machine is not None and turn is not None and ending.state.has_ended:
            unwanted = {*turn.resolved, *self.machine.open_activities}
            if unwanted:
                self._home.withdraw(self._ledger.keys(sorted(unwanted)))
        if write.children:
            self._home.runs_waiting()
        if isinstance(write, Commit):
            if write.posts:
                self._home.posted(write.posts)
            if write.cascade is not None:
                self._home.cascaded(self)
        self.discard(ending)
        self._tell(LANDED)

    def _go_on_as(self, opened: NextGeneration) -> None:
        """Begin the next generation: another machine with a history of its own, under the same lease."""
        assert self.machine is not None
        if unwanted := sorted(self.machine.open_activities):
            self._home.withdraw(self._ledger.keys(unwanted))
        self.machine.close()
        self.facts = replace(self.facts, generation=self.facts.generation + 1, version=opened.version)
        self._ledger.opened(self.facts)
        self._written, self._snapshot_seq = len(opened.events), 0
        self.machine = self._home.machine_of(self.facts)
        if self.machine is None:
            self._give_back(f"no code for workflow {self.facts.workflow!r} v{opened.version} here")
            return
        self.machine.replay(opened.events)
        self._plan()

    def _run_errands(self, errands: Sequence[Errand]) -> None:
        """Send messages to other runs; what comes of each is a letter to this one."""
        for errand in errands:
            self._errands += 1
            self._home.run_errand(self, errand)

    def answered(self, message: Message) -> None:
        """Take what came of a message to another run; if that is too late here, whoever has the run takes it."""
        self._errands -= 1
        letter = Letter(message, is_stored=False)
        if not self.offer(letter):
            self._home.send_on(letter)

    def _effects(self, flight: Flight) -> None:
        turn = flight.turn
        if turn is None:
            return
        if turn.children:
            self._home.runs_waiting()
        if turn.errands:
            self._run_errands(turn.errands)
        if turn.resolved:
            self._home.withdraw(self._ledger.keys(turn.resolved))
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

    def _unreserve(self, flight: Flight) -> None:
        for task in flight.leased:
            self._home.unreserve(task.activity, task.options.queue)

    def _leave(self, ending: Ending | None) -> None:
        self.phase = GONE
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

        def put(verdict: Verdict) -> None:
            if isinstance(verdict, Landed):
                self._home.enqueued(run)
                self._home.runs_waiting()
            if settled is not None:
                settled(verdict)

        self._home.submit(pending_start(run, arguments, now, chosen=chosen), put)


def _answer(letters: Sequence[Letter]) -> None:
    """Tell senders that their letters were read."""
    for letter in letters:
        if letter.settled is not None:
            letter.settled(LANDED)
