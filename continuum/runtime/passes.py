"""What is to be done in the next pass of the host's loop, all of it at one time.

Turns are never driven from inside a task of the host, so whoever wants one asks for a call back. One callback of the
loop makes all the calls that were asked for: it costs less than one for each, and the turns of a pass share the time at
which it began, which is then read and written once.

The loop is what the instances of a process share, and it is shared fairly. In one of its passes all of them together
are called `CALLS_MAX` times: an instance that is alone may make that many, several make an equal share each, and at least
one. What is left comes in the next pass, after the loop has looked what came in from the databases and for the
host. So whatever one tenant has to do, another's turn waits for `CALLS_MAX` others and not for all of them. Nobody loses
by it who is alone: a batch of the committer holds no more turns than that.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from datetime import datetime
from weakref import WeakKeyDictionary

from continuum.runtime.node import Node

CALLS_MAX = 250  # in a pass of the loop, by all instances: as many writes as a batch of the committer holds


class Crowd:
    """The instances on one loop: how many of them have something to do."""

    def __init__(self) -> None:
        self.busy = 0

    @property
    def share(self) -> int:
        """How many calls each of them may make in this pass of the loop."""
        return max(CALLS_MAX // max(self.busy, 1), 1)


_crowds: WeakKeyDictionary[asyncio.AbstractEventLoop, Crowd] = WeakKeyDictionary()


class Passes:
    """Calls back in the next pass of the loop, in the context of whoever enters the instance."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._crowd = _crowds.setdefault(node.loop, Crowd())
        self._due: list[Callable[[], object]] = []
        self._began_at: datetime | None = None
        self.surroundings = contextvars.copy_context()  # not what some attempt or caller has set

    def soon(self, callback: Callable[[], object]) -> None:
        """Call back in the next pass of the host's loop."""
        if not self._due:
            self._crowd.busy += 1
            self._node.loop.call_soon(self._run, context=self.surroundings)
        self._due.append(callback)

    def database_now(self) -> datetime:
        """Return the database's time; during a pass, that of its beginning."""
        return self._began_at or self._node.database_now()

    def _run(self) -> None:
        due, share = self._due, self._crowd.share
        self._due = due[share:]  # what is asked for from now on comes after it
        if self._due:
            self._node.loop.call_soon(self._run, context=self.surroundings)
        else:
            self._crowd.busy -= 1
        self._began_at = self._node.database_now()
        to_do = iter(due[:share])
        try:
            for callback in to_do:
                callback()
        finally:
            self._began_at = None
            for callback in to_do:  # the loop reports one that failed; the others need not suffer for it
                self.soon(callback)
