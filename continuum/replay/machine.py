# long: one state machine; what code may ask of it stands in `asking`
"""The machine: one run's history in, its turns out.

A history is a sequence of answers, each followed by the commands that it caused. The machine delivers one answer at a
time and lets the loop run until it is quiescent, on replay and live alike; so the order of events alone decides what
`gather`, `wait` and `as_completed` decide, and one answer per commit or fifty make no difference. The time of an answer
is the time of everything that happens because of it.

    ready ──begin / replay──► quiescent ──turn──► quiescent … ──► over (outcome)
      any ──close──► closed                replay may raise Drift: then it is halted, and only `close` is left
      quiescent ──cancel_requested──► the code is shut; compensations run on a loop of their own ──► over (Cancelled)

Nothing here waits, reads a clock or draws a number that the run id does not determine.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from continuum.model.events import COMMANDS, ENDINGS, PENDING, Answer, Event, EventType
from continuum.model.failure import Failure
from continuum.replay.asking import DEPTH_MAX, NO_SIGNALS, NO_TIMERS, RAISED, Asking
from continuum.replay.endings import judged, same_ending
from continuum.replay.family import ChildEnding
from continuum.replay.loop import NotQuiescent
from continuum.replay.saga import Debt
from continuum.replay.signals import Signal
from continuum.replay.turns import Cancelled, Completed, Continued, Errand, Failed, Outcome, Stuck, Turn, Undone

__all__ = ["DEPTH_MAX", "RAISED", "Machine"]


class Machine(Asking):
    """Replays one run's workflow and drives it on."""

    __slots__ = ()

    # --- what the execution calls -------------------------------------------------------------------------------------

    def begin(self, arguments: bytes, at: datetime) -> Turn:
        """Run a new workflow's first turn."""
        return self.turn((Answer(EventType.STARTED, name=self.info.workflow, payload=arguments),), at)

    def replay(self, history: Sequence[Event]) -> None:
        """Bring the workflow to where its history left it.

        Commands beyond the journaled ones (code that grew at its end) are kept for the next turn.

        Raises:
            Drift: the code does not fit; the machine is halted.
        """
        self._tape.load(history)
        self._is_silent = True
        while self._tape.is_replaying and self._stuck is None:
            event = self._tape.ahead
            if event.type in COMMANDS or event.type in ENDINGS:
                raise self._drifted(event, "nothing more of the code")
            self._tape.step()
            if not self.expects(event):
                raise self._drifted(event, "no such command open")
            self._deliver(event, event.at)
            if self._drift is not None:
                raise self._drift
        self._tape.load(())
        self._is_silent = False
        if not self._tape.unwritten:  # else code has grown at its end, and what it sets there is new with it
            self._attributes = None
        self._resolved = None  # what history withdrew, its own commits have deleted

    def turn(self, answers: Iterable[Answer], at: datetime) -> Turn:
        """Deliver answers, then the timers that are due, and return everything that this changed.

        Answers to commands that are resolved or withdrawn by then are dropped without a trace. Once the workflow has
        ended, nothing more is delivered; if it continues as new, signals go with it.
        """
        at = max(at, self.now)
        if self._is_held:
            answers = self._after_begun(answers)
        for answer in answers:
            if self._is_over:
                self._keep(answer)
            elif self.expects(answer):
                self._journal(answer, at)
                self._deliver(answer, at)
        while not self._is_over and (timer := self._timers.due(at)) is not None:
            self._fired = self._fired or []
            self._fired.append(self._timers.deadline or at)
            answer = Answer(EventType.TIMER_FIRED, command_id=timer.command_id)
            self._journal(answer, at)
            self._deliver(answer, at)
        return self._take_turn()

    def expects(self, answer: Answer | Event) -> bool:
        """Tell whether an answer can still be delivered."""
        match answer.type:
            case EventType.ACTIVITY_COMPLETED | EventType.ACTIVITY_FAILED:
                return answer.command_id in self._open
            case EventType.TIMER_FIRED:
                return answer.command_id in self._timers
            case EventType.STARTED:
                return self._main is None
            case EventType.BEGUN:
                return self._is_held
            case EventType.CHILD_COMPLETED | EventType.CHILD_FAILED | EventType.CHILD_CANCELLED:
                return self._family.awaited(run_id=answer.name, command_id=answer.command_id) is not None
            case EventType.MESSAGE_ANSWERED:
                return self._errands is not None and answer.command_id in self._errands
            case EventType.CANCEL_REQUESTED:
                return self._main is not None and not self._is_cancelling
            case _:  # a signal, or a debt
                return self._main is not None

    @property
    def deadline(self) -> datetime | None:
        """The earliest open timer."""
        return self._timers.deadline

    @property
    def open_activities(self) -> frozenset[int]:
        """The commands of activities that are not answered yet."""
        return frozenset(self._open)

    @property
    def open_errands(self) -> tuple[Errand, ...]:
        """The messages to other runs that history says were sent, without saying what came of them."""
        new = self._new_errands or ()
        return tuple(errand for errand, _ in (self._errands or {}).values() if errand not in new)

    @property
    def has_more(self) -> bool:
        """Whether replay found the code asking for more than the journal holds."""
        return self._tape.unwritten > 0 or self._is_over

    @property
    def stuck(self) -> str | None:
        """Why the code must be mended before the run can go on, if it must."""
        return self._stuck

    @property
    def is_cancelling(self) -> bool:
        """Whether it was cancelled and undoes what it owes."""
        return self._is_cancelling

    @property
    def patches(self) -> dict[str, bool]:
        """Which changes of its code the run takes, as far as it was asked."""
        return {str(name): is_taken for name, is_taken in self._tape.patches.items()}

    @property
    def last_seq(self) -> int:
        """The position of the last event, journaled or not."""
        return self._tape.last_seq

    @property
    def unwritten(self) -> int:
        """How many events replay added beyond the journaled ones; the next turn carries them."""
        return self._tape.unwritten

    @property
    def waits_for(self) -> tuple[str, ...]:
        """The names of the signals that are waited for."""
        return self._signals.awaited

    @property
    def is_silent(self) -> bool:
        """Whether what the code says now was said before (it is replayed), or concerns nobody (it is given up)."""
        return self._is_silent or self._loop.is_shut

    def keeps_signal(self, message_id: str | None) -> bool:
        """Tell whether a signal was received and not taken by the code."""
        return any(signal.message_id == message_id for signal in self._signals.unconsumed)

    def close(self) -> None:
        """Give the workflow up: its `finally:` blocks run now, and nothing that they try has an effect."""
        self._loop.shut()
        self._open.clear()
        self._forget_waits()
        self._main = None

    # --- inside -------------------------------------------------------------------------------------------------------

    @property
    def _is_over(self) -> bool:
        return self.outcome is not None or self._stuck is not None

    def _after_begun(self, answers: Iterable[Answer]) -> tuple[Answer, ...]:
        """Let the code begin first, unless it is cancelled before it did."""
        answers = tuple(answers)
        if answers and answers[0].type is EventType.CANCEL_REQUESTED:
            return answers
        return Answer(EventType.BEGUN), *answers

    def _keep(self, answer: Answer) -> None:
        if isinstance(self.outcome, Continued) and answer.type is EventType.SIGNAL_RECEIVED:
            self._mail().receive(Signal(answer.name or "", answer.payload, answer.message_id))

    def _journal(self, answer: Answer, at: datetime) -> None:
        command_id = answer.command_id
        if answer.type in _ENDINGS_OF_CHILDREN:
            child = self._family.awaited(run_id=answer.name, command_id=None)
            command_id = None if child is None else child.command_id
        self._tape.add(answer.type, at, command_id, answer.message_id, answer.name, answer.payload)
        if answer.type in _RESULTS and answer.command_id is not None:
            self._resolve(answer.command_id)

    def _deliver(self, answer: Answer | Event, at: datetime) -> None:
        self.now = at
        self._loop.now_seconds = max(at.timestamp(), self._loop.now_seconds)
        match answer.type:
            case EventType.STARTED:
                self._start(answer.payload or b"{}")
                self._is_held = isinstance(answer, Event) and answer.key == PENDING
            case EventType.BEGUN:
                self._is_held = False
            case EventType.ACTIVITY_COMPLETED:
                self._answer(answer.command_id, answer.payload or b"null")
            case EventType.ACTIVITY_FAILED:
                self._answer(answer.command_id, Failure.decode(answer.payload or b"{}"))
            case EventType.TIMER_FIRED:
                self._loop.fire(self._timers.pop(answer.command_id or 0))
            case EventType.CHILD_COMPLETED | EventType.CHILD_FAILED | EventType.CHILD_CANCELLED:
                child = self._family.awaited(run_id=answer.name, command_id=answer.command_id)
                assert child is not None, "it was expected"
                self._family.ended(child, ChildEnding(answer.type, answer.payload))
            case EventType.MESSAGE_ANSWERED:
                self._answer_errand(answer)
            case EventType.CANCEL_REQUESTED:
                self._cancel()
            case EventType.COMPENSATION_OWED:
                self._owe(Debt.decode(answer.name or "", answer.payload or b""))
            case _:  # a signal
                self._mail().receive(Signal(answer.name or "", answer.payload, answer.message_id))
        self._drive()

    def _start(self, arguments: bytes) -> None:
        try:
            coroutine = self._body.open(arguments)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the code that must be mended
            self.block(f"the journaled input cannot be read by this code: {error}")
            return
        self._main = self._loop.create_task(coroutine, name="workflow", context=contextvars.Context())

    def _answer(self, command_id: int | None, value: bytes | Failure) -> None:
        command_id = command_id or 0
        future = self._open.pop(command_id)
        if not future.done():
            future.set_result(value)
        if not self._debts.is_blank:
            if not isinstance(value, Failure):
                self._debts.completed(command_id, value)
            debt = self._debts.undone(command_id)
            if debt is not None and not self._is_silent:
                failure = value if isinstance(value, Failure) else None
                self._undone = self._undone or []
                self._undone.append(Undone(command_id, debt.compensation, debt.activity, failure))

    def _answer_errand(self, answer: Answer | Event) -> None:
        _, future = (self._errands or {}).pop(answer.command_id or 0)
        if not future.done():
            payload = answer.payload or b"null"
            future.set_result(Failure.decode(payload) if answer.name == RAISED else payload)

    def _cancel(self) -> None:
        """Shut the code, and undo what is owed in its place: on a loop of its own, for the code's own is closed."""
        counted, was_silent, self._is_silent = self._commands, self._is_silent, True
        self._loop.shut()
        self._commands, self._is_silent = counted, was_silent  # whatever `finally:` blocks tried
        self._forget_waits()
        self._errands = self._new_errands = None
        self._loop = self._new_loop()
        self._loop.now_seconds = self.now.timestamp()
        undoing = self._debts.in_progress
        for command_id in [open_one for open_one in self._open if open_one not in undoing]:
            del self._open[command_id]
            self._resolve(command_id)
        for command_id, debt in undoing.items():  # begun by the code, and waited for by us
            self._open[command_id] = asyncio.Future(loop=self._loop)
            debt.answer = self._open[command_id]
        self._is_cancelling, self._is_held = True, False
        self._main = self._loop.create_task(self._undo_all(), name="compensation", context=contextvars.Context())

    async def _undo_all(self) -> None:
        for debt in self._debts.newest_first():
            await self.undo(debt)  # one that fails is in the history, and the others are undone all the same

    def _forget_waits(self) -> None:
        self._timers = NO_TIMERS
        if self._signals is not NO_SIGNALS:
            self._signals.clear()

    def _drive(self) -> None:
        if self._main is None or self._is_held:  # its input could not be read, or its time has not begun
            return
        try:
            self._loop.drive(self._main)
        except NotQuiescent:
            self.block("the workflow never waits: it kept itself busy without commanding or awaiting anything")
        except SystemExit as error:
            self.block(f"the workflow tried to end the process: SystemExit({error.code})")
        if self._main.done() and not self._loop.is_halted:
            self._conclude(self._main)

    def _conclude(self, main: asyncio.Task[Any]) -> None:
        outcome = Cancelled() if self._is_cancelling else judged(main, self._body, self._payload_max)
        if self._continuing is not None and outcome != self._continuing:
            outcome = Stuck(
                "the workflow called continue_as_new and ended otherwise: its BaseException must get through, and a "
                "TaskGroup wraps what leaves its block, so call it behind one"
            )
        if isinstance(outcome, Stuck):
            self.block(outcome.reason)
            return
        ending, payload = _ending(outcome)
        if self._tape.is_replaying:
            expected = self._tape.ahead
            if expected.type is not ending or not same_ending(payload, expected):
                self._drifted(expected, f"the workflow {ending.value} with {payload[:200]!r}")
                return
            self._tape.step()
            if self._tape.is_replaying:
                self._drifted(self._tape.ahead, "the end of the workflow")
                return
        else:
            self._tape.add(ending, self.now, payload=payload)
        self.outcome = outcome

    def _take_turn(self) -> Turn:
        outcome: Outcome | None = Stuck(self._stuck) if self._stuck is not None else self.outcome
        is_open = outcome is None
        turn = Turn(
            self._tape.take(),
            tuple(self._scheduled.values()) if self._scheduled and is_open else (),
            tuple(self._resolved) if self._resolved else (),
            self.deadline if is_open else None,
            outcome,
            tuple(self._logs) if self._logs else (),
            tuple(self._new_children) if self._new_children else (),
            tuple(self._new_errands) if self._new_errands else (),
            bool(self._errands) and is_open,
            self._is_cancelling and is_open,
            self._carried(outcome) if isinstance(outcome, Continued) else (),
            self._attributes,
            tuple(self._fired) if self._fired else (),
            tuple(self._undone) if self._undone else (),
        )
        self._attributes = self._fired = self._undone = None
        self._scheduled = self._resolved = self._logs = self._new_children = self._new_errands = None
        return turn

    def _carried(self, outcome: Continued) -> tuple[Event, ...]:
        """Return the first events of the next generation: its input, and what this one leaves to it."""
        events = [
            Event(1, EventType.STARTED, self.now, name=self.info.workflow, payload=outcome.arguments, key=PENDING)
        ]
        for debt in self._debts.oldest_first():
            seq = len(events) + 1
            events.append(
                Event(seq, EventType.COMPENSATION_OWED, self.now, name=debt.compensation, payload=debt.encode())
            )
        for signal in self._signals.unconsumed:
            seq, received = len(events) + 1, EventType.SIGNAL_RECEIVED
            events.append(
                Event(seq, received, self.now, message_id=signal.message_id, name=signal.name, payload=signal.payload)
            )
        return tuple(events)


_RESULTS = frozenset({EventType.ACTIVITY_COMPLETED, EventType.ACTIVITY_FAILED})
_ENDINGS_OF_CHILDREN = frozenset({EventType.CHILD_COMPLETED, EventType.CHILD_FAILED, EventType.CHILD_CANCELLED})


def _ending(outcome: Outcome) -> tuple[EventType, bytes]:
    match outcome:
        case Completed(payload):
            return EventType.COMPLETED, payload
        case Failed(failure):
            return EventType.FAILED, failure.encode()
        case Continued(_, arguments):
            return EventType.CONTINUED, arguments
        case _:
            return EventType.CANCELLED, b"null"
