"""Where nudges go: the one place that knows which loop listens to what.

A wake is a hint with durable evidence behind it (an inbox row, a task, a due time). Each road counts what came through
it, so that a test can remove the others and see that one alone is enough: `local` (memory), `peer` (a call by the process that
wrote), `listen` (a notice from another process), `poll` (a pass that was not asked for).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

RUNS, TASKS = "runs", "tasks"  # notices to everyone; a notice about one run is its id


def _nobody(*_: object) -> None:
    """Hear nothing: for what is off."""


class Forward(Protocol):
    """The peer road."""

    def __call__(self, run_id: str, owner: str, url: str | None, *, cancels: bool) -> bool:
        """Call the process that owns a run; False: it will not be called."""
        ...


def _no_peers(run_id: str, owner: str, url: str | None, *, cancels: bool) -> bool:  # noqa: ARG001  # a Forward
    """Call nobody: for what is off."""
    return False


class Wakes:
    """Nudges from whoever wrote evidence to whoever can act on it; the composition plugs the loops in."""

    def __init__(self) -> None:
        self.roads: Counter[str] = Counter()
        self.claim_runs: Callable[[], object] = _nobody
        self.claim_tasks: Callable[[float], object] = _nobody
        self.read_inbox: Callable[[str], object] = _nobody  # by which road it was asked for
        self.tell_others: Callable[[str], object] = _nobody
        self.forward: Forward = _no_peers
        self.watch_ending: Callable[[str, str], object] = _nobody  # of a run, by its owner
        self.watch_deadline: Callable[[float], object] = _nobody
        self.fire_schedules: Callable[[], object] = _nobody
        self.audit: Callable[[], object] = _nobody  # a claim's answer was lost: something may be ours unknown to us

    def runs_waiting(self) -> None:
        """Nudge who can claim: runs were written that nobody holds."""
        self.claim_runs()
        self.tell_others(RUNS)

    def tasks_waiting(self, after_seconds: float = 0.0) -> None:
        """Nudge who can claim: tasks were written that nobody holds, due after a while."""
        self.claim_tasks(after_seconds)
        if after_seconds == 0.0:
            self.tell_others(TASKS)

    def message_elsewhere(self, run_id: str) -> None:
        """Nudge who can read a run's inbox, without knowing who holds the run."""
        self.claim_runs()
        self.tell_others(run_id)

    def message_posted(
        self, run_id: str, *, owner: str | None, here: str | None, url: str | None = None, cancels: bool = False
    ) -> None:
        """Nudge who can read a run's inbox: `owner` (at `url`) holds the run, `here` is this process's owner."""
        if owner is None:
            self.runs_waiting()
        elif owner == here:
            self.read_inbox("local")
        elif not self.forward(run_id, owner, url, cancels=cancels):
            self.tell_others(run_id)
