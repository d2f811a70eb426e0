"""Where an execution stands, and the commit that it has on its way."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from continuum.model.tasks import ClaimedTask
from continuum.model.writes import Commit, Start
from continuum.replay.turns import Turn
from continuum.runtime.home import Letter


class Phase(Enum):
    """Where an execution stands; see `execution`."""

    STARTING = "starting"
    RESIDENT = "resident"
    LEAVING = "leaving"
    GONE = "gone"


class Flight:
    """The commit that is on its way, and what it decided: the turn, the letters it read, the tasks it leased here."""

    __slots__ = ("leased", "letters", "turn", "write")

    def __init__(
        self, write: Commit | Start, turn: Turn | None, letters: Sequence[Letter], leased: Sequence[ClaimedTask]
    ) -> None:
        self.write = write
        self.turn = turn
        self.letters = letters
        self.leased = leased
