"""An attempt at a transactional activity: what it writes, its task's end and its result's message commit together.

Begin on a connection of the host's, call the function, end the task under its fence, COMMIT. Four things can come of
that beside an ordinary failure:

* its idempotency key has a result by now, of another run's call: everything is rolled back, and that is the answer;
* the fence refuses: the task is over, or another attempt's. Everything is rolled back, and nobody is told;
* the transaction collides with another one: it begins anew within the same attempt, so often as the options allow;
* COMMIT is not answered: it is never sent again. What is done next (a retry, or the failure) is fenced by the task, which
  is there only if COMMIT did not arrive; so whatever the database did with it, one of the two holds.

While COMMIT is on its way the attempt can no more be stopped, for whoever stopped it would not know what he did: a
timeout and a withdrawal wait for its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

from msgspec.structs import replace

from continuum.definitions.activity import Activity
from continuum.errors import ConfigurationError
from continuum.ids import IdSource
from continuum.journal.port import Ambiguous
from continuum.model.failure import Failure, failure_of
from continuum.model.messages import Message, MessageKind
from continuum.model.results import ActivityResult
from continuum.model.tasks import Attempt, ClaimedTask
from continuum.model.writes import Duplicate, Finish, Posted, Verdict
from continuum.runtime.attempt import RunningAttempt, Workplace
from continuum.runtime.delivery import answer_of
from continuum.runtime.recalling import key_of
from continuum.runtime.telling import facts_of_task
from continuum.telemetry import Emitter

PAUSE_FIRST_SECONDS, PAUSE_MAX_SECONDS = 0.01, 1.0  # before a transaction begins anew; half of it is drawn


class Transaction(Protocol):
    """One transaction on the host's database."""

    @property
    def session(self) -> Any:
        """The session that the activity is given."""
        ...

    async def flush(self) -> None:
        """Send what the session still holds; raise if the activity has ended the transaction."""
        ...

    async def finish(self, write: Finish) -> Verdict:
        """End the task and post the message; Duplicate: its key has a result by now; else it is no longer ours to end."""
        ...

    async def commit(self) -> None:
        """Commit. Ambiguous: nobody knows whether it did; any other error: it did not."""
        ...


class Transactions(Protocol):
    """Where they come from."""

    @property
    def concurrency(self) -> int:
        """How many there may be at once."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why there can be none in this process, if so."""
        ...

    @property
    def locks_journal(self) -> bool:
        """Whether nobody else can write to the journal while one is open."""
        ...

    def begin(
        self, session_class: Any, isolation_level: str | None, activity: str
    ) -> AbstractAsyncContextManager[Transaction]:
        """Begin one; left uncommitted, nothing of it stays."""
        ...

    def is_collision(self, error: BaseException) -> bool:
        """Tell whether a transaction failed only because of another one."""
        ...


class Registrar(Protocol):
    """Who hears what came of a transaction, and says whether it is still wanted."""

    def booked(self, attempt: TransactionalAttempt, message: Message, verdict: Posted) -> None:
        """Hear that everything is committed; the verdict tells who reads the message."""
        ...

    def superseded(self, attempt: TransactionalAttempt) -> None:
        """Hear that the task was no longer ours: nothing was written."""
        ...

    def forestalled(self, attempt: TransactionalAttempt) -> None:
        """Hear that another one was booked under its idempotency key meanwhile: nothing was written."""
        ...

    def doubted(self, attempt: TransactionalAttempt, message: Message, failure: Failure) -> None:
        """Hear that nobody knows; the message is what would be there."""
        ...

    async def is_theirs(self, attempt: Attempt) -> bool:
        """Tell whether the task is still this attempt's."""
        ...


class Desk(NamedTuple):
    """What transactional attempts of an instance have in common, beside their workplace."""

    transactions: Transactions
    registrar: Registrar
    new_id: IdSource
    draw: Callable[[], float]
    emit: Emitter


class TransactionalAttempt(RunningAttempt):
    """A try in progress, and its transaction."""

    __slots__ = ("_desk", "_late", "_withdrawn", "in_doubt")

    def __init__(self, task: ClaimedTask, activity: Activity[..., Any], place: Workplace, desk: Desk) -> None:
        super().__init__(task, activity, place)
        self._desk = desk
        self.in_doubt: Message | None = None  # while COMMIT is on its way: what it brings
        self._late: Failure | None = None  # a limit was reached meanwhile
        self._withdrawn = False  # nobody waits for it since

    @property
    def locks_journal(self) -> bool:
        """Whether nobody else can write to the journal before it ends."""
        return self._desk.transactions.locks_journal and not self.is_over

    def cancel(self) -> None:
        """Stop it, unless it is about to be decided."""
        if self.in_doubt is None:
            super().cancel()
        else:
            self._withdrawn = True

    def _raise(self, failure: Failure) -> None:
        if self.in_doubt is None:
            super()._raise(failure)
        else:
            self._late = failure

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _perform(self) -> None:
        self._has_begun = True
        try:
            tell = await self._transact()
        except SystemExit as error:  # which a task would hand on to the host's loop, and so end the host
            self._ended(None, RuntimeError(f"the activity tried to end the process: SystemExit({error.code})"))
        except asyncio.CancelledError:
            self._ended(None, asyncio.CancelledError("the activity cancelled itself"))
            raise
        except (KeyboardInterrupt, GeneratorExit):  # the host is to end, or its loop has
            raise
        except BaseException as error:  # noqa: BLE001  # whatever it is, a group of others too: the policy decides
            self._ended(None, error)
        else:
            self._concluded(tell)

    def _concluded(self, tell: Callable[[], None]) -> None:
        self._running = self._context = None
        self._place.reports.vacated(self)
        if self._end():
            tell()

    async def _transact(self) -> Callable[[], None]:
        """Try until no other transaction is in the way; return what is to be told then."""
        desk, options, collisions = self._desk, self.task.options, 0
        if desk.transactions.trouble is not None:  # trying again would mend nothing
            trouble = ConfigurationError(f"activity {self.task.activity} is transactional. {desk.transactions.trouble}")
            failure = replace(failure_of(trouble), retryable=False)
            return lambda: self._place.reports.raised(self, failure)
        while True:
            try:
                return await self._try_once()
            except Exception as error:
                if collisions >= options.serialization_retries or not desk.transactions.is_collision(error):
                    raise
                pause = min(PAUSE_FIRST_SECONDS * 2.0**collisions, PAUSE_MAX_SECONDS)
                collisions += 1
                desk.emit(
                    "activity.collided",
                    {"collisions": collisions},
                    **facts_of_task(self.task),
                    error=failure_of(error).type,
                )
            await self._place.clock.sleep(pause * (0.5 + desk.draw() / 2))
            if not await desk.registrar.is_theirs(self.task.attempt):
                return lambda: desk.registrar.superseded(self)

    async def _try_once(self) -> Callable[[], None]:
        task, activity, registrar = self.task, self.activity, self._desk.registrar
        parameters, level = activity.signature.parameters, task.options.isolation_level
        async with self._desk.transactions.begin(activity.session_class, level, task.activity) as transaction:
            payload = self._seal(await parameters.call(activity.fn, task.arguments, transaction.session))
            await transaction.flush()
            finish = self._finish(payload)
            verdict = await transaction.finish(finish)
            if isinstance(verdict, Duplicate):
                return lambda: registrar.forestalled(self)
            if not isinstance(verdict, Posted) or self.is_over:  # over: a function that would not be cancelled
                return lambda: registrar.superseded(self)
            self.in_doubt = finish.message
            try:
                await transaction.commit()
            except Ambiguous as error:
                failure = failure_of(error)
                return lambda: registrar.doubted(self, finish.message, failure)
            except BaseException:
                self._resume()
                raise
        return lambda: registrar.booked(self, finish.message, verdict)

    def _resume(self) -> None:
        """Go on after a COMMIT that did not take effect: what has come meanwhile comes now."""
        self.in_doubt = None
        if self._withdrawn:
            self.cancel()
        elif self._late is not None:
            self._raise(self._late)

    def _finish(self, payload: bytes) -> Finish:
        task = self.task
        message = answer_of(task, MessageKind.ACTIVITY_COMPLETED, payload, message_id=self._desk.new_id())
        result = None
        if task.idempotency_key is not None:
            result = ActivityResult(key_of(task), message.run_id, task.arguments, payload)
        return Finish(task.attempt, message, result)


class NoTransactions:
    """Where there is no database of the host's."""

    concurrency = 1
    locks_journal = False
    trouble = (
        "This instance's journal is in memory, where there is no transaction to be part of: give the instance an engine "
        "(application(engine), or CONTINUUM_DATABASE_URL); in tests, environment(engine=...) or a fake"
    )

    def begin(
        self,
        session_class: Any,  # noqa: ARG002
        isolation_level: str | None,  # noqa: ARG002
        activity: str,
    ) -> AbstractAsyncContextManager[Transaction]:
        """Refuse.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(f"activity {activity} is transactional. {self.trouble}")

    def is_collision(self, error: BaseException) -> bool:  # noqa: ARG002
        """Say no."""
        return False
