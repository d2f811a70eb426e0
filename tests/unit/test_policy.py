"""Retries: a pure function from (policy, attempt, failure) to a verdict."""

import math
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from continuum.errors import ConfigurationError
from continuum.model.failure import Failure, failure_of
from continuum.model.policy import GiveUp, Retry, RetryLater, decide, seconds
from continuum.model.tasks import TaskOptions


class CardDeclined(LookupError):
    pass


class Middle(Random):
    """Draws the middle of every interval."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def test_the_defaults_are_three_attempts_within_a_minute() -> None:
    retry = Retry()

    assert (retry.max_attempts, retry.initial, retry.backoff, retry.max_delay, retry.jitter) == (3, 1.0, 2.0, 60.0, 0.1)
    assert retry.non_retryable == ()


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (Retry(jitter=0), [1, 2, 4, 8, 16, 32, 60, 60]),
        (Retry(initial=timedelta(seconds=3), backoff=1, jitter=0), [3, 3, 3]),
        (Retry(initial=1, backoff=1.01, jitter=0, max_attempts=2_000), [1, 1.01, 1.0201]),
        (Retry(initial=0, jitter=0), [0, 0]),
        (Retry(max_delay=timedelta(seconds=5), jitter=0), [1, 2, 4, 5]),
    ],
)
def test_delays_grow_up_to_the_cap(policy: Retry, delays: list[float]) -> None:
    assert [policy.delay_seconds(attempt, Random(1)) for attempt in range(1, len(delays) + 1)] == pytest.approx(delays)


@pytest.mark.parametrize(
    ("backoff", "initial", "expected"), [(2.0, 1.0, 60.0), (1e300, 1.0, 60.0), (1e300, 0.0, 0.0), (1.01, 1.0, 60.0)]
)
def test_huge_exponents_end_at_the_cap(backoff: float, initial: float, expected: float) -> None:
    assert Retry(initial=initial, backoff=backoff, jitter=0).delay_seconds(1_000_000, Random(1)) == expected


def test_jitter_moves_the_delay_both_ways_and_only_shortens_it_at_the_cap() -> None:
    # Clamped at the cap, a whole cohort would retry at one instant.
    policy, draw = Retry(jitter=0.5), Random(1)
    free = [policy.delay_seconds(2, draw) for _ in range(1_000)]
    capped = [policy.delay_seconds(20, draw) for _ in range(1_000)]

    assert 1.0 <= min(free) < 1.1
    assert 2.9 < max(free) <= 3.0
    assert 30.0 <= min(capped) < 31.0
    assert 59.0 < max(capped) <= 60.0
    assert len(set(capped)) == 1_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_attempts": 0}, "at least 1 attempt"),
        ({"max_attempts": True}, "at least 1 attempt"),
        ({"max_attempts": 1.5}, "at least 1 attempt"),
        ({"backoff": 0.5}, "a factor of at least 1"),
        ({"backoff": math.inf}, "a factor of at least 1"),
        ({"backoff": math.nan}, "a factor of at least 1"),
        ({"backoff": "2"}, "a factor of at least 1"),
        ({"jitter": -0.1}, "a fraction between 0 and 1"),
        ({"jitter": 1.1}, "a fraction between 0 and 1"),
        ({"jitter": None}, "a fraction between 0 and 1"),
        ({"initial": -1}, r"Retry\(initial=\) must be a finite duration"),
        ({"initial": math.nan}, r"Retry\(initial=\) must be a finite duration"),
        ({"max_delay": "1"}, r"Retry\(max_delay=\) must be seconds or a timedelta"),
        ({"initial": 61}, r"Retry\(max_delay=60.0\) is below initial=61.0"),
        ({"non_retryable": CardDeclined}, "takes a tuple of classes or names"),
        ({"non_retryable": "CardDeclined"}, "takes a tuple of classes or names"),
        ({"non_retryable": (5,)}, "takes exception classes or their names, not 5"),
        ({"non_retryable": (int,)}, "takes exception classes or their names, not <class 'int'>"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Retry(**options)


@pytest.mark.parametrize(
    ("policy", "attempt", "failure", "verdict"),
    [
        (Retry(), 1, failure_of(CardDeclined()), RetryLater(1.0)),
        (Retry(), 2, failure_of(CardDeclined()), RetryLater(2.0)),
        (Retry(), 3, failure_of(CardDeclined()), GiveUp()),
        (Retry(max_attempts=1), 1, failure_of(CardDeclined()), GiveUp()),
        (Retry(non_retryable=(CardDeclined,)), 1, failure_of(CardDeclined()), GiveUp()),
        (Retry(non_retryable=(LookupError,)), 1, failure_of(CardDeclined()), GiveUp()),
        (Retry(non_retryable=(f"{__name__}.CardDeclined",)), 1, failure_of(CardDeclined()), GiveUp()),
        (Retry(non_retryable=(OSError,)), 1, failure_of(CardDeclined()), RetryLater(1.0)),
        (Retry(non_retryable=("x.Error",)), 1, Failure("x.Error", ""), GiveUp()),
        (Retry(), 1, Failure("x", "", retryable=False), GiveUp()),
        (Retry(), 1, Failure("x", "", retry_after=30.0), RetryLater(30.0)),
        (Retry(), 3, Failure("x", "", retry_after=30.0), GiveUp()),
        (Retry(), 1, Failure("x", "", timed_out=True), RetryLater(1.0)),
    ],
)
def test_verdicts(policy: Retry, attempt: int, failure: Failure, verdict: object) -> None:
    assert decide(policy, attempt, failure, Middle()) == verdict


@pytest.mark.parametrize(("value", "expected"), [(0, 0.0), (1.5, 1.5), (timedelta(minutes=1), 60.0)])
def test_durations_are_seconds_or_timedeltas(value: object, expected: float) -> None:
    assert seconds(value, name="x") == expected


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, True, "1", None, timedelta(-1)])
def test_other_durations_are_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match="x must be"):
        seconds(value, name="x")


def test_options_survive_their_bytes() -> None:
    options = TaskOptions(Retry(max_attempts=7, non_retryable=(CardDeclined,)), None, 5.0, "slow", -3)

    assert TaskOptions.decode(options.encode()) == options
    assert TaskOptions.decode(TaskOptions().encode()) == TaskOptions()
