"""How an activity is retried: a pure function from (policy, attempt, failure) to a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

from continuum.errors import ConfigurationError
from continuum.model.failure import Failure

Duration = float | timedelta


def seconds(value: object, *, name: str) -> float:
    """Read a duration given as seconds or timedelta; refuse what is negative or not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise ConfigurationError(f"{name} must be seconds or a timedelta, not {value!r}")
    result = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if math.isnan(result) or math.isinf(result) or result < 0:
        raise ConfigurationError(f"{name} must be a finite duration of at least 0, not {value!r}")
    return result


@dataclass(frozen=True, slots=True, init=False)
class Retry:
    """How often and when a failed activity is tried again.

    The delay before attempt n + 1 is `initial * backoff ** (n - 1)`, at most `max_delay`, moved by up to ± `jitter`
    of itself; at the cap the jitter only shortens, so that a cohort never retries at one instant.

    Args:
        max_attempts: tries in all, at least 1.
        initial: first delay, seconds or timedelta.
        backoff: factor from one delay to the next, at least 1.
        max_delay: upper bound of a delay, seconds or timedelta, at least `initial`.
        jitter: fraction of the delay, 0 to 1.
        non_retryable: exception classes, or their `module.qualname`, that give up at once.

    Raises:
        ConfigurationError: a value is out of range.
    """

    max_attempts: int
    initial: float
    backoff: float
    max_delay: float
    jitter: float
    non_retryable: tuple[str, ...]

    def __init__(
        self,
        *,
        max_attempts: int = 3,
        initial: Duration = 1.0,
        backoff: float = 2.0,
        max_delay: Duration = 60.0,
        jitter: float = 0.1,
        non_retryable: Sequence[type[BaseException] | str] = (),
    ) -> None:
        if type(max_attempts) is not int or max_attempts < 1:
            raise ConfigurationError(f"Retry(max_attempts={max_attempts!r}): at least 1 attempt is needed")
        if type(backoff) not in _NUMBERS or not 1 <= backoff < math.inf:
            raise ConfigurationError(f"Retry(backoff={backoff!r}): a factor of at least 1 is needed")
        if type(jitter) not in _NUMBERS or not 0 <= jitter <= 1:
            raise ConfigurationError(f"Retry(jitter={jitter!r}): a fraction between 0 and 1 is needed")
        first, cap = seconds(initial, name="Retry(initial=)"), seconds(max_delay, name="Retry(max_delay=)")
        if cap < first:
            raise ConfigurationError(f"Retry(max_delay={cap}) is below initial={first}")
        if isinstance(non_retryable, str | type):
            raise ConfigurationError("Retry(non_retryable=) takes a tuple of classes or names")
        for name, value in (
            ("max_attempts", max_attempts),
            ("initial", first),
            ("backoff", float(backoff)),
            ("max_delay", cap),
            ("jitter", float(jitter)),
            ("non_retryable", tuple(_error_name(error) for error in non_retryable)),
        ):
            object.__setattr__(self, name, value)

    def delay_seconds(self, attempt: int, draw: Random) -> float:
        """Return the seconds to wait after `attempt` (from 1) failed."""
        try:
            delay = min(self.initial * self.backoff ** (attempt - 1), self.max_delay)
        except OverflowError:  # 2.0 ** 2000
            delay = self.max_delay if self.initial else 0.0
        low = delay * (1 - self.jitter)
        high = min(delay * (1 + self.jitter), self.max_delay)
        return draw.uniform(low, high)


_NUMBERS = (int, float)  # and not bool, which is an int too


def _error_name(error: Any) -> str:
    if isinstance(error, str):
        return error
    if isinstance(error, type) and issubclass(error, BaseException):
        return f"{error.__module__}.{error.__qualname__}"
    raise ConfigurationError(f"Retry(non_retryable=) takes exception classes or their names, not {error!r}")


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Try again after `delay_seconds`."""

    delay_seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The failure is final."""


def decide(policy: Retry, attempt: int, failure: Failure, draw: Random) -> RetryLater | GiveUp:
    """Judge a failed attempt (counted from 1)."""
    if attempt >= policy.max_attempts or not failure.retryable:
        return GiveUp()
    if any(cause in policy.non_retryable for cause in (failure.type, *failure.causes)):
        return GiveUp()
    if failure.retry_after is not None:
        return RetryLater(failure.retry_after)
    return RetryLater(policy.delay_seconds(attempt, draw))
