"""What is to be done in the next pass of the host's loop, all of it at one time.

Turns are never driven from inside a task of the host, so whoever wants one asks for a call back. One callback of the
loop makes all the calls that were asked for: it costs less than one for each, and the turns of a pass share the time at
which it began, which is then read and written once.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from datetime import datetime

from continuum.runtime.node import Node


class Passes:
    """Calls back in the next pass of the loop, in the context of whoever enters the instance."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._due: list[Callable[[], object]] = []
        self._began_at: datetime | None = None
        self.surroundings = contextvars.copy_context()  # not what some attempt or caller has set

    def soon(self, callback: Callable[[], object]) -> None:
        """Call back in the next pass of the host's loop."""
        if not self._due:
            self._node.loop.call_soon(self._run, context=self.surroundings)
        self._due.append(callback)

    def database_now(self) -> datetime:
        """Return the database's time; during a pass, that of its beginning."""
        return self._began_at or self._node.database_now()

    def _run(self) -> None:
        due, self._due = self._due, []  # what is asked for from now on belongs to the next pass
        self._began_at = self._node.database_now()
        to_do = iter(due)
        try:
            for callback in to_do:
                callback()
        finally:
            self._began_at = None
            for callback in to_do:  # the loop reports one that failed; the others need not suffer for it
                self.soon(callback)
