"""Which code runs need, and which nodes carry it."""

from datetime import datetime

from msgspec import Struct

from continuum.model.states import RunState


class Carrier(Struct, frozen=True, gc=False):
    """A living owner carries a version of a workflow: it can run its runs."""

    workflow: str
    version: int
    node: str
    owner: str


class OpenRuns(Struct, frozen=True, gc=False):
    """How many runs of a version are in a state; those that have ended need no code."""

    workflow: str
    version: int
    state: RunState
    runs: int


class PatchMarks(Struct, frozen=True, gc=False):
    """How many open runs of a version have journaled that they take a patch."""

    workflow: str
    version: int
    patch: str
    runs: int


class OpenRun(Struct, frozen=True, gc=False):
    """A run that has not ended, as a list of them shows it; `last_seq` is the length of its history."""

    run_id: str
    workflow: str
    version: int
    created_at: datetime
    last_seq: int
