"""Notices by NOTIFY and LISTEN: hints that save a poll, in the order of their coming, possibly lost.

A channel per schema (NOTIFY is per database already). Sending happens on the reading line, on its own: a transaction
that notifies takes a lock on the whole database when it commits, which the committer must never do. Listening has a
connection of its own, because whoever listens must not wait for statements.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

from continuum.errors import JournalUnavailable
from continuum.journal.sql.desk import Desk
from continuum.journal.sql.lines import Line
from continuum.journal.sql.opening import NAME_BYTES_MAX
from continuum.journal.sql.statements import opening

PAYLOAD_BYTES_MAX = 7_900  # PostgreSQL takes less than 8,000
UNHEARD_MAX = 1_000  # past this the oldest are lost, and polling finds the work
POOLED = "the connection leads through a pooler, which does not pass notices on"
PROBE_SECONDS = 60.0  # a connection that died without a word is found out by asking; hints come sooner than that


def channel_of(schema: str | None) -> str:
    """Return the channel of a schema: its name, or where that is too long its digest."""
    name = f"continuum_{schema or 'public'}"
    if len(name.encode()) <= NAME_BYTES_MAX:
        return name
    return f"continuum_{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def payloads(notices: Sequence[str]) -> Iterator[str]:
    """Gather notices into as few payloads as they fit in; one that fits in none is left out."""
    gathered: list[str] = []
    size = 2
    for notice in dict.fromkeys(notices):
        added = len(json.dumps(notice)) + 1  # ASCII, so characters are bytes
        if added + 2 > PAYLOAD_BYTES_MAX:
            continue
        if size + added > PAYLOAD_BYTES_MAX:
            yield json.dumps(gathered, separators=(",", ":"))
            gathered, size = [], 2
        gathered.append(notice)
        size += added
    if gathered:
        yield json.dumps(gathered, separators=(",", ":"))


class Ear:
    """One `listen` in progress: what was said and not yet heard."""

    def __init__(self) -> None:
        self._unheard: deque[Sequence[str]] = deque(maxlen=UNHEARD_MAX)
        self._something = asyncio.Event()
        self.is_closed = False
        self.is_deaf = False

    def hear(self, notices: Sequence[str]) -> None:
        """Note what was said; never waits."""
        self._unheard.append(notices)
        self._something.set()

    def close(self) -> None:
        """End the iteration, as the journal closes."""
        self.is_closed = True
        self._something.set()

    def deafen(self) -> None:
        """End the iteration, as the connection has."""
        self.is_deaf = True
        self._something.set()

    def heard(self) -> Sequence[str] | None:
        """Return the oldest of what was said."""
        return self._unheard.popleft() if self._unheard else None

    async def wait(self, seconds: float) -> bool:
        """Wait until there is something; False if nothing came."""
        self._something.clear()
        if self._unheard or self.is_closed or self.is_deaf:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._something.wait()
        except TimeoutError:
            return False
        return True


class Notices:
    """Sends and hears the notices of one instance."""

    def __init__(self, desk: Desk, *, probe_seconds: float = PROBE_SECONDS) -> None:
        self._desk = desk
        self._probe_seconds = probe_seconds
        self._ears: set[Ear] = set()
        self._own_pid = 0
        self.channel = channel_of(desk.book.schema)

    async def notify(self, notices: Sequence[str]) -> None:
        """Tell the other processes of this instance."""
        driver = await self._desk.reading.driver()
        # Behind a pooler it is not known in whose session we shall say it, and we hear ourselves too: a scan too many.
        self._own_pid = 0 if self._desk.reading.is_pooled else self._desk.book.dialect.process(driver)
        await self._desk.ask(opening.NOTIFY, channel=self.channel, payloads=list(payloads(notices)))

    def close(self) -> None:
        """End every `listen`."""
        for ear in self._ears:
            ear.close()

    async def listen(self, line: Line) -> AsyncGenerator[Sequence[str], None]:
        """Yield nothing once the line listens, then notices as they come; the line is closed at the end."""
        ear = Ear()

        def hear(pid: int, payload: str) -> None:
            if pid != self._own_pid:  # we know what we said
                ear.hear(json.loads(payload))

        driver = await line.driver()
        if line.is_pooled:  # which it was not when the journal was opened
            await line.close()
            raise JournalUnavailable(f"cannot listen: {POOLED}")
        self._ears.add(ear)
        dialect = self._desk.book.dialect
        try:
            async with AsyncExitStack() as stack:
                await _answer(stack.enter_async_context(dialect.listening(driver, self.channel, hear, ear.deafen)))
                yield ()
                while not ear.is_closed:
                    if (notices := ear.heard()) is not None:
                        yield notices
                    elif ear.is_deaf:
                        raise JournalUnavailable("the listening connection broke")
                    elif not await ear.wait(self._probe_seconds):
                        await _answer(dialect.probe(driver, self._probe_seconds))
        finally:
            self._ears.discard(ear)
            await line.close()


async def _answer(asked: Any) -> None:
    """Await the driver; whatever it raises means that the connection is of no use any more."""
    try:
        await asked
    except Exception as error:
        raise JournalUnavailable(f"the listening connection broke: {error}") from error
