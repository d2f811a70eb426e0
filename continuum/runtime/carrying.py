"""Tells the journal which code this process carries, whenever that changes; and lets blocked runs try that code.

A level, not an edge: what was told last is compared at every pass of the dispatcher, so a node that the database did not
hear tells it again, and one that comes back under a new owner id too. New code (a new process, a module imported or
reloaded) may be what blocked runs have waited for: those of its workflows are due at once, so that the back-off between
two tries may be long. Runs that took their process down are not among them: a new process says nothing about those.

It must not stand in anybody's way: where it cannot be told, claims go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from continuum.errors import ContinuumError
from continuum.journal.port import CodeJournal
from continuum.runtime.node import Node
from continuum.runtime.recovery import CRASHES_MAX

# Its revision, which grows with every definition, and the (workflow, version) that are served.
Code = tuple[int, Sequence[tuple[str, int]]]
PAGE = 1_000  # blocked runs that are made due at once, by one statement


class Carrying:
    """What this process has said of its code."""

    def __init__(
        self,
        *,
        node: Node,
        journal: CodeJournal,
        code: Callable[[], Code],
    ) -> None:
        self._node = node
        self._journal = journal
        self._code = code
        self._told: tuple[str, Sequence[tuple[str, int]]] | None = None
        self._tried: Code | None = None

    async def tell(self) -> bool:
        """Say what is new; True: there are blocked runs to claim that have not met this code."""
        owner, code = self._node.owner, self._code()
        _, workflows = code
        if owner is None or self._node.is_draining:
            return False
        try:
            if self._told != (owner, workflows):
                await self._journal.carry(owner, workflows=workflows)
                self._told = owner, workflows
                self._node.emit("versions.carried", {"workflows": len(workflows)}, owner=owner)
            return self._tried != code and await self._retry_blocked(code)
        except ContinuumError as error:
            self._node.emit("versions.untold", error=repr(error))
            return False

    async def _retry_blocked(self, code: Code) -> bool:
        runs = 0
        while page := await self._journal.retry_blocked(workflows=code[1], crashes_max=CRASHES_MAX, limit=PAGE):
            runs += len(page)
            if len(page) < PAGE:
                break
        self._tried = code
        if runs:
            self._node.emit("runs.retried", {"runs": runs})
        return runs > 0
