# long: one method per thing that workflow code may ask for, and the one match-or-append that all of them go through
"""What workflow code may ask of its run: the machine's other face, called through definitions and context.

Everything that reaches the world is a command: it takes its id when it is asked for, and is then either the next one of
the history (`matching.matches`) or a new event. There is no second way to write anything. What was decided about a
command is its answer, which comes from outside (`machine`).
"""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from random import Random
from typing import Any, NoReturn

from msgspec.structs import replace

from continuum.codec import Shape
from continuum.errors import DurableValueError, IdempotencyConflict, NondeterminismError, NotAllowedHere
from continuum.model.attributes import ATTRIBUTES_MAX, merged, size_of
from continuum.model.events import Event, EventType
from continuum.model.failure import Failure, failure_of
from continuum.model.messages import MessageKind
from continuum.model.tasks import TaskOptions
from continuum.replay.endings import report
from continuum.replay.family import Child, ChildEnding, Family, child_run_id
from continuum.replay.loop import DurableTimer, WorkflowLoop
from continuum.replay.matching import Command, Drift, call_site, describe, difference, matches, same_input, waiting_site
from continuum.replay.saga import Debt, Debts
from continuum.replay.signals import Signal, Signals
from continuum.replay.tape import Tape
from continuum.replay.timers import Timers, moment_of
from continuum.replay.turns import (
    Body,
    ContinueAsNew,
    Continued,
    Errand,
    LogLine,
    Outcome,
    RunInfo,
    ScheduledActivity,
    ScheduledChild,
    Undone,
)
from continuum.replay.watch import LoopGuard

# Most runs never use these; what a machine does not make, the garbage collector does not look at a thousand times.
NO_TIMERS, NO_SIGNALS, NO_DEBTS, NO_FAMILY = Timers(), Signals(), Debts(), Family()
NO_ACTIVITIES: dict[int, asyncio.Future[bytes | Failure]] = {}

RAISED = "raised"  # the name of an event whose payload is a Failure where a value was asked for
DEPTH_MAX = 10  # generations of children below a root, unless the instance says otherwise


class Asking:
    """The state of one run's code, and what it may ask for."""

    __slots__ = (
        "_attributes",
        "_body",
        "_commands",
        "_continuing",
        "_debts",
        "_depth_max",
        "_drift",
        "_errands",
        "_family",
        "_fired",
        "_is_cancelling",
        "_is_held",
        "_is_silent",
        "_logs",
        "_loop",
        "_main",
        "_named",
        "_new_children",
        "_new_errands",
        "_open",
        "_payload_max",
        "_random",
        "_resolved",
        "_scheduled",
        "_signals",
        "_stuck",
        "_tape",
        "_timers",
        "_undone",
        "info",
        "now",
        "outcome",
    )

    def __init__(
        self,
        body: Body,
        info: RunInfo,
        *,
        payload_max: int = sys.maxsize,
        depth_max: int = DEPTH_MAX,
        guard: LoopGuard | None = None,
    ) -> None:
        self.info = info
        self._payload_max = payload_max
        self._depth_max = depth_max
        self.outcome: Outcome | None = None
        self.now = info.started_at
        self._body = body
        self._loop = self._new_loop()
        if guard is not None:
            self._loop.guard = guard
        self._main: asyncio.Task[Any] | None = None
        self._commands = 0
        self._tape = Tape()
        self._is_silent = False  # during replay, also of its last event
        self._is_held = False  # started for whoever claims it, and not begun yet
        self._is_cancelling = False
        self._continuing: Continued | None = None
        self._drift: Drift | None = None
        self._stuck: str | None = None
        self._open = NO_ACTIVITIES  # that are not answered yet
        self._timers = NO_TIMERS
        self._signals = NO_SIGNALS
        self._debts = NO_DEBTS
        self._family = NO_FAMILY
        self._errands: dict[int, tuple[Errand, asyncio.Future[bytes | Failure]]] | None = None
        self._random: Random | None = None
        self._scheduled: dict[int, ScheduledActivity] | None = None
        self._new_children: list[ScheduledChild] | None = None
        self._new_errands: list[Errand] | None = None
        self._resolved: list[int] | None = None
        self._fired: list[datetime] | None = None
        self._undone: list[Undone] | None = None
        self._logs: list[LogLine] | None = None
        self._named: dict[str, Any] | None = None  # every attribute that the code has set
        self._attributes: dict[str, Any] | None = None  # those that no commit has carried yet

    # --- activities, side effects, signals ----------------------------------------------------------------------------

    def next_command_id(self) -> int:
        """Take the identity of a command, at the moment it is asked for."""
        self._commands += 1
        return self._commands

    async def activity(self, command: Command, options: TaskOptions, debt: Debt | None = None) -> bytes | Failure:
        """Command an activity and wait for its answer; a wait that is cancelled withdraws it.

        `debt` is what will undo it.
        """
        future = self._command_activity(command, options)
        if debt is not None and command.command_id in self._open:
            self._ledger_of_debts().promise(command.command_id, debt)
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
            NotAllowedHere: the workflow declares its signals, and this is none of them, or it is no name: it would never
                come.
        """
        if not isinstance(name, str):
            raise NotAllowedHere(
                f"wait_signal() takes the name of a signal, a str, not {name!r:.300}", run_id=self.info.run_id
            )
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
        self._loop.refuse()
        wait: asyncio.Future[Signal] = asyncio.Future(loop=self._loop)
        return self._mail().take(name, wait)

    def has_signal(self, name: str) -> bool:
        """Tell whether a signal of this name could be taken without waiting."""
        return self._signals.has(name)

    # --- other runs ---------------------------------------------------------------------------------------------------

    def child(
        self,
        command: Callable[[int, str], Command],
        *,
        key: str | None,
        version: int,
        retention_seconds: float | None,
    ) -> Child:
        """Ask for a child, or return the one that was asked for with the same key and input.

        `command` makes the command of its id and key.

        Raises:
            IdempotencyConflict: a child with this key has another input.
            NotAllowedHere: the run has too many ancestors.
        """
        if self._family is NO_FAMILY:
            self._family = Family()
        known = None if key is None else self._family.named(key)
        if known is not None and key is not None:
            self._expect_same(known, command(known.command_id, key), key)
            return known
        if self.info.depth >= self._depth_max:
            raise NotAllowedHere(
                f"run {self.info.run_id} has {self.info.depth} ancestors, and max_child_depth={self._depth_max} allows "
                "no children below that: start siblings from further up, or raise the option",
                run_id=self.info.run_id,
            )
        command_id = self.next_command_id()
        key = key or f"{self.info.generation}/{command_id}"
        asked = command(command_id, key)
        name, arguments = asked.name or "", asked.payload or b""
        child = Child(command_id, child_run_id(self.info.run_id, key), name, arguments)
        is_new = not self._tape.is_replaying
        if self._match_or_append(asked) is not None:
            self._family.add(key, child)
            if is_new:
                self._new_children = self._new_children or []
                self._new_children.append(
                    ScheduledChild(command_id, child.run_id, name, version, arguments, retention_seconds)
                )
        return child

    async def child_ending(self, child: Child) -> ChildEnding:
        """Wait for a child's end; any number of waits may."""
        while child.ending is None:
            self._loop.refuse()
            wait: asyncio.Future[None] = self._loop.create_future()
            child.waits.append(wait)
            try:
                await wait
            finally:
                child.waits.remove(wait)
        return child.ending

    async def errand(
        self, kind: MessageKind, run_id: str, *, name: str | None = None, payload: bytes | None = None
    ) -> bytes | Failure:
        """Send a message to another run and wait for what comes of it; a wait that is cancelled does not unsend it."""
        label = kind.value if name is None else f"{kind.value}/{name}"
        command = Command(EventType.MESSAGE_SENT, self.next_command_id(), name=label, payload=payload, key=run_id)
        future: asyncio.Future[bytes | Failure] = self._loop.create_future()
        is_new = not self._tape.is_replaying
        if self._match_or_append(command) is not None:
            errand = Errand(command.command_id, kind, run_id, name, payload)
            self._errands = self._errands or {}
            self._errands[command.command_id] = (errand, future)
            if is_new:
                self._new_errands = self._new_errands or []
                self._new_errands.append(errand)
        return await future

    # --- undoing ------------------------------------------------------------------------------------------------------

    @property
    def debts(self) -> Debts:
        """What is owed."""
        return self._debts

    def _owe(self, debt: Debt) -> None:
        self._ledger_of_debts().owe(debt)

    def _ledger_of_debts(self) -> Debts:
        if self._debts is NO_DEBTS:
            self._debts = Debts()
        return self._debts

    async def undo(self, debt: Debt) -> bytes | Failure:
        """Perform a compensation, once; a wait that is cancelled leaves it going on."""
        if debt.answer is None:
            command = Command(
                EventType.ACTIVITY_SCHEDULED,
                self.next_command_id(),
                name=debt.compensation,
                payload=debt.arguments,
                recode=debt.recode,
            )
            debt.answer = self._command_activity(command, debt.options, undoes=debt.activity)
            self._debts.undoing(command.command_id, debt)
        return await asyncio.shield(debt.answer)

    # --- change -------------------------------------------------------------------------------------------------------

    def patched(self, name: str) -> bool:
        """Tell whether this run takes a change of its code; decided once per run and name."""
        return False if self._is_given_up else self._tape.patched(name, self.now)

    def continue_as_new(self, version: int, arguments: bytes) -> NoReturn:
        """Leave the workflow's function, to go on with a fresh history.

        Raises:
            NotAllowedHere: in another task than the workflow's own.
        """
        if asyncio.current_task(self._loop) is not self._main:
            raise NotAllowedHere(
                "continue_as_new ends the workflow's function, so it belongs into its own task: return from this task "
                "and decide there",
                run_id=self.info.run_id,
            )
        continued = Continued(version, arguments)
        if not self._is_given_up:  # else it is a `finally:` on the way out, which decides nothing
            self._continuing = continued
        raise ContinueAsNew(continued)

    # --- values, time, chance, logs -----------------------------------------------------------------------------------

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

    def set_attributes(self, changes: Mapping[str, Any]) -> None:
        """Change search attributes with the turn's commit; what history has gone past was set by a commit of its own.

        Raises:
            DurableValueError: all that this code has set would take too much.
        """
        if self._is_given_up:
            return
        named = {**(self._named or {}), **changes}
        if size_of(merged(None, named) or {}) > ATTRIBUTES_MAX:
            message = f"the attributes would take more than {ATTRIBUTES_MAX} bytes of JSON"
            raise DurableValueError(message, path="/attributes", run_id=self.info.run_id)
        self._named = named
        if not self._tape.is_replaying:
            self._attributes = {**(self._attributes or {}), **changes}

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
            if self._timers is NO_TIMERS:
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

    def _new_loop(self) -> WorkflowLoop:
        return WorkflowLoop(  # type: ignore[abstract]  # what is missing is made by `_missing`
            self, seed=zlib.crc32(f"{self.info.run_id}/{self.info.generation}".encode())
        )

    def _mail(self) -> Signals:
        if self._signals is NO_SIGNALS:
            self._signals = Signals()
        return self._signals

    def _command_activity(
        self, command: Command, options: TaskOptions, *, undoes: str | None = None
    ) -> asyncio.Future[bytes | Failure]:
        """Ask for an activity; the future never comes where that is over."""
        is_new = not self._tape.is_replaying
        event = self._match_or_append(command)
        future: asyncio.Future[bytes | Failure] = asyncio.Future(loop=self._loop)
        if event is not None:
            if self._open is NO_ACTIVITIES:
                self._open = {}
            self._open[command.command_id] = future
            if is_new:
                name, arguments = command.name or "", command.payload or b""
                self._scheduled = self._scheduled or {}
                self._scheduled[command.command_id] = ScheduledActivity(
                    command.command_id, event.seq, name, arguments, options, command.key, undoes
                )
        return future

    def _match_or_append(self, command: Command) -> Event | None:
        """Return the journaled event of a command, or a new one; None when that is over.

        Raises:
            NotAllowedHere: the run is closed (once per task).
        """
        if self._is_given_up:
            self._loop.refuse()
            return None
        if self._continuing is not None:
            self.block(
                f"after continue_as_new the code asked for {describe(command)}: nothing may be awaited on the way out, "
                f"and `except BaseException` must raise again ({call_site() or 'no source site'})"
            )
            return None
        if not self._tape.is_replaying:
            if command.payload is not None and len(command.payload) > self._payload_max:
                self._refuse_bulk(command, len(command.payload))
                return None
            return self._tape.add(
                command.type, self.now, command.command_id, None, command.name, command.payload, command.key
            )
        expected = self._tape.ahead
        if not matches(command, expected):
            self._drifted(expected, describe(command) + difference(command, expected), site=call_site())
            return None
        return self._tape.step()

    def _expect_same(self, known: Child, asked: Command, key: str) -> None:
        is_same = asked.name == known.workflow and same_input(
            asked.payload, known.arguments, asked.recode, asked.decode
        )
        if not is_same:
            raise IdempotencyConflict(
                f"child {key!r} of run {self.info.run_id} was started as {known.workflow} with another input: "
                "a child is known by its id, so give this one another",
                run_id=known.run_id,
            )

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
        waits = site is None and self._main is not None
        self._drift = Drift(
            seq=expected.seq,
            expected=describe(expected),
            found=found,
            site=waiting_site(self._main) if site is None and self._main is not None else site,
            waits=waits,
            at=expected.at,
            run_id=self.info.run_id,
        )
        self._loop.is_halted = True
        return self._drift

    def _resolve(self, command_id: int) -> None:
        if not self._scheduled or self._scheduled.pop(command_id, None) is None:  # else its task was never made
            self._resolved = self._resolved or []
            self._resolved.append(command_id)
