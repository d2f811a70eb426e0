"""The children of one run: asked for, and how they ended.

A child is known by its key within the parent, and its run id follows from that, so asking twice is asking once. An
ending is kept: any number of waits get it, at any time, and a wait that is cancelled leaves the child alone.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from uuid import UUID, uuid5

from msgspec import Struct

from continuum.model.events import EventType


class ChildEnding(Struct, frozen=True, gc=False):
    """How a child ended: completed with a result, failed with an encoded Failure, or cancelled."""

    type: EventType
    payload: bytes | None


@dataclass(slots=True, eq=False)
class Child:
    """A child, as its parent's code holds it."""

    command_id: int
    run_id: str
    workflow: str
    arguments: bytes
    ending: ChildEnding | None = None
    waits: list[asyncio.Future[None]] = field(default_factory=list)


_LIKE_NO_ID = re.compile(r"=*[0-9]+/[0-9]+").fullmatch


def key_of(id: str) -> str:
    """Return the key of a child with an id: that, told apart from the `generation/command` of children without one."""
    return f"={id}" if _LIKE_NO_ID(id) else id


def child_run_id(parent: str, key: str) -> str:
    """Return the run id of a child: UUIDv5 of its parent's id and its key."""
    return str(uuid5(UUID(parent), key))


class Family:
    """All children of one generation."""

    __slots__ = ("_by_command", "_by_key", "_by_run")

    def __init__(self) -> None:
        self._by_key: dict[str, Child] = {}
        self._by_run: dict[str, Child] = {}
        self._by_command: dict[int, Child] = {}

    def named(self, key: str) -> Child | None:
        """Return the child with this key."""
        return self._by_key.get(key)

    def add(self, key: str, child: Child) -> None:
        """Take in a child."""
        self._by_key[key] = self._by_run[child.run_id] = self._by_command[child.command_id] = child

    def awaited(self, *, run_id: str | None, command_id: int | None) -> Child | None:
        """Return the child that an ending is of, by either name, unless it has ended before."""
        child = self._by_run.get(run_id or "") if command_id is None else self._by_command.get(command_id)
        return child if child is not None and child.ending is None else None

    def ended(self, child: Child, ending: ChildEnding) -> None:
        """Tell everyone who waits."""
        child.ending = ending
        for wait in child.waits:
            wait.set_result(None)
