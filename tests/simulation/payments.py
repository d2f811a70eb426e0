"""Transactional activities in the simulation: a bank whose books are written by the step that ends the task.

On a database COMMIT makes the activity's rows and the task's end true together. Here it is one write of the journal, which
may be asked for and not arrive, arrive and not be answered, or land long after its connection broke; the lines of the
books travel in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from continuum import Retry, activity, activity_context
from continuum.journal.port import Contended, Journal
from continuum.model.events import Event, EventType
from continuum.model.runs import RunRow
from continuum.model.tasks import Beat, TaskKey
from continuum.model.writes import REFUSED, Finish, Posted, Verdict

PAY = "simulation.pay"


class Teller(AsyncSession):
    """What an activity books with."""

    def __init__(self) -> None:
        self.lines = 0


class Booked(Finish, frozen=True):
    """The end of a task, and how many lines come into the books with it."""

    lines: int = 0


@activity(name=PAY, transactional=True, retry=Retry(max_attempts=2, initial=0.1))
async def pay(teller: Teller, number: int, seconds: float) -> int:
    """Book one line."""
    teller.lines += 1
    await activity_context().state.clock.sleep(seconds)
    return number + 1


class Payment:
    """One transaction."""

    def __init__(self, journal: Journal) -> None:
        self.session = Teller()
        self._journal = journal
        self._write: Booked | None = None

    async def flush(self) -> None:
        """Send nothing: all travels in COMMIT."""

    async def finish(self, write: Finish) -> Verdict:
        """Look at the fence."""
        if not await self._journal.heartbeat_tasks([Beat(write.attempt, None, is_quiet=True)]):
            return REFUSED
        self._write = Booked(write.attempt, write.message, write.result, lines=self.session.lines)
        return Posted()

    async def commit(self) -> None:
        """Commit. Who has ended the task since would have had to wait on a database; here the transaction collides."""
        assert self._write is not None
        (verdict,) = await self._journal.write(0, [self._write])
        if not isinstance(verdict, Posted):
            raise Contended("somebody has ended the task meanwhile")


class Payments:
    """Makes transactions."""

    concurrency = 2
    trouble = None
    locks_journal = False

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    @asynccontextmanager
    async def begin(
        self, _session_class: object, _isolation_level: str | None, _activity: str
    ) -> AsyncIterator[Payment]:
        """Begin one."""
        yield Payment(self._journal)

    def is_collision(self, error: BaseException) -> bool:
        """Tell whether to begin anew."""
        return isinstance(error, Contended)


def look_at_books(
    books: Counter[TaskKey], row: RunRow, generations: Sequence[Sequence[Event]], violate: Callable[[str], None]
) -> None:
    """Check that what was journaled as done is booked, once, and that what has failed is not."""
    for generation, history in enumerate(generations, start=1):
        answers = {event.command_id: event.type for event in history if event.command_id is not None}
        for event in history:
            if event.type is not EventType.ACTIVITY_SCHEDULED or event.name != PAY or event.command_id is None:
                continue
            key = TaskKey(row.run_id, generation, event.command_id)
            lines, answer = books.pop(key, 0), answers[event.command_id]
            if lines > 1:
                violate(f"{key} is booked {lines} times")
            if (answer, lines) in {(EventType.ACTIVITY_COMPLETED, 0), (EventType.ACTIVITY_FAILED, 1)}:
                violate(f"{key} was answered {answer.value}, and is booked {lines} times")
