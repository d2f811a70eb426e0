"""What transactional activities book, under every misfortune: once if the journal says so, not at all if it failed."""

from __future__ import annotations

import pytest

from continuum.model.failure import Failure
from continuum.model.messages import Message
from continuum.runtime.attempt import RunningAttempt
from continuum.runtime.bookings import Bookings
from tests.simulation import running
from tests.simulation.adversary import Weather
from tests.simulation.payments import Payment
from tests.simulation.plans import Run, stories_of
from tests.simulation.running import simulate
from tests.simulation.test_mutants import STORMY

SEEDS = 10


def payments_of(seed: int) -> list[list[Run]]:
    """Return a seed's stories, in which everybody pays where others add."""
    stories = stories_of(seed)
    for run in (run for runs in stories for run in runs):
        run.steps = [step.replace("add:", "pay:") for step in ("add:0.1", "add:0.7", *run.steps)]
    return stories


@pytest.fixture(autouse=True)
def paying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "stories_of", payments_of)


@pytest.mark.parametrize("weather", [None, STORMY], ids=["any weather", "storm"])
def test_what_is_journaled_is_booked_once_and_what_has_failed_is_not(weather: Weather | None) -> None:
    outcomes = [simulate(seed, weather) for seed in range(SEEDS)]
    reports = [outcome.report() for outcome in outcomes if outcome.violations]
    assert not reports, "\n\n".join(reports)
    assert sum("Booked" in line for outcome in outcomes for line in outcome.lines) > SEEDS


def a_lost_commit_that_is_a_failure_like_any_other(patch: pytest.MonkeyPatch) -> None:
    def judge(self: Bookings, attempt: RunningAttempt, _message: Message, failure: Failure) -> None:
        self._keeper._fail(attempt, failure)  # type: ignore[attr-defined]

    patch.setattr(Bookings, "judge", judge)


def a_commit_that_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    """Its books are kept by another system, which does not know of the fence."""
    commit = Payment.commit

    async def insistent(self: Payment) -> None:
        self.session.lines += 1
        assert self._write is not None
        self._write = type(self._write)(self._write.attempt, self._write.message, lines=self.session.lines)
        await commit(self)

    patch.setattr(Payment, "commit", insistent)


@pytest.mark.parametrize(
    "mutant",
    [a_lost_commit_that_is_a_failure_like_any_other, a_commit_that_is_sent_again],
    ids=lambda mutant: mutant.__name__,
)
def test_broken_bookings_are_caught(mutant: object, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)  # type: ignore[operator]
    assert any(simulate(seed, STORMY).violations for seed in range(60))
