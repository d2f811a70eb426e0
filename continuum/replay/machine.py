# long: one state machine; its three faces (execution, code, loop) share all of its state
"""The machine: one run's history in, its turns out.

A history is a sequence of answers, each followed by the commands that it caused. The machine delivers one answer at a
time and lets the loop run until it is quiescent, on replay and live alike; so the order of events alone decides what
`gather`, `wait` and `as_completed` decide, and one answer per commit or fifty make no difference. The time of an answer
is the time of everything that happens because of it.

    ready ──begin / replay──► quiescent ──turn──► quiescent … ──► over (outcome)
      any ──close──► closed                replay may raise Drift: then it is halted, and only `close` is left

Nothing here waits, reads a clock or draws a number that the run id does not determine.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import sys
import zlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime
from random import Random
from typing import Any

from msgspec.structs import replace

from continuum.codec import Shape
from continuum.errors import DurableValueError, NondeterminismError, NotAllowedHere
from continuum.model.events import COMMANDS, ENDINGS, PENDING, Answer, Event, EventType
from continuum.model.failure import Failure, failure_of
from continuum.model.tasks import TaskOptions
from continuum.replay.endings import judged, report, same_ending
from continuum.replay.loop import DurableTimer, NotQuiescent, WorkflowLoop
from continuum.replay.matching import Command, Drift, call_site, describe, matches
from continuum.replay.signals import Signals
from continuum.replay.tape import Tape
from continuum.replay.timers import Timers, moment_of
from continuum.replay.turns import Body, Completed, LogLine, Outcome, RunInfo, ScheduledActivity, Stuck, Turn

# Most runs never use these; what a machine does not make, the garbage collector does not look at a thousand times.
_NO_TIMERS, _NO_SIGNALS = Timers(), Signals()

RAISED = "raised"  # the name of a side effect whose payload is a Failure


class Machine:
    """Replays one run's workflow and drives it on."""

    __slots__ = (
        "_body",
        "_commands",
        "_drift",
        "_is_held",
        "_is_silent",
        "_logs",
        "_loop",
        "_main",
        "_open",
        "_payload_max",
        "_random",
        "_resolved",
        "_scheduled",
        "_signals",
        "_stuck",
        "_tape",
        "_timers",
        "info",
        "now",
        "outcome",
    )

    def __init__(self, body: Body, info: RunInfo, *, payload_max: int = sys.maxsize) -> None:
        self.info = info
        self._payload_max = payload_max
        self.outcome: Outcome | None = None
        self.now = info.started_at
        self._body = body
        self._loop = WorkflowLoop(  # type: ignore[abstract]  # what is missing is made by `_missing`
            self, seed=zlib.crc32(f"{info.run_id}/{info.generation}".encode())
        )
        self._main: asyncio.Task[Any] | None = None
        self._commands = 0
        self._tape = Tape()
        self._is_silent = False  # during replay, also of its last event
        self._is_held = False  # started for whoever claims it, and not begun yet
        self._drift: Drift | None = None
        self._stuck: str | None = None
        self._open: dict[int, asyncio.Future[bytes | Failure]] = {}  # activities that are not answered yet
        self._timers = _NO_TIMERS
        self._signals = _NO_SIGNALS
        self._random: Random | None = None
        self._scheduled: dict[int, ScheduledActivity] | None = None
        self._resolved: list[int] | None = None
        self._logs: list[LogLine] | None = None

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
        self._resolved = None  # what history withdrew, its own commits have deleted

    def turn(self, answers: Iterable[Answer], at: datetime) -> Turn:
        """Deliver answers, then the timers that are due, and return everything that this changed.

        Answers to commands that are resolved or withdrawn by then are dropped without a trace. Once the workflow has
        ended, nothing more is delivered.
        """
        at = max(at, self.now)
        if self._is_held:
            answers = (Answer(EventType.BEGUN), *answers)
        for answer in answers:
            if self._is_over:
                break
            if self.expects(answer):
                self._journal(answer, at)
                self._deliver(answer, at)
        while not self._is_over and (timer := self._timers.due(at)) is not None:
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
            case _:  # a signal
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
    def has_more(self) -> bool:
        """Whether replay found the code asking for more than the journal holds."""
        return self._tape.unwritten > 0 or self._is_over

    @property
    def stuck(self) -> str | None:
        """Why the code must be mended before the run can go on, if it must."""
        return self._stuck

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

    def close(self) -> None:
        """Give the workflow up: its `finally:` blocks run now, and nothing that they try has an effect."""
        self._loop.shut()
        self._open.clear()
        self._timers = _NO_TIMERS
        if self._signals is not _NO_SIGNALS:
            self._signals.clear()
        self._main = None

    # --- what workflow code calls, through definitions and context ----------------------------------------------------

    def next_command_id(self) -> int:
        """Take the identity of a command, at the moment it is asked for."""
        self._commands += 1
        return self._commands

    async def activity(self, command: Command, options: TaskOptions) -> bytes | Failure:
        """Command an activity and wait for its answer; a wait that is cancelled withdraws it."""
        is_new = not self._tape.is_replaying
        event = self._match_or_append(command)
        future: asyncio.Future[bytes | Failure] = asyncio.Future(loop=self._loop)
        if event is None:  # halted or shut: nothing is answered any more
            return await future
        self._open[command.command_id] = future
        if is_new:
            name, arguments = command.name or "", command.payload or b""
            self._scheduled = self._scheduled or {}
            self._scheduled[command.command_id] = ScheduledActivity(
                command.command_id, event.seq, name, arguments, options, command.key
            )
        try:
            return await future
        except asyncio.CancelledError:
            if self._open.pop(command.command_id, None) is not None:
                self._resolve(command.command_id)
            raise

    async def side_effect(self, make: Callable[[], bytes]) -> bytes | Failure:
        """Return the journaled value of a side effect, or make and journal it; that it raised is journaled too."""
        command = Command(EventType.SIDE_EFFECT_RECORDED, self.next_command_id())
        if not self._tape.is_replaying and not self._is_given_up:
            command = self._made(command, make)
        event = self._match_or_append(command)
        if event is None:
            return await self._loop.create_future()  # type: ignore[no-any-return]  # halted or shut: it never comes
        payload = event.payload or b"null"
        return Failure.decode(payload) if event.name == RAISED else payload

    def expect_signal(self, name: str) -> None:
        """Hear that a signal is going to be waited for.

        Raises:
            NotAllowedHere: the workflow declares its signals, and this is none of them: it would never come.
        """
        declared = self._body.signals
        if declared is not None and name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise NotAllowedHere(
                f"{self.info.workflow} waits for a signal {name!r} that no sender could deliver: it declares {known}; "
                "add the name to @workflow(signals={...})",
                run_id=self.info.run_id,
            )

    def signal(self, name: str) -> Coroutine[Any, Any, bytes | None]:
        """Take the oldest unconsumed signal of this name, or wait for the next; a cancelled wait consumes nothing."""
        return self._mail().take(name, asyncio.Future(loop=self._loop))

    def has_signal(self, name: str) -> bool:
        """Tell whether a signal of this name could be taken without waiting."""
        return self._signals.has(name)

    def decode(self, shape: Shape, payload: bytes, what: str) -> Any:
        """Read something journaled; what today's types cannot read blocks the run, it does not fail it."""
        try:
            return shape.decode(payload)
        except Exception as error:
            self.block(f"{what} cannot be read by this code: {error}")
            raise

    @property
    def random(self) -> Random:
        """The run's one source of randomness, seeded by run id and generation."""
        if self._random is None:
            self._random = Random(f"{self.info.run_id}/{self.info.generation}")
        return self._random

    def log(self, line: LogLine) -> None:
        """Say something once: not on replay, and only if the turn is committed."""
        if not self._is_silent:
            self._logs = self._logs or []
            self._logs.append(line)

    # --- what the loop calls ------------------------------------------------------------------------------------------

    def timer_started(self, timer: DurableTimer) -> None:
        """Journal a deadline; the journaled one stands on replay."""
        timer.command_id = self.next_command_id()
        deadline = moment_of(timer.when())
        event = self._match_or_append(
            Command(EventType.TIMER_STARTED, timer.command_id, payload=json.dumps(deadline.isoformat()).encode())
        )
        if event is not None:
            journaled = datetime.fromisoformat(json.loads(event.payload or b'""'))
            if self._timers is _NO_TIMERS:
                self._timers = Timers()
            self._timers.add(timer, journaled)

    def timer_cancelled(self, timer: DurableTimer) -> None:
        """Forget a deadline."""
        self._timers.cancel(timer.command_id)

    def misused(self, error: NondeterminismError) -> None:
        """Block the run, whatever the code does with the error."""
        self.block(f"{error} ({call_site() or 'no source site'})")

    def block(self, reason: str) -> None:
        """Halt: nothing of this turn is written, until code that works replays the run."""
        self._stuck = self._stuck or reason
        self._loop.is_halted = True

    # --- inside -------------------------------------------------------------------------------------------------------

    @property
    def _is_given_up(self) -> bool:
        return self._loop.is_halted or self._loop.is_shut

    @property
    def _is_over(self) -> bool:
        return self.outcome is not None or self._stuck is not None

    def _mail(self) -> Signals:
        if self._signals is _NO_SIGNALS:
            self._signals = Signals()
        return self._signals

    def _journal(self, answer: Answer, at: datetime) -> None:
        self._tape.add(
            answer.type,
            at,
            command_id=answer.command_id,
            message_id=answer.message_id,
            name=answer.name,
            payload=answer.payload,
        )
        if answer.type in (EventType.ACTIVITY_COMPLETED, EventType.ACTIVITY_FAILED) and answer.command_id is not None:
            self._resolve(answer.command_id)

    def _match_or_append(self, command: Command) -> Event | None:
        """Return the journaled event of a command, or a new one; None when that is over."""
        if self._is_given_up:
            return None
        if not self._tape.is_replaying:
            if command.payload is not None and len(command.payload) > self._payload_max:
                self._refuse_bulk(command, len(command.payload))
                return None
            return self._tape.add(
                command.type,
                self.now,
                command_id=command.command_id,
                name=command.name,
                payload=command.payload,
                key=command.key,
            )
        expected = self._tape.ahead
        if not matches(command, expected):
            self._drifted(expected, describe(command), site=call_site())
            return None
        return self._tape.step()

    def _refuse_bulk(self, command: Command, size: int) -> None:
        """Halt: an error that code may catch would be another one once the limit has been raised."""
        self.block(
            f"the payload of {describe(command)} takes {size} bytes, more than payload_max={self._payload_max}: store "
            f"the bulk elsewhere and pass a reference, or raise the option ({call_site() or 'no source site'})"
        )

    def _made(self, command: Command, make: Callable[[], bytes]) -> Command:
        try:
            return replace(command, payload=make())
        except BaseException as error:
            # The run goes on with the error, if its code catches it: so replay must meet it too.
            if not self._body.fails_on(error):
                self.block(report(error))
                raise
            failure = failure_of(error)
            if isinstance(error, DurableValueError):
                failure = replace(failure, details=error.path)
            return replace(command, name=RAISED, payload=failure.encode())

    def _drifted(self, expected: Event, found: str, *, site: str | None = None) -> Drift:
        self._drift = Drift(
            seq=expected.seq, expected=describe(expected), found=found, site=site, run_id=self.info.run_id
        )
        self._loop.is_halted = True
        return self._drift

    def _resolve(self, command_id: int) -> None:
        if not self._scheduled or self._scheduled.pop(command_id, None) is None:  # else its task was never made
            self._resolved = self._resolved or []
            self._resolved.append(command_id)

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
            case _:  # a signal
                self._mail().receive(answer.name or "", answer.payload)
        self._drive()

    def _start(self, arguments: bytes) -> None:
        try:
            coroutine = self._body.open(arguments)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the code that must be mended
            self.block(f"the journaled input cannot be read by this code: {error}")
            return
        self._main = self._loop.create_task(coroutine, name="workflow", context=contextvars.Context())

    def _answer(self, command_id: int | None, value: bytes | Failure) -> None:
        future = self._open.pop(command_id or 0)
        if not future.done():
            future.set_result(value)

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
        outcome = judged(main, self._body, self._payload_max)
        if isinstance(outcome, Stuck):
            self.block(outcome.reason)
            return
        ending, payload = (
            (EventType.COMPLETED, outcome.payload)
            if isinstance(outcome, Completed)
            else (EventType.FAILED, outcome.failure.encode())
        )
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
        turn = Turn(
            self._tape.take(),
            tuple(self._scheduled.values()) if self._scheduled and outcome is None else (),
            tuple(self._resolved or ()),
            self.deadline if outcome is None else None,
            outcome,
            tuple(self._logs or ()),
        )
        self._scheduled = self._resolved = self._logs = None
        return turn
