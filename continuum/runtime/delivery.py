"""Brings results and messages to the run that they belong to: through its mailbox here, else through the database.

The mailbox is the short way, and may close at any moment (`offer` answers False); the durable way is always there.
What goes the durable way is fenced by the database alone: a result by its task's owner and attempt, a message by its id.
"""

from __future__ import annotations

import contextvars
import logging
from functools import partial
from typing import Protocol

from continuum.errors import JournalUnavailable
from continuum.journal.group import GroupCommitter
from continuum.journal.port import Contended
from continuum.model.failure import Failure
from continuum.model.messages import Message, MessageKind
from continuum.model.policy import GiveUp, RetryLater, decide
from continuum.model.results import ActivityResult
from continuum.model.tasks import Attempt, ClaimedTask
from continuum.model.writes import (
    REFUSED,
    Finish,
    FreeTask,
    Landed,
    Post,
    Posted,
    RetryTask,
    Unwritable,
    Verdict,
    Write,
)
from continuum.runtime import tracing
from continuum.runtime.execution import Execution
from continuum.runtime.home import Letter, Settled
from continuum.runtime.node import Node
from continuum.runtime.recalling import key_of
from continuum.runtime.registry import Registry
from continuum.runtime.telling import facts_of_attempt, facts_of_task, lasted
from continuum.runtime.wakes import Wakes
from continuum.telemetry import heard
from continuum.telemetry.saying import say

LOOK_AGAIN_SECONDS = 0.5  # for what a COMMIT brought whose answer was lost

logger = logging.getLogger(__name__)


class Tended(Protocol):
    """Who must know when an attempt's last write is settled."""

    def settled(self, attempt: Attempt) -> None:
        """Forget the attempt."""
        ...


class Judge(Protocol):
    """Who can look for a message."""

    async def judge(self, write: Write) -> Verdict | None:
        """Say what became of a write; None: it did not arrive."""
        ...


class Delivery:
    """The two ways of results and messages."""

    def __init__(
        self, *, node: Node, journal: Judge, registry: Registry[Execution], committer: GroupCommitter, wakes: Wakes
    ) -> None:
        self._node = node
        self._journal = journal
        self._registry = registry
        self._committer = committer
        self._wakes = wakes

    # --- results of attempts ------------------------------------------------------------------------------------------

    def completed(self, task: ClaimedTask, payload: bytes, tended: Tended, *, seconds: float | None = None) -> None:
        """Deliver what an attempt returned, after so many seconds."""
        if "activity.completed" in heard:
            self._node.emit.hand("activity.completed", lasted(seconds), facts_of_task(task))
        result = None
        if task.idempotency_key is not None:
            result = ActivityResult(key_of(task), task.attempt.key.run_id, task.arguments, payload)
        self._answer(task, MessageKind.ACTIVITY_COMPLETED, payload, tended, result)

    def recalled(self, task: ClaimedTask, result: ActivityResult, tended: Tended) -> None:
        """Deliver what was returned before under the task's idempotency key, instead of an attempt."""
        self._node.emit("activity.idempotency_hit", **facts_of_task(task), recorded_by=result.run_id)
        self._answer(task, MessageKind.ACTIVITY_COMPLETED, result.payload, tended)

    def failed(self, task: ClaimedTask, failure: Failure, tended: Tended, *, seconds: float | None = None) -> None:
        """Judge a failed attempt: it is retried later, or the failure is the answer."""
        attempt = task.attempt
        verdict = decide(task.options.retry, attempt.attempt, failure, self._node.draw)
        match verdict:
            case RetryLater(delay_seconds):
                self._tell_retried(task, failure, delay_seconds, seconds)
                self._committer.submit(
                    RetryTask(attempt, delay_seconds),
                    lambda settled: self._retried(attempt, settled, delay_seconds, tended),
                )
            case GiveUp():
                self._node.emit("activity.failed", lasted(seconds), **facts_of_task(task), error=failure.type)
                self._answer(task, MessageKind.ACTIVITY_FAILED, _final(failure, attempt).encode(), tended)

    # --- transactional attempts ---------------------------------------------------------------------------------------

    def booked(self, task: ClaimedTask, message: Message, verdict: Verdict, *, seconds: float | None = None) -> None:
        """Hear that an attempt's transaction has committed: the message is in the inbox, and this is a hint to read it."""
        if "activity.completed" in heard:
            self._node.emit("activity.completed", lasted(seconds), **facts_of_task(task))
        self._nudge(message, verdict)

    def superseded(self, attempt: Attempt) -> None:
        """Hear that an attempt's transaction was rolled back: its task is over, or another attempt's."""
        self._superseded(attempt, REFUSED)

    async def doubted(
        self, task: ClaimedTask, message: Message, failure: Failure, *, seconds: float | None = None
    ) -> bool:
        """Judge an attempt whose COMMIT was not answered: the task is there to be retried, or the message is (True).

        What is written here waits for the row that the transaction has deleted, if that still goes on; so it is never
        written beside a COMMIT that takes effect. For the same reason the failure never goes by the mailbox.
        """
        attempt = task.attempt
        decided = decide(task.options.retry, attempt.attempt, failure, self._node.draw)
        if isinstance(decided, RetryLater):
            verdict = await self._committer.put(RetryTask(attempt, decided.delay_seconds, in_doubt=True))
            if isinstance(verdict, Landed):
                self._tell_retried(task, failure, decided.delay_seconds, seconds)
                self._wakes.tasks_waiting(decided.delay_seconds)
                return False
        else:
            answer = self._message(task, MessageKind.ACTIVITY_FAILED, _final(failure, attempt).encode())
            verdict = await self._committer.put(Finish(attempt, answer, in_doubt=True))
            if isinstance(verdict, Posted):
                self._node.emit("activity.failed", lasted(seconds), **facts_of_task(task), error=failure.type)
                self._nudge(answer, verdict)
                return False
        found = await self._sought(message)
        if found is None:
            self._superseded(attempt, verdict)
        else:
            self.booked(task, message, found, seconds=seconds)
        return found is not None

    async def _sought(self, message: Message) -> Verdict | None:
        """Look for a message, as soon as the database is there."""
        while True:
            try:
                return await self._journal.judge(Post(message))
            except (JournalUnavailable, Contended):
                await self._node.clock.sleep(LOOK_AGAIN_SECONDS)

    # --- what becomes of tasks ----------------------------------------------------------------------------------------

    def never_begun(self, attempt: Attempt) -> None:
        """Free a task that was leased here and that no attempt began."""
        self._committer.submit(FreeTask(attempt), lambda _verdict: self._wakes.tasks_waiting())

    def _retried(self, attempt: Attempt, verdict: Verdict, delay_seconds: float, tended: Tended) -> None:
        tended.settled(attempt)
        if isinstance(verdict, Landed):
            self._wakes.tasks_waiting(delay_seconds)
        else:
            self._superseded(attempt, verdict)

    def _answer(
        self, task: ClaimedTask, kind: MessageKind, payload: bytes, tended: Tended, result: ActivityResult | None = None
    ) -> None:
        key, message = task.attempt.key, self._message(task, kind, payload)
        execution = self._registry.get(key.run_id)
        letter = Letter(
            message,
            is_stored=False,
            attempt=task.attempt,
            settled=lambda _: tended.settled(task.attempt),
            result=result,
        )
        if execution is not None and execution.facts.generation == key.generation and execution.offer(letter):
            self._wakes.roads["local"] += 1
        else:
            self.send_on(letter)

    def _message(self, task: ClaimedTask, kind: MessageKind, payload: bytes) -> Message:
        return answer_of(task, kind, payload, message_id=self._node.new_id())

    def _tell_retried(self, task: ClaimedTask, failure: Failure, delay_seconds: float, seconds: float | None) -> None:
        self._node.emit(
            "activity.retried",
            {"delay_seconds": delay_seconds, **lasted(seconds)},
            **facts_of_task(task),
            next_attempt=task.attempt.attempt + 1,
            error=failure.type,
        )

    def _finished(self, letter: Letter, verdict: Verdict) -> None:
        if letter.settled is not None:
            letter.settled(verdict)
        if isinstance(verdict, Landed | Posted):
            self._nudge(letter.message, verdict if isinstance(verdict, Posted) else Posted())
        elif letter.attempt is not None:
            self._superseded(letter.attempt, verdict)

    def _superseded(self, attempt: Attempt, verdict: Verdict) -> None:
        """Drop a result: its task is over, or another attempt's."""
        facts = facts_of_attempt(attempt)
        if isinstance(verdict, Unwritable):
            error = str(verdict.error)
            self._node.emit("activity.fenced", **facts, reason="unwritable", error=error)
            whose = {"instance": self._node.instance, "run_id": attempt.key.run_id, "attempt": attempt.attempt}
            say(logger, logging.ERROR, "the result of attempt %s could not be written: %s", attempt, error, extra=whose)
        else:
            self._node.emit("activity.fenced", **facts, reason="superseded")

    # --- messages -----------------------------------------------------------------------------------------------------

    def send_on(self, letter: Letter) -> None:
        """Send a letter that no execution here will journal the durable way, with its same id."""
        try:
            if letter.attempt is not None:
                self._committer.submit(
                    Finish(letter.attempt, letter.message, letter.result),
                    lambda verdict: self._finished(letter, verdict),
                )
            else:
                self._committer.submit(Post(letter.message), lambda verdict: self._sent_on(letter, verdict))
        except JournalUnavailable as stopped:  # a result's task is swept; a sender must be told
            if letter.settled is not None:
                letter.settled(Unwritable(stopped))

    async def post(self, message: Message) -> Verdict:
        """Put a message into its run's inbox and nudge whoever can read it, before the sender goes on."""
        nudge = partial(self._nudge, message)
        if tracing.tracer is None:
            return await self._committer.put(Post(message), nudge)
        sender = contextvars.copy_context()  # a call to the run's owner belongs to the sender's trace
        return await self._committer.put(Post(message), lambda verdict: sender.run(nudge, verdict))

    def offer(self, message: Message, settled: Settled) -> bool:
        """Hand a message to the execution that lives here; `settled` hears of its commit. False: post it."""
        execution = self._registry.get(message.run_id)
        if execution is None or not execution.offer(Letter(message, is_stored=False, settled=settled)):
            return False
        self._wakes.roads["local"] += 1
        return True

    def stands(self, message: Message) -> None:
        """Tell whoever can read it that a message stands in an inbox: who that is, only this process is known to us."""
        execution = self._registry.get(message.run_id)
        if execution is not None:
            self._wakes.roads["local"] += 1
            execution.receive(message)
        else:
            self._wakes.message_elsewhere(message.run_id)

    def surfaced(self, message: Message, verdict: Posted) -> None:
        """Tell whoever can read a message that a host's COMMIT is over; its run may be in other hands by now.

        Only the inbox says whether that COMMIT took effect, so nobody is handed the message itself.
        """
        if message.run_id in self._registry:
            self._wakes.read_inbox("local")
        else:
            self._wakes.message_elsewhere(message.run_id)
        owner = verdict.lease_owner
        if owner is not None and owner != self._node.owner:
            cancels = message.kind is MessageKind.CANCEL
            self._wakes.forward(message.run_id, owner, verdict.advertise_url, cancels=cancels)

    def _sent_on(self, letter: Letter, verdict: Verdict) -> None:
        if letter.settled is not None:
            letter.settled(verdict)
        self._nudge(letter.message, verdict)

    def _nudge(self, message: Message, verdict: Verdict) -> None:
        if not isinstance(verdict, Posted):
            return
        execution = self._registry.get(message.run_id)
        if execution is not None and execution.owner == verdict.lease_owner:
            self._wakes.roads["local"] += 1
            execution.receive(message)
        else:
            self._wakes.message_posted(
                message.run_id,
                owner=verdict.lease_owner,
                here=self._node.owner,
                url=verdict.advertise_url,
                cancels=message.kind is MessageKind.CANCEL,
            )


def answer_of(task: ClaimedTask, kind: MessageKind, payload: bytes, *, message_id: str) -> Message:
    """Return the message to its run that an attempt ends with."""
    key = task.attempt.key
    return Message(
        message_id=message_id,
        run_id=key.run_id,
        kind=kind,
        name=task.activity,
        payload=payload,
        generation=key.generation,
        command_id=key.command_id,
    )


def _final(failure: Failure, attempt: Attempt) -> Failure:
    """Return the last attempt's failure as the answer."""
    return Failure(
        type=failure.type,
        message=failure.message,
        causes=failure.causes,
        details=failure.details,
        traceback=failure.traceback,
        attempts=attempt.attempt,
        timed_out=failure.timed_out,
    )
